//! A web application of the effective configuration, for `print`.

use serde_json::{Value, json};

use super::model::{Application, Balance, Broker, HostHeader, Trust};
use super::print_pools::tls;
use super::values::{Size, Span};

pub(super) fn application(application: &Application) -> Value {
    let pool = &application.servers;
    let host = match &application.host {
        HostHeader::Broker => "application",
        HostHeader::Client => "client",
        HostHeader::Fixed(value) => value,
    };
    let request_body = application.request_body;
    let request_body = request_body.and_then(|size| usize::try_from(size).ok());
    let (timeouts, keep_alive) = (&application.timeouts, &application.keep_alive);
    let is_used = pool.brokers.iter().any(|server| server.transport.is_tls())
        || pool.tls.trust != Trust::System
        || pool.tls.certificate.is_some()
        || pool.tls.server_name.is_some();
    json!({
        "to": pool.brokers.iter().map(server).collect::<Value>(),
        "balance": balance(pool.balance),
        "path": application.path.to_string(),
        "host": host,
        "request_body": request_body.map(|size| Size(size).to_string()),
        "timeouts": {
            "connect": Span(timeouts.connect).to_string(),
            "head": Span(timeouts.head).to_string(),
            "stall": Span(timeouts.stall).to_string(),
        },
        "keep_alive": {
            "connections": keep_alive.connections,
            "idle": Span(keep_alive.idle).to_string(),
        },
        "eject": {
            "failures": pool.eject.failures,
            "time": Span(pool.eject.time).to_string(),
            "longest": Span(pool.eject.longest).to_string(),
        },
        "tls": is_used.then(|| tls(&pool.tls)),
    })
}

fn server(server: &Broker) -> Value {
    json!({
        "url": server.url,
        "weight": server.weight,
        "backup": server.backup,
        "down": server.down,
        "max_requests": server.max_sessions,
    })
}

/// As the configuration of an application writes it.
fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::LeastSessions => "least_requests",
        other => other.name(),
    }
}
