//! Seeing inside: `/status.json`, the status page in Chromium, `tidegate status` and `tidegate healthcheck`.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use rustls::version::TLS13;
use serde_json::Value;
use tempfile::TempDir;
use tidegate::admin::report;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::client::{Client, roots, tls_as};
use crate::support::crowd::{Crowd, Manners};
use crate::support::devices::Devices;
use crate::support::eventually;
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;
use crate::support::process::Process;
use crate::support::program::{Program, command, tidegate};
use crate::support::raw_http::Request;
use crate::support::tools;

/// Some seconds of Chromium, on a machine that does other things too.
const VISIT: Duration = Duration::from_secs(120);

/// What a client may call itself that hopes for a page that is careless.
const HOSTILE: &str = r#""><img src=x onerror=owned=1><script>owned=1</script>"#;

async fn status(gateway: &Gateway) -> Value {
    let (code, body) = gateway.admin("/status.json").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Reads the status page with `status_page.mjs`.
async fn visit(gateway: &Gateway, options: &[&str]) {
    let mut visitor = Command::new(tools::node());
    visitor
        .arg(tools::client("status_page.mjs"))
        .arg(format!("http://{}/", gateway.admin_address()))
        .args(options)
        .env("CHROMIUM", tools::chromium());
    let visit = Process::start(&visitor).finish(VISIT).await;
    assert!(visit.status.success(), "{}\n{}", visit.stdout, visit.stderr);
    assert!(visit.stdout.contains("opened in "), "{}", visit.stdout);
}

async fn as_user(gateway: &Gateway, client_id: &str, user: &str) -> Client {
    let mut client = Client::open(gateway).await;
    let connect = packets::connect_as(client_id, 60, user, None);
    client.send(&connect).await;
    assert_eq!(client.receive().await, packets::connack(0));
    client
}

#[tokio::test]
async fn the_page_works_on_every_screen_under_load_whatever_clients_call_themselves() {
    let folder = TempDir::new().unwrap();
    let (ours, others) = (Devices::new("our devices"), Devices::new("other devices"));
    let ca = ours.ca(folder.path(), "ca.pem");
    let (one, other) = (
        Crowd::start(Manners::Welcome).await,
        Crowd::start(Manners::Welcome).await,
    );
    let gateway = Gateway::start(&format!(
        "listeners: [{{address: \"127.0.0.1:0\", client_certificates: {{mode: optional, ca: {ca:?}}}}}]\n{}",
        pool_of(&[one.url(), other.url(), "mqtt://127.0.0.1:1".to_owned()])
    ))
    .await;
    // What a certificate says of itself is in the sentence of its refusal.
    let stranger = others.device("<img src=x onerror=owned=1>");
    let stranger = stranger.client(roots(&gateway), &[&TLS13]);
    if let Ok(mut stream) = tls_as(gateway.address(0), "localhost", stranger).await {
        // In TLS 1.3 the refusal comes behind the client's own last word.
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await;
        assert!(
            read.is_err(),
            "a certificate of another authority was taken"
        );
    }
    gateway.outcome("client", "tls", "tls_failed").await;
    let refused = status(&gateway).await["outcomes"][0]["text"].clone();
    let refused = refused.as_str().unwrap();
    assert!(refused.contains("img src"), "{refused}");
    drop(as_user(&gateway, HOSTILE, "<svg onload=owned=1>").await);
    gateway
        .metric_becomes("tidegate_session_seconds_count", &[], 1.0)
        .await;
    let mut load = JoinSet::new();
    for number in 0..30 {
        let mut client = Client::connected(&gateway, &format!("phone-{number}")).await;
        load.spawn(async move {
            loop {
                client.send(&packets::PINGREQ).await;
                assert_eq!(client.receive().await, packets::PINGRESP);
            }
        });
    }
    let texts = [
        "--text",
        HOSTILE,
        "--text",
        "<svg onload=owned=1>",
        "--text",
        refused,
        "--text",
        "connection refused",
    ];
    visit(&gateway, &texts).await;
    assert!(load.try_join_next().is_none(), "a session was disturbed");
}

#[tokio::test]
async fn the_page_holds_two_hundred_brokers() {
    let brokers: Vec<String> = (1..=200)
        .map(|number| format!("mqtt://127.0.1.{number}:1883"))
        .collect();
    let gateway = Gateway::before(&brokers).await;
    visit(&gateway, &["--brokers", "200"]).await;
}

#[tokio::test]
async fn a_drain_is_shown_with_what_is_left_and_how_long_it_takes() {
    let crowd = Crowd::start(Manners::Welcome).await;
    let pool = pool_of(&[crowd.url()]);
    let drain = "drain: {announce: 300s, rate: 4}\n";
    let gateway = Gateway::start(&format!("{pool}{drain}")).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(Client::connected(&gateway, &number.to_string()).await);
    }
    assert_eq!(status(&gateway).await["drain"], Value::Null);
    gateway.stop();
    let shown = eventually(async || !status(&gateway).await["drain"].is_null()).await;
    assert!(shown, "{}", status(&gateway).await);
    drop(clients.split_off(2));
    let left = eventually(async || status(&gateway).await["drain"]["left"] == 2).await;
    assert!(left, "{}", status(&gateway).await["drain"]);
    let now = status(&gateway).await;
    assert_eq!(now["state"], "draining");
    assert_eq!(
        (&now["drain"]["sessions"], &now["drain"]["rate"]),
        (&6.into(), &4.into())
    );
    assert_eq!(now["drain"]["seconds_left"], 0.5);
    visit(
        &gateway,
        &["--state", "draining", "--text", "4 of 6 sessions have left"],
    )
    .await;
}

