//! What an operator is told of the end: its label, whether and how loudly the log says it.

use tracing::Level;

use super::{Reason, TlsCause, Who};
use crate::mqtt::ConnectError;
use crate::telemetry::Notice;
use crate::websocket::Violation;

impl Reason {
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
