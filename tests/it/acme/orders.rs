//! Orders that succeed: the first one, renewals, names that come and go.

use std::os::unix::fs::PermissionsExt;

use rustls::AlertDescription;
use serde_json::json;
use tokio::io::AsyncReadExt;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::support::authority::Authority;
use crate::support::broker::Broker;
use crate::support::ca::{Deed, Issues, MAC_KEY, Rule};
use crate::support::client::Client;
use crate::support::{PATIENCE, packets};

#[tokio::test]
async fn names_are_proven_at_the_gateways_own_port_and_the_certificate_outlives_the_ca() {
    let mut setting = Setting::new().await;
    let yaml = setting.yaml(&[&["a.example", "b.example"]]);
    let program = Program::run(&yaml).await;
    let address = program.address(0);
    program
        .tells(&["no certificate is stored yet", "a.example b.example"])
        .await;
    for name in ["a.example", "b.example", "other.example"] {
        let refused = shown(address, name).await.unwrap_err();
        assert_eq!(
            alert(&refused),
            AlertDescription::UnrecognisedName,
            "{name}"
        );
    }
    let why = &["cause=\"no_certificate\""];
    metric_is(&program, "tidegate_tls_failures_total", why, 3.0).await;
    let named = &["name=\"a.example\""];
    metric_is(&program, "tidegate_acme_certificate_stored", named, 0.0).await;

    setting.ca.begin(address.port(), Issues::default()).await;
    let first = issued(address, "a.example").await;
    assert_eq!(names(&first), ["a.example", "b.example"]);
    assert_eq!(shown(address, "b.example").await.unwrap(), first);
    // It is the first one, so it is shown to those that ask for no name that is known.
    assert_eq!(shown(address, "other.example").await.unwrap(), first);
    let done = &["name=\"a.example\"", "result=\"ok\""];
    metric_is(&program, "tidegate_acme_orders_total", done, 1.0).await;
    metric_is(&program, "tidegate_acme_certificate_stored", named, 1.0).await;
    let expiry = &["kind=\"server\"", "name=\"a.example\""];
    assert!(
        program
            .admin
            .metric("tidegate_certificate_not_after_timestamp_seconds", expiry)
            .await
            > 0.0
    );
    program
        .tells(&["a CA was shown that the name leads here", "b.example"])
        .await;
    program
        .tells(&["shown to new connections", "a.example b.example"])
        .await;
    // The CA's own visits are nobody's fault.
    let failures = async |labels| {
        program
            .admin
            .metric("tidegate_tls_failures_total", labels)
            .await
    };
    assert_eq!(failures(&[]).await, failures(why).await);

    assert!(setting.files("challenges/").is_empty(), "proofs are over");
    let key = setting.file(&["a.example", "b.example"]);
    let account = setting.files("account.json");
    for path in account.iter().chain([&key]) {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    for folder in [setting.state().as_path(), key.parent().unwrap()] {
        let mode = std::fs::metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }

    // Another process, and no CA any more: nothing is ordered, and the same is shown.
    drop(program);
    let orders = setting.ca.asked("/order-plz");
    setting.ca.script(vec![Rule {
        path: "/",
        times: usize::MAX,
        deed: Deed::Hang,
    }]);
    let program = Program::run(&yaml).await;
    assert_eq!(shown(program.address(0), "b.example").await.unwrap(), first);
    metric_is(&program, "tidegate_acme_certificate_stored", named, 1.0).await;
    let finished = program.ask(&["reload"]).await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let checked =
        crate::support::program::tidegate(program.folder(), &["check", "-c", "tidegate.yaml"])
            .await;
    assert!(
        checked.stdout.contains("ECDSA P-256, good until 20"),
        "{}",
        checked.stdout
    );
    assert_eq!((orders, setting.ca.asked("/order-plz")), (1, 1));
}

#[tokio::test]
async fn a_renewal_drops_no_session_and_new_connections_see_it() {
    let mut setting = Setting::new().await;
    let broker = Broker::start().await;
    let yaml = setting
        .yaml(&[&["localhost.example"]])
        .replace("mqtt://127.0.0.1:1", &broker.mqtt_url());
    let program = Program::run(&yaml).await;
    let address = program.address(0);
    let issues = Issues {
        validity: 9,
        ..Issues::default()
    };
    setting.ca.begin(address.port(), issues).await;
    let first = issued(address, "localhost.example").await;
    let stream = greet(address, "localhost.example", &[b"http/1.1"])
        .await
        .unwrap();
    let mut client = Client::over(stream).await;
    client.send(&packets::connect("stays", 60)).await;
    let mut session = broker.welcome().await;
    assert_eq!(client.receive().await, packets::connack(0));
    let renewed =
        eventually(async || shown(address, "localhost.example").await.unwrap() != first).await;
    assert!(renewed, "{}", program.process.last_words());
    client.send(&[0xc0, 0]).await;
    assert_eq!(session.receive().await, [0xc0, 0]);
    session.send(&[0xd0, 0]).await;
    assert_eq!(client.receive().await, [0xd0, 0]);
    let done = program
        .admin
        .metric("tidegate_acme_orders_total", &["result=\"ok\""])
        .await;
    assert!(done >= 2.0);
}

/// Pebble of Debian 12 knows no RFC 9773: the door says it.
#[tokio::test]
async fn the_ca_may_wish_for_an_early_renewal_and_hears_what_is_replaced() {
    let mut setting = Setting::new().await;
    let past = json!({ "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" } });
    let knows_wishes = |directory: &mut serde_json::Value| {
        let url = directory["newNonce"]
            .as_str()
            .unwrap()
            .replace("nonce-plz", "wish");
        directory["renewalInfo"] = url.into();
    };
    setting.ca.script(vec![
        Rule {
            path: "/dir",
            times: usize::MAX,
            deed: Deed::Change(knows_wishes),
        },
        Rule {
            path: "/wish/",
            times: usize::MAX,
            deed: Deed::Say(past),
        },
    ]);
    let program = Program::run(&setting.yaml(&[&["a.example"]])).await;
    let address = program.address(0);
    // By itself it would be renewed after forty seconds.
    let issues = Issues {
        validity: 60,
        ..Issues::default()
    };
    setting.ca.begin(address.port(), issues).await;
    let first = issued(address, "a.example").await;
    let renewed = eventually(async || shown(address, "a.example").await.unwrap() != first).await;
    assert!(renewed, "{}", program.process.last_words());
    let orders = setting.ca.payloads("/order-plz");
    let (_, certificate) = X509Certificate::from_der(&first).unwrap();
    let serial = {
        use base64::Engine;
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(certificate.tbs_certificate.raw_serial())
    };
    let replaced = orders[1]["replaces"].as_str().unwrap();
    assert!(replaced.ends_with(&format!(".{serial}")), "{replaced}");
    assert!(orders[0].get("replaces").is_none());
}