#[tokio::test]
async fn status_json_says_which_broker_has_whom_and_why_the_last_ones_ended() {
    let well = Crowd::start(Manners::Welcome).await;
    let yaml = format!(
        "{}limits: {{connections: 77}}\n",
        pool_of(&[well.url(), "mqtt://127.0.0.1:1".to_owned()]).replace(
            &format!("{{url: \"{}\"}}", well.url()),
            &format!("{{url: \"{}\", weight: 3, max_sessions: 9}}", well.url())
        )
    );
    let gateway = Gateway::start(&yaml).await;
    let mut clients = Vec::new();
    for number in 0..4 {
        clients.push(as_user(&gateway, &format!("c{number}"), "someone").await);
    }
    let now = status(&gateway).await;
    assert_eq!(
        (&now["schema"], &now["state"]),
        (&1.into(), &"ready".into())
    );
    assert_eq!(
        (&now["sessions"], &now["connections"]["limit"]),
        (&4.into(), &77.into())
    );
    assert_eq!(now["listeners"][0]["sessions"], 4);
    assert_eq!(now["configuration"]["generation"], 1);
    let [first, second] = [0, 1].map(|at| now["pools"][0]["brokers"][at].clone());
    assert_eq!(
        (&first["url"], &first["state"]),
        (&well.url().into(), &"up".into())
    );
    assert_eq!(
        (&first["sessions"], &first["max_sessions"]),
        (&4.into(), &9.into())
    );
    assert_eq!(
        (&first["share"], &first["weight_share"]),
        (&1.0.into(), &0.75.into())
    );
    let error = second["last_error"]["text"].as_str().unwrap();
    assert!(error.starts_with("connection refused"), "{second}");
    assert_eq!(now["certificates"][0]["kind"], "server");

    let mut one = clients.remove(0);
    one.send(&packets::DISCONNECT).await;
    one.closed().await;
    gateway.outcome("client", "relay", "disconnect").await;
    // It comes behind the metric.
    let mut last = Value::Null;
    let told = eventually(async || {
        last = status(&gateway).await["outcomes"][0].clone();
        !last.is_null()
    });
    assert!(told.await);
    for (field, wanted) in [
        ("why", "disconnect"),
        ("text", "the client said DISCONNECT"),
        ("client_id", "c0"),
        ("user_name", "someone"),
        ("pool", "brokers"),
        ("broker", &well.url()),
    ] {
        assert_eq!(last[field], wanted, "{last}");
    }
    assert_eq!(last["unusual"], false);
    assert_eq!(status(&gateway).await["sessions"], 3);
}

