//! What is measured: the rows of the table, in its order.

use crate::clients::Tls;
use crate::site::Version;

/// What a figure is for one of.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Of CPU: a connection, from TCP to CONNACK and its end.
    Connection,
    /// Of CPU: a message up through the gateway and its echo down again.
    RoundTrip,
    /// Of CPU: a message down.
    Delivery,
    /// Of CPU: a file of the web site.
    Request,
    /// Of memory.
    Session,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "µs of CPU / connection",
            Self::RoundTrip => "µs of CPU / round trip",
            Self::Delivery => "µs of CPU / delivery",
            Self::Request => "µs of CPU / request",
            Self::Session => "KiB / session",
        }
    }
}

#[derive(Clone, Copy)]
pub enum Load {
    /// Clients that come, hear CONNACK and leave, 16 at a time.
    Handshakes(Tls),
    /// Each client sends so many a second, whatever comes back.
    Rate {
        clients: usize,
        bytes: usize,
        each: f64,
    },
    /// Each client keeps so many on their way.
    Window {
        clients: usize,
        bytes: usize,
        window: usize,
    },
    /// One publisher, straight at the broker, so many a second.
    FanOut { subscribers: usize, each: f64 },
    /// Files of the web site, as many as it can.
    Files { bytes: usize, version: Version },
    /// Sessions that say nothing.
    Idle { sessions: usize },
}

pub struct Row {
    pub id: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    pub load: Load,
    /// It is a bar of the chart.
    pub charted: bool,
}

const fn row(id: &'static str, title: &'static str, unit: Unit, load: Load) -> Row {
    Row {
        id,
        title,
        unit,
        load,
        charted: true,
    }
}

/// In a closed loop (`Window`) a gateway that is slower finds more at each wake-up and spends less on each: such rows show
/// how much goes through at most. Messages at a rate, where all are offered the same, show what one costs.
pub const ROWS: &[Row] = &[
    row(
        "full",
        "TLS 1.3 handshake to CONNACK",
        Unit::Connection,
        Load::Handshakes(Tls::Full),
    ),
    row(
        "resumed",
        "the same, resumed",
        Unit::Connection,
        Load::Handshakes(Tls::Resumed),
    ),
    Row {
        charted: false,
        ..row(
            "hybrid",
            "the same, X25519MLKEM768",
            Unit::Connection,
            Load::Handshakes(Tls::PostQuantum),
        )
    },
    row(
        "rate",
        "64 B, 50 clients × 200/s",
        Unit::RoundTrip,
        Load::Rate {
            clients: 50,
            bytes: 64,
            each: 200.0,
        },
    ),
    row(
        "sparse",
        "64 B, 1000 clients × 1/s",
        Unit::RoundTrip,
        Load::Rate {
            clients: 1000,
            bytes: 64,
            each: 1.0,
        },
    ),
    row(
        "window1",
        "64 B, 50 clients, 1 on its way",
        Unit::RoundTrip,
        Load::Window {
            clients: 50,
            bytes: 64,
            window: 1,
        },
    ),
    row(
        "window32",
        "64 B, 50 clients, 32 on their way",
        Unit::RoundTrip,
        Load::Window {
            clients: 50,
            bytes: 64,
            window: 32,
        },
    ),
    row(
        "1k",
        "1 KiB, 50 clients, 4 on their way",
        Unit::RoundTrip,
        Load::Window {
            clients: 50,
            bytes: 1024,
            window: 4,
        },
    ),
    row(
        "16k",
        "16 KiB, 16 clients, 2 on their way",
        Unit::RoundTrip,
        Load::Window {
            clients: 16,
            bytes: 16 << 10,
            window: 2,
        },
    ),
    row(
        "256k",
        "256 KiB, 8 clients, 2 on their way",
        Unit::RoundTrip,
        Load::Window {
            clients: 8,
            bytes: 256 << 10,
            window: 2,
        },
    ),
    row(
        "fan",
        "fan-out, 1000 subscribers × 10/s",
        Unit::Delivery,
        Load::FanOut {
            subscribers: 1000,
            each: 10.0,
        },
    ),
    row(
        "file-1k-h1",
        "file of 1 KiB, HTTP/1.1",
        Unit::Request,
        Load::Files {
            bytes: 1 << 10,
            version: Version::Http1,
        },
    ),
    row(
        "file-100k-h1",
        "file of 100 KiB, HTTP/1.1",
        Unit::Request,
        Load::Files {
            bytes: 100 << 10,
            version: Version::Http1,
        },
    ),
    row(
        "file-1k-h2",
        "file of 1 KiB, HTTP/2",
        Unit::Request,
        Load::Files {
            bytes: 1 << 10,
            version: Version::Http2,
        },
    ),
    row(
        "file-100k-h2",
        "file of 100 KiB, HTTP/2",
        Unit::Request,
        Load::Files {
            bytes: 100 << 10,
            version: Version::Http2,
        },
    ),
    row(
        "idle",
        "idle sessions, memory",
        Unit::Session,
        Load::Idle { sessions: 9000 },
    ),
];
