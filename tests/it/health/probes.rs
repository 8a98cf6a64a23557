//! What probes show, whether or not sessions come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Load, answers, pool, state_becomes};
use crate::configuration::load;
use crate::support::authority::Authority;
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::Gateway;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::{eventually, packets};

#[tokio::test]
async fn a_probe_finds_a_hanging_broker_without_any_client() {
    let hanging = Mosquitto::start(Options {
        users: &[("probe", "right")],
        access_list: Some("topic #\n"),
        ..Options::default()
    })
    .await;
    let one = Mosquitto::start(Options::default()).await;
    // ws and tcp: the probe takes the way that sessions take.
    for url in [hanging.ws_url(), hanging.mqtt_url()] {
        let lines = "probe: { kind: mqtt, interval: 100ms, timeout: 200ms, rise: 2, fall: 2, user_name: probe, password: right },";
        let gateway = Gateway::start(&pool(lines, &[url.clone(), one.mqtt_url()])).await;
        let label = format!("broker=\"{url}\"");
        let ok = async || {
            gateway
                .metric("tidegate_probes_total", &[&label, "result=\"ok\""])
                .await
                > 1.0
        };
        assert!(eventually(ok).await, "{}", hanging.log());
        // Quiet: a client that says DISCONNECT, and nothing that a person would look into.
        let log = hanging.log();
        let mut lines = log.lines().filter(|line| line.contains("tidegate-probe-"));
        let quiet = |line: &str| line.contains("New client") || line.contains(" disconnected");
        assert!(lines.by_ref().take(2).all(quiet), "{log}");
        hanging.hang();
        state_becomes(&gateway, &url, "down").await;
        let noticed = gateway
            .metric("tidegate_broker_notice_seconds_sum", &[])
            .await;
        assert!(noticed < 2.0, "{noticed}");
        Client::connected(&gateway, "c").await;
        hanging.go_on();
        state_becomes(&gateway, &url, "up").await;
    }
}

#[tokio::test]
async fn a_probe_with_a_wrong_password_fails_and_one_without_a_user_does_not() {
    let broker = Mosquitto::start(Options {
        users: &[("probe", "right")],
        access_list: Some("topic #\n"),
        ..Options::default()
    })
    .await;
    let url = broker.mqtt_url();
    let wrong =
        "probe: { kind: mqtt, interval: 100ms, fall: 1, user_name: probe, password: hunter2 },";
    let gateway = Gateway::start(&pool(wrong, std::slice::from_ref(&url))).await;
    state_becomes(&gateway, &url, "down").await;
    let labels = ["result=\"refused_connack\""];
    assert!(gateway.metric("tidegate_probes_total", &labels).await > 0.0);
    let nobody = "probe: { kind: mqtt, interval: 100ms, fall: 1 },";
    let gateway = Gateway::start(&pool(nobody, std::slice::from_ref(&url))).await;
    let ok = async || {
        let labels = ["result=\"ok\""];
        gateway.metric("tidegate_probes_total", &labels).await > 2.0
    };
    assert!(eventually(ok).await);
    state_becomes(&gateway, &url, "up").await;
}

#[test]
fn the_password_of_a_probe_is_never_shown() {
    let text = "listeners: [{ address: '127.0.0.1:0', plain: routes }]\n".to_owned()
        + &pool(
            "probe: { user_name: probe, password: hunter2 },",
            &["ws://a".to_owned()],
        );
    let config = load(&text).config;
    assert!(!format!("{config:?}").contains("hunter2"));
    let printed = tidegate::config::print(&config);
    assert!(
        printed.contains("password: \"***\"") && !printed.contains("hunter2"),
        "{printed}"
    );
}

/// An EMQX's `availability_check`: answers every GET with the status that was set last.
pub(super) async fn availability_check(
    status: &Arc<AtomicU16>,
    tls: Option<&Authority>,
) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "{}://{{host}}:{}/api/v5/load_rebalance/availability_check",
        if tls.is_some() { "https" } else { "http" },
        listener.local_addr().unwrap().port()
    );
    let (status, acceptor) = (Arc::clone(status), tls.map(Authority::acceptor));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &acceptor {
                None => answer_check(stream, &status).await,
                Some(acceptor) => {
                    // Who does not trust the certificate leaves.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer_check(stream, &status).await;
                    }
                }
            }
        }
    });
    (url, tasks)
}

async fn answer_check(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &AtomicU16) {
    let mut request = [0; 1024];
    let Ok(count) = stream.read(&mut request).await else {
        return;
    };
    let request = String::from_utf8_lossy(&request[..count]).into_owned();
    assert!(
        request.starts_with("GET /api/v5/load_rebalance/availability_check HTTP/1.1\r\n"),
        "{request}"
    );
    let answer = format!(
        "HTTP/1.1 {} Any\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        status.load(Ordering::Relaxed)
    );
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}

/// A pool of one that probes so, and trusts this authority for `localhost`.
fn trusting_pool(probe: &str, url: &str, authority: &Authority) -> String {
    let tls = format!("tls: {{ ca: {:?}, server_name: localhost }},", authority.ca);
    pool(&format!("probe: {{ {probe} }}, {tls}"), &[url.to_owned()])
}

