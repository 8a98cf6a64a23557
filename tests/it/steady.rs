//! Real sessions, and everything around them changed twenty times: not one is dropped, not one message lost or doubled.
//!
//! `TIDEGATE_SESSIONS=1000 cargo test --release --features demo --test it -- steady` is the same with a thousand of them.

use std::process::Command;
use std::time::Duration;

use crate::support::gateway::pool_of;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::process::Process;
use crate::support::program::Program;
use crate::support::{eventually, tools};

const RELOADS: usize = 20;

/// So many real clients come on a busy machine within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of one Python: it waits by select(2), which knows 1,024 descriptors, and a session takes three.
const PAHO: usize = 250;

fn sessions() -> usize {
    let wished = std::env::var("TIDEGATE_SESSIONS").ok();
    wished.map_or(200, |count| count.parse().unwrap())
}

/// Clients of one library, connected, each with its first number back.
async fn begin(program: &Program, script: &str, count: usize) -> Process {
    let interpreter = match script.ends_with(".py") {
        true => tools::python(),
        false => tools::node(),
    };
    let mut command = Command::new(interpreter);
    let url = format!("wss://127.0.0.1:{}/mqtt", program.address(0).port());
    let count = count.to_string();
    command
        .arg(tools::client(script))
        .args(["--url", &url, "--sessions", &count, "--ca"])
        .arg(&program.authority.ca);
    Process::start(&command)
}

async fn are_ready(clients: &[Process]) {
    let begun = tokio::time::Instant::now();
    for process in clients {
        while !process.stderr().lines().any(|line| line == "ready") {
            assert!(begun.elapsed() < PATIENCE, "{}", process.last_words());
            eventually(async || process.stderr().contains("ready")).await;
        }
    }
}

/// Stops them and reads what they say.
async fn came_of(process: Process) -> serde_json::Value {
    process.signal("TERM");
    let finished = process.finish(PATIENCE).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    serde_json::from_str(finished.stdout.trim()).unwrap()
}

/// Other weights, another route, another limit; the certificate is rewritten beside it.
fn configuration(urls: &[String; 2], number: usize) -> String {
    let pool = pool_of(urls)
        .replacen("\"}", &format!("\", weight: {}}}", number % 7 + 1), 1)
        .replace(
            "routes: [",
            &format!("routes: [{{path: /old{number}, redirect: {{to: /mqtt}}}}, "),
        );
    format!(
        "{pool}watch: false\nlimits: {{ handshakes: {} }}\n",
        4000 + number
    )
}

#[tokio::test]
async fn twenty_reloads_drop_no_session_and_lose_and_double_no_message() {
    let broker = Mosquitto::start(Options::default()).await;
    let urls = [broker.mqtt_url(), broker.ws_url()];
    let program = Program::run(&configuration(&urls, 0)).await;
    let paho = sessions() * 2 / 5;
    let mut clients = vec![begin(&program, "steady.mjs", sessions() - paho).await];
    for first in (0..paho).step_by(PAHO) {
        let count = PAHO.min(paho - first);
        clients.push(begin(&program, "steady.py", count).await);
    }
    are_ready(&clients).await;
    let all = sessions();
    program
        .admin
        .metric_becomes("tidegate_sessions", &[], all as f64)
        .await;
    let mut taken = 0;
    for number in 1..=RELOADS {
        let is_broken = number % 5 == 3;
        let pair = program.authority.pair();
        std::fs::write(&program.authority.chain, pair.chain).unwrap();
        if !is_broken {
            std::fs::write(&program.authority.key, pair.key).unwrap();
        }
        program.rewrite(&configuration(&urls, number));
        let finished = program.ask(&["reload"]).await;
        let expected = if is_broken { 78 } else { 0 };
        assert_eq!(
            finished.status.code(),
            Some(expected),
            "{number}: {}{}",
            finished.stdout,
            finished.stderr
        );
        taken += usize::from(!is_broken);
    }
    let generation = program
        .admin
        .metric("tidegate_config_generation", &[])
        .await;
    assert_eq!(generation, (1 + taken) as f64);
    assert_eq!(
        program.admin.metric("tidegate_sessions", &[]).await,
        all as f64
    );
    assert_eq!(
        program
            .admin
            .metric("tidegate_sessions_joined_total", &[])
            .await,
        all as f64
    );
    let mut told = 0;
    for process in clients {
        let total = came_of(process).await;
        for fault in ["dropped", "lost", "doubled"] {
            assert_eq!(total[fault], 0, "{total}");
        }
        assert!(
            total["sent"].as_u64() > total["sessions"].as_u64(),
            "{total}"
        );
        told += usize::try_from(total["sessions"].as_u64().unwrap()).unwrap();
    }
    assert_eq!(told, all);
}
