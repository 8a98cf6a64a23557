//! Development certificates: one CA, server certificates that are loaded without a warning, nothing overwritten.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use tidegate::certificates;
use tidegate::certificates::dev::{DevError, DevFiles, dev};
use tidegate::config::model::{BrokerTls, Transport, Trust};

use super::files::{DAY, Files, files, handshake, params, place, self_signed};

fn made(out: &Path, names: &[&str]) -> Result<DevFiles, DevError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    dev(out, &names)
}

#[test]
fn a_dev_certificate_loads_without_warning_and_is_trusted_by_its_ca() {
    let mut config = Files::new();
    let out = config.folder.path().join("new/certs");
    let dev = made(&out, &[]).unwrap();
    assert!(dev.ca_created);
    assert_eq!(dev.names, ["localhost", "127.0.0.1", "::1"]);
    assert!(dev.not_after < SystemTime::now() + 397 * DAY);
    assert!(dev.trust.contains(dev.ca.to_str().unwrap()));
    for secret in [&dev.key, &dev.ca_key] {
        assert_eq!(
            fs::metadata(secret).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 4);

    config
        .config
        .certificates
        .push(files(0, dev.certificate, dev.key));
    let loaded = certificates::server(&config.config, &certificates::Tickets::default()).unwrap();
    assert_eq!(loaded.warnings, []);
    let trust = BrokerTls {
        trust: Trust::Ca(dev.ca),
        server_name: None,
        certificate: None,
        place: place(""),
    };
    let client = certificates::broker(&trust, Transport::Wss).unwrap();
    for name in ["localhost", "127.0.0.1", "::1"] {
        handshake(&client, &loaded.tls.usual, name).unwrap();
    }
}

#[test]
fn the_ca_is_kept_and_the_certificate_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let first = made(folder.path(), &["a.test"]).unwrap();
    let ca = fs::read(&first.ca).unwrap();
    let leaf = fs::read(&first.certificate).unwrap();
    let second = made(folder.path(), &["B.test", "*.b.test", "192.168.1.10"]).unwrap();
    assert!(!second.ca_created);
    assert_eq!(second.names, ["b.test", "*.b.test", "192.168.1.10"]);
    assert_eq!(fs::read(&second.ca).unwrap(), ca);
    assert_ne!(fs::read(&second.certificate).unwrap(), leaf);
}

#[test]
fn files_from_elsewhere_are_left_alone() {
    for name in ["tidegate-dev.pem", "tidegate-dev.key"] {
        let folder = tempfile::tempdir().unwrap();
        let foreign = self_signed(params(&["example.com"])).pem;
        fs::write(folder.path().join(name), &foreign).unwrap();
        let error = made(folder.path(), &[]).unwrap_err();
        assert!(matches!(error, DevError::NotOurs { .. }), "{error}");
        assert_eq!(
            fs::read_to_string(folder.path().join(name)).unwrap(),
            foreign
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_ca_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = made(folder.path(), &[]).unwrap();
    let key = fs::read(&first.ca_key).unwrap();
    fs::write(&first.ca_key, fs::read(&first.key).unwrap()).unwrap();
    let error = made(folder.path(), &[]).unwrap_err();
    assert!(
        error.to_string().contains("its key does not belong to it"),
        "{error}"
    );
    fs::write(&first.ca_key, key).unwrap();
    fs::remove_file(&first.ca).unwrap();
    let error = made(folder.path(), &[]).unwrap_err();
    assert!(matches!(error, DevError::HalfCa { .. }), "{error}");
}

#[test]
fn names_that_are_no_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", "https://a.test", "a b", "*", "a.*.test"] {
        let error = made(folder.path(), &[name]).unwrap_err();
        assert!(matches!(error, DevError::Name { .. }), "{name}: {error}");
    }
}
