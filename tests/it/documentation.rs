//! Keeps the documents true: what they say of metrics, log fields, reasons, functions and files is compared with those.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use tidegate::telemetry::Metrics;
use tidegate::telemetry::acme::{ByAcme, ByOrder};
use tidegate::telemetry::metrics::{
    ByApplication, ByApplicationCause, ByApplicationCode, ByBroker, ByBrokerCause, ByBrokerState,
    ByCertificate, ByCode, ByConnack, ByHandshake, ByIssuer, ByListener, ByOutcome, ByPool,
    ByPoolReason, ByProbe, ByReason, ByResult, ByTlsCause, ByVersion, Name,
};
use tokio::net::TcpStream;

use crate::layers::rust_files;
use crate::support::broker::Broker;
use crate::support::gateway::Gateway;
use crate::support::packets;
use crate::support::process::Process;

/// Every page that people read.
const PAGES: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "certs/README.md",
    "deploy/monitoring/README.md",
    "docs/access-log.md",
    "docs/benchmark.md",
    "docs/configuration.md",
    "docs/deploy.md",
    "docs/metrics.md",
    "docs/operations.md",
    "docs/out-of-scope.md",
    "docs/performance.md",
    "docs/resilience.md",
    "docs/sizing.md",
    "docs/status.md",
    "docs/tracing.md",
];

pub fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The cells of each row of the tables below a heading, without the head.
fn rows(file: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(file);
    let (_, section) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("{file} has no heading {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<Vec<String>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
            cells
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "{file}: {heading} has no table");
    rows
}

/// `a` `b` → a, b.
fn code_words(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// What `/metrics` says of one family.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Family {
    pub kind: String,
    pub labels: BTreeSet<String>,
    help: String,
}

/// Reads the OpenMetrics text.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            // prometheus-client ends every help text with a full stop.
            families.entry(current.clone()).or_default().help =
                help.strip_suffix('.').unwrap_or(help).to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.rsplit_once('}').unwrap().0;
            let family = families.get_mut(&current).unwrap();
            for label in labels.split("\",") {
                let (name, _) = label.split_once("=\"").unwrap();
                // A histogram's own.
                if name != "le" {
                    family.labels.insert(name.to_owned());
                }
            }
        }
    }
    families
}

/// docs/metrics.md.
pub fn documented_metrics() -> BTreeMap<String, Family> {
    [
        "Clients",
        "Sessions and brokers",
        "Web applications",
        "Process",
    ]
    .iter()
    .flat_map(|heading| rows("docs/metrics.md", heading))
    .map(|row| {
        let [name, kind, labels, meaning, _what_to_do] = &row[..] else {
            panic!("{row:?}")
        };
        let mut name = code_words(name).remove(0);
        // The name that a query uses; the family's own has no suffix.
        if kind == "counter" {
            name = name.strip_suffix("_total").unwrap().to_owned();
        } else if kind == "info" {
            name = name.strip_suffix("_info").unwrap().to_owned();
        }
        let family = Family {
            kind: kind.clone(),
            labels: code_words(labels).into_iter().collect(),
            help: meaning.clone(),
        };
        (name, family)
    })
    .collect()
}