#[tokio::test]
async fn probes_go_over_tls_where_sessions_do() {
    let broker = Mosquitto::start(Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let stranger = Authority::make(folder.path());
    for kind in ["mqtt", "tcp"] {
        for url in [broker.wss_url(), broker.mqtts_url()] {
            let probe = format!("kind: {kind}, interval: 100ms, fall: 1");
            let trusting = trusting_pool(&probe, &url, broker.authority());
            let gateway = Gateway::start(&trusting).await;
            let well = async || {
                let ok = ["result=\"ok\""];
                gateway.metric("tidegate_probes_total", &ok).await > 1.0
            };
            assert!(eventually(well).await, "{kind} {url}");
            state_becomes(&gateway, &url, "up").await;
            drop(gateway);
            let gateway = Gateway::start(&trusting_pool(&probe, &url, &stranger)).await;
            state_becomes(&gateway, &url, "down").await;
            let failed = ["result=\"tls\""];
            let count = gateway.metric("tidegate_probes_total", &failed).await;
            assert!(count > 0.0, "{kind} {url}");
        }
    }
    // A session, as the broker sees it.
    broker
        .says(&["New client connected", "tidegate-probe-"])
        .await;
}

#[tokio::test]
async fn a_check_over_https_is_believed_from_whom_the_pool_trusts() {
    let broker = Crowd::start(Manners::Welcome).await;
    let [ours, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (ours, other) = (Authority::make(ours.path()), Authority::make(other.path()));
    let status = Arc::new(AtomicU16::new(200));
    let (check, _serving) = availability_check(&status, Some(&ours)).await;
    let probe = format!("kind: http, interval: 100ms, fall: 1, rise: 1, url: \"{check}\"");
    let gateway = Gateway::start(&trusting_pool(&probe, &broker.url(), &ours)).await;
    let ok = async || {
        let ok = ["result=\"ok\""];
        gateway.metric("tidegate_probes_total", &ok).await > 0.0
    };
    assert!(eventually(ok).await);
    status.store(503, Ordering::Relaxed);
    state_becomes(&gateway, &broker.url(), "draining").await;
    status.store(200, Ordering::Relaxed);
    state_becomes(&gateway, &broker.url(), "up").await;
    let gateway = Gateway::start(&trusting_pool(&probe, &broker.url(), &other)).await;
    state_becomes(&gateway, &broker.url(), "down").await;
    let failed = ["result=\"tls\""];
    assert!(gateway.metric("tidegate_probes_total", &failed).await > 0.0);
}

#[tokio::test]
async fn an_evacuated_broker_keeps_its_sessions_and_takes_no_new_ones() {
    let status = Arc::new(AtomicU16::new(200));
    let (check, _serving) = availability_check(&status, None).await;
    let (evacuated, other) = (
        Crowd::start(Manners::Welcome).await,
        Crowd::start(Manners::Welcome).await,
    );
    let gateway = Gateway::start(&format!(
        "routes: [{{ path: /mqtt, pool: p }}]\n\
         pools: {{ p: {{ balance: least_sessions, slow_start: 0s, probe: {{ kind: http, interval: 100ms, url: \"{check}\" }},\
         brokers: [{{ url: \"{}\" }}, {{ url: \"{}\", probe_url: \"{}\" }}] }} }}\n",
        evacuated.url(),
        other.url(),
        check.replace("{host}", "127.0.0.1"),
    ))
    .await;
    let mut residents = Vec::new();
    for number in 0..4 {
        residents.push(Client::connected(&gateway, &format!("resident-{number}")).await);
    }
    assert_eq!((evacuated.welcomed(), other.welcomed()), (2, 2));
    status.store(503, Ordering::Relaxed);
    state_becomes(&gateway, &evacuated.url(), "draining").await;
    state_becomes(&gateway, &other.url(), "draining").await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("new", 60)).await;
    assert_eq!(client.receive().await, packets::connack(3));
    let (_, last) = gateway.admin("/status.json").await;
    assert!(
        last.contains("each is draining, as its probe says"),
        "{last}"
    );
    for resident in &mut residents {
        assert!(answers(resident).await);
    }
    status.store(200, Ordering::Relaxed);
    state_becomes(&gateway, &evacuated.url(), "up").await;
    Client::connected(&gateway, "new").await;
    status.store(404, Ordering::Relaxed);
    state_becomes(&gateway, &evacuated.url(), "down").await;
}

#[tokio::test]
async fn a_draining_broker_beside_another_is_left_to_its_sessions() {
    let status = Arc::new(AtomicU16::new(503));
    let (check, _serving) = availability_check(&status, None).await;
    let well = Arc::new(AtomicU16::new(204));
    let (well_check, _well_serving) = availability_check(&well, None).await;
    let (evacuated, other) = (
        Crowd::start(Manners::Welcome).await,
        Crowd::start(Manners::Welcome).await,
    );
    let gateway = Arc::new(
        Gateway::start(&format!(
            "routes: [{{ path: /mqtt, pool: p }}]\n\
             pools: {{ p: {{ probe: {{ kind: http, interval: 100ms }}, brokers: [\
             {{ url: \"{}\", probe_url: \"{check}\" }}, {{ url: \"{}\", probe_url: \"{well_check}\" }}] }} }}\n",
            evacuated.url(),
            other.url(),
        ))
        .await,
    );
    state_becomes(&gateway, &evacuated.url(), "draining").await;
    let before = evacuated.welcomed();
    let load = Load::start(&gateway);
    load.goes_on(20).await;
    assert_eq!(load.end().await.1, 0);
    assert_eq!(evacuated.welcomed(), before);
}
