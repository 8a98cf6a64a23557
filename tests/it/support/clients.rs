//! Runs the client programs of `tests/clients` at the gateway, or directly at a broker to learn what is right.

use std::process::Command;
use std::time::Duration;

use crate::support::gateway::Gateway;
use crate::support::process::Process;
use crate::support::tools;

/// The longest suite takes some 20 s on an idle machine; several run at the same time.
const DEADLINE: Duration = Duration::from_secs(300);

/// Runs one program through the gateway and gives its lines, one per case. Any failed case fails the test.
pub async fn at_gateway(program: &str, gateway: &Gateway, more: &[&str]) -> Vec<String> {
    let mut command = interpreter_of(program);
    command
        .args(["--url", &gateway.wss_url("/mqtt")])
        .arg("--ca")
        .arg(gateway.ca_file())
        .args(more);
    run(program, &command).await
}

/// Runs one program at the broker itself.
pub async fn at_broker(program: &str, url: &str, more: &[&str]) -> Vec<String> {
    let mut command = interpreter_of(program);
    command.args(["--url", url, "--direct"]).args(more);
    run(program, &command).await
}

/// A program gives the same results through the gateway and directly at the broker.
pub async fn assert_same_results(
    program: &str,
    gateway: &Gateway,
    broker_url: &str,
    more: &[&str],
) {
    let direct = at_broker(program, broker_url, more).await;
    let through = at_gateway(program, gateway, more).await;
    assert_eq!(
        through, direct,
        "left: {program} through the gateway, right: at {broker_url}"
    );
}

fn interpreter_of(program: &str) -> Command {
    let interpreter = if program.ends_with(".py") {
        tools::python()
    } else {
        tools::node()
    };
    let mut command = Command::new(interpreter);
    command.arg(tools::client(program));
    command
}

async fn run(program: &str, command: &Command) -> Vec<String> {
    let finished = Process::start(command).finish(DEADLINE).await;
    assert!(
        finished.status.success(),
        "{program} ended with {}\n--- its stdout\n{}\n--- its stderr\n{}",
        finished.status,
        finished.stdout,
        finished.stderr
    );
    let lines: Vec<String> = finished.stdout.lines().map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{program} ran no case");
    lines
}
