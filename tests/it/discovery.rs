//! Brokers that are found by name: what name servers say and do not say, and what becomes of sessions.

use std::collections::BTreeSet;
use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::client::{Client, tcp_from, tls_over, tls_to};
use crate::support::crowd::{Crowd, Manners};
use crate::support::dns::{NameServer, Saying, at, loopback};
use crate::support::gateway::Gateway;
use crate::support::program::Program;
use crate::support::{PATIENCE, eventually, packets};

const NAME: &str = "brokers.test";

/// Brokers on one port of 127.0.0.2, 127.0.0.3 and so on.
async fn brokers<const COUNT: usize>() -> [Crowd; COUNT] {
    // Another test may have the port at one of the addresses; a free one is found soon.
    for _ in 0..100 {
        let first = Crowd::start_at(at(2, 0), Manners::Welcome).await.unwrap();
        let port = first.port();
        let mut all = vec![first];
        for last in 3..2 + u8::try_from(COUNT).unwrap() {
            all.extend(Crowd::start_at(at(last, port), Manners::Welcome).await.ok());
        }
        if let Ok(all) = all.try_into() {
            return all;
        }
    }
    panic!("no port is free at {COUNT} addresses");
}

fn addresses(last: &[u8]) -> Saying {
    Saying::Addresses(last.iter().copied().map(loopback).collect())
}

/// A gateway that asks this name server, in a hurry, and has this pool.
async fn gateway(dns: &NameServer, pool: &str) -> Gateway {
    gateway_with(dns, pool, "").await
}

async fn gateway_with(dns: &NameServer, pool: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "{more}routes: [{{ path: /mqtt, pool: p }}]\n\
         dns: {{ servers: [\"{}\"], timeout: 500ms, shortest: 100ms, longest: 20s }}\n\
         pools: {{ p: {{ {pool} }} }}\n",
        dns.address()
    ))
    .await
}

fn by_name(port: u16) -> String {
    format!("brokers: [{{ url: \"mqtt://{NAME}:{port}\" }}]")
}

async fn found(gateway: &Gateway, count: f64) {
    gateway
        .metric_becomes("tidegate_broker_addresses", &["pool=\"p\""], count)
        .await;
}

/// This many look-ups failed of it at the least.
async fn failed(gateway: &Gateway, cause: &str, count: f64) {
    let cause = format!("cause=\"{cause}\"");
    let labels = ["pool=\"p\"", "broker=\"mqtt://brokers.test:", &cause];
    let failures = async || {
        let metric = "tidegate_discovery_failures_total";
        gateway.metric(metric, &labels).await >= count
    };
    assert!(eventually(failures).await, "{cause}");
}

/// The name was asked for so many times from now on.
async fn asked_again(dns: &NameServer, times: usize) {
    let before = dns.asked(NAME).len();
    assert!(eventually(async || dns.asked(NAME).len() >= before + times).await);
}

async fn connect(gateway: &Gateway, ids: std::ops::Range<usize>) -> Vec<Client> {
    let mut clients = Vec::new();
    for id in ids {
        clients.push(Client::connected(gateway, &format!("c{id}")).await);
    }
    clients
}

#[tokio::test]
async fn every_address_of_a_name_is_a_broker() {
    let [a, b, c] = brokers::<3>().await;
    let dns = NameServer::start(1).await;
    dns.say(NAME, addresses(&[4, 2, 3]));
    let gateway = gateway(&dns, &by_name(a.port())).await;
    found(&gateway, 3.0).await;
    let _clients = connect(&gateway, 0..9).await;
    assert_eq!((a.welcomed(), b.welcomed(), c.welcomed()), (3, 3, 3));
    let label = format!("broker=\"mqtt://127.0.0.3:{}\"", a.port());
    gateway
        .metric_becomes("tidegate_sessions", &[&label], 3.0)
        .await;
    gateway
        .metric_becomes("tidegate_broker_state", &[&label, "state=\"up\""], 1.0)
        .await;
}

