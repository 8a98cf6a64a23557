//! Brokers that die, hang, refuse or are evacuated, and come back: no client is to see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::configuration::load;
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::Gateway;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::{eventually, packets};

/// A pool with these lines in front of these brokers; `connack` is short, so that hanging costs little.
fn pool(lines: &str, urls: &[String]) -> String {
    let brokers: Vec<String> = urls
        .iter()
        .map(|url| format!("{{ url: \"{url}\" }}"))
        .collect();
    format!(
        "routes: [{{ path: /mqtt, pool: p }}]\n\
         timeouts: {{ connack: 500ms, broker_connect: 500ms }}\n\
         pools: {{ p: {{ {lines} brokers: [{}] }} }}\n",
        brokers.join(", ")
    )
}

async fn gateway(lines: &str, brokers: &[&Crowd]) -> Gateway {
    let urls: Vec<String> = brokers.iter().map(|broker| broker.url()).collect();
    Gateway::start(&pool(lines, &urls)).await
}

async fn state_becomes(gateway: &Gateway, url: &str, state: &str) {
    let labels = [format!("broker=\"{url}\""), format!("state=\"{state}\"")];
    let labels = [labels[0].as_str(), labels[1].as_str()];
    gateway
        .metric_becomes("tidegate_broker_state", &labels, 1.0)
        .await;
}

