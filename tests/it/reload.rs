//! A changed configuration, or a changed file, takes the place of the old one whole or not at all, and ends no session.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{Instant, sleep};

use crate::support::authority::{Authority, Pair};
use crate::support::broker::Broker;
use crate::support::client::{self, Client};
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::pool_of;
use crate::support::http2::Http2;
use crate::support::packets;
use crate::support::program::Program;
use crate::support::raw_http::{Request, rest};
use crate::support::{PATIENCE, eventually};

/// Without a broker that anyone reaches.
fn nobody() -> String {
    pool_of(&["mqtt://127.0.0.1:1".to_owned()])
}

async fn client(program: &Program, id: &str) -> Client {
    let stream = client::tls_to(program.address(0), &program.authority.ca).await;
    let mut client = Client::over(stream).await;
    client.send(&packets::connect_v5(id, 60)).await;
    assert_eq!(client.receive().await, packets::connack_v5(0), "{id}");
    client
}

/// It is alive: a ping goes to the broker and back.
async fn pings(client: &mut Client, session: &mut crate::support::broker::Session) {
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
}

/// The certificate that new handshakes see.
async fn shown(address: SocketAddr, ca: &Path) -> CertificateDer<'static> {
    let stream = client::tls_to(address, ca).await;
    let shown = stream.get_ref().1.peer_certificates().unwrap();
    shown[0].clone()
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_reload_says_what_changed_and_ends_no_session() {
    let broker = Broker::start().await;
    let other = Broker::start().await;
    let urls = [broker.mqtt_url(), other.mqtt_url()];
    let program = Program::run(&format!("{}watch: false\n", pool_of(&urls[..1]))).await;
    let (mut kept, mut session) = tokio::join!(client(&program, "kept"), broker.welcome());
    let heavier = pool_of(&urls).replace(
        &format!("{{url: \"{}\"}}", urls[0]),
        &format!("{{url: \"{}\", weight: 0}}", urls[0]),
    );
    program.rewrite(&format!(
        "{heavier}watch: false\nlimits: {{ connections: 77 }}\n"
    ));
    let finished = program.ask(&["reload"]).await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let said = &finished.stdout;
    for line in [
        format!("pools.brokers.brokers[{}].weight: 1 -> 0", urls[0]),
        format!("pools.brokers.brokers[{}].weight: 1 (new)", urls[1]),
        "-> 77".to_owned(),
        "configuration 2 is in force".to_owned(),
    ] {
        assert!(said.contains(&line), "no {line:?} in {said}");
    }
    // New sessions go by the new weights, the old one stays where it is.
    let (_new, _session) = tokio::join!(client(&program, "new"), other.welcome());
    pings(&mut kept, &mut session).await;
    let admin = &program.admin;
    assert_eq!(admin.metric("tidegate_config_generation", &[]).await, 2.0);
    assert_eq!(
        admin
            .metric("tidegate_config_reloads_total", &["result=\"ok\""])
            .await,
        1.0
    );
    // By a signal it is the same.
    program.rewrite(&format!(
        "{heavier}watch: false\nlimits: {{ connections: 78 }}\n"
    ));
    program.process.signal("HUP");
    program
        .tells(&["configuration reloaded", "generation=3"])
        .await;
    program
        .tells(&["changed", "limits.connections: 77 -> 78"])
        .await;
    pings(&mut kept, &mut session).await;
}

