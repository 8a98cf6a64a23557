//! Starting, the admin listener, and what probes hear until the end.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use tidegate::app::{App, StartError};
use tidegate::config::Problem;
use tokio::net::TcpStream;

use crate::support::authority::Authority;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, completed, pool_of};
use crate::support::packets;
use crate::support::raw_http::Request;
use crate::support::{PATIENCE, eventually};

/// What a start with this configuration says of its addresses.
fn refused(yaml: &str) -> Vec<Problem> {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::make(folder.path());
    let pool = pool_of(&["mqtt://127.0.0.1:1".to_owned()]);
    let text = completed(&format!("{pool}{yaml}"), &authority);
    let loaded = tidegate::config::parse(Path::new("test.yaml"), &text)
        .unwrap_or_else(|problems| panic!("{problems}"));
    match App::bind(loaded.config) {
        Ok(_) => panic!("it started"),
        Err(StartError::Listen(problems)) => problems,
        Err(error) => panic!("{error}"),
    }
}

fn taken() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn assert_in_use(problem: &Problem, key: &str, address: SocketAddr) {
    assert_eq!(problem.place.key, key);
    assert!(problem.place.line > 0 && problem.place.column > 0);
    let message = &problem.message;
    let expected = format!("cannot listen on {address}: Address already in use");
    assert!(message.starts_with(&expected), "{message}");
    let remedy = format!(
        "`ss -ltnp 'sport = :{}'` shows who has the port",
        address.port()
    );
    assert_eq!(problem.help.as_deref(), Some(remedy.as_str()));
}

#[test]
fn an_address_in_use_ends_the_start_whatever_the_listener_speaks() {
    let (_held, address) = taken();
    for (yaml, key) in [
        (
            format!("listeners: [{{ address: \"{address}\" }}]\n"),
            "listeners[0].address",
        ),
        (
            format!(
                "listeners: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"{address}\", plain: routes }}]\n"
            ),
            "listeners[1].address",
        ),
        (
            format!(
                "listeners: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"{address}\", plain: redirect }}]\n"
            ),
            "listeners[1].address",
        ),
        (
            format!("admin: {{ address: \"{address}\" }}\n"),
            "admin.address",
        ),
    ] {
        let problems = refused(&yaml);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_in_use(&problems[0], key, address);
        // With several workers the sockets share their port among themselves, and with nobody else.
        let problems = refused(&format!("{yaml}workers: 3\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_in_use(&problems[0], key, address);
    }
}

#[test]
fn all_addresses_in_use_are_told_at_once() {
    let ((_a, first), (_b, second), (_c, admin)) = (taken(), taken(), taken());
    let problems = refused(&format!(
        "listeners:\n  - {{ address: \"{first}\" }}\n  - {{ address: \"{second}\", plain: redirect }}\nadmin: {{ address: \"{admin}\" }}\n"
    ));
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_in_use(&problems[0], "listeners[0].address", first);
    assert_in_use(&problems[1], "listeners[1].address", second);
    assert_in_use(&problems[2], "admin.address", admin);
}

#[test]
fn an_address_of_another_machine_is_named() {
    // TEST-NET-1 (RFC 5737): no interface has it.
    let problems = refused("listeners: [{ address: \"192.0.2.1:0\" }]\n");
    let help = problems[0].help.as_deref().unwrap();
    assert_eq!(help, "no interface of this machine has the address");
}

/// Two gateways must not share a port, though the sockets of one do.
#[tokio::test]
async fn a_second_gateway_does_not_take_half_of_the_connections() {
    let pool = pool_of(&["mqtt://127.0.0.1:1".to_owned()]);
    let gateway = Gateway::start(&format!("{pool}workers: 2\n")).await;
    let address = gateway.address(0);
    let yaml = format!("listeners: [{{ address: \"{address}\" }}]\nworkers: 2\n");
    assert_in_use(&refused(&yaml)[0], "listeners[0].address", address);
}

#[tokio::test]
async fn several_workers_serve_one_port() {
    let broker = Broker::start().await;
    let pool = pool_of(&[broker.mqtt_url()]);
    let gateway = Gateway::start(&format!("{pool}workers: 3\n")).await;
    let mut sessions = Vec::new();
    for number in 0..12 {
        let id = format!("c{number}");
        sessions.push(tokio::join!(
            Client::connected(&gateway, &id),
            broker.welcome()
        ));
    }
    gateway.metric_becomes("tidegate_sessions", &[], 12.0).await;
}

#[tokio::test]
async fn the_admin_listener_answers_probes_and_prometheus() {
    let gateway = Gateway::before(&["mqtt://127.0.0.1:1".to_owned()]).await;
    for path in ["/startupz", "/readyz", "/livez", "/healthz"] {
        let answered = eventually(async || gateway.admin(path).await == (200, "ok\n".to_owned()));
        assert!(answered.await, "{path}: {:?}", gateway.admin(path).await);
    }
    let (status, metrics) = gateway.admin("/metrics").await;
    assert_eq!(status, 200);
    assert!(
        metrics.contains("# TYPE tidegate_connections gauge"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
    let (status, page) = gateway.admin("/").await;
    assert!(
        status == 200 && page.starts_with("<!doctype html>"),
        "{page}"
    );
    let (status, index) = gateway.admin("/nothing").await;
    assert!(status == 404 && index.contains("/readyz"), "{index}");
}

#[tokio::test]
async fn the_admin_listener_only_reads() {
    let gateway = Gateway::before(&["mqtt://127.0.0.1:1".to_owned()]).await;
    let mut stream = TcpStream::connect(gateway.admin_address()).await.unwrap();
    for method in ["POST", "PUT", "DELETE"] {
        let answer = Request::new(method, "/metrics").ask(&mut stream).await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    let answer = Request::new("HEAD", "/metrics").ask(&mut stream).await;
    assert_eq!(answer.status, 200);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(kind));
}

#[tokio::test]
async fn a_drain_that_is_announced_is_not_ready_and_serves_on() {
    let broker = Broker::start().await;
    let pool = pool_of(&[broker.mqtt_url()]);
    // The announcement keeps the gateway there until the test has seen it; a second wish to stop ends it.
    let gateway = Gateway::start(&format!("{pool}drain: {{ announce: 60s }}\n")).await;
    assert!(eventually(async || gateway.admin("/readyz").await.0 == 200).await);
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c"), broker.welcome());
    gateway.stop();
    assert!(eventually(async || gateway.admin("/readyz").await.0 == 503).await);
    assert_eq!(gateway.admin("/readyz").await.1, "not ready: drain\n");
    assert_eq!(gateway.admin("/livez").await.0, 200);
    assert_eq!(gateway.metric("tidegate_draining", &[]).await, 1.0);
    // Announced only: it serves on, for the clients of balancers that have not looked yet.
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
    let (_second, _session) = tokio::join!(Client::connected(&gateway, "c2"), broker.welcome());
    gateway.stop();
    let ended = tokio::time::timeout(PATIENCE, gateway.ended()).await;
    assert!(ended.is_ok(), "the second wish to stop did not end it");
}