/// Clients that come and go until they are told to stop.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    joined: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Load {
    const CLIENTS: usize = 4;

    fn start(gateway: &Arc<Gateway>) -> Self {
        let mut load = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            joined: Arc::default(),
            refused: Arc::default(),
        };
        for number in 0..Self::CLIENTS {
            let (gateway, stop) = (Arc::clone(gateway), Arc::clone(&load.stop));
            let (joined, refused) = (Arc::clone(&load.joined), Arc::clone(&load.refused));
            load.tasks.spawn(async move {
                let id = format!("load-{number}");
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::open(&gateway).await;
                    client.send(&packets::connect(&id, 60)).await;
                    match client.receive().await == packets::connack(0) {
                        true => joined.fetch_add(1, Ordering::Relaxed),
                        false => refused.fetch_add(1, Ordering::Relaxed),
                    };
                    client.send(&packets::DISCONNECT).await;
                }
            });
        }
        load
    }

    /// That many more clients have joined.
    async fn goes_on(&self, more: usize) {
        let target = self.joined.load(Ordering::Relaxed) + more;
        let joined = async || self.joined.load(Ordering::Relaxed) >= target;
        assert!(eventually(joined).await, "clients join no more");
    }

    /// Stops, and answers how many joined and how many did not.
    async fn end(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        (
            self.joined.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

async fn answers(client: &mut Client) -> bool {
    client.send(&packets::PINGREQ).await;
    client.receive().await == packets::PINGRESP
}

/// Sessions that stay, until two brokers beside the first have one each; with the broker of each told by its metric.
async fn residents(gateway: &Gateway, without: &str) -> Vec<Client> {
    let mut residents = Vec::new();
    let mut at_it = 0.0;
    while residents.len() < 4 {
        let client = Client::connected(gateway, &format!("resident-{}", residents.len())).await;
        let label = format!("broker=\"{without}\"");
        let now = gateway
            .metric("tidegate_sessions_joined_total", &[&label])
            .await;
        match now > at_it {
            // The broker's that is about to go: dropped.
            true => at_it = now,
            false => residents.push(client),
        }
    }
    residents
}

#[tokio::test]
async fn a_killed_broker_is_noticed_by_the_gateway_and_not_by_its_clients() {
    let mut dead = Mosquitto::start(Options::default()).await;
    let (one, two) = (
        Mosquitto::start(Options::default()).await,
        Mosquitto::start(Options::default()).await,
    );
    let urls = [dead.ws_url(), one.ws_url(), two.mqtt_url()];
    let gateway = Arc::new(Gateway::start(&pool("", &urls)).await);
    let mut residents = residents(&gateway, &urls[0]).await;
    let load = Load::start(&gateway);
    load.goes_on(20).await;
    dead.kill();
    state_becomes(&gateway, &urls[0], "ejected").await;
    load.goes_on(30).await;
    let (joined, refused) = load.end().await;
    assert_eq!(refused, 0, "of {joined}");
    for resident in &mut residents {
        assert!(answers(resident).await);
    }
    let noticed = gateway
        .metric("tidegate_broker_notice_seconds_sum", &[])
        .await;
    println!("kill -9: {joined} joined, {refused} refused, noticed after {noticed:.3} s");
    assert!(noticed < 5.0, "{noticed}");
}

#[tokio::test]
async fn a_hanging_broker_is_ejected_and_comes_back_when_it_goes_on() {
    let hanging = Mosquitto::start(Options::default()).await;
    let (one, two) = (
        Mosquitto::start(Options::default()).await,
        Mosquitto::start(Options::default()).await,
    );
    let urls = [hanging.ws_url(), one.ws_url(), two.mqtt_url()];
    let lines = "eject: { time: 300ms, longest: 600ms }, slow_start: 1s,";
    let gateway = Arc::new(Gateway::start(&pool(lines, &urls)).await);
    let mut residents = residents(&gateway, &urls[0]).await;
    let load = Load::start(&gateway);
    load.goes_on(10).await;
    hanging.hang();
    state_becomes(&gateway, &urls[0], "ejected").await;
    let noticed = gateway
        .metric("tidegate_broker_notice_seconds_sum", &[])
        .await;
    load.goes_on(20).await;
    hanging.go_on();
    state_becomes(&gateway, &urls[0], "up").await;
    load.goes_on(10).await;
    let (joined, refused) = load.end().await;
    assert_eq!(refused, 0, "of {joined}");
    for resident in &mut residents {
        assert!(answers(resident).await);
    }
    println!(
        "SIGSTOP, by sessions: {joined} joined, {refused} refused, noticed after {noticed:.3} s"
    );
}

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
        println!("SIGSTOP, by probes of 100 ms: noticed after {noticed:.3} s");
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

#[tokio::test]
async fn brokers_that_fail_in_any_way_are_ejected_and_cost_no_client_its_session() {
    for (manners, cause) in [
        (Manners::Close, "closed"),
        (Manners::Hang, "connack_timeout"),
        (Manners::Refuse(3), "connack_elsewhere"),
    ] {
        let bad = Crowd::start(manners).await;
        let (one, two) = (
            Crowd::start(Manners::Welcome).await,
            Crowd::start(Manners::Welcome).await,
        );
        let gateway = Arc::new(gateway("", &[&bad, &one, &two]).await);
        let load = Load::start(&gateway);
        state_becomes(&gateway, &bad.url(), "ejected").await;
        load.goes_on(20).await;
        let (joined, refused) = load.end().await;
        assert_eq!(refused, 0, "{cause}: of {joined}");
        let cause = format!("cause=\"{cause}\"");
        let failures = gateway
            .metric("tidegate_broker_failures_total", &[&cause])
            .await;
        // Those that were on their way when it was ejected.
        assert!(
            (3.0..=3.0 + Load::CLIENTS as f64).contains(&failures),
            "{cause}: {failures}"
        );
        assert_eq!(
            gateway.metric("tidegate_broker_ejections_total", &[]).await,
            1.0
        );
    }
}

#[tokio::test]
async fn a_broker_that_hangs_longer_than_clients_wait_is_ejected_too() {
    let (hanging, well) = (
        Crowd::start(Manners::Hang).await,
        Crowd::start(Manners::Welcome).await,
    );
    let text = pool("", &[hanging.url(), well.url()]).replace("connack: 500ms", "connack: 1s");
    let gateway = Gateway::start(&text).await;
    let impatient = async || {
        let mut client = Client::open(&gateway).await;
        client.send(&packets::connect("impatient", 60)).await;
        let wait = std::time::Duration::from_millis(700);
        drop(timeout(wait, client.receive()).await);
        drop(client);
        gateway.metric("tidegate_broker_ejections_total", &[]).await == 1.0
    };
    assert!(eventually(impatient).await);
    let labels = ["cause=\"abandoned\""];
    assert!(
        gateway
            .metric("tidegate_broker_failures_total", &labels)
            .await
            >= 3.0
    );
}

#[tokio::test]
async fn the_last_broker_is_never_ejected() {
    let only = Crowd::start(Manners::Hang).await;
    let gateway = gateway("eject: { failures: 1 },", &[&only]).await;
    for _ in 0..3 {
        let mut client = Client::open(&gateway).await;
        client.send(&packets::connect("c", 60)).await;
        assert_eq!(client.receive().await, packets::connack(3));
    }
    only.change(Manners::Welcome);
    Client::connected(&gateway, "c").await;
    assert_eq!(
        gateway.metric("tidegate_broker_ejections_total", &[]).await,
        0.0
    );
}

#[tokio::test]
async fn when_all_brokers_are_out_all_are_tried() {
    let (one, two) = (
        Crowd::start(Manners::Close).await,
        Crowd::start(Manners::Close).await,
    );
    // Nobody can say of these that they are well.
    let lines = "probe: { kind: mqtt, interval: 100ms, timeout: 100ms, fall: 1 },";
    let gateway = gateway(lines, &[&one, &two]).await;
    state_becomes(&gateway, &one.url(), "down").await;
    state_becomes(&gateway, &two.url(), "down").await;
    one.change(Manners::CloseOn("none".to_owned()));
    Client::connected(&gateway, "c").await;
}

#[tokio::test]
async fn a_client_cannot_have_brokers_ejected() {
    let poison = || Manners::CloseOn("poison".to_owned());
    let (one, two) = (Crowd::start(poison()).await, Crowd::start(poison()).await);
    let gateway = gateway("eject: { failures: 2 },", &[&one, &two]).await;
    for _ in 0..5 {
        let mut client = Client::open(&gateway).await;
        client.send(&packets::connect("poison", 60)).await;
        assert_eq!(client.receive().await, packets::connack(3));
    }
    assert_eq!(
        gateway.metric("tidegate_broker_ejections_total", &[]).await,
        0.0
    );
    let labels = ["cause=\"closed\""];
    let failures = gateway
        .metric("tidegate_broker_failures_total", &labels)
        .await;
    assert_eq!(failures, 10.0);
}

/// An EMQX's `availability_check`: answers every GET with the status that was set last.
async fn availability_check(status: &Arc<AtomicU16>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{{host}}:{}/api/v5/load_rebalance/availability_check",
        listener.local_addr().unwrap().port()
    );
    let status = Arc::clone(status);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let Ok(count) = stream.read(&mut request).await else {
                continue;
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
        }
    });
    (url, tasks)
}