#[tokio::test]
async fn an_added_address_gets_its_share_and_a_removed_one_keeps_its_session() {
    let [a, b] = brokers::<2>().await;
    let dns = NameServer::start(0).await;
    dns.say(NAME, addresses(&[2]));
    let gateway = gateway(&dns, &by_name(a.port())).await;
    found(&gateway, 1.0).await;
    let mut old = Client::connected(&gateway, "old").await;
    dns.say(NAME, addresses(&[2, 3]));
    found(&gateway, 2.0).await;
    let _clients = connect(&gateway, 0..4).await;
    assert_eq!((a.welcomed(), b.welcomed()), (3, 2));
    dns.say(NAME, addresses(&[3]));
    found(&gateway, 1.0).await;
    let _more = connect(&gateway, 4..8).await;
    assert_eq!((a.welcomed(), b.welcomed()), (3, 6));
    old.send(&[0xc0, 0]).await;
    assert_eq!(old.receive().await, [0xd0, 0]);
    let label = format!("broker=\"mqtt://127.0.0.2:{}\"", a.port());
    gateway
        .metric_becomes("tidegate_broker_state", &[&label, "state=\"off\""], 1.0)
        .await;
}

#[tokio::test]
async fn sessions_of_a_removed_address_leave_at_the_pace_of_the_drain_if_asked() {
    let [a, b] = brokers::<2>().await;
    let dns = NameServer::start(0).await;
    dns.say(NAME, addresses(&[2, 3]));
    let pool = format!("on_removed: drain, {}", by_name(a.port()));
    let gateway = gateway_with(&dns, &pool, "drain: { rate: 10 }\n").await;
    found(&gateway, 2.0).await;
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    for id in 0..12 {
        let before = a.welcomed();
        let client = Client::connected(&gateway, &format!("c{id}")).await;
        match a.welcomed() > before {
            true => leaving.push(client),
            false => staying.push(client),
        }
    }
    assert_eq!((leaving.len(), staying.len()), (6, 6));
    dns.say(NAME, addresses(&[3]));
    let ends = leaving.iter_mut().map(|client| async {
        let closed = client.closed().await;
        assert_eq!(closed.code, 1001, "{closed:?}");
        Instant::now()
    });
    let ends = futures_util::future::join_all(ends).await;
    // Ten a second.
    let took = *ends.iter().max().unwrap() - *ends.iter().min().unwrap();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    let drained = ["who=\"operator\"", "phase=\"relay\""];
    gateway
        .metric_becomes("tidegate_outcomes_total", &drained, 6.0)
        .await;
    asked_again(&dns, 3).await;
    for client in &mut staying {
        client.send(&packets::PINGREQ).await;
        assert_eq!(client.receive().await, packets::PINGRESP);
    }
    assert_eq!(b.welcomed(), 6);
    // It is welcome again, and so are sessions at it.
    dns.say(NAME, addresses(&[2, 3]));
    found(&gateway, 2.0).await;
    let _more = connect(&gateway, 12..14).await;
    asked_again(&dns, 3).await;
    assert_eq!(gateway.metric("tidegate_sessions", &[]).await, 8.0);
}

