//! A CA that is not there, refuses, or dies half-way: what is stored is shown, and the CA is left alone for long enough.

use std::time::{Duration, SystemTime};

use super::*;
use crate::support::authority::Authority;
use crate::support::ca::{Deed, Issues, Rule};
use crate::support::program::tidegate;

/// Seconds from now to the next attempt.
async fn pause(program: &Program) -> f64 {
    let next = program
        .admin
        .metric("tidegate_acme_next_attempt_timestamp_seconds", &[])
        .await;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    next - now.as_secs_f64()
}

async fn failures_are(program: &Program, count: f64) {
    metric_is(
        program,
        "tidegate_acme_failures",
        &["name=\"a.example\""],
        count,
    )
    .await;
}

#[tokio::test]
async fn a_ca_that_comes_up_late_is_asked_again_soon() {
    let mut setting = Setting::new().await;
    setting.ca.script(vec![Rule {
        path: "/dir",
        times: 1,
        deed: Deed::Hang,
    }]);
    let program = Program::run(&setting.yaml(&[&["a.example"]])).await;
    let address = program.address(0);
    program
        .tells(&["no certificate could be had", "HTTP with the CA failed"])
        .await;
    failures_are(&program, 1.0).await;
    assert_eq!(program.admin.get("/readyz").await.0, 200);
    let failed = &["result=\"unavailable\""];
    metric_is(&program, "tidegate_acme_orders_total", failed, 1.0).await;
    assert!(pause(&program).await < 13.0);
    setting.ca.begin(address.port(), Issues::default()).await;
    issued(address, "a.example").await;
    failures_are(&program, 0.0).await;
}