#[tokio::test]
async fn the_history_has_a_row_a_second_and_answers_only_what_is_new() {
    let crowd = Crowd::start(Manners::Welcome).await;
    let gateway = Gateway::before(&[crowd.url()]).await;
    let rows = |status: &Value| status["history"]["at"].as_array().unwrap().len();
    // What came before the first row began is in none.
    assert!(eventually(async || rows(&status(&gateway).await) >= 1).await);
    let _client = Client::connected(&gateway, "c").await;
    let mut all = Value::Null;
    let numbers = |status: &Value, column: &str| -> Vec<f64> {
        let column = status["history"][column].as_array().unwrap();
        column.iter().map(|cell| cell.as_f64().unwrap()).collect()
    };
    let seen = eventually(async || {
        all = status(&gateway).await;
        numbers(&all, "joined").iter().any(|rate| *rate > 0.0)
            && numbers(&all, "sessions").last() == Some(&1.0)
    });
    assert!(seen.await, "{all}");
    let (at, joined) = (numbers(&all, "at"), numbers(&all, "joined"));
    let row = joined.iter().position(|rate| *rate > 0.0).unwrap();
    // On a busy machine a row is longer than a second. Rates are told to a tenth.
    let length = at[row] - at[row - 1];
    let sessions = joined[row] * length;
    assert!((sessions - 1.0).abs() < 0.06 * length, "{at:?} {joined:?}");
    assert!(joined[row + 1..].iter().all(|rate| *rate == 0.0));
    let last = all["history"]["last"].as_u64().unwrap();
    let (_, body) = gateway.admin(&format!("/status.json?after={last}")).await;
    let new: Value = serde_json::from_str(&body).unwrap();
    assert!(rows(&new) as u64 <= new["history"]["last"].as_u64().unwrap() - last);
}

#[tokio::test]
async fn client_names_are_not_shown_where_the_log_has_none_either() {
    let crowd = Crowd::start(Manners::Welcome).await;
    let pool = pool_of(&[crowd.url()]);
    let gateway = Gateway::start(&format!("{pool}log: {{identities: false}}\n")).await;
    drop(as_user(&gateway, "secret-id", "secret-user").await);
    assert!(eventually(async || !status(&gateway).await["outcomes"][0].is_null()).await);
    let (_, body) = gateway.admin("/status.json").await;
    assert!(!body.contains("secret-"), "{body}");
}

#[tokio::test]
async fn a_name_that_anyone_may_point_here_and_the_page_of_another_site_are_refused() {
    let yaml =
        "admin: {address: \"127.0.0.1:0\", hosts: [status.example.com, \"*.ops.example.com\"]}\n";
    let pool = pool_of(&["mqtt://127.0.0.1:1".to_owned()]);
    let gateway = Gateway::start(&format!("{yaml}{pool}")).await;
    let mut stream = TcpStream::connect(gateway.admin_address()).await.unwrap();
    for path in ["/", "/status", "/status.json", "/metrics"] {
        for (host, wanted) in [
            ("127.0.0.1:9090", 200),
            ("tidegate.monitoring.svc:9090", 200),
            ("status.example.com", 200),
            ("a.ops.example.com", 200),
            ("evil.example", 403),
        ] {
            let request = Request::get(path).instead("Host", host);
            let answer = request.ask(&mut stream).await;
            assert_eq!(answer.status, wanted, "{path} by {host}");
            assert!(
                wanted == 200 || answer.body.contains("admin.hosts"),
                "{}",
                answer.body
            );
        }
        let foreign = Request::get(path).with("Origin", "https://evil.example");
        assert_eq!(foreign.ask(&mut stream).await.status, 403, "{path}");
    }
    let probe = Request::get("/livez").instead("Host", "evil.example");
    assert_eq!(probe.ask(&mut stream).await.status, 200);
    let page = Request::get("/").ask(&mut stream).await;
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
}

