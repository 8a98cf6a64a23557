//! Several servers of one application: shares, backups, servers that fail, and none that is left.

use std::collections::HashMap;

use tokio::net::TcpListener;

use crate::support::client::tls;
use crate::support::dns::{NameServer, Saying};
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::raw_http::Request;
use crate::support::scripted::{Scripted, with_body};

/// Servers that answer everything with their number, for as long as they are held.
struct Farm {
    urls: Vec<String>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Farm {
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    async fn of(count: usize) -> Self {
        let (mut urls, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..count {
            let server = Scripted::start().await;
            urls.push(server.url());
            tasks.push(tokio::spawn(async move {
                let close = "200 OK\r\nConnection: close";
                loop {
                    server.answer(&with_body(close, &number.to_string())).await;
                }
            }));
        }
        Self { urls, tasks }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn ask(gateway: &Gateway, count: usize) -> HashMap<String, usize> {
    let mut client = tls(gateway).await;
    let mut answers = HashMap::new();
    for _ in 0..count {
        let answer = Request::get("/api").ask(&mut client).await;
        let what = match answer.status {
            200 => answer.body,
            status => status.to_string(),
        };
        *answers.entry(what).or_default() += 1;
    }
    answers
}

fn counts(expected: &[(&str, usize)]) -> HashMap<String, usize> {
    let expected = expected.iter();
    expected
        .map(|(what, count)| ((*what).to_owned(), *count))
        .collect()
}

async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn requests_are_shared_out_by_weight() {
    let farm = Farm::of(2).await;
    let [a, b] = [&farm.urls[0], &farm.urls[1]];
    let yaml = format!(
        "routes: [{{path: /api, proxy: {{to: [\"{a}\", {{url: \"{b}\", weight: 3}}]}}}}]\n"
    );
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(ask(&gateway, 8).await, counts(&[("0", 2), ("1", 6)]));
}

#[tokio::test]
async fn a_client_address_stays_with_its_server() {
    let farm = Farm::of(3).await;
    let urls = farm.urls.join("\", \"");
    let yaml =
        format!("routes: [{{path: /api, proxy: {{to: [\"{urls}\"], balance: client_address}}}}]\n");
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(ask(&gateway, 5).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_is_gone_costs_no_request_and_is_left_out() {
    let farm = Farm::of(1).await;
    let (gone, well) = (nobody().await, &farm.urls[0]);
    let yaml = format!(
        "routes: [{{path: /api, proxy: {{to: [\"{gone}\", \"{well}\"], eject: {{failures: 2}}}}}}]\n"
    );
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(ask(&gateway, 12).await, counts(&[("0", 12)]));
    let labels = [
        "pool=\"/api\"",
        &format!("broker=\"{gone}\""),
        "state=\"ejected\"",
    ];
    gateway
        .metric_becomes("tidegate_broker_state", &labels, 1.0)
        .await;
    // Two attempts found out; the others did not ask it.
    let failures = "tidegate_application_failures_total";
    assert_eq!(gateway.metric(failures, &["cause=\"refused\""]).await, 2.0);
}

#[tokio::test]
async fn a_backup_takes_requests_when_no_other_is_left() {
    let farm = Farm::of(1).await;
    let (gone, backup) = (nobody().await, &farm.urls[0]);
    let yaml = format!(
        "routes: [{{path: /api, proxy: {{to: [\"{gone}\", {{url: \"{backup}\", backup: true}}]}}}}]\n"
    );
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(ask(&gateway, 4).await, counts(&[("0", 4)]));
}

#[tokio::test]
async fn a_server_with_all_the_requests_that_it_may_have_is_a_503() {
    let application = Scripted::start().await;
    let url = application.url();
    let yaml =
        format!("routes: [{{path: /api, proxy: {{to: [{{url: \"{url}\", max_requests: 1}}]}}}}]\n");
    let gateway = Gateway::start(&yaml).await;
    let mut client = Http2::connect(&gateway).await;
    let request = client.get("/api");
    let (waiting, _outgoing) = client.begin(request).await;
    let mut connection = application.accept().await;
    connection.head().await;
    let request = client.get("/api");
    let refused = client.ask(request).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert!(refused.body.contains("No server"), "{}", refused.body);
    let failures = "tidegate_application_failures_total";
    gateway
        .metric_becomes(failures, &["cause=\"no_server\""], 1.0)
        .await;
    connection.say(&with_body("200 OK", "")).await;
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_name_without_an_address_is_a_503() {
    let yaml = "routes: [{path: /api, proxy: \"http://application.invalid:3000\"}]\ndns: {servers: [\"127.0.0.1:9\"]}\n";
    let gateway = Gateway::start(yaml).await;
    assert_eq!(ask(&gateway, 1).await, counts(&[("503", 1)]));
}

#[tokio::test]
async fn a_name_stands_for_each_of_its_addresses() {
    let one = Scripted::start().await;
    let port = one.port();
    let two = Scripted::at(&format!("127.0.0.2:{port}")).await;
    let names = NameServer::start(1).await;
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
    names.say("app.test", Saying::Addresses(addresses.to_vec()));
    let yaml = format!(
        "routes: [{{path: /api, proxy: \"http://app.test:{port}\"}}]\ndns: {{servers: [\"{}\"]}}\n",
        names.address()
    );
    let gateway = Gateway::start(&yaml).await;
    let state = "tidegate_broker_state";
    gateway
        .metric_becomes(state, &["pool=\"/api\"", "state=\"up\""], 2.0)
        .await;
    let request = Request::get("/api");
    let answer = with_body("200 OK\r\nConnection: close", "ok");
    for _ in 0..2 {
        let mut client = tls(&gateway).await;
        let (answer, head) = tokio::join!(request.ask(&mut client), async {
            tokio::select! {
                (_, head) = one.answer(&answer) => head,
                (_, head) = two.answer(&answer) => head,
            }
        });
        assert_eq!(answer.body, "ok");
        assert!(head.contains("host: localhost"), "{head}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_a_server_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let yaml = format!(
        "routes: [{{path: /api, proxy: \"unix+http://{}\"}}]\n",
        path.display()
    );
    let gateway = Gateway::start(&yaml).await;
    let mut client = tls(&gateway).await;
    let request = Request::get("/api");
    let serving = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = with_body("200 OK", "socket");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    };
    let (answer, _stream) = tokio::join!(request.ask(&mut client), serving);
    assert_eq!(answer.body, "socket");
}
