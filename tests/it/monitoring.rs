//! deploy/monitoring and `/metrics`, as Prometheus reads them: promtool accepts both, and nothing in a rule or a panel asks for
//! a metric or a label that no gateway has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tokio::net::TcpStream;

use crate::documentation::{Family, documented_metrics, read};
use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::eventually;
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;
use crate::support::process::{Finished, Process};
use crate::support::raw_http::Request;
use crate::support::tools;

const RULES: &str = "deploy/monitoring/alerts.yaml";
const TESTS: &str = "deploy/monitoring/alerts.test.yaml";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";

/// What Prometheus itself adds to every series.
const ADDED: [&str; 3] = ["job", "instance", "le"];

async fn promtool(arguments: &[&str]) -> Finished {
    let mut command = Command::new(tools::promtool());
    command.args(arguments);
    Process::start(&command).finish(PATIENCE).await
}

async fn accepts(arguments: &[&str]) {
    let said = promtool(arguments).await;
    assert!(said.status.success(), "{}\n{}", said.stdout, said.stderr);
}

#[tokio::test]
async fn promtool_accepts_the_metrics_of_a_gateway_that_has_seen_things() {
    let (well, gone) = (Crowd::start(Manners::Welcome).await, "mqtt://127.0.0.1:1");
    let pool = pool_of(&[well.url(), gone.to_owned()]).replace(
        "brokers: [{",
        "probe: {kind: tcp, interval: 100ms}, brokers: [{",
    );
    let gateway = Gateway::start(&pool).await;
    for number in 0..4 {
        let mut client = Client::connected(&gateway, &number.to_string()).await;
        client.send(&packets::DISCONNECT).await;
        client.closed().await;
    }
    let probed = async || gateway.metric("tidegate_probes_total", &[]).await > 0.0;
    assert!(eventually(probed).await);
    let mut stream = TcpStream::connect(gateway.admin_address()).await.unwrap();
    let request = Request::get("/metrics").with("Accept", "text/plain;version=0.0.4");
    let plain = request.ask(&mut stream).await;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(plain.header("content-type"), Some(kind));
    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let asked = Request::get("/metrics").with("Accept", accept);
    let openmetrics = asked.ask(&mut stream).await;
    assert!(
        openmetrics.body.ends_with("# EOF\n"),
        "{}",
        openmetrics.body
    );
    let samples = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect::<BTreeSet<_>>()
    };
    // Asked later, so it may have more.
    let (plainly, openly) = (samples(&plain.body), samples(&openmetrics.body));
    let missing: Vec<_> = plainly.difference(&openly).collect();
    assert!(missing.is_empty() && plainly.len() > 200, "{missing:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics");
    std::fs::write(&file, &plain.body).unwrap();
    let mut check = Command::new("sh");
    check
        .args(["-c", r#"exec "$0" check metrics < "$1""#])
        .arg(tools::promtool())
        .arg(&file);
    let said = Process::start(&check).finish(PATIENCE).await;
    let (complaints, ok) = (said.stdout + &said.stderr, said.status.success());
    assert!(ok && complaints.trim().is_empty(), "{complaints}");
}

#[tokio::test]
async fn promtool_accepts_the_rules_and_each_of_them_fires() {
    accepts(&["check", "rules", RULES]).await;
    accepts(&["test", "rules", TESTS]).await;
    for alert in alerts().keys() {
        let shown = format!("  - name: {alert}\n");
        assert!(read(TESTS).contains(&shown), "{TESTS} shows no {alert}");
    }
}

/// The lines of each alert.
fn alerts() -> BTreeMap<String, String> {
    let rules = read(RULES);
    let alerts = rules.split("      - alert: ").skip(1);
    alerts
        .map(|alert| alert.split_once('\n').unwrap())
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect()
}

#[test]
fn every_alert_has_a_summary_and_an_entry_in_the_runbook() {
    let alerts = alerts();
    assert!(alerts.len() >= 20, "{:?}", alerts.keys());
    let runbook = read("docs/operations.md");
    let (_, runbook) = runbook.split_once("\n## Alerts\n").unwrap();
    let runbook = runbook.split("\n## ").next().unwrap();
    let entries: BTreeSet<_> = runbook
        .split("\n### ")
        .skip(1)
        .map(|entry| {
            let (name, text) = entry.split_once('\n').unwrap();
            assert!(text.trim().len() > 80, "{name} says too little");
            name.to_owned()
        })
        .collect();
    assert_eq!(alerts.keys().cloned().collect::<BTreeSet<_>>(), entries);
    for (name, alert) in &alerts {
        let anchor = format!("runbook: docs/operations.md#{}\n", name.to_lowercase());
        let severities = ["severity: critical", "severity: warning"];
        for wanted in [anchor.as_str(), "summary: \"", "description: \""] {
            assert!(alert.contains(wanted), "{name} has no {wanted}");
        }
        assert!(severities.iter().any(|word| alert.contains(word)), "{name}");
    }
}

/// Names and the labels in the braces behind them.
fn selectors(query: &str) -> Vec<(String, Vec<String>)> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for prefix in ["tidegate_", "process_"] {
        for (at, _) in query.match_indices(prefix) {
            if query[..at].ends_with(is_of_name) {
                continue;
            }
            let rest = &query[at..];
            let end = rest
                .find(|letter| !is_of_name(letter))
                .unwrap_or(rest.len());
            let labels = rest[end..]
                .strip_prefix('{')
                .map_or("", |rest| rest.split('}').next().unwrap());
            // No value has a comma of its own in it.
            let labels = labels.split(',').filter(|label| !label.is_empty());
            let name = |label: &str| {
                label
                    .trim()
                    .split(['=', '!', '~'])
                    .next()
                    .unwrap()
                    .to_owned()
            };
            found.push((rest[..end].to_owned(), labels.map(name).collect()));
        }
    }
    found
}

