//! OpenTelemetry: a collector gets one span for each session, and what it does with them costs no session anything.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::documentation::read;
use crate::support::client::{Client, tls_as, tls_config};
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::pool_of;
use crate::support::process::Process;
use crate::support::program::{Program, command};
use crate::support::{PATIENCE, packets};

/// What a collector does with a request.
#[derive(Clone, Copy)]
enum Answer {
    Take,
    Refuse,
    Hang,
}

/// A collector that only listens.
struct Collector {
    address: SocketAddr,
    requests: mpsc::Receiver<(String, ExportTraceServiceRequest)>,
    _tasks: JoinSet<()>,
}

impl Collector {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = receive(&mut stream).await;
                // A test that looks at none of them lets the queue fill.
                drop(sender.try_send(request));
                let status = match answer {
                    Answer::Take => "200 OK",
                    Answer::Refuse => "503 Service Unavailable",
                    Answer::Hang => {
                        held.push(stream);
                        continue;
                    }
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
            }
        });
        Self {
            address,
            requests,
            _tasks: tasks,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next so many spans, with the head of the last request.
    async fn spans(&mut self, count: usize) -> (String, Vec<Span>) {
        let (mut last, mut spans) = (String::new(), Vec::new());
        while spans.len() < count {
            let request = timeout(PATIENCE, self.requests.recv()).await;
            let (head, request) = request.expect("no spans in time").unwrap();
            last = head;
            let resources = request.resource_spans.into_iter();
            let scopes = resources.flat_map(|resource| resource.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
        }
        (last, spans)
    }
}

async fn receive(stream: &mut TcpStream) -> (String, ExportTraceServiceRequest) {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec())
            .unwrap()
            .to_lowercase();
        let (_, rest) = head.split_once("content-length: ").unwrap();
        let length: usize = rest.lines().next().unwrap().trim().parse().unwrap();
        let body = &bytes[end + 4..];
        if body.len() >= length {
            return (head, ExportTraceServiceRequest::decode(body).unwrap());
        }
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?}: {span:?}"),
    }
}

async fn program(collector: &str, crowd: &Crowd) -> Program {
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_SERVICE_NAME", "front-door"),
    ];
    Program::run_with(&pool_of(&[crowd.url()]), &environment).await
}

async fn client(program: &Program, client_id: &str) -> Client {
    let config = tls_config(&program.authority.ca, rustls::DEFAULT_VERSIONS);
    let stream = tls_as(program.address(0), "localhost", config)
        .await
        .unwrap();
    let mut client = Client::over(stream).await;
    client.send(&packets::connect(client_id, 60)).await;
    assert_eq!(client.receive().await, packets::connack(0));
    client
}

#[tokio::test]
async fn a_session_is_one_span_with_its_stages_in_order() {
    let mut collector = Collector::start(Answer::Take).await;
    let crowd = Crowd::start(Manners::Welcome).await;
    let program = program(&collector.url(), &crowd).await;
    let mut session = client(&program, "phone-1").await;
    session.send(&packets::DISCONNECT).await;
    session.closed().await;
    let (head, spans) = collector.spans(1).await;
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    let span = &spans[0];
    let stages: Vec<_> = span
        .events
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    assert_eq!(stages, ["tls", "upgrade", "connect", "connack"]);
    let mut times = vec![span.start_time_unix_nano];
    times.extend(span.events.iter().map(|event| event.time_unix_nano));
    times.push(span.end_time_unix_nano);
    assert!(times.is_sorted(), "{times:?}");
    for (key, value) in [
        ("messaging.client.id", "phone-1"),
        ("network.protocol.version", "3.1.1"),
        ("tidegate.broker", &crowd.url()),
        ("tidegate.why", "disconnect"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(span, key), value);
    }
    let page = read("docs/tracing.md");
    let keys = span
        .attributes
        .iter()
        .map(|attribute| attribute.key.as_str());
    for name in keys.chain(stages) {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/tracing.md has no {name}"
        );
    }
    assert!(span.status.is_none(), "an ordinary end is no error");
    // The log line and the span name the same session.
    let trace: String = span
        .trace_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    program
        .tells(&["tidegate::session", &format!("session={trace}")])
        .await;
    let results = ["result=\"exported\""];
    program
        .admin
        .metric_becomes("tidegate_otlp_spans_total", &results, 1.0)
        .await;

    let mut odd = client(&program, "phone-2").await;
    odd.socket
        .get_mut()
        .write_all(&[0x81, 0x80, 0, 0, 0, 0])
        .await
        .unwrap();
    odd.closed().await;
    let (_, spans) = collector.spans(1).await;
    let status = spans[0].status.as_ref().unwrap();
    assert!(status.message.contains("WebSocket"), "{status:?}");
    assert_eq!(attribute(&spans[0], "error.type"), "text_frame");
}

#[tokio::test]
async fn spans_that_wait_are_sent_at_the_end() {
    let mut collector = Collector::start(Answer::Take).await;
    let crowd = Crowd::start(Manners::Welcome).await;
    let program = program(&collector.url(), &crowd).await;
    let mut sessions = Vec::new();
    for number in 0..5 {
        sessions.push(client(&program, &number.to_string()).await);
    }
    program.process.signal("TERM");
    let (_, spans) = collector.spans(5).await;
    assert!(
        spans
            .iter()
            .all(|span| attribute(span, "tidegate.why") == "drain")
    );
}

#[tokio::test]
async fn a_collector_that_refuses_or_hangs_costs_spans_and_no_session() {
    for answer in [Answer::Refuse, Answer::Hang] {
        let collector = Collector::start(answer).await;
        let crowd = Crowd::start(Manners::Welcome).await;
        let program = program(&collector.url(), &crowd).await;
        for number in 0..20 {
            let mut session = client(&program, &number.to_string()).await;
            session.send(&packets::PINGREQ).await;
            assert_eq!(session.receive().await, packets::PINGRESP);
        }
        let failed = async || {
            let results = ["result=\"failed\""];
            program
                .admin
                .metric("tidegate_otlp_spans_total", &results)
                .await
                > 0.0
        };
        assert!(crate::support::eventually(failed).await);
        program.tells(&["WARN", "spans cannot be exported"]).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_http_is_refused_at_the_start() {
    let folder = TempDir::new().unwrap();
    let yaml = "listeners: [{address: \"127.0.0.1:0\", plain: routes}]\nadmin: off\n";
    let pool = pool_of(&["mqtt://127.0.0.1:1".to_owned()]);
    std::fs::write(folder.path().join("tidegate.yaml"), format!("{yaml}{pool}")).unwrap();
    let mut run = command(folder.path(), &["run", "-c", "tidegate.yaml"]);
    run.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318");
    let said = Process::start(&run).finish(PATIENCE).await;
    assert_eq!(said.status.code(), Some(1));
    assert!(
        said.stderr.contains("only http:// is spoken"),
        "{}",
        said.stderr
    );
}