/// A family without a series is not written, so each gets one.
#[test]
fn metrics_md_has_every_metric_with_its_type_labels_and_meaning() {
    let metrics = Metrics::new(1);
    let name = || Name::from("x");
    let listener = || ByListener { listener: name() };
    let pool = || ByPool { pool: name() };
    let broker = || ByBroker {
        pool: name(),
        broker: name(),
    };
    metrics.connections.get_or_create(&listener()).inc();
    metrics.accepted.get_or_create(&listener()).inc();
    metrics.accept_errors.get_or_create(&listener()).inc();
    metrics
        .refused
        .get_or_create(&ByReason { reason: "x" })
        .inc();
    let handshake = ByHandshake {
        listener: name(),
        version: "x",
        resumed: "x",
    };
    metrics.tls_handshakes.get_or_create(&handshake).inc();
    let reloads = &metrics.control.reloads;
    reloads.get_or_create(&ByResult { result: "x" }).inc();
    let failure = ByTlsCause {
        listener: name(),
        cause: "x",
    };
    metrics.tls_failures.get_or_create(&failure).inc();
    metrics.tls_seconds.get_or_create(&listener()).observe(1.0);
    metrics
        .tls_wait_seconds
        .get_or_create(&listener())
        .observe(1.0);
    let code = ByCode {
        version: "1.1",
        listener: name(),
        code: 200,
    };
    metrics.http_requests.get_or_create(&code).inc();
    metrics
        .connects
        .get_or_create(&ByVersion { version: "x" })
        .inc();
    metrics.sessions.get_or_create(&broker()).inc();
    metrics.sessions_joined.get_or_create(&broker()).inc();
    let connack = ByConnack {
        pool: name(),
        code: 0,
    };
    metrics.connacks.get_or_create(&connack).inc();
    let cause = ByBrokerCause {
        pool: name(),
        broker: name(),
        cause: "x",
    };
    metrics.broker_failures.get_or_create(&cause).inc();
    let state = ByBrokerState {
        pool: name(),
        broker: name(),
        state: "x",
    };
    metrics.brokers.state.get_or_create(&state).set(1);
    metrics.brokers.ejections.get_or_create(&broker()).inc();
    let probe = ByProbe {
        pool: name(),
        broker: name(),
        result: "x",
    };
    metrics.brokers.probes.get_or_create(&probe).inc();
    metrics.brokers.queue_sessions.get_or_create(&pool()).set(1);
    let busy = ByPoolReason {
        pool: name(),
        reason: "x",
    };
    metrics.brokers.queue_refused.get_or_create(&busy).inc();
    metrics
        .brokers
        .discovery_failures
        .get_or_create(&cause)
        .inc();
    metrics.brokers.addresses.get_or_create(&broker()).set(1);
    for histogram in [
        &metrics.brokers.notice_seconds,
        &metrics.brokers.probe_seconds,
        &metrics.brokers.queue_seconds,
        &metrics.broker_connect_seconds,
        &metrics.connack_seconds,
        &metrics.join_seconds,
        &metrics.session_seconds,
    ] {
        histogram.get_or_create(&pool()).observe(1.0);
    }
    let outcome = ByOutcome {
        who: "x",
        phase: "x",
        why: "x",
    };
    metrics.outcomes.get_or_create(&outcome).inc();
    metrics.listener_sessions.get_or_create(&listener()).inc();
    metrics
        .connect_seconds
        .get_or_create(&listener())
        .observe(1.0);
    metrics.spans.count("x", 1);
    let application = ByApplication {
        application: name(),
    };
    let by_cause = ByApplicationCause {
        application: name(),
        cause: "x",
    };
    let by_code = ByApplicationCode {
        application: name(),
        code: "2xx",
    };
    let web = &metrics.applications;
    web.requests.get_or_create(&by_code).inc();
    web.failures.get_or_create(&by_cause).inc();
    web.head_seconds.get_or_create(&application).observe(1.0);
    web.connects.get_or_create(&application).inc();
    web.web_sockets.get_or_create(&application).inc();
    web.web_socket_ends.get_or_create(&by_cause).inc();
    let issuer = ByIssuer { issuer: "x".into() };
    metrics.revocation_next_update.get_or_create(&issuer).set(1);
    let certificate = ByCertificate {
        kind: "x",
        name: "x".into(),
    };
    let order = ByOrder {
        name: name(),
        result: "x",
    };
    metrics.acme.orders.get_or_create(&order).inc();
    let acme = &metrics.acme;
    for gauge in [
        &acme.failures,
        &acme.stored,
        &acme.last_success,
        &acme.next_attempt,
    ] {
        gauge.get_or_create(&ByAcme { name: name() }).set(1);
    }
    metrics
        .certificate_not_after
        .get_or_create(&certificate)
        .set(1);
    let told = families(&metrics.encode().unwrap());
    let documented = documented_metrics();
    let names = |families: &BTreeMap<String, Family>| families.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&documented), names(&told), "left: docs/metrics.md");
    for (name, family) in &told {
        assert_eq!(&documented[name], family, "{name}, left: docs/metrics.md");
    }
}

#[tokio::test]
async fn a_running_gateway_tells_no_other_metrics() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (_client, _session) = tokio::join!(
        crate::support::client::Client::connected(&gateway, "c1"),
        broker.welcome()
    );
    let (_, text) = gateway.admin("/metrics").await;
    let documented = documented_metrics();
    let told = families(&text);
    assert!(told.len() > 20, "{text}");
    for (name, family) in &told {
        let known = documented
            .get(name)
            .unwrap_or_else(|| panic!("docs/metrics.md has no {name}"));
        assert_eq!((&known.kind, &known.help), (&family.kind, &family.help));
    }
}