#[tokio::test]
async fn metrics_know_the_stages_of_a_session_and_the_end_of_every_file() {
    let folder = TempDir::new().unwrap();
    let devices = Devices::new("devices");
    let ca = devices.ca(folder.path(), "ca.pem");
    let crl = devices.crl(folder.path(), "crl.pem", &[]);
    let crowd = Crowd::start(Manners::Welcome).await;
    let gateway = Gateway::start(&format!(
        "listeners: [{{address: \"127.0.0.1:0\", client_certificates: {{mode: optional, ca: {ca:?}, crl: [{crl:?}]}}}}]\n\
         limits: {{connections: 55}}\n{}",
        pool_of(&[crowd.url()])
    ))
    .await;
    let client = Client::connected(&gateway, "c").await;
    for (name, value) in [
        ("tidegate_connect_seconds_count", 1.0),
        ("tidegate_join_seconds_count", 1.0),
        ("tidegate_listener_sessions", 1.0),
        ("tidegate_connections_limit", 55.0),
    ] {
        assert_eq!(gateway.metric(name, &[]).await, value, "{name}");
    }
    let stages = [
        "tidegate_tls_handshake_seconds_sum",
        "tidegate_connect_seconds_sum",
    ];
    let [tls, connect] = [
        gateway.metric(stages[0], &[]).await,
        gateway.metric(stages[1], &[]).await,
    ];
    assert!(tls < connect, "CONNECT comes behind TLS: {tls} {connect}");
    drop(client);
    gateway
        .metric_becomes("tidegate_listener_sessions", &[], 0.0)
        .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs_f64();
    let not_after = "tidegate_certificate_not_after_timestamp_seconds";
    for kind in ["kind=\"server\"", "kind=\"client_ca\",name=\"CN=devices\""] {
        assert!(gateway.metric(not_after, &[kind]).await > now, "{kind}");
    }
    let next = gateway
        .metric(
            "tidegate_revocation_list_next_update_timestamp_seconds",
            &["issuer=\"CN=devices\""],
        )
        .await;
    assert!((now..now + 90_000.0).contains(&next), "{next}");
}