/// Its routes, brokers and origins are no longer what the operator wants.
#[tokio::test]
async fn a_connection_from_before_a_reload_begins_nothing_new() {
    let broker = Broker::start().await;
    let yaml = format!(
        "{}watch: false\ntimeouts: {{ request: 10m }}\n",
        pool_of(&[broker.mqtt_url()])
    );
    let program = Program::run(&yaml).await;
    let (address, ca) = (program.address(0), &program.authority.ca);
    let mut kept_alive = client::tls_to(address, ca).await;
    assert_eq!(Request::get("/").ask(&mut kept_alive).await.status, 404);
    let mut not_yet_asked = client::tls_to(address, ca).await;
    let mut config = (*client::tls_config(ca, rustls::DEFAULT_VERSIONS)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = client::tls_as(address, "localhost", Arc::new(config)).await;
    let mut shared = Http2::over(stream.unwrap()).await;
    let mut kept = shared.client().await;
    kept.send(&packets::connect("kept", 60)).await;
    let mut session = broker.welcome().await;
    assert_eq!(kept.receive().await, packets::connack(0));
    program.rewrite(&format!("{yaml}limits: {{ connections: 77 }}\n"));
    assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
    assert_eq!(rest(&mut kept_alive).await, b"");
    let is_told = async || shared.send(shared.get("/"), true).await.is_err();
    assert!(eventually(is_told).await, "no GOAWAY came");
    kept.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
    // Who had not asked yet may ask once.
    let answer = Request::get("/").ask(&mut not_yet_asked).await;
    assert_eq!(answer.status, 404);
    assert_eq!(rest(&mut not_yet_asked).await, b"");
    drop(kept);
    let admin = &program.admin;
    admin.metric_becomes("tidegate_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_drain_behind_a_reload_waits_for_no_first_request() {
    let yaml = format!("{}watch: false\ntimeouts: {{ request: 10m }}\n", nobody());
    let mut program = Program::run(&yaml).await;
    let (address, ca) = (program.address(0), &program.authority.ca);
    let mut config = (*client::tls_config(ca, rustls::DEFAULT_VERSIONS)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = client::tls_as(address, "localhost", Arc::new(config)).await;
    let _silent = Http2::over(stream.unwrap()).await;
    program.rewrite(&format!("{yaml}limits: {{ connections: 77 }}\n"));
    assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
    program.process.signal("TERM");
    let ended = program.process.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(0));
    program.tells(&["drained asked=0 cut=0"]).await;
}

#[tokio::test]
async fn a_broken_file_is_refused_with_every_problem_and_the_old_one_goes_on() {
    let broker = Broker::start().await;
    let yaml = format!("{}watch: false\n", pool_of(&[broker.mqtt_url()]));
    let program = Program::run(&yaml).await;
    program.rewrite(&format!("{yaml}limits: {{ connections: many }}\ncertificates: [{{ chain: gone.pem, key: gone.key }}]\ncolour: red\n"));
    let finished = program.ask(&["reload"]).await;
    assert_eq!(finished.status.code(), Some(78), "{}", finished.stdout);
    for words in [
        "limits.connections",
        "colour",
        "tidegate.yaml:",
        "configuration 1 goes on",
    ] {
        assert!(
            finished.stderr.contains(words),
            "no {words:?} in {}",
            finished.stderr
        );
    }
    // What is found only when its files are opened, and no variable of the shell that asks.
    program.rewrite(&format!(
        "{yaml}certificates: [{{ chain: gone.pem, key: gone.key }}]\n"
    ));
    program.process.signal("HUP");
    program
        .tells(&["ERROR", "the configuration was refused"])
        .await;
    program.tells(&["ERROR", "gone.pem"]).await;
    let admin = &program.admin;
    let successful = "tidegate_config_last_reload_successful";
    assert_eq!(admin.metric(successful, &[]).await, 0.0);
    assert_eq!(admin.metric("tidegate_config_generation", &[]).await, 1.0);
    let (_client, _session) = tokio::join!(client(&program, "c"), broker.welcome());
    program.rewrite(&yaml);
    assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
    assert_eq!(admin.metric(successful, &[]).await, 1.0);
}

#[tokio::test]
async fn what_a_running_process_is_bound_to_is_said_with_the_remedy() {
    let program = Program::run(&nobody()).await;
    program.rewrite(&format!(
        "{}workers: 2\nlisteners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\nlog: {{ level: debug }}\nadmin: {{ address: \"127.0.0.1:1\" }}\n",
        nobody()
    ));
    let finished = program.ask(&["reload"]).await;
    assert_eq!(finished.status.code(), Some(78), "{}", finished.stdout);
    let said = &finished.stderr;
    for words in [
        "open or change a listener",
        "close a listener",
        "workers",
        "the log",
        "the admin listener",
        "tidegate upgrade",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert!(said.contains("listeners[0].address"), "{said}");
}

/// How files get a new pair: the folder, which holds `tls.crt` and `tls.key`, and the pair.
type Rotation = fn(&Path, &Pair);

/// kubelet's atomic writer: a new folder, and a link in the place of another.
fn as_kubernetes_does(folder: &Path, pair: &Pair) {
    let real = format!("..{}", fastrand::u64(..));
    fs::create_dir(folder.join(&real)).unwrap();
    fs::write(folder.join(&real).join("tls.crt"), &pair.chain).unwrap();
    fs::write(folder.join(&real).join("tls.key"), &pair.key).unwrap();
    let old = fs::read_link(folder.join("..data"));
    symlink(&real, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    match old {
        Ok(old) => fs::remove_dir_all(folder.join(old)).unwrap(),
        Err(_) => {
            for name in ["tls.crt", "tls.key"] {
                symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
            }
        }
    }
}

/// certbot's: into an archive, then link after link is removed and made anew; in between they do not fit together.
fn as_certbot_does(folder: &Path, pair: &Pair) {
    let archive = folder.join("archive");
    fs::create_dir_all(&archive).unwrap();
    let number = fastrand::u64(..);
    for (name, text) in [("tls.key", &pair.key), ("tls.crt", &pair.chain)] {
        let real = archive.join(format!("{number}-{name}"));
        fs::write(&real, text).unwrap();
        let link = folder.join(name);
        drop(fs::remove_file(&link));
        symlink(&real, &link).unwrap();
    }
}

fn as_mv_does(folder: &Path, pair: &Pair) {
    for (name, text) in [("tls.key", &pair.key), ("tls.crt", &pair.chain)] {
        fs::write(folder.join("next"), text).unwrap();
        fs::rename(folder.join("next"), folder.join(name)).unwrap();
    }
}

async fn rotates(rotate: Rotation) {
    let broker = Broker::start().await;
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::make(files.path());
    let folder = files.path().join("tls");
    fs::create_dir(&folder).unwrap();
    rotate(&folder, &authority.pair());
    let yaml = format!(
        "{}certificates: [{{ chain: {:?}, key: {:?} }}]\n",
        pool_of(&[broker.mqtt_url()]),
        folder.join("tls.crt"),
        folder.join("tls.key")
    );
    let program = Program::run(&yaml).await;
    let stream = client::tls_to(program.address(0), &authority.ca).await;
    let mut kept = Client::over(stream).await;
    kept.send(&packets::connect_v5("kept", 60)).await;
    let mut session = broker.welcome().await;
    // The first rotation is what a watch of the file itself would see, the second one what it would not.
    for _ in 0..2 {
        let pair = authority.pair();
        rotate(&folder, &pair);
        let begun = Instant::now();
        let new = der(&pair);
        let is_shown = || async { shown(program.address(0), &authority.ca).await == new };
        assert!(
            eventually(async || is_shown().await).await,
            "{}",
            program.process.last_words()
        );
        let took = begun.elapsed();
        // Unwatched it would be found within a minute.
        assert!(took < Duration::from_secs(10), "it took {took:?}");
        pings(&mut kept, &mut session).await;
    }
}

#[tokio::test]
async fn a_certificate_that_kubernetes_swaps_is_shown_within_seconds() {
    rotates(as_kubernetes_does).await;
}

#[tokio::test]
async fn a_certificate_that_certbot_links_anew_is_shown_within_seconds() {
    rotates(as_certbot_does).await;
}

#[tokio::test]
async fn a_certificate_that_is_renamed_into_place_is_shown_within_seconds() {
    rotates(as_mv_does).await;
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_waited_for_and_then_refused() {
    let program = Program::run(&nobody()).await;
    let (old, next) = (program.authority.pair(), program.authority.pair());
    as_mv_does(program.folder(), &old);
    let chain = program.authority.chain.clone();
    let before = shown(program.address(0), &program.authority.ca).await;
    // The key follows later than a second: it is not refused meanwhile.
    fs::write(&chain, &next.chain).unwrap();
    sleep(Duration::from_millis(1500)).await;
    fs::write(&program.authority.key, &next.key).unwrap();
    let is_shown = async || shown(program.address(0), &program.authority.ca).await == der(&next);
    assert!(eventually(is_shown).await);
    assert_ne!(before, der(&next));
    assert!(
        !program.process.stderr().contains("refused"),
        "{}",
        program.process.stderr()
    );
    // The key never follows.
    fs::write(&chain, &old.chain).unwrap();
    program
        .tells(&["ERROR", "the configuration was refused", "changed files"])
        .await;
    program.tells(&["ERROR", "broker.key"]).await;
    assert_eq!(
        shown(program.address(0), &program.authority.ca).await,
        der(&next)
    );
}

/// A configuration may be there before what it names.
#[tokio::test]
async fn a_file_that_a_refused_configuration_names_is_waited_for() {
    let program = Program::run(&nobody()).await;
    let pair = program.authority.pair();
    let late = tempfile::tempdir().unwrap();
    let yaml = format!(
        "{}certificates: [{{ chain: {:?}, key: {:?} }}]\n",
        nobody(),
        late.path().join("tls.crt"),
        late.path().join("tls.key")
    );
    program.rewrite(&yaml);
    program
        .tells(&["ERROR", "the configuration was refused", "changed files"])
        .await;
    as_mv_does(late.path(), &pair);
    let is_shown = async || shown(program.address(0), &program.authority.ca).await == der(&pair);
    assert!(
        eventually(is_shown).await,
        "{}",
        program.process.last_words()
    );
}

#[tokio::test]
async fn nothing_is_watched_where_the_operator_does_not_want_it() {
    let yaml = format!("{}watch: false\n", nobody());
    let program = Program::run(&yaml).await;
    program.rewrite(&format!("{yaml}limits: {{ connections: 5 }}\n"));
    // As long as a watched file would have needed at most.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        program
            .admin
            .metric("tidegate_config_generation", &[])
            .await,
        1.0
    );
    program.rewrite(&format!("{}limits: {{ connections: 5 }}\n", nobody()));
    assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
    // Watched from now on.
    program.rewrite(&nobody());
    program
        .admin
        .metric_becomes("tidegate_config_generation", &[], 3.0)
        .await;
}

/// Two connections of one client; how the second one began.
async fn comes_again(config: &Arc<rustls::ClientConfig>, to: SocketAddr) -> HandshakeKind {
    let mut stream = client::tls_as(to, "localhost", config.clone())
        .await
        .unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    // Tickets come behind the handshake: an answer comes behind them.
    let request = Request::get("/nothing");
    request.ask(&mut stream).await;
    kind
}

#[tokio::test]
async fn clients_resume_over_a_reload_and_at_a_replica_with_the_same_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("tickets.keys");
    fs::write(&keys, "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTIzNA==\n").unwrap();
    let shared = format!("{}tls: {{ ticket_keys: {keys:?} }}\n", nobody());
    for (yaml, at_replica) in [
        (nobody(), HandshakeKind::Full),
        (shared, HandshakeKind::Resumed),
    ] {
        let program = Program::run(&yaml).await;
        let replica = Program::run(&yaml).await;
        // One that trusts both: a client keeps tickets by name.
        let both = folder.path().join("both.pem");
        let cas = [&program, &replica].map(|one| fs::read_to_string(&one.authority.ca).unwrap());
        fs::write(&both, cas.concat()).unwrap();
        let config = client::tls_config(&both, rustls::DEFAULT_VERSIONS);
        assert_eq!(
            comes_again(&config, program.address(0)).await,
            HandshakeKind::Full
        );
        assert_eq!(
            comes_again(&config, program.address(0)).await,
            HandshakeKind::Resumed
        );
        assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
        assert_eq!(
            comes_again(&config, program.address(0)).await,
            HandshakeKind::Resumed
        );
        assert_eq!(comes_again(&config, replica.address(0)).await, at_replica);
    }
}

/// A ticket carries the certificate that was verified.
#[tokio::test]
async fn a_ticket_is_worth_nothing_once_the_listener_believes_another_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    for folder in [&a, &b] {
        fs::create_dir(folder).unwrap();
    }
    let (first, second) = (Authority::make(&a), Authority::make(&b));
    let yaml = |ca: &Path| {
        format!(
            "{}listeners: [{{ address: \"127.0.0.1:0\", client_certificates: {{ mode: required, ca: {ca:?} }} }}]\n",
            nobody()
        )
    };
    let program = Program::run(&yaml(&first.ca)).await;
    let pair = first.pair();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&program.authority.ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![der(&pair)],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    comes_again(&config, program.address(0)).await;
    assert_eq!(
        comes_again(&config, program.address(0)).await,
        HandshakeKind::Resumed
    );
    program.rewrite(&yaml(&second.ca));
    assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
    // Not resumed, and with TLS 1.3 the refusal comes with the first answer.
    let mut stream = client::tls_as(program.address(0), "localhost", config)
        .await
        .unwrap();
    assert_eq!(
        stream.get_ref().1.handshake_kind(),
        Some(HandshakeKind::Full)
    );
    let answer = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn sessions_of_a_broker_that_no_pool_has_any_more_leave_at_the_pace_and_others_stay() {
    const EACH: usize = 10;
    let (going, staying) = (
        Crowd::start(Manners::Welcome).await,
        Crowd::start(Manners::Welcome).await,
    );
    let rate = "drain: { rate: 10 }\n";
    let both = pool_of(&[going.url(), staying.url()]);
    let program = Program::run(&format!("{both}{rate}")).await;
    let mut leaving = tokio::task::JoinSet::new();
    for number in 0..2 * EACH {
        let stream = client::tls_to(program.address(0), &program.authority.ca).await;
        let mut client = Client::over(stream).await;
        client
            .send(&packets::connect(&format!("c{number}"), 60))
            .await;
        assert_eq!(client.receive().await, packets::connack(0));
        leaving.spawn(async move { client.closed().await });
    }
    program.rewrite(&format!("{}{rate}", pool_of(&[staying.url()])));
    let begun = Instant::now();
    for _ in 0..EACH {
        let closed = leaving.join_next().await.unwrap().unwrap();
        assert_eq!(closed.code, 1001, "{closed:?}");
        assert_eq!(closed.reason, "the broker is taken out, come again");
    }
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(850),
        "ten at ten a second took {took:?}"
    );
    let why = ["who=\"operator\"", "why=\"broker_removed\""];
    program
        .admin
        .metric_becomes("tidegate_outcomes_total", &why, EACH as f64)
        .await;
    assert_eq!(
        program.admin.metric("tidegate_sessions", &[]).await,
        EACH as f64
    );
    assert_eq!(leaving.len(), EACH);
    assert!(
        leaving.try_join_next().is_none(),
        "a session of the other broker left"
    );
}

#[tokio::test]
async fn commands_come_from_this_machine_and_never_from_a_browser() {
    let program = Program::run(&nobody()).await;
    let post = async |path: &str, headers: &[(&str, &str)]| {
        let mut stream = tokio::net::TcpStream::connect(program.admin.0)
            .await
            .unwrap();
        let mut request = Request::new("POST", path);
        for (name, value) in headers {
            request = request.with(name, value);
        }
        request.ask(&mut stream).await
    };
    for path in ["/reload", "/drain", "/upgrade"] {
        for header in [
            ("Origin", "null"),
            ("Origin", "http://127.0.0.1:9090"),
            ("Sec-Fetch-Site", "same-origin"),
        ] {
            let answer = post(path, &[header]).await;
            assert_eq!(answer.status, 403, "{path} {header:?}");
        }
    }
    assert_eq!(program.admin.get("/reload").await.0, 404);
    assert_eq!(
        program
            .admin
            .metric("tidegate_config_generation", &[])
            .await,
        1.0
    );
    let (status, state) = program.admin.get("/drain").await;
    assert!(
        status == 200 && state.contains("\"phase\":\"serving\""),
        "{state}"
    );
    for query in ["rate=0", "rate=many", "wait=5", "now"] {
        let answer = post(&format!("/drain?{query}"), &[]).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    assert_eq!(post("/reload", &[]).await.status, 200);
    program
        .admin
        .metric_becomes("tidegate_config_generation", &[], 2.0)
        .await;
}