#[tokio::test]
async fn a_proof_is_for_the_ca_alone_and_needs_no_clients_certificate() {
    let mut setting = Setting::new().await;
    setting.ca.script(vec![Rule {
        path: "/chalZ/",
        times: usize::MAX,
        deed: Deed::Hold,
    }]);
    let own = TempDir::with_prefix("tidegate-own-").unwrap();
    let authority = Authority::make(own.path());
    let yaml = setting.yaml(&[&["a.example"]]).replace(
        "certificates: [",
        &format!(
            "certificates: [{{ chain: {:?}, key: {:?} }}, ",
            authority.chain, authority.key
        ),
    );
    let required = format!(
        "client_certificates: {{ mode: required, ca: {:?} }}",
        authority.ca
    );
    let yaml = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", name: devices, {required} }}, {{ address: \"127.0.0.1:0\", name: open }}]\n{yaml}"
    );
    let program = Program::run(&yaml).await;
    let (address, open) = (program.address(0), program.address(1));
    setting.ca.begin(address.port(), Issues::default()).await;
    program
        .tells(&["the CA is asked to look at port 443"])
        .await;
    let before = program.admin.metric("tidegate_outcomes_total", &[]).await;

    for address in [address, open] {
        let mut visit = greet(address, "a.example", &[b"acme-tls/1"]).await.unwrap();
        let proof = leaf(&visit);
        let (_, certificate) = X509Certificate::from_der(&proof).unwrap();
        // RFC 8737 3: id-pe-acmeIdentifier, critical, and the name alone.
        let identifier = certificate
            .extensions()
            .iter()
            .find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        assert!(identifier.is_some_and(|one| one.critical && one.value.len() == 34));
        assert_eq!(names(&proof), ["a.example"]);
        // No HTTP, no ticket: it is over.
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, visit.read_to_end(&mut rest))
            .await
            .unwrap();
        assert_eq!((read.unwrap(), rest.len()), (0, 0));
    }
    // Everybody else sees nothing of it.
    for (name, protocols) in [
        ("a.example", &[b"h2".as_slice(), b"acme-tls/1"] as &[&[u8]]),
        ("a.example", &[b"http/1.1"]),
        ("a.example", &[]),
    ] {
        let refused = greet(open, name, protocols).await.unwrap_err();
        assert_eq!(
            alert(&refused),
            AlertDescription::UnrecognisedName,
            "{protocols:?}"
        );
    }
    let refused = greet(open, "localhost", &[b"acme-tls/1"])
        .await
        .unwrap_err();
    assert_eq!(alert(&refused), AlertDescription::NoApplicationProtocol);
    let ordinary = shown(open, "localhost").await.unwrap();
    assert!(names(&ordinary).contains(&"localhost".to_owned()));
    // However its hello comes.
    let (mut near, far) = tokio::io::duplex(1);
    let mut tcp = TcpStream::connect(open).await.unwrap();
    let piecemeal = async { tokio::io::copy_bidirectional(&mut near, &mut tcp).await };
    let greeting = greet_over(far, "localhost", &[b"http/1.1"]);
    let stream = tokio::select! {
        stream = greeting => stream.unwrap(),
        ended = piecemeal => panic!("{ended:?}"),
    };
    assert_eq!(leaf(&stream), ordinary);
    // A listener that wants certificates still does.
    let refused = greet(address, "localhost", &[b"http/1.1"]).await;
    let read = async { refused.unwrap().read_u8().await };
    assert_eq!(
        alert(&read.await.unwrap_err()),
        AlertDescription::CertificateRequired
    );

    // The CA's visits are no client's ends; the four refusals and the one without a certificate are.
    let ends = async || {
        program
            .admin
            .metric("tidegate_outcomes_total", &["why=\"tls_failed\""])
            .await
    };
    assert!(eventually(async || ends().await >= 5.0).await);
    assert!((ends().await - 5.0).abs() < f64::EPSILON && before.abs() < f64::EPSILON);
    setting.ca.release();
    issued(open, "a.example").await;
}