/// A path for each field: `pools[].brokers[].url`.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let dot = if path.is_empty() { "" } else { "." };
                fields(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter()
                .for_each(|value| fields(value, &format!("{path}[]"), found));
        }
        Value::Array(_) => {
            found.insert(format!("{path}[]"));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// An answer with everything in it that can be there.
fn whole() -> report::Report {
    let text = || "x".to_owned();
    report::Report {
        schema: report::SCHEMA,
        version: text(),
        now: 0.0,
        started: 0.0,
        state: text(),
        pending: vec![text()],
        configuration: report::Configuration {
            generation: 1,
            since: 0.0,
            refused: Some(report::Refused {
                at: 0.0,
                problems: vec![text()],
            }),
        },
        connections: report::Connections {
            open: 0,
            limit: 0,
            accepted: 0,
        },
        sessions: 0,
        drain: Some(report::Drain {
            since: 0.0,
            sessions: 0,
            left: 0,
            rate: 1,
            seconds_left: 0.0,
        }),
        process: report::Process {
            memory_bytes: None,
            cpu_seconds: None,
            open_files: None,
            open_files_limit: None,
        },
        listeners: vec![report::Listener {
            name: text(),
            address: text(),
            speaks: text(),
            connections: 0,
            accepted: 0,
            sessions: 0,
        }],
        pools: vec![report::Pool {
            name: text(),
            balance: text(),
            sessions: 0,
            waiting: 0,
            brokers: vec![report::Broker {
                url: text(),
                state: text(),
                since: 0.0,
                weight: 1,
                backup: false,
                sessions: 0,
                max_sessions: None,
                share: 0.0,
                weight_share: 0.0,
                joined: 0,
                last_error: Some(report::Trouble {
                    at: 0.0,
                    text: text(),
                }),
            }],
        }],
        certificates: vec![report::Certificate {
            kind: text(),
            names: vec![text()],
            issuer: text(),
            file: text(),
            not_after: 0.0,
        }],
        outcomes: vec![report::Outcome {
            number: 1,
            at: 0.0,
            unusual: true,
            who: text(),
            phase: text(),
            why: text(),
            text: text(),
            client: text(),
            client_id: text(),
            user_name: text(),
            listener: text(),
            pool: None,
            broker: None,
            seconds: 0.0,
        }],
        history: report::History::default(),
    }
}

#[test]
fn status_md_has_every_field() {
    let mut told = BTreeSet::new();
    fields(&serde_json::to_value(whole()).unwrap(), "", &mut told);
    let page = fs::read_to_string("docs/status.md").unwrap();
    let (_, page) = page.split_once("\n## status.json\n").unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, told, "left: docs/status.md");
}

#[tokio::test]
async fn tidegate_status_is_a_table_json_or_both_again_and_again() {
    let crowd = Crowd::start(Manners::Welcome).await;
    let pool = pool_of(&[crowd.url(), "mqtt://127.0.0.1:1".to_owned()]);
    let listeners = "listeners: [{address: \"127.0.0.1:0\", plain: routes}]\n";
    let program = Program::run(&format!("{listeners}{pool}")).await;
    let steering = "\u{1b}]0;owned\u{7}\u{202e}";
    for number in 0..2 {
        let stream = TcpStream::connect(program.address(0)).await.unwrap();
        let url = format!("ws://{}/mqtt", program.address(0));
        let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let id = format!("{steering}{number}");
        let connect = tungstenite::Message::binary(packets::connect(&id, 60));
        futures_util::SinkExt::send(&mut client, connect)
            .await
            .unwrap();
        let _connack = futures_util::StreamExt::next(&mut client).await.unwrap();
        // A text frame: an end that is worth a look.
        let text = tungstenite::Message::text("hello");
        futures_util::SinkExt::send(&mut client, text)
            .await
            .unwrap();
    }
    program
        .admin
        .metric_becomes("tidegate_outcomes_total", &[], 2.0)
        .await;
    let address = program.admin.0.to_string();
    let folder = TempDir::new().unwrap();
    let mut table = String::new();
    let shown = eventually(async || {
        let said = tidegate(folder.path(), &["status", "--admin", &address]).await;
        assert_eq!((said.status.code(), said.stderr.as_str()), (Some(0), ""));
        table = said.stdout;
        table.matches("text_frame").count() == 2
    });
    assert!(shown.await, "{table}");
    // Its output is not a terminal: no colour, and nothing that a client could have put there.
    assert!(
        !table.contains(['\u{1b}', '\u{7}', '\u{202e}']),
        "{table:?}"
    );
    let head = table.lines().find(|line| line.starts_with("POOL")).unwrap();
    let column = head.find("STATE").unwrap();
    let row = |url: &str| {
        let found = table
            .lines()
            .find(|line| line.starts_with("brokers") && line.contains(url));
        found.unwrap_or_else(|| panic!("{table}"))
    };
    assert!(row(&crowd.url())[column..].starts_with("up "), "{table}");
    assert!(
        row("127.0.0.1:1 ").contains("connection refused"),
        "{table}"
    );
    assert!(
        table.lines().all(|line| line == line.trim_end()),
        "{table:?}"
    );

    let said = tidegate(folder.path(), &["status", "--json", "--admin", &address]).await;
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["schema"], 1);

    let watch = ["status", "--watch", "--json", "--admin", &address];
    let watching = Process::start(&command(folder.path(), &watch));
    let lines = || watching.last_words().matches("\"schema\":1").count();
    assert!(
        eventually(async || lines() >= 2).await,
        "{}",
        watching.last_words()
    );
}

