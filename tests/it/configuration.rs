//! What a configuration file may say, and what the program makes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tidegate::config::announcement::{AskedPath, ProxyVersion};
use tidegate::config::model::{
    Action, BrokerKind, Config, ForwardedPort, HostHeader, Speaks, Transport, Trust,
};
use tidegate::config::values::{Count, Size, Span};
use tidegate::config::{self, Loaded, Place};

/// Everything that is required, and nothing else.
pub const SMALLEST: &str = "
listeners: [{ address: '127.0.0.1:0', plain: routes }]
routes: [{ path: /mqtt, pool: brokers }]
pools: { brokers: { brokers: [{ url: 'ws://127.0.0.1:8083' }] } }
";

pub fn load(text: &str) -> Loaded {
    config::parse(Path::new("test.yaml"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn with(lines: &str) -> String {
    format!("{SMALLEST}{lines}")
}

/// `Debug` of a configuration without its places: they differ between two files that mean the same.
fn meaning(config: &Config) -> String {
    let text = format!("{config:?}");
    let mut parts = text.split("Place { ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |meaning, part| {
        meaning + part.split_once(" }").unwrap().1
    })
}

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares a file with what it should hold; `UPDATE_DOCS=1` writes it instead.
pub fn assert_file(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, text).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        text,
        written,
        "{} is out of date: UPDATE_DOCS=1 cargo test --test it configuration",
        path.display()
    );
}

#[test]
fn defaults_are_what_the_reference_says() {
    let config = load(SMALLEST).config;
    assert_eq!(config.admin.unwrap().address.to_string(), "127.0.0.1:9090");
    assert_eq!(config.limits.handshakes.get(), 4096);
    assert_eq!(config.limits.packet, 256 << 20);
    assert_eq!(config.limits.client_id, 65_535);
    assert_eq!(config.timeouts.broker_connect, Duration::from_secs(2));
    assert_eq!(config.timeouts.write, Duration::from_secs(60));
    assert_eq!(config.drain.rate.get(), 500);
    assert_eq!(config.drain.announce, Duration::ZERO);
    assert!(config.log.sessions && config.log.identities);
    let pool = &config.pools[0];
    assert_eq!(
        (pool.kind, pool.subprotocol.as_str()),
        (BrokerKind::Generic, "mqtt")
    );
    assert_eq!(
        (&pool.host, &pool.tls.trust),
        (&HostHeader::Broker, &Trust::System)
    );
    assert_eq!(
        (pool.forwarded.enabled, pool.forwarded.port),
        (true, ForwardedPort::Listener)
    );
    assert_eq!(
        (pool.brokers[0].path.as_str(), pool.brokers[0].weight),
        ("/mqtt", 1)
    );
}

#[test]
fn a_kind_is_a_row_of_defaults() {
    let pool = |kind: &str| {
        load(&SMALLEST.replace("{ brokers: [", &format!("{{ kind: {kind}, brokers: [")))
            .config
            .pools
            .remove(0)
    };
    let emqx = pool("emqx");
    assert_eq!(
        (emqx.forwarded.port, emqx.brokers[0].path.as_str()),
        (ForwardedPort::Client, "/mqtt")
    );
    let rabbitmq = pool("rabbitmq");
    assert_eq!(
        (rabbitmq.forwarded.port, rabbitmq.brokers[0].path.as_str()),
        (ForwardedPort::Listener, "/ws")
    );
    for kind in [
        "mosquitto",
        "vernemq",
        "hivemq",
        "nanomq",
        "artemis",
        "generic",
    ] {
        assert_eq!(pool(kind).brokers[0].path, "/mqtt", "{kind}");
    }
}

#[test]
fn what_brokers_are_told_can_be_set_for_each_pool() {
    let pool = |keys: &str| {
        load(&SMALLEST.replace("{ brokers: [", &format!("{{ {keys}, brokers: [")))
            .config
            .pools
            .remove(0)
    };
    let plain = pool("kind: emqx").announcement;
    assert_eq!(
        (plain.proxy_protocol, plain.path),
        (None, AskedPath::Broker)
    );
    assert_eq!(plain.request_head, 4096);
    assert_eq!(pool("kind: mosquitto").announcement.request_head, 3072);
    let full = pool(
        "proxy_protocol: v2, path: keep, headers: { pass: [User-Agent] }, cookies: { pass: [Session] }, \
         certificate_header: X-SSL-Client-CN, request_head: 2KiB, source_addresses: [10.0.0.5, '2001:db8::5']",
    );
    let announcement = full.announcement;
    assert_eq!(announcement.proxy_protocol, Some(ProxyVersion::V2));
    assert_eq!(announcement.path, AskedPath::Client);
    assert_eq!(announcement.headers, ["user-agent"]);
    assert_eq!(announcement.cookies, ["Session"]);
    assert_eq!(
        announcement.certificate_header.as_deref(),
        Some("x-ssl-client-cn")
    );
    assert_eq!(
        (announcement.request_head, full.source_addresses.len()),
        (2048, 2)
    );
    assert_eq!(pool("path: /other").brokers[0].path, "/other");
}