#[tokio::test]
async fn names_that_come_and_go_take_nothing_from_the_others() {
    let mut setting = Setting::new().await;
    let old = setting.yaml(&[&["a.example"]]);
    let program = Program::run(&old).await;
    let address = program.address(0);
    setting.ca.begin(address.port(), Issues::default()).await;
    let first = issued(address, "a.example").await;

    setting.ca.script(vec![Rule {
        path: "/chalZ/",
        times: usize::MAX,
        deed: Deed::Hold,
    }]);
    program.rewrite(&setting.yaml(&[&["a.example", "b.example"]]));
    program
        .tells(&["configuration reloaded", "changed files"])
        .await;
    setting.ca.ordered(2).await;
    // The old one stands in for as long as the new one takes.
    assert_eq!(shown(address, "a.example").await.unwrap(), first);
    let refused = shown(address, "b.example").await.unwrap_err();
    assert_eq!(alert(&refused), AlertDescription::UnrecognisedName);
    setting.ca.release();
    let both = issued(address, "b.example").await;
    assert_eq!(names(&both), ["a.example", "b.example"]);
    assert_eq!(shown(address, "a.example").await.unwrap(), both);

    // What is stored for the old names is good.
    program.rewrite(&old);
    assert!(eventually(async || shown(address, "a.example").await.unwrap() == first).await);
    let finished = program.ask(&["reload"]).await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert_eq!(setting.ca.asked("/order-plz"), 2);
}

#[tokio::test]
async fn a_ca_that_wants_to_know_its_customers_is_told() {
    let mut setting = Setting::new().await;
    let plain = setting.yaml(&[&["a.example"]]);
    let secret = setting.folder.path().join("mac");
    std::fs::write(&secret, MAC_KEY).unwrap();
    let bound = plain.replace(
        "agree_tos: true,",
        &format!(
            "agree_tos: true, eab: {{ key_id: kid-1, mac_key: \"${{file:{}}}\" }},",
            secret.display()
        ),
    );
    let program = Program::run(&plain).await;
    let address = program.address(0);
    let issues = Issues {
        wants_account_binding: true,
        ..Issues::default()
    };
    setting.ca.begin(address.port(), issues).await;
    program
        .tells(&["no certificate could be had", "acme.eab"])
        .await;
    // The refusal has a pause, which does not end because the key is there: it does for an operator who takes the state away.
    drop(program);
    std::fs::remove_dir_all(setting.state()).unwrap();
    let program = Program::run(&bound).await;
    let issues = Issues {
        wants_account_binding: true,
        ..Issues::default()
    };
    setting.ca.begin(program.address(0).port(), issues).await;
    issued(program.address(0), "a.example").await;
    let kept = program.ask(&["config", "print"]).await;
    assert!(!kept.stdout.contains(MAC_KEY));
}