#[tokio::test]
async fn status_and_healthcheck_say_in_their_exit_code_how_it_is() {
    let folder = TempDir::new().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = nobody.to_string();
    for asked in ["status", "healthcheck"] {
        let said = tidegate(folder.path(), &[asked, "--admin", &nobody]).await;
        assert_eq!((said.status.code(), said.stdout.as_str()), (Some(1), ""));
        for words in [
            nobody.as_str(),
            "Is the gateway running?",
            "admin.address",
            "--admin",
        ] {
            assert!(said.stderr.contains(words), "{}", said.stderr);
        }
    }
    for (file, text) in [
        ("bad.yaml", "listeners:\n\t- {}\n"),
        ("unset.yaml", "admin: { address: \"${NOPE}\" }\n"),
        ("odd.yaml", "admin: { address: localhost }\n"),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    for file in ["bad.yaml", "missing.yaml", "unset.yaml", "odd.yaml"] {
        for asked in ["status", "healthcheck", "reload", "drain", "upgrade"] {
            let said = tidegate(folder.path(), &[asked, "-c", file]).await;
            let code = said.status.code();
            // Nobody is asked: another process may be at the usual address.
            assert!(matches!(code, Some(1 | 78)), "{asked}: {code:?}");
            assert!(said.stderr.contains(file), "{asked}: {}", said.stderr);
        }
    }

    let crowd = Crowd::start(Manners::Welcome).await;
    let pool = pool_of(&[crowd.url()]);
    let program = Program::run(&format!("{pool}drain: {{announce: 300s}}\n")).await;
    let address = program.admin.0.to_string();
    let code = async |asked: &str| {
        let said = tidegate(folder.path(), &[asked, "--admin", &address]).await;
        (said.status.code(), said.stdout + &said.stderr)
    };
    assert_eq!(code("healthcheck").await, (Some(0), String::new()));
    // The address of a configuration file, as in a container.
    let file = format!(
        "admin: {{address: \"{address}\"}}\nlisteners: [{{address: \"127.0.0.1:0\", plain: routes}}]\n{pool}"
    );
    fs::write(folder.path().join("tidegate.yaml"), file).unwrap();
    let said = tidegate(folder.path(), &["healthcheck", "-c", "tidegate.yaml"]).await;
    assert_eq!(said.status.code(), Some(0), "{}", said.stderr);
    // What the process has refused, or could not read here, does not make it ill.
    let mistaken =
        format!("admin: {{address: \"{address}\"}}\nlimits: {{connections: \"${{NOPE}}\"}}\n");
    fs::write(folder.path().join("tidegate.yaml"), mistaken).unwrap();
    for asked in ["healthcheck", "status"] {
        let said = tidegate(folder.path(), &[asked, "-c", "tidegate.yaml"]).await;
        assert_eq!(said.status.code(), Some(0), "{}", said.stderr);
    }
    program.process.signal("TERM");
    assert!(eventually(async || program.admin.get("/readyz").await.0 == 503).await);
    let (healthy, words) = code("healthcheck").await;
    assert!(
        healthy == Some(1) && words.contains("not ready: drain"),
        "{words}"
    );
    let draining = eventually(async || {
        let (status, words) = code("status").await;
        status == Some(3) && words.starts_with("draining") && words.contains("draining: 0 of 0")
    });
    assert!(draining.await, "{:?}", code("status").await);
}