/// The program itself: its log goes to standard error, where an operator's collector reads it.
#[tokio::test]
async fn access_log_md_has_every_field_of_a_session_line() {
    let broker = Broker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.yaml");
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\", plain: routes}}]\nadmin: off\nlog: {{format: json}}\n{}",
        crate::support::gateway::pool_of(&[broker.mqtt_url()])
    );
    fs::write(&file, yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("run").arg("-c").arg(&file);
    let process = Process::start(&command);
    let address = logged(&process, |line| {
        let address = line.get("address")?.as_str()?;
        (line.get("message")? == "listening").then(|| address.to_owned())
    })
    .await;
    let stream = TcpStream::connect(&address).await.unwrap();
    let (mut client, _) = tokio_tungstenite::client_async(format!("ws://{address}/mqtt"), stream)
        .await
        .unwrap();
    let connect = tungstenite::Message::binary(packets::connect("c1", 60));
    let ((), _session) = tokio::join!(
        async {
            futures_util::SinkExt::send(&mut client, connect)
                .await
                .unwrap()
        },
        broker.welcome()
    );
    drop(client);
    let line = logged(&process, |line| {
        (line.get("target")? == "tidegate::session").then(|| line.clone())
    })
    .await;
    assert_eq!(line["id"], "c1", "text, and not text in quotes");
    let told: BTreeSet<_> = line.as_object().unwrap().keys().cloned().collect();
    let (optional, documented): (Vec<_>, Vec<_>) = rows("docs/access-log.md", "Fields")
        .into_iter()
        .map(|row| {
            (
                code_words(&row[0]).remove(0),
                row[1].ends_with(", optional"),
            )
        })
        .partition(|(_, optional)| *optional);
    let documented: BTreeSet<_> = documented.into_iter().map(|(name, _)| name).collect();
    assert_eq!(documented, told, "left: docs/access-log.md");
    // This client came without a proxy and without a certificate, so these were left out.
    let optional: BTreeSet<_> = optional.into_iter().map(|(name, _)| name).collect();
    let source = body("src/gateway/record.rs", "drop");
    let left_out = source
        .lines()
        .filter_map(|line| line.trim().split_once(" = self."))
        .filter(|(_, value)| {
            value.contains(".map(tracing::field::") || value.contains(".map(legible)")
        })
        .map(|(name, _)| name.to_owned());
    assert_eq!(optional, left_out.collect(), "left: docs/access-log.md");
}

/// Waits for a line of the JSON log.
async fn logged<T>(process: &Process, wanted: impl Fn(&serde_json::Value) -> Option<T>) -> T {
    let mut found = None;
    crate::support::eventually(async || {
        found = process
            .last_words()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find_map(|line| wanted(&line));
        found.is_some()
    })
    .await;
    found.unwrap_or_else(|| panic!("no such line\n{}", process.last_words()))
}

/// The text of a function's body in a source file.
fn body(file: &str, function: &str) -> String {
    let text = read(file);
    let (_, rest) = text
        .split_once(&format!("fn {function}("))
        .unwrap_or_else(|| panic!("{file} has no {function}"));
    rest.split("\n    }\n").next().unwrap().to_owned()
}

/// The arms of a `match self` as pairs of the variants before `=>` and the text behind it.
fn arms(body: &str) -> Vec<(Vec<String>, String)> {
    let mut arms = Vec::new();
    let mut variants = Vec::new();
    for line in body.lines() {
        let (pattern, value) = line.split_once("=>").unwrap_or((line, ""));
        for variant in pattern.split("Self::").skip(1) {
            let end = variant.find(|c: char| !c.is_alphanumeric());
            variants.push(variant[..end.unwrap_or(variant.len())].to_owned());
        }
        if line.contains("=>") {
            arms.push((std::mem::take(&mut variants), value.trim().to_owned()));
        }
    }
    arms
}

