//! A broker's end of a session that sends back what comes, over MQTT or over ws.

use tokio::io::AsyncWriteExt;

use super::broker::{Broker, Session, WsSession};
use super::frames::{self, BINARY, FIN, Frame};

/// What the broker speaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speaks {
    Mqtt,
    Ws,
}

impl Speaks {
    pub const BOTH: [Self; 2] = [Self::Mqtt, Self::Ws];

    pub fn url(self, broker: &Broker) -> String {
        match self {
            Self::Mqtt => broker.mqtt_url(),
            Self::Ws => broker.ws_url(),
        }
    }
}

pub enum Echo {
    Mqtt(Session),
    Ws(Box<WsSession>),
}

impl Echo {
    /// The next session, its CONNECT answered with success.
    pub async fn welcome(broker: &Broker, speaks: Speaks) -> Self {
        match speaks {
            Speaks::Mqtt => Self::Mqtt(broker.welcome().await),
            Speaks::Ws => Self::Ws(Box::new(broker.ws_welcome().await)),
        }
    }

    /// Waits for this packet and sends it back.
    pub async fn echo(&mut self, packet: &[u8]) {
        match self {
            Self::Mqtt(session) => {
                assert_eq!(session.receive().await, packet);
                session.send(packet).await;
            }
            Self::Ws(session) => {
                let stream = session.socket.get_mut();
                assert_eq!(frames::read(stream).await, Frame::binary(packet));
                let frame = frames::unmasked(FIN | BINARY, packet);
                stream.write_all(&frame).await.unwrap();
            }
        }
    }
}