/// A deployment that is scaled down, with its configuration in the same moment.
#[tokio::test]
async fn an_address_that_was_lost_before_a_reload_is_drained_after_it() {
    let [a, _b] = brokers::<2>().await;
    let dns = NameServer::start(0).await;
    dns.say(NAME, addresses(&[2]));
    // Once every ten minutes, and after a reload.
    let yaml = |more: &str| {
        format!(
            "routes: [{{ path: /mqtt, pool: p }}]\nwatch: false\n{more}\
             dns: {{ servers: [\"{}\"], shortest: 10m, longest: 20m }}\n\
             pools: {{ p: {{ on_removed: drain, {} }} }}\n",
            dns.address(),
            by_name(a.port())
        )
    };
    let program = Program::run(&yaml("")).await;
    let found = async |count: f64| {
        let metric = "tidegate_broker_addresses";
        program.admin.metric_becomes(metric, &[], count).await;
    };
    found(1.0).await;
    let stream = tls_to(program.address(0), &program.authority.ca).await;
    let mut client = Client::over(stream).await;
    client.send(&packets::connect("c", 60)).await;
    assert_eq!(client.receive().await, packets::connack(0));
    dns.say(NAME, addresses(&[3]));
    for (number, more) in [
        "limits: { connections: 70 }\n",
        "limits: { connections: 80 }\n",
    ]
    .into_iter()
    .enumerate()
    {
        let before = dns.asked(NAME).len();
        program.rewrite(&yaml(more));
        assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
        assert!(eventually(async || dns.asked(NAME).len() > before).await);
        if number == 0 {
            program.tells(&["brokers found", "removed=1"]).await;
            client.send(&packets::PINGREQ).await;
            assert_eq!(client.receive().await, packets::PINGRESP);
        }
    }
    assert_eq!(client.closed().await.code, 1001);
}

/// A pod that is not ready for a moment.
#[tokio::test]
async fn an_address_that_one_answer_lacks_keeps_its_sessions() {
    let [a, _b] = brokers::<2>().await;
    let dns = NameServer::start(0).await;
    dns.say(NAME, addresses(&[2]));
    let pool = format!("on_removed: drain, {}", by_name(a.port()));
    let gateway = gateway(&dns, &pool).await;
    found(&gateway, 1.0).await;
    let mut client = Client::connected(&gateway, "c").await;
    let turns = [vec![3], vec![2, 3]];
    let turns = turns.map(|turn| turn.into_iter().map(loopback).collect());
    dns.say(NAME, Saying::Turns(turns.to_vec()));
    asked_again(&dns, 8).await;
    client.send(&packets::PINGREQ).await;
    assert_eq!(client.receive().await, packets::PINGRESP);
    assert_eq!(gateway.metric("tidegate_outcomes_total", &[]).await, 0.0);
}

#[tokio::test]
async fn the_last_good_answer_goes_on_whatever_the_name_server_does() {
    let [a] = brokers::<1>().await;
    let dns = NameServer::start(0).await;
    dns.say(NAME, addresses(&[2]));
    let gateway = gateway(&dns, &by_name(a.port())).await;
    found(&gateway, 1.0).await;
    for (number, (saying, cause)) in [
        (Some(Saying::Silence), "timeout"),
        (None, "nxdomain"),
        (Some(Saying::Empty), "no_address"),
    ]
    .into_iter()
    .enumerate()
    {
        match saying {
            Some(saying) => dns.say(NAME, saying),
            None => dns.forget(NAME),
        }
        failed(&gateway, cause, 2.0).await;
        Client::connected(&gateway, &format!("c{number}")).await;
    }
    found(&gateway, 1.0).await;
    assert_eq!(a.welcomed(), 3);
}

#[tokio::test]
async fn a_start_waits_for_no_name_server_and_clients_are_told() {
    let [a] = brokers::<1>().await;
    let dns = NameServer::start(0).await;
    dns.say(NAME, Saying::Silence);
    let gateway = gateway(&dns, &by_name(a.port())).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("c", 60)).await;
    assert_eq!(client.receive().await, packets::connack(3));
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect_v5("c", 60)).await;
    assert_eq!(client.receive().await[..4], packets::connack_v5(0x88)[..4]);
    failed(&gateway, "timeout", 1.0).await;
    dns.say(NAME, addresses(&[2]));
    found(&gateway, 1.0).await;
    Client::connected(&gateway, "c").await;
}