/// The words in `by (…)`.
fn grouped(query: &str) -> Vec<String> {
    let groups = query.split(" by (").skip(1);
    groups
        .flat_map(|group| group.split(')').next().unwrap().split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

/// The family that a sample belongs to.
fn family<'a>(name: &str, families: &'a BTreeMap<String, Family>) -> Option<&'a Family> {
    families.iter().find_map(|(family, about)| {
        let suffixes: &[&str] = match about.kind.as_str() {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let is_it = suffixes
            .iter()
            .any(|suffix| format!("{family}{suffix}") == name);
        is_it.then_some(about)
    })
}

#[test]
fn rules_and_dashboard_ask_for_metrics_and_labels_that_a_gateway_has() {
    // docs/metrics.md is what a gateway has: another test compares them.
    let families = documented_metrics();
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut queries: Vec<String> = alerts().into_values().collect();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        let targets = panel["targets"].as_array().into_iter().flatten();
        queries.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        queries.extend(variable["definition"].as_str().map(str::to_owned));
    }
    assert!(queries.len() > 50, "{}", queries.len());
    let mut asked = BTreeSet::new();
    for query in &queries {
        let mut labels_there: BTreeSet<&str> = ADDED.into();
        for (name, labels) in selectors(query) {
            let family = family(&name, &families);
            let family = family.unwrap_or_else(|| panic!("no gateway has {name}: {query}"));
            labels_there.extend(family.labels.iter().map(String::as_str));
            for label in labels {
                let known = ADDED.contains(&label.as_str()) || family.labels.contains(&label);
                assert!(known, "{name} has no label {label}: {query}");
            }
            asked.insert(name);
        }
        for label in grouped(query) {
            assert!(labels_there.contains(label.as_str()), "no {label}: {query}");
        }
    }
    assert!(asked.len() > 30, "{asked:?}");
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    for panel in panels {
        let place = &panel["gridPos"];
        let [x, w] = ["x", "w"].map(|side| place[side].as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        if panel["type"] != "row" {
            let source = &panel["datasource"]["uid"];
            assert_eq!(source, "${datasource}", "{}", panel["title"]);
        }
    }
    assert!(Path::new(DASHBOARD).metadata().unwrap().len() < 1 << 20);
}
