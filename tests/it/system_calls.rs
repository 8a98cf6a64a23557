//! A round trip costs so many system calls and no more: they are most of what a small message costs. strace counts them on
//! the real binary, in one session where nothing else happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::broker::Broker;
use crate::support::client::{self, Client};
use crate::support::echo::{Echo, Speaks};
use crate::support::gateway::pool_of;
use crate::support::http2::Http2;
use crate::support::program::Program;
use crate::support::raw_http::Request;
use crate::support::{packets, tools};

const ROUND_TRIPS: usize = 100;

/// What a heartbeat may take meanwhile, and the end of the last round trip, of each kind.
const BESIDE: usize = 10;

/// What a round trip takes: for each direction one wake-up, one read and one write. tokio does not read again what gave
/// less than was asked for.
const EACH: usize = 2;

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Calls {
    reads: usize,
    writes: usize,
    waits: usize,
    others: usize,
}

/// Calls of the thread that made most of them: the one that carries the client.
fn calls(log: &Path) -> Calls {
    let most = by_thread(log)
        .into_values()
        .max_by_key(|calls| calls.reads + calls.waits);
    most.unwrap_or_default()
}

/// Calls of all threads but the first, which answers those who ask for metrics.
fn calls_of_workers(log: &Path) -> Calls {
    let threads = by_thread(log);
    let number = |thread: &String| thread.parse::<u32>().unwrap();
    let first = threads.keys().map(number).min();
    let workers = threads
        .iter()
        .filter(|(thread, _)| Some(number(thread)) != first);
    workers
        .map(|(_, calls)| calls)
        .fold(Calls::default(), |sum, calls| Calls {
            reads: sum.reads + calls.reads,
            writes: sum.writes + calls.writes,
            waits: sum.waits + calls.waits,
            others: sum.others + calls.others,
        })
}

fn by_thread(log: &Path) -> BTreeMap<String, Calls> {
    let mut threads: BTreeMap<String, Calls> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(thread), Some(call)) = (words.next(), words.next()) else {
            continue;
        };
        // `<... read resumed>` is the second half of a call that has been counted.
        let Some((name, _)) = call.split_once('(') else {
            continue;
        };
        let calls = threads.entry(thread.to_owned()).or_default();
        match name {
            "read" | "readv" | "recvfrom" | "recvmsg" => calls.reads += 1,
            "write" | "writev" | "sendto" | "sendmsg" => calls.writes += 1,
            "epoll_wait" | "epoll_pwait" => calls.waits += 1,
            _ => calls.others += 1,
        }
    }
    threads
}

async fn round_trips(client: &mut Client, echo: &mut Echo) {
    let packet = packets::publish("b/0001", &[7; 64]);
    for _ in 0..ROUND_TRIPS {
        client.send(&packet).await;
        echo.echo(&packet).await;
        assert_eq!(client.receive().await, packet);
    }
}

/// The real binary under strace, and where that writes.
async fn under_strace(yaml: &str) -> (Program, TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let strace = tools::strace();
    let wrapper = [strace.to_str().unwrap(), "-f", "-o", log.to_str().unwrap()];
    (Program::run_under(&wrapper, yaml).await, folder, log)
}

async fn session(gateway: &Program, broker: &Broker, speaks: Speaks) -> (Client, Echo) {
    let connecting = async {
        let wire = client::tls_to(gateway.address(0), &gateway.authority.ca).await;
        let mut client = Client::over(wire).await;
        client.send(&packets::connect("c1", 60)).await;
        client
    };
    let (mut client, echo) = tokio::join!(connecting, Echo::welcome(broker, speaks));
    assert_eq!(client.receive().await, packets::connack(0));
    (client, echo)
}

async fn costs(speaks: Speaks) -> Calls {
    let broker = Broker::start().await;
    let (gateway, _folder, log) = under_strace(&pool_of(&[speaks.url(&broker)])).await;
    let (mut client, mut echo) = session(&gateway, &broker, speaks).await;
    round_trips(&mut client, &mut echo).await;
    let before = calls(&log);
    round_trips(&mut client, &mut echo).await;
    between(before, calls(&log))
}

#[tokio::test]
async fn a_round_trip_takes_no_system_call_more_than_it_must() {
    for speaks in Speaks::BOTH {
        let calls = costs(speaks).await;
        let most = ROUND_TRIPS * EACH + BESIDE;
        assert!(
            calls.reads <= most && calls.writes <= most && calls.waits <= most,
            "{ROUND_TRIPS} round trips, broker over {speaks:?}: {calls:?}"
        );
        assert!(calls.others <= BESIDE, "broker over {speaks:?}: {calls:?}");
    }
}

