//! The effective configuration as YAML: every default written out. Reading it again gives the same configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::acme::Acme;
use super::model::{
    Action, Certificate, ClientCertificates, Config, Listener, Route, Speaks, Strictness,
    TlsVersion, Trust,
};
use super::networks::{Network, Networks};
use super::values::{Size, Span};
use super::{print_applications, print_pools, print_site};

/// The whole configuration. Secrets are shown as `***`.
pub fn print(config: &Config) -> String {
    let mut text = String::new();
    write_map(&mut text, &whole(config), 0);
    text
}

/// Every value by its key, for a comparison of two configurations. Elements of lists are known by what they are called, not
/// by where they stand. Secrets are `***`.
pub fn settings(config: &Config) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for (name, value) in &whole(config) {
        flatten(&mut settings, name, value);
    }
    settings
}

fn flatten(settings: &mut BTreeMap<String, String>, key: &str, value: &Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                flatten(settings, &format!("{key}.{name}"), value);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                let name = called(value).unwrap_or_else(|| index.to_string());
                flatten(settings, &format!("{key}[{name}]"), value);
            }
        }
        Value::String(text) => drop(settings.insert(key.to_owned(), text.clone())),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            settings.insert(key.to_owned(), value.to_string());
        }
    }
}

/// A broker by its URL, a listener by its address, a certificate by its file or its names, a route by host and path.
fn called(value: &Value) -> Option<String> {
    let text = |name: &str| value.get(name)?.as_str();
    let name = text("url")
        .or_else(|| text("address"))
        .or_else(|| text("chain"));
    let route = || text("path").map(|path| format!("{}{path}", text("host").unwrap_or("*")));
    let names = || {
        let names = value.get("acme")?.as_array()?.iter();
        Some(
            names
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    name.map(str::to_owned).or_else(names).or_else(route)
}

fn whole(config: &Config) -> Map<String, Value> {
    let certificates = config
        .certificates
        .iter()
        .map(|certificate| match certificate {
            Certificate::Files(files) => json!({ "chain": files.chain, "key": files.key }),
            Certificate::Acme(ordered) => json!({ "acme": ordered.names }),
        });
    let pools = config
        .pools
        .iter()
        .map(|pool| (pool.name.clone(), print_pools::pool(pool)));
    let log = &config.log;
    let fields = [
        ("listeners", config.listeners.iter().map(listener).collect()),
        ("trusted_proxies", networks(&config.trusted_proxies)),
        (
            "admin",
            config.admin.as_ref().map_or(
                json!("off"),
                |admin| json!({ "address": admin.address, "hosts": admin.hosts }),
            ),
        ),
        ("certificates", certificates.collect()),
        ("acme", config.acme.as_ref().map_or(Value::Null, acme)),
        ("tls", tls(config)),
        (
            "routes",
            config
                .routes
                .iter()
                .map(|route| self::route(route, config))
                .collect(),
        ),
        ("pools", Value::Object(pools.collect())),
        ("dns", dns(config)),
        ("limits", limits(config)),
        ("timeouts", timeouts(config)),
        ("drain", drain(config)),
        (
            "log",
            json!({
                "level": log.level,
                "format": log.format,
                "sessions": log.sessions,
                "identities": log.identities,
            }),
        ),
        ("watch", json!(config.watch)),
        ("workers", json!(config.workers)),
    ];
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn limits(config: &Config) -> Value {
    let limits = &config.limits;
    json!({
        "connections": limits.connections,
        "handshakes": limits.handshakes,
        "handshake_age": Span(limits.handshake_age).to_string(),
        "streams": limits.streams,
        "request_head": Size(limits.request_head).to_string(),
        "connect": Size(limits.connect).to_string(),
        "packet": Size(limits.packet).to_string(),
        "frame": Size(limits.frame).to_string(),
        "client_id": Size(limits.client_id).to_string(),
    })
}

fn dns(config: &Config) -> Value {
    let dns = &config.dns;
    json!({
        "servers": dns.servers,
        "timeout": Span(dns.timeout).to_string(),
        "shortest": Span(dns.shortest).to_string(),
        "longest": Span(dns.longest).to_string(),
    })
}

fn timeouts(config: &Config) -> Value {
    let timeouts = &config.timeouts;
    json!({
        "tls": Span(timeouts.tls).to_string(),
        "request": Span(timeouts.request).to_string(),
        "connect": Span(timeouts.connect).to_string(),
        "broker_connect": Span(timeouts.broker_connect).to_string(),
        "connack": Span(timeouts.connack).to_string(),
        "join": Span(timeouts.join).to_string(),
        "idle_margin": Span(timeouts.idle_margin).to_string(),
        "ping": Span(timeouts.ping).to_string(),
        "write": Span(timeouts.write).to_string(),
    })
}

fn drain(config: &Config) -> Value {
    let drain = &config.drain;
    let mut value = json!({
        "announce": Span(drain.announce).to_string(),
        "rate": drain.rate,
        "max": Span(drain.max).to_string(),
        "close_code": drain.close_code,
    });
    let span = |span: Option<Duration>| span.map(|span| Span(span).to_string().into());
    let optional = [
        (
            "server_reference",
            drain.server_reference.clone().map(Value::from),
        ),
        ("max_session_age", span(drain.max_session_age)),
        ("grace", span(drain.grace)),
    ];
    for (name, set) in optional {
        if let Some(set) = set {
            value[name] = set;
        }
    }
    value
}

fn tls(config: &Config) -> Value {
    let policy = match config.tls.strictness {
        Strictness::Modern => "modern",
        Strictness::Compatible => "compatible",
    };
    let minimum = match config.tls.minimum {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    };
    let mut value = json!({ "policy": policy, "minimum": minimum });
    if let Some(file) = &config.tls.ticket_keys {
        value["ticket_keys"] = json!(file.path);
    }
    if let Some(hsts) = &config.tls.hsts {
        value["hsts"] = json!({
            "max_age": Span(hsts.max_age).to_string(),
            "include_subdomains": hsts.include_subdomains,
            "preload": hsts.preload,
        });
    }
    value
}

fn acme(acme: &Acme) -> Value {
    json!({
        "agree_tos": true,
        "email": acme.email,
        "directory": acme.directory,
        "state": acme.state,
        "ca": match &acme.trust {
            Trust::Ca(file) => json!(file),
            Trust::System | Trust::Anyone => Value::Null,
        },
        "eab": acme.eab.as_ref().map(|_secret| json!({ "key_id": "***", "mac_key": "***" })),
        "profile": acme.profile,
    })
}

fn listener(listener: &Listener) -> Value {
    let plain = match listener.speaks {
        Speaks::Tls => None,
        Speaks::Plain => Some("routes"),
        Speaks::PlainRedirect => Some("redirect"),
    };
    let proxy_protocol = listener
        .proxy_protocol
        .as_ref()
        .map(|trusted| json!({ "trusted": networks(trusted) }));
    json!({
        "address": listener.address,
        "name": listener.name,
        "plain": plain,
        "http2": (listener.speaks == Speaks::Tls).then_some(if listener.http2 { "on" } else { "off" }),
        "proxy_protocol": proxy_protocol,
        "client_certificates": listener.client_certificates.as_ref().map(client_certificates),
    })
}

fn client_certificates(asked: &ClientCertificates) -> Value {
    let crl = asked.crl.iter().map(|file| json!(file.path));
    json!({
        "mode": if asked.required { "required" } else { "optional" },
        "ca": asked.ca,
        "crl": crl.collect::<Value>(),
    })
}

fn networks(networks: &Networks) -> Value {
    let networks = networks.0.iter();
    networks
        .map(|network| json!(Network(*network).to_string()))
        .collect()
}

fn route(route: &Route, config: &Config) -> Value {
    let mut value = json!({ "host": route.host, "path": route.path });
    if let Some(origins) = &route.origins.allowed {
        value["origins"] = print_site::texts(&origins.0);
        value["require_origin"] = route.origins.required.into();
    }
    match &route.action {
        Action::Pool(index) => {
            value["pool"] = config
                .pools
                .get(*index)
                .map(|pool| pool.name.as_str())
                .into()
        }
        Action::Site(site) => {
            value["site"] = print_site::site(site);
        }
        Action::Application(application) => {
            value["proxy"] = print_applications::application(application);
        }
        Action::Redirect(redirect) => {
            value["redirect"] = json!({ "to": redirect.to, "status": redirect.status })
        }
    }
    value
}

fn write_map(text: &mut String, map: &Map<String, Value>, depth: usize) {
    for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        indent(text, depth);
        text.push_str(&scalar(name));
        text.push(':');
        write_value(text, value, depth);
    }
}

/// What stands behind `key:` or `-`, with its line end.
fn write_value(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            write_map(text, map, depth + 1);
        }
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            for item in list {
                write_item(text, item, depth + 1);
            }
        }
        Value::Object(_) => text.push_str(" {}\n"),
        Value::Array(_) => text.push_str(" []\n"),
        Value::String(word) => line(text, &scalar(word)),
        Value::Null | Value::Bool(_) | Value::Number(_) => line(text, &value.to_string()),
    }
}

/// `- key: value`, its further keys below the first.
fn write_item(text: &mut String, item: &Value, depth: usize) {
    let mut block = String::new();
    match item {
        Value::Object(map) => write_map(&mut block, map, depth + 1),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            write_value(&mut block, item, depth)
        }
    }
    indent(text, depth);
    text.push_str("- ");
    text.push_str(block.trim_start());
}

fn line(text: &mut String, value: &str) {
    text.push(' ');
    text.push_str(value);
    text.push('\n');
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// Bare where nothing can be misread, else in quotes as JSON writes them, which is YAML too.
fn scalar(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let wordlike = word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && word.bytes().all(plain);
    let misread = ["true", "false", "null", "yes", "no", "on", "y", "n"]
        .contains(&word.to_ascii_lowercase().as_str());
    let measured =
        word.parse::<Span>().is_ok() || word.ends_with('B') && word.parse::<Size>().is_ok();
    if measured || wordlike && !misread {
        return word.to_owned();
    }
    Value::String(word.replace("${", "$${")).to_string()
}
