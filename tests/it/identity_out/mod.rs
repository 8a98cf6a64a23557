//! Every broker learns who the client is: address, port, TLS, certificate, and what of its request may go along.

mod real;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use tempfile::TempDir;
use tidegate::config::announcement::ProxyVersion;
use tidegate::identity::{Identity, Tls, UniqueId};
use tidegate::pool::announce;

use crate::support::authority::Authority;
use crate::support::broker::Broker;
use crate::support::client::{Client, tcp_from, tls_over};
use crate::support::emqx::{Closed, Emqx, Known, Speaks};
use crate::support::gateway::Gateway;
use crate::support::packets;

/// IPv4 and IPv6, each at a listener of its own.
const LISTENERS: &str = "listeners: [{address: \"127.0.0.1:0\"}, {address: \"[::1]:0\"}]\n";

/// Not the gateway's own, which would prove nothing.
const V4_CLIENT: &str = "127.0.0.5";
const V6_CLIENT: &str = "::1";

/// A gateway with a pool of one broker and these keys.
async fn gateway(url: &str, keys: &str) -> Gateway {
    Gateway::start(&format!(
        "{LISTENERS}routes: [{{path: /mqtt, pool: brokers}}]\n\
         pools: {{brokers: {{{keys}, brokers: [{{url: \"{url}\"}}]}}}}\n"
    ))
    .await
}

/// A client from that address up to its CONNACK, and its own socket address.
async fn connected(
    gateway: &Gateway,
    source: &str,
    headers: &[(&str, &str)],
) -> (Client, SocketAddr) {
    let source: IpAddr = source.parse().unwrap();
    let listener = usize::from(source.is_ipv6());
    let tcp = tcp_from(source, gateway.address(listener)).await;
    let address = tcp.local_addr().unwrap();
    let stream = tls_over(gateway, tcp).await.unwrap();
    let headers = [&[("Sec-WebSocket-Protocol", "mqtt")], headers].concat();
    let mut client = Client::open_over(stream, "/mqtt/sub?x=1", &headers).await;
    client.send(&packets::connect("c1", 60)).await;
    assert_eq!(client.receive().await, packets::connack(0));
    (client, address)
}

/// What the broker knows of a client from there, and who that really is.
async fn known(
    emqx: &Emqx,
    gateway: &Gateway,
    source: &str,
) -> (Result<Known, Closed>, SocketAddr) {
    let client = async {
        let (client, address) = connected(gateway, source, &[]).await;
        drop(client);
        address
    };
    tokio::join!(emqx.serve(), client)
}

