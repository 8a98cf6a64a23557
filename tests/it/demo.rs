//! `tidegate demo` as a visitor meets it: the program itself, its page in Chromium.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::PATIENCE;
use crate::support::process::{Process, free_addresses};
use crate::support::tools;

/// The page, its session, the mistakes of "Break it", and a few seconds of Chromium.
const VISIT: Duration = Duration::from_secs(120);

/// From its start to the first connection taken.
const SOON: Duration = Duration::from_secs(2);

/// The running demo and the URL that it printed.
struct Demo {
    _process: Process,
    url: String,
    took: Duration,
}

impl Demo {
    async fn start(folder: &Path) -> Self {
        let [address] = free_addresses();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["demo", "--listen", &address.to_string(), "--certs"])
            .arg(folder.join("certs"))
            // It is killed in the end and leaves its site behind.
            .env("TMPDIR", folder);
        let began = Instant::now();
        let mut process = Process::start(&command);
        process
            .wait_until_listening(&[address], PATIENCE)
            .await
            .unwrap();
        let took = began.elapsed();
        let mut url = None;
        crate::support::eventually(async || {
            let words = process.last_words();
            url = words
                .split_whitespace()
                .find(|word| word.starts_with("https://"))
                .map(str::to_owned);
            url.is_some()
        })
        .await;
        Self {
            url: url.expect("the demo prints its URL"),
            took,
            _process: process,
        }
    }
}

#[tokio::test]
async fn a_visitor_connects_publishes_and_is_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(folder.path()).await;
    let mut visitor = Command::new(tools::node());
    visitor
        .arg(tools::client("demo_page.mjs"))
        .arg(&demo.url)
        .env("CHROMIUM", tools::chromium());
    let visit = Process::start(&visitor).finish(VISIT).await;
    assert!(visit.status.success(), "{}\n{}", visit.stdout, visit.stderr);
}

/// The quickest of three: it is the program that is measured, not what else the machine does.
#[tokio::test]
async fn the_demo_listens_within_two_seconds_of_its_start() {
    let mut took = Vec::new();
    for _ in 0..3 {
        // A new folder each time: the certificates are made too.
        let folder = tempfile::tempdir().unwrap();
        took.push(Demo::start(folder.path()).await.took);
    }
    let quickest = *took.iter().min().unwrap();
    assert!(quickest < SOON, "{took:?}");
}