#[tokio::test]
async fn of_too_many_addresses_the_first_200_are_taken() {
    let [a] = brokers::<1>().await;
    let dns = NameServer::start(0).await;
    let all: Vec<u8> = (2..=241).rev().collect();
    dns.say(NAME, addresses(&all));
    let gateway = gateway(&dns, &by_name(a.port())).await;
    found(&gateway, 200.0).await;
    failed(&gateway, "too_many", 1.0).await;
    let state = "tidegate_broker_state";
    for (last, is_known) in [(201, 1.0), (202, 0.0)] {
        let label = format!("broker=\"mqtt://127.0.0.{last}:{}\"", a.port());
        gateway
            .metric_becomes(state, &[&label, "=\"up\""], is_known)
            .await;
    }
}

#[tokio::test]
async fn an_answer_that_changes_all_the_time_forgets_no_state() {
    let [a, b] = brokers::<2>().await;
    let dns = NameServer::start(0).await;
    dns.say(NAME, addresses(&[2, 3]));
    b.change(Manners::Close);
    let eject = "eject: { failures: 1, time: 5m },";
    let pool = format!("{eject} {}", by_name(a.port()));
    let gateway = gateway(&dns, &pool).await;
    found(&gateway, 2.0).await;
    let mut old = Client::connected(&gateway, "old").await;
    let _other = Client::connected(&gateway, "other").await;
    let label = format!("broker=\"mqtt://127.0.0.3:{}\"", a.port());
    let ejected = [&*label, "state=\"ejected\""];
    gateway
        .metric_becomes("tidegate_broker_state", &ejected, 1.0)
        .await;
    let turns = [vec![2], vec![3, 2], vec![2, 3]];
    let turns = turns.map(|turn| turn.into_iter().map(loopback).collect());
    dns.say(NAME, Saying::Turns(turns.to_vec()));
    asked_again(&dns, 9).await;
    dns.say(NAME, addresses(&[2, 3]));
    asked_again(&dns, 2).await;
    gateway
        .metric_becomes("tidegate_broker_state", &ejected, 1.0)
        .await;
    let ejections = gateway.metric("tidegate_broker_ejections_total", &[]).await;
    assert_eq!(ejections, 1.0);
    old.send(&[0xc0, 0]).await;
    assert_eq!(old.receive().await, [0xd0, 0]);
    let _clients = connect(&gateway, 0..4).await;
    assert_eq!((a.welcomed(), b.welcomed()), (6, 0));
}

#[tokio::test]
async fn a_name_is_asked_for_when_its_ttl_is_over() {
    let [a] = brokers::<1>().await;
    let dns = NameServer::start(1).await;
    dns.say(NAME, addresses(&[2]));
    let _gateway = gateway(&dns, &by_name(a.port())).await;
    assert!(eventually(async || dns.asked(NAME).len() >= 3).await);
    for pair in dns.asked(NAME).windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= Duration::from_secs(1), "{pause:?}");
        assert!(pause < PATIENCE / 2, "{pause:?}");
    }
}

#[tokio::test]
async fn services_have_weights_ports_and_backups() {
    const SERVICE: &str = "_mqtt._tcp.brokers.test";
    let [a, b, c] = brokers::<3>().await;
    let dns = NameServer::start(0).await;
    let port = a.port();
    let services = vec![
        (10, 1, port, "a.test"),
        (10, 3, port, "b.test"),
        (20, 5, port, "c.test"),
        (10, 1, port, "gone.test"),
    ];
    dns.say(SERVICE, Saying::Services(services));
    for (name, last) in [("a.test", 2), ("b.test", 3), ("c.test", 4)] {
        dns.say(name, addresses(&[last]));
    }
    let pool = format!("brokers: [{{ url: \"srv+mqtt://{SERVICE}\" }}]");
    let gateway = gateway(&dns, &pool).await;
    found(&gateway, 3.0).await;
    let _clients = connect(&gateway, 0..12).await;
    // The first round may begin anywhere in it.
    let (of_a, of_b) = (a.welcomed(), b.welcomed());
    assert!((2..=4).contains(&of_a), "{of_a} {of_b}");
    assert_eq!((of_a + of_b, c.welcomed()), (12, 0));
    a.change(Manners::Close);
    b.change(Manners::Close);
    Client::connected(&gateway, "last").await;
    assert_eq!(c.welcomed(), 1);
}

