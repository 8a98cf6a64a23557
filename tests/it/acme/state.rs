//! The folder that the state is in: damaged files, wrong permissions.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::support::ca::Issues;
use crate::support::program::tidegate;

#[tokio::test]
async fn damaged_files_are_told_and_set_aside_and_another_certificate_comes() {
    let mut setting = Setting::new().await;
    let file = setting.file(&["a.example"]);
    let folder = file.parent().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    std::fs::write(file.with_extension("json"), "{\"failures\": ").unwrap();
    std::fs::write(folder.join("account.json"), "not JSON").unwrap();
    let yaml = setting.yaml(&[&["a.example"]]);
    let program = Program::run(&yaml).await;
    program
        .tells(&["WARN", "damaged PEM", "another one is ordered"])
        .await;
    let address = program.address(0);
    assert!(shown(address, "a.example").await.is_err());
    setting.ca.begin(address.port(), Issues::default()).await;
    program.tells(&["the CA has issued a certificate"]).await;
    issued(address, "a.example").await;
    let progress = file.with_extension("json").display().to_string() + ".damaged-";
    for name in [".pem.damaged-", &progress, "account.json.damaged-"] {
        assert!(
            !setting.files(name).is_empty(),
            "{name}: {:?}",
            setting.files("")
        );
        program
            .tells(&["a damaged file of acme.state was set aside", name])
            .await;
    }
    // They are evidence, not rubbish.
    let aside = setting.files(".pem.damaged-");
    assert!(
        std::fs::read_to_string(&aside[0])
            .unwrap()
            .ends_with("half")
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_or_that_others_read_is_told() {
    let setting = Setting::new().await;
    let folder = TempDir::new().unwrap();
    let listeners = "listeners: [{ address: \"127.0.0.1:0\" }]\n";
    let check = async |state: &Path| {
        let yaml = setting.yaml(&[&["a.example"]]);
        let yaml = yaml.replace(&format!("{:?}", setting.state()), &format!("{state:?}"));
        std::fs::write(
            folder.path().join("tidegate.yaml"),
            format!("{listeners}{yaml}"),
        )
        .unwrap();
        tidegate(folder.path(), &["check", "-c", "tidegate.yaml"]).await
    };
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let checked = check(&file.join("acme")).await;
    assert_eq!(checked.status.code(), Some(78), "{}", checked.stdout);
    assert!(
        checked.stderr.contains("acme.state:") && checked.stderr.contains("cannot be written"),
        "{}",
        checked.stderr
    );

    let section = "agree_tos: true,";
    let bound = "agree_tos: true, eab: { key_id: kid-1, mac_key: 'not base64' },";
    let yaml = setting.yaml(&[&["a.example"]]).replace(section, bound);
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, format!("{listeners}{yaml}")).unwrap();
    let checked = tidegate(folder.path(), &["check", "-c", "tidegate.yaml"]).await;
    assert_eq!(checked.status.code(), Some(78), "{}", checked.stdout);
    let told = "acme.eab.mac_key: is not base64url";
    assert!(checked.stderr.contains(told), "{}", checked.stderr);

    let open = folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let checked = check(&open).await;
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stderr);
    assert!(
        checked
            .stderr
            .contains("everyone on this machine can look into")
            && checked.stderr.contains("chmod 700"),
        "{}",
        checked.stderr
    );
    assert!(
        checked.stdout.contains("none is stored yet")
            && checked.stdout.contains("no TLS listener has port 443"),
        "{}",
        checked.stdout
    );
    // A check of the operator's leaves nothing behind that the service could not write.
    assert!(std::fs::read_dir(&open).unwrap().next().is_none());
}

/// Root reads everything: a folder in the place of a file cannot be read by anybody.
#[tokio::test]
async fn what_cannot_be_read_is_neither_ordered_again_nor_set_aside() {
    let mut setting = Setting::new().await;
    let yaml = setting.yaml(&[&["a.example"]]);
    let file = setting.file(&["a.example"]);
    let json = file.with_extension("json");
    std::fs::create_dir_all(&json).unwrap();
    let program = Program::run(&yaml).await;
    setting
        .ca
        .begin(program.address(0).port(), Issues::default())
        .await;
    program
        .tells(&["cannot be read", "nothing is ordered in its place"])
        .await;
    let local = &["name=\"a.example\"", "result=\"local\""];
    metric_is(&program, "tidegate_acme_orders_total", local, 1.0).await;
    drop(program);

    std::fs::remove_dir(&json).unwrap();
    std::fs::create_dir_all(&file).unwrap();
    let folder = TempDir::new().unwrap();
    let yaml = format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: off\n{yaml}");
    std::fs::write(folder.path().join("tidegate.yaml"), yaml).unwrap();
    for command in ["check", "run"] {
        let said = tidegate(folder.path(), &[command, "-c", "tidegate.yaml"]).await;
        assert_eq!(said.status.code(), Some(78), "{command}: {}", said.stderr);
        assert!(
            said.stderr.contains(".pem cannot be read"),
            "{}",
            said.stderr
        );
    }
    assert!(file.is_dir() && setting.files(".damaged-").is_empty());
    assert_eq!(setting.ca.asked("/order-plz"), 0);
}