/// A session from its first byte to its last. A client that does not wait between its handshake and its request saves a
/// write more: our tickets leave with the 101 then (`tls::tests`).
#[tokio::test]
async fn a_session_comes_and_goes_with_no_system_call_more_than_it_must() {
    const SESSIONS: usize = 20;
    for speaks in Speaks::BOTH {
        let broker = Broker::start().await;
        let (gateway, _folder, log) = under_strace(&pool_of(&[speaks.url(&broker)])).await;
        let sessions = async || {
            for _ in 0..SESSIONS {
                let (mut client, echo) = session(&gateway, &broker, speaks).await;
                client.send(&packets::DISCONNECT).await;
                client.closed().await;
                drop(echo);
            }
            let admin = &gateway.admin;
            admin.metric_becomes("tidegate_connections", &[], 0.0).await;
        };
        sessions().await;
        let before = calls_of_workers(&log);
        sessions().await;
        let calls = between(before, calls_of_workers(&log));
        let more = usize::from(speaks == Speaks::Ws);
        let most = |each| SESSIONS * each + BESIDE;
        assert!(
            calls.reads <= most(8 + more)
                && calls.writes <= most(9 + more)
                && calls.others <= most(26) + BESIDE,
            "{SESSIONS} sessions, broker over {speaks:?}: {calls:?}"
        );
    }
}

/// The difference that this makes.
fn between(before: Calls, after: Calls) -> Calls {
    Calls {
        reads: after.reads - before.reads,
        writes: after.writes - before.writes,
        waits: after.waits - before.waits,
        others: after.others - before.others,
    }
}

/// The real binary under strace, with a site of one small file.
async fn a_site_under_strace() -> (Program, [TempDir; 2], PathBuf) {
    let site = tempfile::tempdir().unwrap();
    fs::write(site.path().join("small.css"), "p {}".repeat(250)).unwrap();
    let yaml = format!(
        "routes: [{{ path: /, site: {{ root: {:?} }} }}]\n",
        site.path()
    );
    let (gateway, folder, log) = under_strace(&yaml).await;
    (gateway, [site, folder], log)
}

#[tokio::test]
async fn a_file_that_is_in_memory_takes_one_read_and_one_write() {
    let (gateway, _site, log) = a_site_under_strace().await;
    let mut wire = client::tls_to(gateway.address(0), &gateway.authority.ca).await;
    let mut ask = async |times: usize| {
        for _ in 0..times {
            let answer = Request::get("/small.css").ask(&mut wire).await;
            assert_eq!((answer.status, answer.body.len()), (200, 1000));
        }
    };
    ask(ROUND_TRIPS).await;
    let before = calls(&log);
    ask(ROUND_TRIPS).await;
    let calls = between(before, calls(&log));
    let most = ROUND_TRIPS + BESIDE;
    assert!(
        calls.reads <= most && calls.writes <= most && calls.waits <= most,
        "{ROUND_TRIPS} requests: {calls:?}"
    );
    // Once a second another thread is asked to look at the file.
    assert!(calls.others <= 2 * BESIDE, "{calls:?}");
}

/// Answers that are ready at the same time leave together.
#[tokio::test]
async fn answers_over_http2_share_their_writes() {
    const STREAMS: usize = 16;
    const ROUNDS: usize = 20;
    let (gateway, _site, log) = a_site_under_strace().await;
    let config = client::tls_config(&gateway.authority.ca, rustls::DEFAULT_VERSIONS);
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connecting = client::tls_as(gateway.address(0), "localhost", Arc::new(config));
    let wire = connecting.await.unwrap();
    let mut connection = Http2::over(wire).await;
    let mut ask = async |rounds: usize| {
        for _ in 0..rounds {
            let statuses = connection.get_at_once("/small.css", STREAMS).await;
            assert_eq!(statuses, [200; STREAMS]);
        }
    };
    ask(ROUNDS).await;
    let before = calls(&log);
    ask(ROUNDS).await;
    let calls = between(before, calls(&log));
    assert!(
        calls.writes <= 4 * ROUNDS + BESIDE,
        "{ROUNDS} times {STREAMS} requests: {calls:?}"
    );
}
