//! A real application, written with Node: behaves behind the gateway as if it were reached directly.
//!
//! `TIDEGATE_BODY=1073741824 cargo test --features demo --test it -- applications::real` moves 1 GiB each way and not 256 MiB.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::program::Program;
use crate::support::{eventually, tools};

/// 3 GiB on a busy machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// What bodies may cost the gateway, whatever their length: some buffers of 64 KiB, and what the allocator makes of them.
const MEMORY: u64 = 4 << 20;

fn body() -> String {
    std::env::var("TIDEGATE_BODY").unwrap_or_else(|_| (256 << 20).to_string())
}

struct Application {
    _process: Process,
    port: u16,
}

impl Application {
    async fn start(more: &[&str]) -> Self {
        let mut command = Command::new(tools::node());
        command.arg(tools::client("application.mjs")).args(more);
        let process = Process::start(&command);
        let mut port = None;
        let listens = eventually(async || {
            let said = process.stderr();
            let mut words = said.split_whitespace();
            port = words.next_back().and_then(|port| port.parse().ok());
            port.is_some()
        });
        assert!(listens.await, "{}", process.last_words());
        Self {
            _process: process,
            port: port.unwrap(),
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// One line for each case.
async fn cases(url: &str, more: &[&str]) -> Vec<String> {
    let mut command = Command::new(tools::node());
    command
        .arg(tools::client("application_client.mjs"))
        .args(["--url", url, "--size", &body()])
        .args(more);
    let finished = Process::start(&command).finish(DEADLINE).await;
    assert!(
        finished.status.success(),
        "{}\n{}",
        finished.stdout,
        finished.stderr
    );
    finished.stdout.lines().map(str::to_owned).collect()
}

/// A line of `/proc/PID/status`, in bytes.
fn memory(program: &Program, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.process.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .unwrap();
    let kilobytes: u64 = line
        .trim_matches([':', '\t', ' ', 'k', 'B'])
        .parse()
        .unwrap();
    kilobytes << 10
}

#[expect(
    clippy::print_stdout,
    reason = "the figure is what somebody runs it for"
)]
fn tell(figure: &str) {
    println!("{figure}");
}

#[tokio::test]
async fn an_application_behaves_as_if_it_were_reached_directly() {
    let application = Application::start(&[]).await;
    let direct = cases(&application.url(), &["--direct"]).await;
    let yaml = format!(
        "routes: [{{path: /api, proxy: \"{}\"}}]\n",
        application.url()
    );
    let program = Program::run(&yaml).await;
    let url = format!("https://127.0.0.1:{}", program.address(0).port());
    let ca = program.authority.ca.to_str().unwrap().to_owned();
    // What is used once is there now.
    cases(&url, &["--ca", &ca, "--only", "json"]).await;
    let before = memory(&program, "VmRSS");
    std::fs::write(format!("/proc/{}/clear_refs", program.process.id()), "5").unwrap();
    let through = cases(&url, &["--ca", &ca]).await;
    assert_eq!(
        through, direct,
        "left: through the gateway, right: directly"
    );
    let most = memory(&program, "VmHWM");
    let cost = most.saturating_sub(before);
    tell(&format!(
        "bodies of {} bytes cost {} KiB on top of {} KiB",
        body(),
        cost >> 10,
        before >> 10
    ));
    assert!(
        cost <= MEMORY,
        "{cost} bytes for bodies of {} bytes",
        body()
    );
}

#[tokio::test]
async fn a_browser_uses_it_over_http_2_its_web_socket_too() {
    let application = Application::start(&[]).await;
    let yaml = format!(
        "routes: [{{path: /api, proxy: \"{}\"}}]\n",
        application.url()
    );
    let program = Program::run(&yaml).await;
    let url = format!("https://127.0.0.1:{}/api/page", program.address(0).port());
    let mut command = Command::new(tools::node());
    command.arg(tools::client("application_page.mjs")).arg(&url);
    let finished = Process::start(&command).finish(DEADLINE).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    let seen: Value = serde_json::from_str(finished.stdout.trim()).unwrap();
    let expected = json!({
        "hello": { "hello": "world" },
        "upload": 3 << 20,
        "events": ["event 0", "event 1", "event 2"],
        "socket": {
            "heard": ["2.0 tidegate", "echo"],
            "code": 4001,
            "reason": "as you wish",
            "wasClean": true,
            "protocol": "chat",
        },
        "hops": ["h2"],
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_application_over_tls_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let authority = crate::support::authority::Authority::make(folder.path());
    let (key, cert) = (
        authority.key.to_str().unwrap(),
        authority.chain.to_str().unwrap(),
    );
    let application = Application::start(&["--key", key, "--cert", cert]).await;
    let url = format!("https://localhost:{}", application.port);
    let ca = authority.ca.to_str().unwrap();
    for (tls, status) in [
        (format!("tls: {{ca: {ca}}}"), 200),
        ("tls: {verify: false}".to_owned(), 200),
        (
            format!("tls: {{ca: {ca}, server_name: other.example}}"),
            502,
        ),
        ("balance: round_robin".to_owned(), 502),
    ] {
        let yaml = format!("routes: [{{path: /api, proxy: {{to: \"{url}\", {tls}}}}}]\n");
        let gateway = crate::support::gateway::Gateway::start(&yaml).await;
        let mut client = crate::support::client::tls(&gateway).await;
        let answer = crate::support::raw_http::Request::get("/api/hello")
            .ask(&mut client)
            .await;
        assert_eq!(answer.status, status, "{tls}: {}", answer.body);
    }
}
