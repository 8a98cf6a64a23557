//! What a client is told of the end: the Close frame, and MQTT's own codes.

use super::Reason;
use crate::mqtt::{ConnectError, ReasonCode};
use crate::websocket::{CloseCode, Violation};

impl Reason {
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
            Self::Connect(
                ConnectError::ReservedFlag
                | ConnectError::Truncated
                | ConnectError::TrailingBytes
                | ConnectError::NotText,
            ) => ReasonCode::MalformedPacket,
            Self::Connect(ConnectError::ContradictingFlags) | Self::SecondConnect => {
                ReasonCode::ProtocolError
            }
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
}