#[test]
fn a_client_can_never_pass_what_the_gateway_answers_for() {
    for name in [
        "X-Forwarded-For",
        "x_forwarded_for",
        "X-Forwarded_Port",
        "forwarded",
        "X_Real_IP",
        "Host",
        "sec-websocket-key",
        "Sec_Fetch",
        "upgrade",
        "connection",
        "x-ssl-client-cn",
        "X_SSL_CLIENT_CN",
        "cookie",
        "transfer-encoding",
        "content_length",
        "x-cn",
        "X_CN",
    ] {
        let keys = format!("certificate_header: x-cn, headers: {{ pass: [{name}] }}");
        let text = SMALLEST.replace("{ brokers: [", &format!("{{ {keys}, brokers: ["));
        assert!(
            config::parse(Path::new("test.yaml"), &text).is_err(),
            "{name}"
        );
    }
}

#[test]
fn broker_urls_are_taken_apart() {
    let broker = |url: &str| {
        load(&SMALLEST.replace("ws://127.0.0.1:8083", url))
            .config
            .pools
            .remove(0)
            .brokers
            .remove(0)
    };
    let cases = [
        ("ws://a", Transport::Ws, "a", 80, "/mqtt"),
        (
            "wss://EMQX.internal",
            Transport::Wss,
            "emqx.internal",
            443,
            "/mqtt",
        ),
        ("mqtt://a", Transport::Mqtt, "a", 1883, "/mqtt"),
        ("mqtts://a/", Transport::Mqtts, "a", 8883, "/mqtt"),
        (
            "ws://[2001:db8::1]:8083/",
            Transport::Ws,
            "2001:db8::1",
            8083,
            "/",
        ),
        ("ws://a:1/x/y?z=1", Transport::Ws, "a", 1, "/x/y?z=1"),
        ("ws://a?z=1", Transport::Ws, "a", 80, "/?z=1"),
    ];
    for (url, transport, host, port, path) in cases {
        let broker = broker(url);
        let found = (
            broker.transport,
            broker.host.as_str(),
            broker.port,
            broker.path.as_str(),
        );
        assert_eq!(found, (transport, host, port, path), "{url}");
        assert_eq!(broker.url, url);
    }
}

#[test]
fn places_point_at_the_values() {
    let config = load(SMALLEST).config;
    let place = |key: &str, line, column| Place {
        key: key.to_owned(),
        line,
        column,
    };
    assert_eq!(
        config.listeners[0].place,
        place("listeners[0].address", 2, 24)
    );
    assert_eq!(
        config.pools[0].brokers[0].place,
        place("pools.brokers.brokers[0].url", 4, 38)
    );
    assert_eq!(config.admin.unwrap().place, place("admin.address", 0, 0));
}

#[test]
fn pools_keep_the_order_of_the_file() {
    let text = "
listeners: [{ address: '127.0.0.1:0', plain: routes }]
routes: [{ path: /z, pool: zebra }, { path: /a, pool: ape }]
pools:
  zebra: { brokers: [{ url: 'ws://z' }] }
  ape: { brokers: [{ url: 'ws://a' }] }
";
    let config = load(text).config;
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["zebra", "ape"]);
    assert!(matches!(config.routes[1].action, Action::Pool(1)));
}

#[test]
fn listeners_say_what_they_speak() {
    let text = SMALLEST.replace(
        "plain: routes }",
        "plain: routes }, { address: '127.0.0.1:1', plain: redirect }, { address: '127.0.0.1:2', name: tls }",
    );
    let config = load(&format!("{text}certificates: [{{ chain: a, key: b }}]\n")).config;
    let speaks: Vec<Speaks> = config
        .listeners
        .iter()
        .map(|listener| listener.speaks)
        .collect();
    assert_eq!(speaks, [Speaks::Plain, Speaks::PlainRedirect, Speaks::Tls]);
    assert_eq!(config.listeners[1].name, "127.0.0.1:1");
    assert_eq!(config.listeners[2].name, "tls");
}

#[test]
fn admin_can_be_off_and_empty_sections_are_defaults() {
    assert!(load(&with("admin: off")).config.admin.is_none());
    assert!(
        load(&with("admin:\nlimits:\n  # packet: 1MiB\ntimeouts: {}\n"))
            .config
            .admin
            .is_some()
    );
}

