//! How a connection or session ended: who, in which phase, why. One value decides the HTTP-free rest: CONNACK code,
//! DISCONNECT code and close code (`to_client`), metric label, log level and log line (`to_operator`). Every `match` is without
//! a wildcard, so that a new reason does not compile until it has all of them.
#![warn(clippy::wildcard_enum_match_arm)]

mod to_client;
mod to_operator;

use std::io;

use super::proxy_header::HeaderError;
use crate::config::model::Timeouts;
use crate::lifecycle::Asked;
use crate::mqtt::{ConnectError, Malformed};
use crate::pool::JoinError;
use crate::websocket::Violation;

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Client,
    Gateway,
    Broker,
    Operator,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Broker => "broker",
            Self::Operator => "operator",
        }
    }
}

/// How far it had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From accept to the end of the PROXY header, where one is expected.
    ProxyHeader,
    /// Before the first request.
    Tls,
    Http,
    /// From the 101 to the end of CONNECT.
    Connect,
    /// From CONNECT to CONNACK.
    Join,
    Relay,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy_header",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Relay => "relay",
        }
    }
}

/// What a TLS handshake failed of; a closed set, for the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsCause {
    /// The client broke it off, most often because it does not trust the certificate.
    Alert,
    /// No version, cipher or key exchange in common.
    NothingInCommon,
    /// TLS 1.2 without Extended Master Secret: `tls.policy: compatible` would serve it.
    Policy,
    Garbage,
    Closed,
    /// The client's certificate is revoked, from another CA, out of date, or missing.
    ClientCertificate,
    /// The one for the client's name is still to be issued.
    NoCertificate,
    Other,
}

