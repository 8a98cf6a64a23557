//! Why one attempt at a broker failed. The sentences are for the operator, the causes are metric labels.

use std::io;
use std::net::IpAddr;

use crate::framing::Fault;
use crate::mqtt::PacketType;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("connection refused: is it running, and is the port right?")]
    Refused,
    #[error(
        "no free source port towards it: source ports exhausted (source_addresses, net.ipv4.ip_local_port_range)"
    )]
    SourcePorts,
    #[error("the source address {0} cannot be used (source_addresses): {1}")]
    SourceAddress(IpAddr, #[source] io::Error),
    #[error("cannot connect to the Unix socket: {0}{hint}", hint = socket_hint(.0))]
    Socket(#[source] io::Error),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no connection within the time for it (timeouts.broker_connect)")]
    ConnectTimeout,
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("WebSocket handshake: {0}")]
    Handshake(#[from] HandshakeFailure),
    #[error("it closed the connection before CONNACK")]
    Closed,
    #[error("the connection broke before CONNACK: {0}")]
    Io(#[source] io::Error),
    #[error("no CONNACK within the time for it (timeouts.connack)")]
    ConnackTimeout,
    #[error("it answered CONNECT with {} and not CONNACK", .0.name())]
    NotConnack(PacketType),
    #[error("it answered CONNECT with something that is not MQTT: {0}")]
    Garbage(#[source] Fault),
    #[error("its CONNACK cannot be read")]
    BrokenConnack,
    #[error("it said in CONNACK that another broker shall take the session (code {0:#04x})")]
    Elsewhere(u8),
}

/// How a ws broker's answer to the upgrade is wrong.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailure {
    #[error("HTTP {0} and not 101{hint}", hint = hint(*.0))]
    Status(u16),
    #[error("the answer is not HTTP{}", first_byte(*.0))]
    NotHttp(u8),
    #[error("the head of the answer is over 8 KiB")]
    TooLong,
    #[error("the answer's {0} header is missing or wrong")]
    Header(&'static str),
    #[error("it chose the subprotocol `{0}`, which was not offered")]
    Subprotocol(String),
    #[error(
        "it closed the connection without an answer: does it want another path or subprotocol?"
    )]
    Closed,
    #[error("{0}")]
    Io(#[source] io::Error),
}

fn hint(status: u16) -> &'static str {
    match status {
        400 => " (EMQX and NanoMQ answer so to a subprotocol that they do not know)",
        401 | 403 => " (it wants credentials in the HTTP request)",
        404 => " (is the path right? EMQX: /mqtt, RabbitMQ: /ws)",
        426 => " (does another kind of server listen there?)",
        431 => " (the request's headers are too long for it)",
        _ => "",
    }
}

fn socket_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (is it running, and its folder mounted here?)",
        io::ErrorKind::PermissionDenied => {
            " (the gateway's user must be able to write to the socket and to enter its folder)"
        }
        io::ErrorKind::ConnectionRefused => {
            " (nobody listens there: a server that died leaves its socket behind)"
        }
        _ => "",
    }
}

fn first_byte(byte: u8) -> &'static str {
    match byte {
        0x15 | 0x16 => ": it is TLS; use wss:// or mqtts://",
        0x20 => ": it is MQTT; use mqtt://",
        _ => "",
    }
}

impl Failure {
    /// The label in metrics.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Socket(_) => "socket",
            Self::SourcePorts => "source_ports_exhausted",
            Self::SourceAddress(..) => "source_address",
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls(_) => "tls",
            Self::Handshake(HandshakeFailure::Status(_)) => "handshake_status",
            Self::Handshake(_) => "handshake",
            Self::Closed => "closed",
            Self::Io(_) => "io",
            Self::ConnackTimeout => "connack_timeout",
            Self::NotConnack(_) | Self::Garbage(_) | Self::BrokenConnack => "protocol",
            Self::Elsewhere(_) => "connack_elsewhere",
        }
    }

    pub(super) fn connecting(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            // It took the connection and threw it away before we had a look.
            io::ErrorKind::ConnectionReset => Self::Closed,
            // connect(2): EADDRNOTAVAIL when every local port is taken, EADDRINUSE where one was bound before.
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Self::SourcePorts,
            _ => Self::Connect(error),
        }
    }
}