#[test]
fn default_limits_shrink_with_a_small_packet() {
    let limits = load(&with("limits: { packet: 32KiB }")).config.limits;
    assert_eq!(
        (limits.packet, limits.frame, limits.connect),
        (32 << 10, 32 << 10, 32 << 10)
    );
}

#[test]
fn variables_and_files_are_expanded() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("name");
    fs::write(&secret, "emqx.internal\n").unwrap();
    let text = with(&format!(
        "workers: ${{WORKERS}}\nlog: {{ sessions: '${{SESSIONS:-false}}', level: \"${{LEVEL:-warn}}\" }}\n\
         certificates: [{{ chain: '${{file:{}}}.pem', key: '$${{x}}/$y' }}]",
        secret.display()
    ));
    let environment = |name: &str| (name == "WORKERS").then(|| "3".to_owned());
    let config = config::parse_with(Path::new("test.yaml"), &text, &environment)
        .unwrap()
        .config;
    assert_eq!(config.workers.get(), 3);
    assert!(!config.log.sessions);
    assert_eq!(config.log.level, "warn");
    let files = config.certificate_files().next().unwrap();
    assert_eq!(files.chain, Path::new("emqx.internal.pem"));
    assert_eq!(files.key, Path::new("${x}/$y"));
}

#[test]
fn what_is_printed_means_the_same() {
    let mut texts = vec![
        SMALLEST.to_owned(),
        SMALLEST.replace(
            "{ brokers: [",
            "{ kind: vernemq, path: /other, proxy_protocol: v1, headers: { pass: [a, b] }, cookies: { pass: [c] }, \
             source_addresses: [10.0.0.5], tls: { certificate: a, key: b }, brokers: [",
        ),
        SMALLEST.replace(
            "{ brokers: [",
            "{ kind: rabbitmq, host: 'a b', tls: { verify: false }, brokers: [",
        ),
        with(
            "admin: off\nlimits: { packet: 32KiB, client_id: 1000 }\ntimeouts: { tls: 1h30m5ms }\n",
        ),
        with(
            "certificates: [{ acme: [b.example, a.example] }]\n\
             acme: { agree_tos: true, email: a@b.example, ca: c, state: s, profile: shortlived }\n",
        ),
        with(
            "certificates: [{ chain: '$${x} \\ \" off', key: 'no' }, { chain: 'é ü', key: \"a\\tb\" }]",
        ),
    ];
    for file in [
        "config/tidegate.yaml",
        "config/tidegate.full.yaml",
        "config/examples/mini-program.yaml",
        "config/examples/emqx-cluster.yaml",
    ] {
        texts.push(fs::read_to_string(repository(file)).unwrap());
    }
    for text in texts {
        let config = load(&text).config;
        let printed = config::print(&config);
        let again = load(&printed).config;
        assert_eq!(meaning(&config), meaning(&again), "{printed}");
        assert_eq!(printed, config::print(&again));
    }
}

/// The program reads its own file by it: after a change of the types it has to be built once more.
#[test]
fn the_schema_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&config::schema_of_types()).unwrap();
    assert_file(&repository("src/config/schema.json"), &(schema + "\n"));
}

#[test]
fn the_reference_is_up_to_date() {
    assert_file(
        &repository("docs/configuration.md"),
        &config::reference::reference(),
    );
}

#[test]
fn durations_and_sizes_refuse_what_is_unclear() {
    for text in [
        "",
        "10",
        "s",
        "10 s",
        "-1s",
        "1.5s",
        "5s1h",
        "1s1s",
        "10S",
        "1w",
        "366d",
        "99999999999999999999s",
        "9999999999999999d",
    ] {
        assert!(text.parse::<Span>().is_err(), "{text}");
    }
    for text in [
        "",
        "KiB",
        "-1",
        "1.5MiB",
        "1kib",
        "1K",
        "99999999999999999999",
        "99999999999GiB",
    ] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    for text in ["", "0", "-1", "Auto", "1.5"] {
        assert!(text.parse::<Count>().is_err(), "{text}");
    }
    assert_eq!(
        "1h30m".parse::<Span>().unwrap().0,
        Duration::from_secs(5400)
    );
    assert_eq!(
        "2s500ms".parse::<Span>().unwrap().0,
        Duration::from_millis(2500)
    );
    assert_eq!("64kB".parse::<Size>().unwrap().0, 64_000);
    assert_eq!("1 GiB".parse::<Size>().unwrap().0, 1 << 30);
}

proptest! {
    #[test]
    fn a_duration_reads_what_it_shows(millis in 0_u64..=31_536_000_000) {
        let span = Span(Duration::from_millis(millis));
        prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
    }

    #[test]
    fn a_size_reads_what_it_shows(bytes in any::<usize>()) {
        prop_assert_eq!(Size(bytes).to_string().parse::<Size>().unwrap(), Size(bytes));
    }
}