impl TlsCause {
    pub fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::NothingInCommon => "nothing_in_common",
            Self::Policy => "policy",
            Self::Garbage => "garbage",
            Self::Closed => "closed",
            Self::ClientCertificate => "client_certificate",
            Self::NoCertificate => "no_certificate",
            Self::Other => "other",
        }
    }
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("the client said DISCONNECT")]
    Disconnected,
    #[error("the client closed the WebSocket (code {0}) without DISCONNECT")]
    ClientClosed(u16),
    #[error("the client's connection ended without DISCONNECT")]
    Vanished,
    #[error("the client's connection broke: {0}")]
    ClientIo(#[source] io::Error),
    #[error("the client was silent for longer than its keepalive allows")]
    Idle,
    #[error("the client did not answer WebSocket pings (its keepalive is 0)")]
    PingTimeout,
    #[error("the client took no data for too long (timeouts.write)")]
    ClientStalled,
    #[error("nothing came before the time for the TLS handshake was over (timeouts.tls)")]
    TlsTimeout,
    #[error("no complete request came in time (timeouts.request)")]
    RequestTimeout,
    #[error("no complete CONNECT came in time (timeouts.connect)")]
    ConnectTimeout,
    #[error("plain HTTP on a TLS port: the URL must begin with https:// or wss://")]
    PlainHttpOnTls,
    #[error("MQTT without TLS and WebSocket on a TLS port: the URL must begin with wss://")]
    MqttOnTls,
    #[error(
        "MQTT over TLS without WebSocket: this port speaks WebSocket, the URL must begin with wss:// and not mqtts://"
    )]
    MqttInTls,
    #[error(
        "TLS on a plain port: the URL must begin with http:// or ws://, or the port is another one"
    )]
    TlsOnPlain,
    #[error(
        "MQTT without WebSocket on an HTTP port: the URL must begin with ws:// and not mqtt://"
    )]
    MqttOnHttp,
    #[error("the TLS handshake failed: {error}")]
    TlsFailed {
        cause: TlsCause,
        #[source]
        error: io::Error,
    },
    #[error("{0}")]
    ProxyHeader(HeaderError),
    #[error(
        "the pool takes its clients' names from certificates, and this client has none that it can use"
    )]
    NotAuthorized,
    #[error("the HTTP request cannot be read: {0}")]
    Http(#[source] hyper::Error),
    #[error("the client broke the rules of HTTP/2: {0}")]
    Http2(#[source] h2::Error),
    #[error(
        "the client sent more HTTP/2 frames that only make work (resets, PING, SETTINGS, PRIORITY, empty frames) than any client needs"
    )]
    Http2Flood,
    #[error("WebSocket: {0}")]
    Violation(#[source] Violation),
    #[error("MQTT: {0}")]
    Malformed(#[source] Malformed),
    #[error("MQTT: {0}")]
    Connect(#[source] ConnectError),
    #[error("a second CONNECT in one session (MQTT 3.1.0-2)")]
    SecondConnect,
    #[error("CONNECT is over the limit (limits.connect)")]
    ConnectTooLarge,
    #[error("a packet of {0} bytes is over the limit (limits.packet)")]
    PacketTooLarge(u64),
    #[error("{0}")]
    NoBroker(#[source] JoinError),
    #[error("a drain was running")]
    Draining,
    #[error("the gateway is shutting down")]
    Drained,
    #[error("its broker was taken out of the pool")]
    BrokerRemoved,
    #[error("the session has reached its age (drain.max_session_age)")]
    TooOld,
    #[error("the gateway was stopped before the session's turn in the drain")]
    Cut,
    #[error("the broker closed the connection without DISCONNECT")]
    BrokerClosed,
    #[error("the broker's connection broke: {0}")]
    BrokerIo(#[source] io::Error),
    #[error("the broker said DISCONNECT (reason {0:#04x})")]
    BrokerDisconnected(u8),
    #[error("the broker refused the session (CONNACK code {0:#04x})")]
    BrokerRefused(u8),
    #[error("the broker sent something that is not MQTT over its transport: {0}")]
    BrokerGarbage(String),
    #[error("the broker took no data for too long (timeouts.write)")]
    BrokerStalled,
    #[error("a bug: the task panicked")]
    Panicked,
}

impl Reason {
    /// TLS without close_notify, or a reset: the connection ended, how is no matter to MQTT.
    pub fn client_broke(error: io::Error) -> Self {
        let ended = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        );
        if ended {
            Self::Vanished
        } else {
            Self::ClientIo(error)
        }
    }

    pub fn who(&self) -> Who {
        match self {
            Self::Disconnected
            | Self::ClientClosed(_)
            | Self::Vanished
            | Self::ClientIo(_)
            | Self::Idle
            | Self::PingTimeout
            | Self::ClientStalled
            | Self::TlsTimeout
            | Self::RequestTimeout
            | Self::ConnectTimeout
            | Self::PlainHttpOnTls
            | Self::MqttOnTls
            | Self::MqttInTls
            | Self::TlsOnPlain
            | Self::MqttOnHttp
            | Self::TlsFailed { .. }
            | Self::ProxyHeader(_)
            | Self::NotAuthorized
            | Self::Http(_)
            | Self::Http2(_)
            | Self::Http2Flood
            | Self::Violation(_)
            | Self::Malformed(_)
            | Self::Connect(_)
            | Self::SecondConnect
            | Self::ConnectTooLarge
            | Self::PacketTooLarge(_) => Who::Client,
            Self::Panicked => Who::Gateway,
            Self::Draining | Self::Drained | Self::Cut => Who::Operator,
            Self::BrokerRemoved | Self::TooOld => Who::Operator,
            Self::NoBroker(_)
            | Self::BrokerClosed
            | Self::BrokerIo(_)
            | Self::BrokerDisconnected(_)
            | Self::BrokerRefused(_)
            | Self::BrokerGarbage(_)
            | Self::BrokerStalled => Who::Broker,
        }
    }

    /// Why a session that was asked to leave has left.
    pub fn asked(asked: Option<Asked>) -> Self {
        match asked {
            Some(Asked::Group) => Self::BrokerRemoved,
            Some(Asked::Age) => Self::TooOld,
            Some(Asked::Stop) | None => Self::Drained,
        }
    }

    /// True when the operator ends the session, in the words that the configuration has for it.
    pub fn is_farewell(&self) -> bool {
        matches!(
            self,
            Self::Drained | Self::BrokerRemoved | Self::TooOld | Self::Cut
        )
    }

    /// True when the whole gateway goes, and clients may be told of another one.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Drained | Self::Cut)
    }
}

/// The silence that a client is allowed: 1.5 × keepalive, as MQTT 3.1.2.10 says of the server, and a margin so that the
/// broker comes first: the Will is its decision. `None` for keepalive 0.
pub fn idle_limit(keepalive: u16, timeouts: &Timeouts) -> Option<std::time::Duration> {
    let keepalive = std::time::Duration::from_secs(keepalive.into());
    (!keepalive.is_zero()).then(|| keepalive * 3 / 2 + timeouts.idle_margin)
}