#[tokio::test]
async fn the_word_of_a_ca_that_counts_outlives_a_restart_and_a_reload() {
    let mut setting = Setting::new().await;
    setting.ca.script(vec![Rule {
        path: "/order-plz",
        times: usize::MAX,
        deed: Deed::Refuse(429, "rateLimited", Some("7200")),
    }]);
    let yaml = setting.yaml(&[&["a.example"]]);
    let program = Program::run(&yaml).await;
    setting
        .ca
        .begin(program.address(0).port(), Issues::default())
        .await;
    let line = program
        .tells(&[
            "no certificate could be had",
            "rateLimited: the test says rateLimited",
        ])
        .await;
    assert!(line.contains("letsencrypt-staging"), "{line}");
    let limited = &["result=\"rate_limited\""];
    metric_is(&program, "tidegate_acme_orders_total", limited, 1.0).await;
    failures_are(&program, 1.0).await;
    assert!(pause(&program).await > 7000.0);
    drop(program);

    let program = Program::run(&yaml).await;
    failures_are(&program, 1.0).await;
    assert!(pause(&program).await > 7000.0);
    program.process.signal("HUP");
    program.tells(&["configuration reloaded", "asked"]).await;
    let checked = tidegate(program.folder(), &["check", "-c", "tidegate.yaml"]).await;
    let (told, next) = (
        "1 orders have failed in a row, the last one: rateLimited",
        "next order 20",
    );
    assert!(
        checked.stdout.contains(told) && checked.stdout.contains(next),
        "{}",
        checked.stdout
    );
    assert_eq!(setting.ca.asked("/order-plz"), 1);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_told_with_the_cas_words_and_tried_again_in_minutes() {
    let mut setting = Setting::new().await;
    let program = Program::run(&setting.yaml(&[&["a.example"]])).await;
    // Nobody is at the port that this CA looks at.
    setting.ca.begin(1, Issues::default()).await;
    let line = program.tells(&["no certificate could be had"]).await;
    for words in [
        "a.example: ",
        "Failed to connect to 127.0.0.1:1",
        "the CA has not come to this process",
        "port 443 of the name must lead",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    failures_are(&program, 1.0).await;
    let pause = pause(&program).await;
    assert!((280.0..370.0).contains(&pause), "{pause}");
    assert!(setting.files("challenges/").is_empty());
    metric_is(
        &program,
        "tidegate_acme_orders_total",
        &["result=\"unproven\""],
        1.0,
    )
    .await;
}

#[tokio::test]
async fn a_ca_that_dies_in_the_middle_of_an_order_leaves_nothing_half() {
    let mut setting = Setting::new().await;
    setting.ca.script(vec![Rule {
        path: "/finalize-order/",
        times: 1,
        deed: Deed::Hang,
    }]);
    let program = Program::run(&setting.yaml(&[&["a.example"]])).await;
    let address = program.address(0);
    setting.ca.begin(address.port(), Issues::default()).await;
    program.tells(&["no certificate could be had"]).await;
    assert!(setting.files(".pem").is_empty(), "{:?}", setting.files(""));
    assert!(shown(address, "a.example").await.is_err());
    issued(address, "a.example").await;
    program
        .tells(&["an order that was left off is finished"])
        .await;
    assert_eq!(setting.ca.asked("/order-plz"), 1);
    assert_eq!(
        setting.ca.asked("/sign-me-up"),
        1,
        "the account is the same"
    );
    let over = eventually(async || setting.files(".order").is_empty()).await;
    assert!(over, "{:?}", setting.files(""));
}

#[tokio::test]
async fn refused_nonces_and_a_lost_account_are_no_failure() {
    let mut setting = Setting::new().await;
    let refused = |path| Rule {
        path,
        times: 1,
        deed: Deed::Refuse(400, "badNonce", None),
    };
    setting.ca.script(vec![
        refused("/order-plz"),
        refused("/finalize-order/"),
        refused("/chalZ/"),
        Rule {
            path: "/order-plz",
            times: 1,
            deed: Deed::Refuse(400, "accountDoesNotExist", None),
        },
    ]);
    let program = Program::run(&setting.yaml(&[&["a.example"]])).await;
    let address = program.address(0);
    setting.ca.begin(address.port(), Issues::default()).await;
    issued(address, "a.example").await;
    metric_is(
        &program,
        "tidegate_acme_orders_total",
        &["result=\"ok\""],
        1.0,
    )
    .await;
    assert_eq!(
        program
            .admin
            .metric("tidegate_acme_orders_total", &[])
            .await,
        1.0
    );
    assert_eq!(setting.ca.asked("/sign-me-up"), 2);
    assert_eq!(setting.files("account.json.damaged-").len(), 1);
}

#[tokio::test]
async fn a_pebble_that_refuses_good_nonces_now_and_then_issues_all_the_same() {
    let mut setting = Setting::new().await;
    let program = Program::run(&setting.yaml(&[&["a.example"]])).await;
    let address = program.address(0);
    let issues = Issues {
        refused_nonces: 5,
        ..Issues::default()
    };
    setting.ca.begin(address.port(), issues).await;
    issued(address, "a.example").await;
}

#[tokio::test]
async fn an_expired_certificate_is_shown_loudly_while_there_is_no_other() {
    let setting = Setting::new().await;
    setting.ca.script(vec![Rule {
        path: "/",
        times: usize::MAX,
        deed: Deed::Hang,
    }]);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
    let day = Duration::from_secs(24 * 3600);
    params.not_before = (SystemTime::now() - 90 * day).into();
    params.not_after = (SystemTime::now() - day).into();
    let certificate = params.self_signed(&key).unwrap();
    let file = setting.file(&["a.example"]);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(
        &file,
        format!("{}{}", key.serialize_pem(), certificate.pem()),
    )
    .unwrap();
    let program = Program::run(&setting.yaml(&[&["a.example"]])).await;
    assert_eq!(
        shown(program.address(0), "a.example").await.unwrap(),
        *certificate.der()
    );
    program
        .tells(&["ERROR", "the certificate has EXPIRED", "a.example"])
        .await;
    program
        .tells(&["WARN", "expired on", "it is shown all the same"])
        .await;
    program.tells(&["no certificate could be had"]).await;
    let expiry = &["kind=\"server\"", "name=\"a.example\""];
    let end = program
        .admin
        .metric("tidegate_certificate_not_after_timestamp_seconds", expiry)
        .await;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(end > 0.0 && end < now.as_secs_f64());
    let checked = tidegate(program.folder(), &["check", "-c", "tidegate.yaml"]).await;
    assert!(checked.stdout.contains("EXPIRED"), "{}", checked.stdout);
}

#[tokio::test]
async fn an_expired_certificate_of_the_ca_gives_way_to_a_good_one_of_the_operator() {
    let setting = Setting::new().await;
    setting.ca.script(vec![Rule {
        path: "/",
        times: usize::MAX,
        deed: Deed::Hang,
    }]);
    let day = Duration::from_secs(24 * 3600);
    let made = |until: SystemTime| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - 90 * day).into();
        params.not_after = until.into();
        let certificate = params.self_signed(&key).unwrap();
        let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
        (certificate.der().clone(), pem)
    };
    let (_, ended) = made(SystemTime::now() - day);
    let (good, pem) = made(SystemTime::now() + 30 * day);
    let file = setting.file(&["a.example"]);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, ended).unwrap();
    let own = setting.folder.path().join("own.pem");
    std::fs::write(&own, pem).unwrap();
    let more = format!(", {{ chain: {own:?}, key: {own:?} }}]\nacme:");
    let yaml = setting.yaml(&[&["a.example"]]).replace("]\nacme:", &more);
    let program = Program::run(&yaml).await;
    let seen = shown(program.address(0), "a.example").await.unwrap();
    assert_eq!(seen, good);
}

#[tokio::test]
async fn a_fault_in_another_file_keeps_no_certificate_from_being_shown() {
    let mut setting = Setting::new().await;
    let own = TempDir::with_prefix("tidegate-own-").unwrap();
    let authority = Authority::make(own.path());
    let pair = format!(
        "certificates: [{{ chain: {:?}, key: {:?} }}, ",
        authority.chain, authority.key
    );
    let yaml = setting.yaml(&[&["a.example"]]);
    let yaml = yaml.replace("certificates: [", &pair);
    let program = Program::run(&format!("watch: false\n{yaml}")).await;
    let address = program.address(0);
    let before = shown(address, "localhost").await.unwrap();
    std::fs::write(&authority.chain, "no certificate").unwrap();
    setting.ca.begin(address.port(), Issues::default()).await;
    issued(address, "a.example").await;
    assert_eq!(shown(address, "localhost").await.unwrap(), before);
}
