//! `X-Forwarded-For` and `Forwarded`: whom a broker and the log are told, by whoever said what.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::server::Request;

use crate::support::broker::Broker;
use crate::support::gateway::{Gateway, pool_of};
use crate::support::journal::Journal;
use crate::support::packets;

async fn gateway(broker: &Broker, trusted: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [{{address: \"127.0.0.1:0\", plain: routes}}]\ntrusted_proxies: [{trusted}]\n\
         certificates: []\n{}",
        pool_of(&[broker.ws_url()])
    ))
    .await
}

/// Connects with these headers and leaves; gives the head that the broker saw.
async fn seen(
    gateway: &Gateway,
    broker: &Broker,
    id: &str,
    headers: &[(&'static str, &str)],
) -> Request {
    let tcp = TcpStream::connect(gateway.address(0)).await.unwrap();
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (mut socket, _) = Box::pin(tokio_tungstenite::client_async(request, tcp))
        .await
        .unwrap();
    socket
        .send(Message::binary(packets::connect(id, 60)))
        .await
        .unwrap();
    let session = broker.ws_welcome().await;
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
    socket
        .send(Message::binary(packets::DISCONNECT.to_vec()))
        .await
        .unwrap();
    session.request
}

/// The only value of that name.
fn only<'a>(request: &'a Request, name: &str) -> &'a str {
    let mut values = request.headers().get_all(name).iter();
    let value = values.next().unwrap();
    assert!(values.next().is_none(), "{name} came twice");
    value.to_str().unwrap()
}

#[tokio::test]
async fn a_strangers_words_about_itself_are_replaced() {
    let broker = Broker::start().await;
    let forged = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x_forwarded_for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "1"),
        ("x-ssl-client-cn", "admin"),
        ("x-forwarded-client-cert", "Subject=admin"),
    ];
    for trusted in ["", "10.0.0.0/8"] {
        let gateway = gateway(&broker, trusted).await;
        let head = seen(&gateway, &broker, "c", &forged).await;
        assert_eq!(only(&head, "x-forwarded-for"), "127.0.0.1");
        assert_eq!(only(&head, "x-real-ip"), "127.0.0.1");
        assert_eq!(only(&head, "x-forwarded-proto"), "http");
        assert_eq!(only(&head, "x-forwarded-port"), gateway.port().to_string());
        let all = format!("{:?}", head.headers());
        assert!(!all.contains("6.6.6.6") && !all.contains("admin"), "{all}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "127.0.0.1, \"10.0.0.0/8\"").await;
    for (headers, client, path) in [
        (
            vec![("x-forwarded-for", "192.0.2.1")],
            "192.0.2.1",
            "192.0.2.1, 127.0.0.1",
        ),
        // What the client itself had claimed is not passed on: EMQX takes the leftmost.
        (
            vec![("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.0.0.9")],
            "192.0.2.1",
            "192.0.2.1, 10.0.0.9, 127.0.0.1",
        ),
        (
            vec![("forwarded", "for=\"[2001:db8::1]:4711\";proto=https")],
            "2001:db8::1",
            "2001:db8::1, 127.0.0.1",
        ),
        (
            vec![("x-forwarded-for", "192.0.2.1, nonsense")],
            "127.0.0.1",
            "127.0.0.1",
        ),
        (
            vec![
                ("x-forwarded-for", "192.0.2.1"),
                ("forwarded", "for=6.6.6.6"),
            ],
            "127.0.0.1",
            "127.0.0.1",
        ),
        (vec![], "127.0.0.1", "127.0.0.1"),
    ] {
        let head = seen(&gateway, &broker, "c", &headers).await;
        assert_eq!(only(&head, "x-forwarded-for"), path, "{headers:?}");
        assert_eq!(only(&head, "x-real-ip"), client, "{headers:?}");
    }
}

#[tokio::test]
async fn brokers_are_told_https_where_a_trusted_proxy_ended_it() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "127.0.0.1").await;
    let client = ("x-forwarded-for", "192.0.2.1");
    for (proto, told) in [("https", "https"), ("http", "http"), ("gopher", "http")] {
        let headers = [client, ("x-forwarded-proto", proto)];
        let head = seen(&gateway, &broker, "c", &headers).await;
        assert_eq!(only(&head, "x-forwarded-proto"), told);
    }
    let standard = [("forwarded", "for=192.0.2.1;proto=https")];
    let head = seen(&gateway, &broker, "c", &standard).await;
    assert_eq!(only(&head, "x-forwarded-proto"), "https");
}

#[tokio::test]
async fn the_log_tells_the_client_behind_a_trusted_proxy() {
    let journal = Journal::open();
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "127.0.0.1").await;
    seen(
        &gateway,
        &broker,
        "behind-an-ingress",
        &[("x-forwarded-for", "192.0.2.77:5000")],
    )
    .await;
    let line = journal
        .line(&["behind-an-ingress", "tidegate::session"])
        .await;
    assert!(line.contains("client=192.0.2.77:5000"), "{line}");
    assert!(line.contains("via=127.0.0.1:"), "{line}");
    seen(&gateway, &broker, "no-ingress", &[]).await;
    let line = journal.line(&["no-ingress", "tidegate::session"]).await;
    assert!(
        line.contains("client=127.0.0.1:") && !line.contains("via="),
        "{line}"
    );
}

#[tokio::test]
async fn a_proxy_header_may_name_a_trusted_http_proxy() {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&format!(
        "listeners: [{{address: \"127.0.0.1:0\", plain: routes, proxy_protocol: {{trusted: [127.0.0.1]}}}}]\n\
         trusted_proxies: [\"10.0.0.0/8\"]\ncertificates: []\n{}",
        pool_of(&[broker.ws_url()])
    ))
    .await;
    for (header, path) in [
        (
            "PROXY TCP4 10.0.0.5 10.0.0.1 1 2\r\n",
            "192.0.2.1, 10.0.0.5",
        ),
        // The balancer is trusted to name addresses, not to speak for clients in HTTP.
        ("PROXY TCP4 192.0.2.5 10.0.0.1 1 2\r\n", "192.0.2.5"),
    ] {
        let mut tcp = TcpStream::connect(gateway.address(0)).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut tcp, header.as_bytes())
            .await
            .unwrap();
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        request
            .headers_mut()
            .append("x-forwarded-for", "192.0.2.1".parse().unwrap());
        let (mut socket, _) = Box::pin(tokio_tungstenite::client_async(request, tcp))
            .await
            .unwrap();
        socket
            .send(Message::binary(packets::connect("c", 60)))
            .await
            .unwrap();
        let session = broker.ws_welcome().await;
        assert_eq!(only(&session.request, "x-forwarded-for"), path);
    }
}
