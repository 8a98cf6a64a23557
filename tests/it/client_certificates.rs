//! Clients that show a certificate: who is let in, what a broker learns, and what cannot be smuggled through a name.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind};
use tempfile::TempDir;
use tidegate::certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::broker::Broker;
use crate::support::client::{Client, roots, trusting};
use crate::support::devices::{Device, Devices};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::journal::Journal;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::packets;
use crate::support::{PATIENCE, eventually};

fn listener(mode: &str, ca: &Path, crl: &[&Path]) -> String {
    let crl: Vec<String> = crl.iter().map(|file| format!("{file:?}")).collect();
    let crl = crl.join(", ");
    format!(
        "{{address: \"127.0.0.1:0\", client_certificates: {{mode: {mode}, ca: {ca:?}, crl: [{crl}]}}}}"
    )
}

async fn gateway(listeners: &[String], rest: &str) -> Gateway {
    Gateway::start(&format!("listeners: [{}]\n{rest}", listeners.join(", "))).await
}

/// Routes and a pool with these keys in front of the broker.
fn pool(keys: &str, url: &str) -> String {
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{{keys}, brokers: [{{url: \"{url}\"}}]}}}}\n"
    )
}

async fn connect(
    gateway: &Gateway,
    listener: usize,
    config: Arc<rustls::ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gateway.address(listener)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, tcp).await
}

async fn tls(gateway: &Gateway, device: &Device) -> TlsStream<TcpStream> {
    connect(gateway, 0, device.client(roots(gateway), &[&TLS13]))
        .await
        .unwrap()
}

/// The alert that a client is sent; `None` for one that is served. In TLS 1.3 it comes behind the handshake.
async fn alert(
    gateway: &Gateway,
    listener: usize,
    config: Arc<rustls::ClientConfig>,
) -> Option<AlertDescription> {
    let asking = async {
        let mut stream = connect(gateway, listener, config).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await
    };
    let error = timeout(PATIENCE, asking).await.unwrap().err()?;
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => panic!("{error} instead of an alert"),
    }
}

#[tokio::test]
async fn off_optional_and_required_let_in_whom_they_say() {
    let folder = TempDir::new().unwrap();
    let (ours, others) = (Devices::new("our devices"), Devices::new("other devices"));
    let ca = ours.ca(folder.path(), "ca.pem");
    let listeners = ["off", "optional", "required"].map(|mode| listener(mode, &ca, &[]));
    let gateway = gateway(&listeners, &pool_of(&["mqtt://127.0.0.1:1".to_owned()])).await;
    let (good, stranger) = (ours.device("device-1"), others.device("device-1"));
    for version in [&TLS12, &TLS13] {
        let client = |device: &Device| device.client(roots(&gateway), &[version]);
        for (listener, nobody, unknown) in [
            (0, None, None),
            (1, None, Some(AlertDescription::UnknownCA)),
            (
                2,
                Some(AlertDescription::CertificateRequired),
                Some(AlertDescription::UnknownCA),
            ),
        ] {
            assert_eq!(
                alert(&gateway, listener, client(&good)).await,
                None,
                "{listener}"
            );
            assert_eq!(
                alert(&gateway, listener, client(&stranger)).await,
                unknown,
                "{listener}"
            );
            assert_eq!(
                alert(&gateway, listener, trusting(&gateway)).await,
                nobody,
                "{listener}"
            );
        }
    }
    let labels = ["cause=\"client_certificate\""];
    gateway
        .metric_becomes("tidegate_tls_failures_total", &labels, 6.0)
        .await;
    let labels = ["who=\"client\"", "phase=\"tls\"", "why=\"tls_failed\""];
    gateway
        .metric_becomes("tidegate_outcomes_total", &labels, 6.0)
        .await;
}

#[tokio::test]
async fn every_listener_has_its_own_authority() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (Devices::new("first"), Devices::new("second"));
    let listeners = [
        listener("required", &first.ca(folder.path(), "1.pem"), &[]),
        listener("required", &second.ca(folder.path(), "2.pem"), &[]),
    ];
    let gateway = gateway(&listeners, &pool_of(&["mqtt://127.0.0.1:1".to_owned()])).await;
    for (device, home) in [(first.device("a"), 0), (second.device("a"), 1)] {
        let client = device.client(roots(&gateway), &[&TLS13]);
        assert_eq!(alert(&gateway, home, Arc::clone(&client)).await, None);
        // The same configuration: it has a ticket by now, which must not open the other door.
        assert_eq!(
            alert(&gateway, 1 - home, client).await,
            Some(AlertDescription::UnknownCA)
        );
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_by_name() {
    let journal = Journal::open();
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let (lost, good) = (
        devices.device("lost-device\r\n2026 INFO forged"),
        devices.device("good"),
    );
    let ca = devices.ca(folder.path(), "ca.pem");
    let crl = devices.crl(folder.path(), "list.crl", &[&lost]);
    // Out of date, and still used.
    let old = SystemTime::now() - Duration::from_secs(86_400);
    let old = devices.crl_until(folder.path(), "old.crl", &[&lost], old);
    let listeners = [
        listener("optional", &ca, &[&crl]),
        listener("required", &ca, &[&old]),
    ];
    let gateway = gateway(&listeners, &pool_of(&["mqtt://127.0.0.1:1".to_owned()])).await;
    for listener in [0, 1] {
        for version in [&TLS12, &TLS13] {
            let revoked = alert(&gateway, listener, lost.client(roots(&gateway), &[version])).await;
            assert_eq!(revoked, Some(AlertDescription::CertificateRevoked));
            let served = alert(&gateway, listener, good.client(roots(&gateway), &[version])).await;
            assert_eq!(served, None);
        }
    }
    let labels = ["cause=\"client_certificate\""];
    gateway
        .metric_becomes("tidegate_tls_failures_total", &labels, 4.0)
        .await;
    let line = journal.line(&["lost-device", "Revoked"]).await;
    // RFC 4514 escapes what would begin a line of its own.
    assert!(
        line.contains("(CN=lost-device\\0D\\0A2026 INFO forged,O=Example)"),
        "{line}"
    );
}

#[tokio::test]
async fn a_certificate_becomes_user_name_and_client_id() {
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let device = devices.device("device-1");
    let optional = [listener(
        "optional",
        &devices.ca(folder.path(), "ca.pem"),
        &[],
    )];
    let broker = Broker::start().await;
    let cases = [
        ("user_name: certificate_common_name", "own", "device-1"),
        (
            "client_id: certificate_common_name, user_name: certificate_common_name",
            "device-1",
            "device-1",
        ),
        (
            "user_name: certificate_subject",
            "own",
            "CN=device-1,O=Example",
        ),
        ("client_id: certificate_common_name", "device-1", "somebody"),
        ("user_name: client, client_id: client", "own", "somebody"),
    ];
    for (keys, id, user) in cases {
        let gateway = gateway(&optional, &pool(keys, &broker.mqtt_url())).await;
        let mut client = Client::over(tls(&gateway, &device).await).await;
        client
            .send(&packets::connect_as("own", 60, "somebody", Some("secret")))
            .await;
        let session = broker.welcome().await;
        assert_eq!(
            session.connect,
            packets::connect_as(id, 60, user, Some("secret")),
            "{keys}"
        );
        assert_eq!(client.receive().await, packets::connack(0));
    }
}

#[tokio::test]
async fn the_log_names_the_certificate_and_the_client_that_the_broker_knows() {
    let journal = Journal::open();
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let required = [listener(
        "required",
        &devices.ca(folder.path(), "ca.pem"),
        &[],
    )];
    let broker = Broker::start().await;
    let gateway = gateway(
        &required,
        &pool("user_name: certificate_common_name", &broker.mqtt_url()),
    )
    .await;
    let mut client = Client::over(tls(&gateway, &devices.device("logged device")).await).await;
    client.send(&packets::connect("certified", 60)).await;
    let _session = broker.welcome().await;
    client.receive().await;
    client.send(&packets::DISCONNECT).await;
    let line = journal.line(&["certified", "tidegate::session"]).await;
    assert!(line.contains("certificate=\"logged device\""), "{line}");
    assert!(line.contains("user=\"logged device\""), "{line}");
}

#[tokio::test]
async fn a_client_without_a_name_is_refused_where_the_pool_needs_one() {
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let optional = [listener(
        "optional",
        &devices.ca(folder.path(), "ca.pem"),
        &[],
    )];
    let broker = Broker::start().await;
    for keys in [
        "user_name: certificate_common_name",
        "client_id: certificate_common_name",
        "user_name: certificate_subject",
    ] {
        let gateway = gateway(&optional, &pool(keys, &broker.mqtt_url())).await;
        for (connect, connack) in [
            (
                packets::connect_as("c", 60, "admin", Some("guess")),
                packets::connack(5),
            ),
            (packets::connect_v5("c", 60), packets::connack_v5(0x87)),
        ] {
            let mut client = Client::open(&gateway).await;
            client.send(&connect).await;
            let closed = client.closed().await;
            assert_eq!(
                (closed.code, closed.packets),
                (1008, vec![connack]),
                "{keys}"
            );
        }
        let labels = [
            "who=\"client\"",
            "phase=\"connect\"",
            "why=\"not_authorized\"",
        ];
        gateway
            .metric_becomes("tidegate_outcomes_total", &labels, 2.0)
            .await;
    }
    // `ad\0min` is nobody, and above all not admin.
    let gateway = gateway(
        &optional,
        &pool("user_name: certificate_common_name", &broker.mqtt_url()),
    )
    .await;
    for name in ["ad\0min", "admin\n", "\u{1b}[2J"] {
        let mut client = Client::over(tls(&gateway, &devices.device(name)).await).await;
        client.send(&packets::connect("c", 60)).await;
        assert_eq!(
            client.closed().await.packets,
            [packets::connack(5)],
            "{name:?}"
        );
    }
    broker.is_left_alone(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn mosquitto_knows_the_device_by_its_certificate() {
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let required = [listener(
        "required",
        &devices.ca(folder.path(), "ca.pem"),
        &[],
    )];
    let broker = Mosquitto::start(Options {
        believes_names: true,
        ..Options::default()
    })
    .await;
    let keys = "user_name: certificate_common_name, client_id: certificate_common_name";
    for (name, url) in [
        ("meter-17", broker.mqtt_url()),
        ("meter-18", broker.ws_url()),
    ] {
        let gateway = gateway(&required, &pool(keys, &url)).await;
        let mut client = Client::over(tls(&gateway, &devices.device(name)).await).await;
        client.send(&packets::connect("whatever", 60)).await;
        assert_eq!(client.receive().await, packets::connack(0));
        // New client connected from 127.0.0.1:… as meter-17 (p2, c1, k60, u'meter-17').
        broker
            .says(&[&format!("as {name} "), &format!("u'{name}'")])
            .await;
    }
}

/// Nothing but the PROXY header can have told it: the connections from the gateway carry no certificate, and CONNECT another
/// name.
#[tokio::test]
async fn mosquitto_2_1_takes_the_certificates_name_from_the_proxy_header() {
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let optional = [listener(
        "optional",
        &devices.ca(folder.path(), "ca.pem"),
        &[],
    )];
    let broker = Mosquitto::start(Options {
        proxy_protocol: Some(2),
        wants_certificate: true,
        believes_names: true,
        ..Options::default()
    })
    .await;
    let keys = "kind: mosquitto, proxy_protocol: v2";
    for (name, url) in [
        ("meter-17", broker.mqtt_url()),
        ("meter-18", broker.ws_url()),
        ("meter-19", broker.unix_url()),
    ] {
        let gateway = gateway(&optional, &pool(keys, &url)).await;
        let mut client = Client::over(tls(&gateway, &devices.device(name)).await).await;
        let connect = packets::connect_as("c1", 60, "somebody", None);
        client.send(&connect).await;
        assert_eq!(client.receive().await, packets::connack(0), "{url}");
        broker.says(&["as c1 ", &format!("u'{name}'")]).await;
        // Who shows none is none.
        let mut nobody = Client::open(&gateway).await;
        nobody.send(&connect).await;
        let packets = nobody.closed().await.packets;
        assert!(
            !packets.contains(&packets::connack(0)),
            "{url}: {packets:?}"
        );
    }
}

/// As config/examples/mutual-tls.yaml says.
#[tokio::test]
async fn a_mosquitto_with_a_password_file_wants_the_names_in_it() {
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let ca = devices.ca(folder.path(), "ca.pem");
    let broker = Mosquitto::start(Options {
        users: &[("meter-17", "right")],
        ..Options::default()
    })
    .await;
    let keys = "user_name: certificate_common_name";
    let gateway = gateway(
        &[listener("required", &ca, &[])],
        &pool(keys, &broker.mqtt_url()),
    )
    .await;
    for (name, password, code) in [
        ("meter-17", "right", 0),
        ("meter-17", "wrong", 5),
        ("meter-18", "right", 5),
    ] {
        let mut client = Client::over(tls(&gateway, &devices.device(name)).await).await;
        let connect = packets::connect_as("c1", 60, "whoever", Some(password));
        client.send(&connect).await;
        let answer = client.receive().await;
        assert_eq!(answer, packets::connack(code), "{name} {password}");
    }
}

#[tokio::test]
async fn control_characters_reach_neither_log_nor_metrics() {
    let journal = Journal::open();
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let optional = [listener(
        "optional",
        &devices.ca(folder.path(), "ca.pem"),
        &[],
    )];
    let broker = Broker::start().await;
    let gateway = gateway(&optional, &pool_of(&[broker.mqtt_url()])).await;
    let evil = "\u{1b}[31mevil\r\n2026-01-01 ERROR forged\u{7}\u{9b}";
    let mut client = Client::over(tls(&gateway, &devices.device(evil)).await).await;
    client
        .send(&packets::connect_as(
            evil,
            60,
            &format!("user {evil}"),
            None,
        ))
        .await;
    let session = broker.welcome().await;
    // The broker is told what the client said: it decides.
    assert_eq!(
        session.connect,
        packets::connect_as(evil, 60, &format!("user {evil}"), None)
    );
    client.receive().await;
    client.send(&packets::DISCONNECT).await;
    for line in [
        journal.line(&["evil", "tidegate::session"]).await,
        journal.json(&["evil", "tidegate::session"]).await,
    ] {
        assert!(line.contains("ERROR forged"), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }

    // A server name that no client library would send.
    let mut tls = rustls::ClientConnection::new(
        trusting(&gateway),
        ServerName::try_from("localhost").unwrap(),
    )
    .unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    let at = hello
        .windows(9)
        .position(|bytes| bytes == b"localhost")
        .unwrap();
    hello[at..at + 9].copy_from_slice(b"evil\x1b[\r\n!");
    let mut tcp = TcpStream::connect(gateway.address(0)).await.unwrap();
    tcp.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    drop(
        timeout(PATIENCE, tcp.read_to_end(&mut answer))
            .await
            .expect("the gateway kept the connection"),
    );
    gateway.outcome("client", "tls", "tls_failed").await;

    let (_, metrics) = gateway.admin("/metrics").await;
    let odd = |letter: char| letter.is_control() && letter != '\n';
    assert!(
        !metrics.contains(odd) && !metrics.contains("evil"),
        "{metrics}"
    );
    assert!(!journal.all().contains(&0x1b));
}

/// What `tidegate check` would say of a listener.
fn said(listener: &str) -> (Vec<String>, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let server = crate::support::authority::Authority::make(folder.path());
    let text = format!(
        "listeners: [{listener}]\ncertificates: [{{chain: {:?}, key: {:?}}}]\n{}",
        server.chain,
        server.key,
        pool_of(&["mqtt://127.0.0.1:1".to_owned()])
    );
    let config = tidegate::config::parse(Path::new("test.yaml"), &text)
        .unwrap()
        .config;
    let shown = |list: Vec<tidegate::config::Problem>| {
        let shown = list
            .into_iter()
            .map(|it| format!("{}: {}", it.place.key, it.message));
        shown.collect()
    };
    match certificates::server(&config, &certificates::Tickets::default()) {
        Ok(server) => {
            let about_clients = server
                .warnings
                .into_iter()
                .filter(|it| it.place.key.starts_with("listeners"));
            (Vec::new(), shown(about_clients.collect()))
        }
        Err(problems) => (shown(problems), Vec::new()),
    }
}

/// What `openssl ca -gencrl` writes where its configuration has no `crlnumber`.
const WITHOUT_CRLNUMBER: &str = "\
-----BEGIN X509 CRL-----\n\
MIGYMEAwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHZGV2aWNlcxcNMjYxMTI4MDM1\n\
OTUzWhgPMjA1NDA0MTQwMzU5NTNaMAoGCCqGSM49BAMCA0gAMEUCIQCZ17GQs+29\n\
g6b/HjZD+rOHElQOaHkpgOJHqhcGgSuF7gIgaW0hHfJI4fQAhjzL0jq7ma/e221R\n\
T0BDEMweUEhRl6Q=\n\
-----END X509 CRL-----\n\
";

#[test]
fn mistakes_in_the_files_are_named_at_load() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let (devices, others) = (Devices::new("devices"), Devices::new("others"));
    let ca = devices.ca(at, "ca.pem");
    let leaf = devices.device("leaf").pem(at, "leaf.pem");
    let good = devices.crl(at, "good.crl", &[]);
    let foreign = others.crl(at, "foreign.crl", &[]);
    let namesake = Devices::new("devices").crl(at, "namesake.crl", &[]);
    let old = devices.crl_until(
        at,
        "old.crl",
        &[],
        SystemTime::now() - Duration::from_secs(86_400),
    );
    let both = at.join("both.pem");
    std::fs::write(
        &both,
        [
            std::fs::read(&ca).unwrap(),
            std::fs::read(others.ca(at, "o.pem")).unwrap(),
        ]
        .concat(),
    )
    .unwrap();
    let damaged = at.join("damaged.crl");
    std::fs::write(
        &damaged,
        "-----BEGIN X509 CRL-----\nMAMCAQA=\n-----END X509 CRL-----\n",
    )
    .unwrap();
    let first_version = at.join("v1.crl");
    std::fs::write(&first_version, WITHOUT_CRLNUMBER).unwrap();
    let der = at.join("good.der");
    let pem = std::fs::read_to_string(&good).unwrap();
    let pem: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    std::fs::write(
        &der,
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, pem).unwrap(),
    )
    .unwrap();
    let missing = at.join("missing");

    for (ca, crl, expected) in [
        (&missing, &good, "client_certificates.ca: no such file"),
        (&good, &good, "client_certificates.ca: no certificate in"),
        (&leaf, &good, "is not a CA"),
        (&ca, &missing, "client_certificates.crl[0]: no such file"),
        (
            &ca,
            &leaf,
            "client_certificates.crl[0]: no revocation list in",
        ),
        (
            &ca,
            &foreign,
            "is not signed by a CA of this listener; its issuer is CN=others",
        ),
        (&ca, &namesake, "is not signed by a CA of this listener"),
        (&ca, &damaged, "is damaged"),
        (&ca, &first_version, "is of version 1"),
    ] {
        let (problems, _) = said(&listener("required", ca, &[crl]));
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{expected}: {problems:?}"
        );
    }
    let none: Vec<String> = Vec::new();
    for crl in [&good, &der] {
        assert_eq!(
            said(&listener("required", &ca, &[crl])),
            (none.clone(), none.clone())
        );
    }
    assert_eq!(
        said(&listener("required", &both, &[])),
        (none.clone(), none.clone())
    );
    for (ca, crl, expected) in [
        (&ca, &old, "is out of date since"),
        (
            &both,
            &good,
            "no revocation list of the CA CN=others: every certificate that it issued is refused",
        ),
    ] {
        let (problems, warnings) = said(&listener("optional", ca, &[crl]));
        assert_eq!(problems, none);
        assert!(
            warnings.iter().any(|warning| warning.contains(expected)),
            "{expected}: {warnings:?}"
        );
    }
}

/// A ticket carries the certificate that was verified once, and each resumption is given the next ticket.
#[tokio::test]
async fn a_certificate_that_has_ended_resumes_nothing() {
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("our devices");
    let ca = devices.ca(folder.path(), "ca.pem");
    let listeners = [listener("required", &ca, &[])];
    let gateway = gateway(&listeners, &pool_of(&["mqtt://127.0.0.1:1".to_owned()])).await;
    for version in [&TLS13, &TLS12] {
        let end = SystemTime::now() + Duration::from_secs(3);
        let device = devices.device_until("device-1", end);
        let config = device.client(roots(&gateway), &[version]);
        assert!(served(&gateway, &config).await.is_ok());
        let resumed = served(&gateway, &config).await.unwrap();
        assert_eq!(resumed, Some(HandshakeKind::Resumed));
        eventually(async || SystemTime::now() > end + Duration::from_secs(1)).await;
        // With a ticket, and when there is none left.
        for _ in 0..6 {
            assert!(served(&gateway, &config).await.is_err(), "{version:?}");
        }
    }
}

/// How the handshake went; an error where no answer came.
async fn served(
    gateway: &Gateway,
    config: &Arc<rustls::ClientConfig>,
) -> io::Result<Option<HandshakeKind>> {
    let asking = async {
        let mut stream = connect(gateway, 0, Arc::clone(config)).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await?;
        Ok(stream.get_ref().1.handshake_kind())
    };
    timeout(PATIENCE, asking).await.unwrap()
}