#[tokio::test]
async fn replicas_agree_on_clients_whatever_the_order_of_answers() {
    let all = brokers::<3>().await;
    let (one, two) = (NameServer::start(0).await, NameServer::start(0).await);
    one.say(NAME, addresses(&[2, 3, 4]));
    two.say(NAME, addresses(&[4, 2, 3]));
    let pool = format!("balance: client_id, {}", by_name(all[0].port()));
    let (one, two) = (gateway(&one, &pool).await, gateway(&two, &pool).await);
    found(&one, 3.0).await;
    found(&two, 3.0).await;
    for id in 0..12 {
        let id = format!("device-{id}");
        Client::connected(&one, &id).await;
        Client::connected(&two, &id).await;
        assert_eq!(all.iter().filter(|broker| broker.knows(&id)).count(), 1);
    }
}

#[tokio::test]
async fn localhost_and_addresses_ask_nobody() {
    let broker = Crowd::start(Manners::Welcome).await;
    let dns = NameServer::start(0).await;
    let pool = format!(
        "brokers: [{{ url: \"mqtt://localhost:{}\" }}]",
        broker.port()
    );
    let gateway = gateway(&dns, &pool).await;
    Client::connected(&gateway, "c").await;
    assert_eq!(dns.asked("localhost").len(), 0);
}

/// Listeners on one port of 127.0.0.2 and 127.0.0.3.
async fn two_listeners() -> [TcpListener; 2] {
    for _ in 0..100 {
        let first = TcpListener::bind(at(2, 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(at(3, port)).await {
            return [first, second];
        }
    }
    panic!("no port is free at both addresses");
}

/// Each address gets its sessions from the pool's source addresses in turn, with who the client is in front.
#[tokio::test]
async fn what_a_name_stands_for_is_reached_as_the_pool_says() {
    const SOURCES: [u8; 2] = [9, 10];
    let listeners = two_listeners().await;
    let port = listeners[0].local_addr().unwrap().port();
    let dns = NameServer::start(0).await;
    dns.say(NAME, addresses(&[2, 3]));
    let pool = format!(
        "proxy_protocol: v2, source_addresses: [127.0.0.9, 127.0.0.10], {}",
        by_name(port)
    );
    let gateway = gateway(&dns, &pool).await;
    found(&gateway, 2.0).await;
    let mut seen = BTreeSet::new();
    for id in 0..4 {
        let tcp = tcp_from("127.0.0.5".parse().unwrap(), gateway.address(0)).await;
        let client = tcp.local_addr().unwrap();
        let stream = tls_over(&gateway, tcp).await.unwrap();
        let mut socket = Client::over(stream).await;
        socket.send(&packets::connect(&format!("c{id}"), 60)).await;
        let (broker, accepted) = tokio::select! {
            accepted = listeners[0].accept() => (2, accepted),
            accepted = listeners[1].accept() => (3, accepted),
        };
        let (mut stream, source) = accepted.unwrap();
        let mut header = vec![0; 16];
        stream.read_exact(&mut header).await.unwrap();
        let length = u16::from_be_bytes([header[14], header[15]]);
        header.resize(16 + usize::from(length), 0);
        stream.read_exact(&mut header[16..]).await.unwrap();
        let (header, _) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
        assert_eq!(header.proxied_address().unwrap().source, client);
        stream.read_exact(&mut [0; 16]).await.unwrap();
        stream.write_all(&packets::connack(0)).await.unwrap();
        assert_eq!(socket.receive().await, packets::connack(0));
        seen.insert((broker, source.ip()));
    }
    let brokers: BTreeSet<_> = seen.iter().map(|(broker, _)| *broker).collect();
    let sources: BTreeSet<_> = seen.iter().map(|(_, source)| *source).collect();
    assert_eq!(brokers, BTreeSet::from([2, 3]));
    assert_eq!(sources, SOURCES.map(|last| loopback(last).into()).into());
}
