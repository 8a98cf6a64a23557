//! A round trip costs so many system calls and no more: they are most of what a small message costs. strace counts them on
//! the real binary, in one session where nothing else happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::broker::Broker;
use crate::support::client::{self, Client};
use crate::support::echo::{Echo, Speaks};
use crate::support::gateway::pool_of;
use crate::support::program::Program;
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
    let most = threads
        .into_values()
        .max_by_key(|calls| calls.reads + calls.waits);
    most.unwrap_or_default()
}

async fn round_trips(client: &mut Client, echo: &mut Echo) {
    let packet = packets::publish("b/0001", &[7; 64]);
    for _ in 0..ROUND_TRIPS {
        client.send(&packet).await;
        echo.echo(&packet).await;
        assert_eq!(client.receive().await, packet);
    }
}

async fn costs(speaks: Speaks) -> Calls {
    let broker = Broker::start().await;
    let url = speaks.url(&broker);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let strace = tools::strace();
    let wrapper = [strace.to_str().unwrap(), "-f", "-o", log.to_str().unwrap()];
    let gateway = Program::run_under(&wrapper, &pool_of(&[url])).await;
    let wire = client::tls_to(gateway.address(0), &gateway.authority.ca).await;
    let connecting = async {
        let mut client = Client::over(wire).await;
        client.send(&packets::connect("c1", 60)).await;
        client
    };
    let (mut client, mut echo) = tokio::join!(connecting, Echo::welcome(&broker, speaks));
    assert_eq!(client.receive().await, packets::connack(0));
    round_trips(&mut client, &mut echo).await;
    let before = calls(&log);
    round_trips(&mut client, &mut echo).await;
    let after = calls(&log);
    Calls {
        reads: after.reads - before.reads,
        writes: after.writes - before.writes,
        waits: after.waits - before.waits,
        others: after.others - before.others,
    }
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