#[tokio::test]
async fn the_true_client_arrives_by_proxy_protocol_on_every_transport() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::make(folder.path());
    let ca = authority.ca.display().to_string();
    for speaks in [Speaks::Mqtt, Speaks::WebSocket] {
        for tls in [None, Some(&authority)] {
            for version in ["v1", "v2"] {
                let emqx = Emqx::start(speaks, true, tls).await;
                let trust = tls.map_or(String::new(), |_| format!(", tls: {{ca: \"{ca}\"}}"));
                let keys = format!("kind: emqx, proxy_protocol: {version}{trust}");
                let gateway = gateway(&emqx.url(), &keys).await;
                for source in [V4_CLIENT, V6_CLIENT] {
                    let (known, address) = known(&emqx, &gateway, source).await;
                    let known = known.unwrap();
                    let case = format!("{} {version} {source}", emqx.url());
                    assert_eq!(known.peer, address, "{case}");
                    assert!(known.proxy.len() <= 500, "{case}");
                    if version == "v2" {
                        for part in [
                            "localhost",
                            "TLSv1.3",
                            "TLS_",
                            "UniqueId",
                            "client_ssl: true",
                        ] {
                            assert!(
                                known.tlvs.contains(part),
                                "{case}: no {part} in {}",
                                known.tlvs
                            );
                        }
                        assert!(known.tlvs.contains("client_cert_conn: false"), "{case}");
                    } else {
                        assert!(known.proxy.starts_with(b"PROXY TCP"), "{case}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn the_true_client_arrives_by_headers() {
    let emqx = Emqx::start(Speaks::WebSocket, false, None).await;
    let gateway = gateway(&emqx.url(), "kind: emqx").await;
    for source in [V4_CLIENT, V6_CLIENT] {
        let (known, address) = known(&emqx, &gateway, source).await;
        assert_eq!(known.unwrap().peer, address, "{source}");
    }
}

#[tokio::test]
async fn any_other_kind_is_told_the_port_that_the_client_connected_to() {
    let emqx = Emqx::start(Speaks::WebSocket, false, None).await;
    let gateway = gateway(&emqx.url(), "kind: generic").await;
    let (known, address) = known(&emqx, &gateway, V4_CLIENT).await;
    let peer = known.unwrap().peer;
    assert_eq!((peer.ip(), peer.port()), (address.ip(), gateway.port()));
}

/// Why the kind of a pool matters.
#[tokio::test]
async fn emqx_closes_for_what_it_does_not_expect() {
    let plain = Emqx::start(Speaks::WebSocket, true, None).await;
    let cases = [
        (&plain, "kind: emqx", "PROXY header"),
        (
            &plain,
            "kind: emqx, proxy_protocol: v2, subprotocol: mqttv3.1",
            "400",
        ),
        (&plain, "kind: emqx, proxy_protocol: v2, path: /ws", "404"),
    ];
    for (emqx, keys, why) in cases {
        let gateway = gateway(&emqx.url(), keys).await;
        let client = async {
            let mut client = Client::open(&gateway).await;
            client.send(&packets::connect("c1", 60)).await;
            assert_eq!(client.receive().await, packets::connack(3), "{keys}");
        };
        let (closed, ()) = tokio::join!(emqx.serve(), client);
        let closed = closed.unwrap_err();
        assert!(closed.contains(why), "{keys}: {closed}");
    }
}

#[tokio::test]
async fn only_what_is_named_goes_along_and_never_a_lie() {
    let broker = Broker::start().await;
    let keys = "headers: {pass: [user-agent, x-tenant, x-large]}, cookies: {pass: [session, theme]}, \
                path: keep, certificate_header: x-ssl-client-cn, request_head: 2KiB";
    let gateway = gateway(&broker.ws_url(), keys).await;
    let large = "l".repeat(3000);
    let headers = [
        ("User-Agent", "device/1"),
        ("X-Tenant", "a"),
        ("X-Tenant", "b"),
        ("X-Large", &large),
        ("X-Other", "no"),
        ("Cookie", "session=s1; secret=no; theme=dark; session2=no"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-SSL-Client-CN", "admin"),
        ("X_SSL_CLIENT_CN", "admin"),
    ];
    let (session, (_client, address)) = tokio::join!(
        broker.ws_welcome(),
        connected(&gateway, V4_CLIENT, &headers)
    );
    let request = session.request;
    assert_eq!(request.uri(), "/mqtt/sub?x=1");
    let all = |name: &str| -> Vec<&str> {
        let values = request.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(all("user-agent"), ["device/1"]);
    assert_eq!(all("x-tenant"), ["a", "b"]);
    assert_eq!(all("cookie"), ["session=s1; theme=dark"]);
    assert_eq!(all("x-forwarded-for"), [address.ip().to_string()]);
    assert_eq!(all("x-real-ip"), [address.ip().to_string()]);
    assert_eq!(all("x-forwarded-proto"), ["https"]);
    assert_eq!(all("x-forwarded-port"), [gateway.port().to_string()]);
    let names: BTreeSet<&str> = request
        .headers()
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    for absent in [
        "x-large",
        "x-other",
        "x_forwarded_for",
        "forwarded",
        "x-ssl-client-cn",
        "x_ssl_client_cn",
    ] {
        assert!(!names.contains(absent), "{absent}");
    }
}

/// A client with a verified certificate for this common name.
fn certified(common_name: &str) -> Identity {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let name = rcgen::DnValue::Utf8String(common_name.to_owned());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Identity {
        address: "192.0.2.7:40000".parse().unwrap(),
        local: "198.51.100.1:443".parse().unwrap(),
        forwarded_for: None,
        tls: Some(Tls {
            version: "TLSv1.3",
            cipher: "TLS13_AES_128_GCM_SHA256",
            server_name: Some("example.com".to_owned()),
            alpn: Some(b"http/1.1".to_vec()),
            certificate: tidegate::certificates::holder(certificate.der()),
        }),
        secure: true,
        host: None,
        path: "/mqtt".to_owned(),
        headers: HeaderMap::new(),
        unique_id: UniqueId::random(),
    }
}

#[test]
fn the_common_name_of_a_certificate_is_told_whole_or_not_at_all() {
    let cases = [
        ("device-7", Some("device-7")),
        ("Gerät 7", Some("Gerät 7")),
        ("admin\nroot", None),
        (&"x".repeat(129), None),
    ];
    for (name, told) in cases {
        let client = certified(name);
        let bytes = announce(&client, ProxyVersion::V2);
        let (header, _) = proxy_header::ProxyHeader::parse(&bytes, Default::default()).unwrap();
        let ssl = header.ssl().unwrap();
        assert_eq!(ssl.cn(), told);
        assert_eq!(
            (ssl.version(), ssl.cipher()),
            (Some("TLSv1.3"), Some("TLS_AES_128_GCM_SHA256"))
        );
        assert_eq!(
            (
                ssl.client_ssl(),
                ssl.client_cert_conn(),
                ssl.client_cert_sess(),
                ssl.verify()
            ),
            (true, true, true, 0)
        );
        assert_eq!(
            header.unique_id(),
            Some(client.unique_id.to_string().as_bytes())
        );
        assert_eq!(header.authority(), Some("example.com"));
        assert_eq!(header.alpn(), Some(&b"http/1.1"[..]));
    }
}
