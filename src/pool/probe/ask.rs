//! One probe of one broker, over the transport that its sessions use.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{ProbeFailure, http};
use crate::config::model::{Probe, ProbeKind};
use crate::config::probe_values::Secret;
use crate::framing::{Limits, Output};
use crate::mqtt::Version;
use crate::pool::attempt::{Reading, send};
use crate::pool::health::Sign;
use crate::pool::{Broker, Pool, connect};
use crate::stream::{Stream, read_away};
use crate::telemetry::Counters;

/// A CONNACK that is longer is none.
const LONGEST: u64 = 1024;

/// Of the session that a probe is: it lives for a moment.
const KEEPALIVE: u16 = 30;

const DISCONNECT: [u8; 2] = [0xe0, 0];

impl Pool {
    pub(super) async fn ask(&self, broker: &Broker, client_id: &str) -> Result<Sign, ProbeFailure> {
        match self.probe.kind {
            ProbeKind::Off | ProbeKind::Tcp => {
                let mut stream = connect::connect(broker, None).await?;
                // A broker that hears no FIN logs a reset; whether it hears ours is its own affair.
                drop(stream.shutdown().await);
                Ok(Sign::Good { session: false })
            }
            ProbeKind::Mqtt => self.ask_mqtt(broker, client_id).await,
            ProbeKind::Http => http::ask(self, broker).await,
        }
    }

    async fn ask_mqtt(&self, broker: &Broker, client_id: &str) -> Result<Sign, ProbeFailure> {
        let (mut stream, early) = self.open(broker, None).await?;
        let reading = Reading {
            version: Version::V311,
            output: Output::Stream,
            limits: Limits {
                packet: LONGEST,
                frame: LONGEST,
                watched: LONGEST,
            },
            // Of nobody: a probe is no traffic.
            counters: Counters::default(),
        };
        let connect = connect_packet(client_id, &self.probe);
        let answer = reading.answer(&mut stream, early, &connect, broker).await?;
        let code = answer.connack.map_or(0, |connack| connack.code);
        if code == 0 {
            say_goodbye(stream, broker).await;
        }
        match code {
            0 => Ok(Sign::Good { session: true }),
            // Bad user name or password, not authorized: it asked for a user that the probe was not given.
            4 | 5 if self.probe.user_name.is_none() => Ok(Sign::Good { session: true }),
            code => Err(ProbeFailure::Refused(code)),
        }
    }
}

/// DISCONNECT, so that nothing is left of the session and nothing is logged as lost.
async fn say_goodbye(mut stream: Stream, broker: &Broker) {
    const PATIENCE: Duration = Duration::from_millis(200);
    let leaving = async {
        if send(&mut stream, &DISCONNECT, broker).await.is_ok() {
            // The broker closes first, and keeps the TIME_WAIT.
            drop(read_away(&mut stream).await);
        }
    };
    drop(timeout(PATIENCE, leaving).await);
}

/// MQTT 3.1.1 (3.1), clean session.
fn connect_packet(client_id: &str, probe: &Probe) -> Vec<u8> {
    const CLEAN: u8 = 0x02;
    const PASSWORD: u8 = 0x40;
    const USER_NAME: u8 = 0x80;
    let user_name = probe.user_name.as_deref();
    let password = probe.password.as_ref().map(Secret::reveal);
    let mut flags = CLEAN;
    if user_name.is_some() {
        flags |= USER_NAME;
    }
    if password.is_some() {
        flags |= PASSWORD;
    }
    let mut body = b"\x00\x04MQTT\x04".to_vec();
    body.push(flags);
    body.extend_from_slice(&KEEPALIVE.to_be_bytes());
    for text in [Some(client_id), user_name, password].into_iter().flatten() {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
    let mut packet = vec![0x10];
    let mut length = body.len();
    loop {
        let low = (length & 0x7f).to_le_bytes()[0];
        length >>= 7;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(&body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Connect;

    #[test]
    fn the_probe_is_a_connect_that_a_broker_can_read() {
        let mut probe = Probe {
            kind: ProbeKind::Mqtt,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            client_id: String::new(),
            user_name: None,
            password: None,
            url: None,
        };
        let packet = connect_packet("tidegate-probe-01234567", &probe);
        let connect = Connect::read(&packet, 23).unwrap();
        assert_eq!(connect.client_id, "tidegate-probe-01234567");
        assert!(connect.clean && connect.user_name.is_none());
        probe.user_name = Some("u".repeat(200));
        probe.password = Some("secret".parse().unwrap());
        let packet = connect_packet("p", &probe);
        assert!(packet.ends_with(b"\x00\x06secret"));
        assert_eq!(
            Connect::read(&packet, 23).unwrap().user_name,
            probe.user_name.as_deref()
        );
    }
}
