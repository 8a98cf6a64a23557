//! How a connection or session ended: who, in which phase, why. One value decides the HTTP-free rest: CONNACK code,
//! DISCONNECT code, close code, metric label, log level and log line. Every `match` is without a wildcard, so that a new
//! reason does not compile until it has all of them.
#![warn(clippy::wildcard_enum_match_arm)]

use std::io;

use tracing::Level;

use super::proxy_header::HeaderError;
use crate::config::model::Timeouts;
use crate::lifecycle::Asked;
use crate::mqtt::{ConnectError, Malformed, ReasonCode};
use crate::pool::JoinError;
use crate::telemetry::Notice;
use crate::websocket::{CloseCode, Violation};

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

    /// The label in metrics and logs.
    pub fn why(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnect",
            Self::ClientClosed(_) => "close",
            Self::Vanished => "vanished",
            Self::ClientIo(_) => "io",
            Self::Idle => "idle",
            Self::PingTimeout => "ping_timeout",
            Self::ClientStalled | Self::BrokerStalled => "stalled",
            Self::TlsTimeout => "tls_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::ConnectTimeout => "connect_timeout",
            Self::PlainHttpOnTls => "plain_http_on_tls",
            Self::MqttOnTls => "mqtt_on_tls",
            Self::MqttInTls => "mqtt_in_tls",
            Self::TlsOnPlain => "tls_on_plain",
            Self::MqttOnHttp => "mqtt_on_http",
            Self::TlsFailed { .. } => "tls_failed",
            Self::ProxyHeader(error) => error.why(),
            Self::NotAuthorized => "not_authorized",
            Self::Http(_) => "http",
            Self::Http2(_) => "http2",
            Self::Http2Flood => "http2_flood",
            Self::Violation(Violation::Text) => "text_frame",
            Self::Violation(_) => "websocket",
            Self::Malformed(_) => "malformed",
            Self::Connect(ConnectError::NotConnect(_)) => "not_connect",
            Self::Connect(_) => "bad_connect",
            Self::SecondConnect => "second_connect",
            Self::ConnectTooLarge => "connect_too_large",
            Self::PacketTooLarge(_) => "packet_too_large",
            Self::NoBroker(error) if error.busy.is_some() => "busy",
            Self::NoBroker(_) => "no_broker",
            Self::Draining => "draining",
            Self::Drained => "drain",
            Self::BrokerRemoved => "broker_removed",
            Self::TooOld => "age",
            Self::Cut => "cut",
            Self::BrokerClosed => "close",
            Self::BrokerIo(_) => "io",
            Self::BrokerDisconnected(_) => "disconnect",
            Self::BrokerRefused(_) => "refused",
            Self::BrokerGarbage(_) => "protocol",
            Self::Panicked => "panic",
        }
    }

    /// The Close frame for the client (RFC 6455 7.4.1), and its reason; `None` where no WebSocket is there to close or
    /// the client is gone.
    pub fn close(&self) -> Option<(CloseCode, &'static str)> {
        Some(match self {
            Self::Disconnected => (CloseCode::Normal, ""),
            // RFC 6455 5.5.1: answer with the same code; 1005 is the answer to none.
            Self::ClientClosed(1005) => (CloseCode::Normal, ""),
            Self::ClientClosed(code) => (CloseCode::from(*code), ""),
            Self::Idle => (
                CloseCode::Policy,
                "silent for longer than the keepalive allows",
            ),
            Self::PingTimeout => (CloseCode::Policy, "WebSocket pings were not answered"),
            Self::ClientStalled => (CloseCode::Policy, "took no data for too long"),
            Self::ConnectTimeout => (CloseCode::Policy, "no MQTT CONNECT came in time"),
            Self::Violation(Violation::Text) => (
                CloseCode::Unsupported,
                "MQTT needs binary frames, this was text",
            ),
            Self::Violation(violation) => (violation.close_code(), "WebSocket protocol error"),
            Self::Malformed(_) => (CloseCode::Protocol, "malformed MQTT packet"),
            Self::Connect(ConnectError::NotConnect(_)) => {
                (CloseCode::Protocol, "the first MQTT packet must be CONNECT")
            }
            Self::Connect(ConnectError::ClientIdTooLong) => {
                (CloseCode::Policy, "the client id is too long")
            }
            Self::Connect(_) => (CloseCode::Protocol, "malformed MQTT CONNECT"),
            Self::SecondConnect => (CloseCode::Protocol, "a second MQTT CONNECT"),
            Self::ConnectTooLarge => (CloseCode::Size, "MQTT CONNECT is over the limit"),
            Self::PacketTooLarge(_) => (CloseCode::Size, "MQTT packet is over the limit"),
            Self::NotAuthorized => (CloseCode::Policy, "a client certificate is needed here"),
            Self::NoBroker(_) => (
                CloseCode::Again,
                "no broker took the session, try again later",
            ),
            Self::Draining => (CloseCode::Restart, "the gateway is restarting"),
            Self::Drained | Self::Cut => (CloseCode::Away, "the gateway is shutting down"),
            Self::BrokerRemoved => (CloseCode::Away, "the broker is taken out, come again"),
            Self::TooOld => (CloseCode::Away, "the session is old, come again"),
            Self::BrokerRefused(_) => (
                CloseCode::Normal,
                "the broker refused the session, see CONNACK",
            ),
            Self::BrokerDisconnected(_) => (
                CloseCode::Normal,
                "the broker ended the session, see DISCONNECT",
            ),
            Self::BrokerClosed
            | Self::BrokerIo(_)
            | Self::BrokerGarbage(_)
            | Self::BrokerStalled => (CloseCode::Error, "the broker is gone"),
            Self::Vanished
            | Self::ClientIo(_)
            | Self::TlsTimeout
            | Self::RequestTimeout
            | Self::PlainHttpOnTls
            | Self::MqttOnTls
            | Self::MqttInTls
            | Self::TlsOnPlain
            | Self::MqttOnHttp
            | Self::TlsFailed { .. }
            | Self::ProxyHeader(_)
            | Self::Http(_)
            | Self::Http2(_)
            | Self::Http2Flood
            | Self::Panicked => return None,
        })
    }

    /// What MQTT says to the client: in CONNACK before one was sent, in MQTT 5's DISCONNECT after.
    pub fn mqtt(&self) -> Option<ReasonCode> {
        Some(match self {
            Self::Malformed(_) => ReasonCode::MalformedPacket,
            Self::Connect(ConnectError::ProtocolLevel(_)) => ReasonCode::UnsupportedVersion,
            Self::Connect(ConnectError::ClientIdTooLong) => ReasonCode::ClientIdNotValid,
            Self::Connect(ConnectError::ReservedFlag | ConnectError::Truncated | ConnectError::TrailingBytes | ConnectError::NotText) => {
                ReasonCode::MalformedPacket
            }
            Self::Connect(ConnectError::ContradictingFlags) | Self::SecondConnect => ReasonCode::ProtocolError,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::Idle | Self::PingTimeout => ReasonCode::KeepAliveTimeout,
            Self::PacketTooLarge(_) | Self::ConnectTooLarge => ReasonCode::PacketTooLarge,
            Self::NoBroker(error) if error.is_crowded() => ReasonCode::ServerBusy,
            Self::NoBroker(_) | Self::Draining => ReasonCode::ServerUnavailable,
            Self::TooOld => ReasonCode::MaximumConnectTime,
            Self::Drained
            | Self::BrokerRemoved
            | Self::Cut
            | Self::BrokerClosed
            | Self::BrokerIo(_)
            | Self::BrokerGarbage(_)
            | Self::BrokerStalled => ReasonCode::ServerShuttingDown,
            // The name or the type says that it is not MQTT at all: there is no one to answer to.
            Self::Connect(ConnectError::NotConnect(_) | ConnectError::ProtocolName)
            | Self::Violation(_)
            | Self::ClientStalled
            | Self::ConnectTimeout
            | Self::Disconnected
            | Self::ClientClosed(_)
            | Self::Vanished
            | Self::ClientIo(_)
            | Self::TlsTimeout
            | Self::RequestTimeout
            | Self::PlainHttpOnTls
            | Self::MqttOnTls
            | Self::MqttInTls
            | Self::TlsOnPlain
            | Self::MqttOnHttp
            | Self::TlsFailed { .. }
            | Self::ProxyHeader(_)
            | Self::Http(_)
            | Self::Http2(_)
            | Self::Http2Flood
            // The broker has told the client itself.
            | Self::BrokerRefused(_)
            | Self::BrokerDisconnected(_)
            | Self::Panicked => return None,
        })
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

    /// How loud a line about it is: `warn` and above want the operator to do something.
    pub fn level(&self) -> Level {
        match self.who() {
            Who::Client | Who::Operator => Level::INFO,
            Who::Broker if matches!(self, Self::BrokerRefused(_) | Self::BrokerDisconnected(_)) => {
                Level::INFO
            }
            Who::Broker => Level::WARN,
            Who::Gateway => Level::ERROR,
        }
    }

    /// Whether an operator who looks at the last ends wants to see it among those that clients bring about every day.
    pub fn notice(&self) -> Notice {
        match self {
            Self::Disconnected
            | Self::ClientClosed(_)
            | Self::Vanished
            | Self::RequestTimeout
            | Self::Drained
            | Self::BrokerRemoved
            | Self::TooOld => Notice::Ordinary,
            // Scanners and probes of balancers knock all day.
            Self::TlsTimeout
            | Self::TlsFailed {
                cause: TlsCause::Closed | TlsCause::Garbage,
                ..
            } => Notice::Ordinary,
            Self::ClientIo(_)
            | Self::Idle
            | Self::PingTimeout
            | Self::ClientStalled
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
            | Self::PacketTooLarge(_)
            | Self::NoBroker(_)
            | Self::Draining
            | Self::Cut
            | Self::BrokerClosed
            | Self::BrokerIo(_)
            | Self::BrokerDisconnected(_)
            | Self::BrokerRefused(_)
            | Self::BrokerGarbage(_)
            | Self::BrokerStalled
            | Self::Panicked => Notice::Unusual,
        }
    }

    /// True when an end in the phase before a session is worth a log line of its own: mistakes of people, not the noise
    /// of scanners.
    pub fn is_told(&self) -> bool {
        matches!(
            self,
            Self::PlainHttpOnTls
                | Self::MqttOnTls
                | Self::MqttInTls
                | Self::TlsOnPlain
                | Self::MqttOnHttp
                | Self::TlsFailed {
                    cause: TlsCause::Alert
                        | TlsCause::NothingInCommon
                        | TlsCause::Policy
                        | TlsCause::ClientCertificate,
                    ..
                }
                | Self::ProxyHeader(_)
        )
    }
}

/// The silence that a client is allowed: 1.5 × keepalive, as MQTT 3.1.2.10 says of the server, and a margin so that the
/// broker comes first: the Will is its decision. `None` for keepalive 0.
pub fn idle_limit(keepalive: u16, timeouts: &Timeouts) -> Option<std::time::Duration> {
    let keepalive = std::time::Duration::from_secs(keepalive.into());
    (!keepalive.is_zero()).then(|| keepalive * 3 / 2 + timeouts.idle_margin)
}