#[tokio::test]
async fn an_evacuated_broker_keeps_its_sessions_and_takes_no_new_ones() {
    let status = Arc::new(AtomicU16::new(200));
    let (check, _serving) = availability_check(&status).await;
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
    let (check, _serving) = availability_check(&status).await;
    let well = Arc::new(AtomicU16::new(204));
    let (well_check, _well_serving) = availability_check(&well).await;
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

/// How many of the next 60 sessions come to the broker; all stay.
async fn share(gateway: &Gateway, broker: &Crowd, sessions: &mut Vec<Client>) -> usize {
    let before = broker.welcomed();
    for _ in 0..60 {
        let id = format!("c{}", sessions.len());
        sessions.push(Client::connected(gateway, &id).await);
    }
    broker.welcomed() - before
}

#[tokio::test]
async fn the_share_of_a_broker_that_came_back_grows() {
    let (old, new) = (
        Crowd::start(Manners::Welcome).await,
        Crowd::start(Manners::Close).await,
    );
    let mut shares = Vec::new();
    for slow_start in ["1h", "0s"] {
        new.change(Manners::Close);
        let lines = format!(
            "balance: least_sessions, slow_start: {slow_start}, eject: {{ failures: 1, time: 100ms, longest: 100ms }},"
        );
        let gateway = gateway(&lines, &[&old, &new]).await;
        let mut sessions = Vec::new();
        // 80 more than the new one has, so that it is the emptier one throughout.
        for number in 0..80 {
            sessions.push(Client::connected(&gateway, &format!("s{number}")).await);
        }
        state_becomes(&gateway, &new.url(), "ejected").await;
        new.change(Manners::Welcome);
        let back = async || {
            Client::connected(&gateway, "tries").await;
            let labels = ["state=\"ejected\""];
            gateway.metric("tidegate_broker_state", &labels).await == 0.0
        };
        assert!(eventually(back).await);
        shares.push(share(&gateway, &new, &mut sessions).await);
    }
    println!(
        "of 60 new sessions an empty broker took {} at the beginning of its slow start, {} without one",
        shares[0], shares[1]
    );
    assert!((1..30).contains(&shares[0]), "{shares:?}");
    assert_eq!(shares[1], 60, "all go to the one that has none");
}