/// The string literals of a function.
fn literals(file: &str, function: &str) -> BTreeSet<String> {
    body(file, function)
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn operations_md_has_a_row_for_every_outcome() {
    let mut who = BTreeMap::new();
    for (variants, value) in arms(&body("src/gateway/outcome/mod.rs", "who")) {
        let name = value.trim_start_matches("Who::").trim_end_matches(',');
        for variant in variants {
            who.insert(variant, name.to_lowercase());
        }
    }
    let mut outcomes = BTreeSet::new();
    for (variants, value) in arms(&body("src/gateway/outcome/to_operator.rs", "why")) {
        for variant in variants {
            let Some(who) = who.get(&variant) else {
                panic!("{variant} is ended by nobody")
            };
            let words = match value.trim_end_matches(',') {
                "error.why()" => literals("src/gateway/proxy_header.rs", "why"),
                word => BTreeSet::from([word.trim_matches('"').to_owned()]),
            };
            outcomes.extend(words.into_iter().map(|why| (who.clone(), why)));
        }
    }
    assert!(outcomes.len() > 30, "{outcomes:?}");
    let documented: BTreeSet<_> = rows("docs/operations.md", "Outcomes")
        .iter()
        .map(|row| (code_words(&row[0]).remove(0), code_words(&row[1]).remove(0)))
        .collect();
    assert_eq!(documented, outcomes, "left: docs/operations.md");
}

#[test]
fn operations_md_has_a_row_for_every_broker_failure() {
    let documented: BTreeSet<_> = rows("docs/operations.md", "Brokers that fail")
        .iter()
        .map(|row| code_words(&row[0]).remove(0))
        .collect();
    let mut causes = literals("src/pool/failure.rs", "cause");
    // Beside the causes it has a sentence.
    let abandoned = literals("src/pool/attempt.rs", "drop");
    causes.extend(abandoned.into_iter().filter(|text| !text.contains(' ')));
    assert_eq!(documented, causes, "left: docs/operations.md");
}

#[test]
fn operations_md_has_a_row_for_every_result_of_a_probe() {
    let documented: BTreeSet<_> = rows("docs/operations.md", "Health of brokers")
        .iter()
        .map(|row| code_words(&row[0]).remove(0))
        .collect();
    let mut results = literals("src/pool/probe/mod.rs", "result");
    results.extend(["ok", "draining"].map(str::to_owned));
    assert_eq!(documented, results, "left: docs/operations.md");
}

#[test]
fn the_smallest_configuration_in_the_readme_is_the_shipped_one() {
    let block = format!("```yaml\n{}```\n", read("config/tidegate.yaml"));
    assert!(read("README.md").contains(&block), "{block}");
}

#[test]
fn every_link_leads_to_a_file() {
    for page in PAGES {
        let folder = Path::new(page).parent().unwrap();
        for link in read(page).split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            let there = link.is_empty() || link.contains("://") || folder.join(link).exists();
            assert!(there, "{page} links to {link}");
        }
    }
}

/// `module::name` and `Type::name` in ARCHITECTURE.md are there to be searched for.
#[test]
fn every_name_in_architecture_md_is_in_the_source() {
    let sources: Vec<_> = rust_files(Path::new("src"))
        .into_iter()
        .map(|file| (read(file.to_str().unwrap()), file))
        .collect();
    for word in code_words(&read("ARCHITECTURE.md").replace("```", "")) {
        let is_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
        let Some((before, name)) = word.rsplit_once("::").filter(|_| word.chars().all(is_path))
        else {
            continue;
        };
        let owner = before.rsplit("::").next().unwrap();
        let is_module = owner.starts_with(char::is_lowercase);
        let holds = |file: &Path| {
            let stem = file.file_stem().unwrap();
            stem == owner || (stem == "mod" && file.parent().unwrap().ends_with(owner))
        };
        let found = sources.iter().any(|(text, file)| {
            let here = if is_module {
                holds(file)
            } else {
                text.contains(owner)
            };
            let declared = ["fn", "struct", "enum", "mod", "const", "trait"]
                .iter()
                .any(|what| text.contains(&format!("{what} {name}")));
            let variant = !is_module && text.contains(&format!("    {name}"));
            here && (declared || variant)
        });
        assert!(found, "ARCHITECTURE.md names {word}, which is not in src/");
    }
}

/// A file is found by what it says of itself (CONTRIBUTING.md, Style).
#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests", "benches", "bench/src"] {
        for file in rust_files(Path::new(folder)) {
            let text = read(file.to_str().unwrap());
            assert!(text.starts_with("//! "), "{}", file.display());
        }
    }
}

#[test]
fn the_front_pages_stay_short() {
    for page in ["README.md", "ARCHITECTURE.md"] {
        let lines = read(page).lines().count();
        assert!(lines <= 200, "{page} has {lines} lines");
    }
}

/// What CI runs is what a developer runs.
#[test]
fn ci_calls_targets_of_the_makefile() {
    let makefile = read("Makefile");
    for file in [".github/workflows/ci.yml", ".ci/run"] {
        let text = read(file);
        let calls: Vec<_> = text
            .lines()
            .map(|line| line.trim().trim_start_matches("- run: "))
            .filter_map(|line| line.strip_prefix("make "))
            .collect();
        assert_eq!(calls.len(), 2, "{file}");
        for call in calls {
            let target = call.split(' ').next().unwrap();
            assert!(
                makefile.contains(&format!("\n{target}:")),
                "{file}: {target}"
            );
        }
        for line in text.lines().filter(|line| !line.trim().starts_with('#')) {
            assert!(!line.contains("cargo "), "{file}: {line}");
        }
    }
}
