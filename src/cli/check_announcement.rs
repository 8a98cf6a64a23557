//! What `tidegate check` says about how a pool's brokers learn who a client is, and what they must be told for it.

use crate::config::announcement::{AskedPath, ProxyVersion};
use crate::config::model::Pool;

pub(super) fn tell(pool: &Pool) {
    let lines = lines(pool);
    for line in lines {
        println!("  {line}");
    }
}

fn lines(pool: &Pool) -> Vec<String> {
    let kind = pool.kind.row();
    let announcement = &pool.announcement;
    let websocket = |websocket: bool| {
        let brokers = &pool.brokers;
        brokers
            .iter()
            .any(|broker| broker.transport.is_websocket() == websocket)
    };
    let mut lines = Vec::new();
    if announcement.path == AskedPath::Client {
        lines.push("ws brokers are asked for the path that the client asked for".to_owned());
    }
    if let Some(version) = announcement.proxy_protocol {
        let version = match version {
            ProxyVersion::V1 => "1",
            ProxyVersion::V2 | ProxyVersion::V2Crc32c => "2",
        };
        lines.push(format!(
            "clients' addresses: PROXY protocol version {version}, on every connection"
        ));
        demand(&mut lines, kind.name, kind.proxy_protocol);
        lines.push("  no one else may reach that listener".to_owned());
        if let (Some(option), "2") = (kind.certificate, version) {
            lines.push(format!("  to know clients by their certificate: {option}"));
        }
    } else {
        if websocket(true) && pool.forwarded.enabled && kind.headers.is_some() {
            lines.push("clients' addresses: X-Forwarded-For, to ws brokers".to_owned());
            demand(&mut lines, kind.name, kind.headers);
        } else if websocket(true) {
            lines.push(format!(
                "clients' addresses: {} reads none from headers; its log shows the gateway's",
                kind.name
            ));
        }
        if websocket(false) {
            lines.push(
                "clients' addresses: mqtt and mqtts brokers see the gateway's; `proxy_protocol` would tell them"
                    .to_owned(),
            );
        }
        if kind.headers.is_none() && kind.proxy_protocol.is_some() {
            lines.push("  `proxy_protocol: v2` tells them; before that".to_owned());
            demand(&mut lines, kind.name, kind.proxy_protocol);
        }
    }
    if !pool.source_addresses.is_empty() {
        let addresses: Vec<String> = pool
            .source_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        lines.push(format!("connects from {}", addresses.join(", ")));
    }
    lines
}

/// What the broker's own configuration must say.
fn demand(lines: &mut Vec<String>, name: &str, options: Option<&[&str]>) {
    match options {
        None => lines.push(format!("  {name} is not known to read it")),
        Some([]) => lines.push(format!(
            "  {name} must be told to believe it: `kind` would say how"
        )),
        Some(options) => {
            lines.push(format!("  {name} needs"));
            lines.extend(options.iter().map(|option| format!("    {option}")));
        }
    }
}
