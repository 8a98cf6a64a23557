//! The end of a session: what the client is told, and that both sides are let go.

use std::time::Duration;

use tokio::time::timeout;

use crate::gateway::Gateway;
use crate::gateway::outcome::{Phase, Reason};
use crate::gateway::record::Record;
use crate::mqtt::{self, Connack, Version};
use crate::stream::{Stream, read_away};
use crate::websocket::{Opcode, close, data_header};

/// A client that is to be told how its session ended.
pub(super) struct Ended {
    pub(super) client: Stream,
    /// To be written first.
    pub(super) pending: Vec<u8>,
    /// No packet is half written: MQTT may say something.
    pub(super) at_packet_boundary: bool,
    /// No frame is half written: a Close may follow.
    pub(super) at_frame_boundary: bool,
    /// The broker, where it is to be let finish.
    pub(super) broker: Option<Stream>,
    pub(super) reason: Reason,
}

/// Before CONNACK: MQTT's answer where there is one.
pub(super) fn refused(client: Stream, reason: Reason, version: Option<Version>) -> Box<Ended> {
    let mut pending = Vec::new();
    let connack = version
        .zip(reason.mqtt())
        .and_then(|(version, code)| Connack::refuse(version, code));
    if let Some(packet) = connack {
        data_header(
            &mut pending,
            Opcode::Binary,
            true,
            packet.len() as u64,
            None,
        );
        pending.extend_from_slice(&packet);
    }
    Box::new(Ended {
        client,
        pending,
        at_packet_boundary: true,
        at_frame_boundary: true,
        broker: None,
        reason,
    })
}

/// Tells the client why, in MQTT where a packet boundary allows it and in a Close frame, then lets both sides go.
///
/// The record is written before: the session is over, and what follows is courtesy.
pub(super) async fn say_goodbye(ended: Ended, mut record: Box<Record>, gateway: &Gateway) {
    /// For our last bytes; for the client's answer to them.
    const PATIENCE: Duration = Duration::from_secs(2);
    let Ended {
        mut client,
        mut pending,
        at_packet_boundary,
        at_frame_boundary,
        broker,
        reason,
    } = ended;
    // How sessions end that the operator ends is his last word, and not that of the time when they began.
    let farewell = reason.is_farewell().then(|| gateway.snapshot.load_full());
    let drain = farewell.as_ref().map(|snapshot| &snapshot.drain);
    if at_packet_boundary && record.phase == Phase::Relay {
        let reference = drain
            .filter(|_| reason.is_stop())
            .and_then(|drain| drain.server_reference.as_deref());
        if let Some(packet) = last_packet(&reason, record.version, reference) {
            let length = packet.len() as u64;
            data_header(&mut pending, Opcode::Binary, true, length, None);
            pending.extend_from_slice(&packet);
        }
    }
    if at_frame_boundary && let Some((code, text)) = reason.close() {
        let code = drain.map_or(code, |drain| drain.close_code.into());
        close(&mut pending, code, text, None);
    }
    let heard = !matches!(reason, Reason::Vanished | Reason::ClientIo(_));
    let answered = matches!(reason, Reason::ClientClosed(_));
    record.finish(reason);
    drop(record);
    let farewell = async {
        client.end_with(&pending).await?;
        // The client closes in its turn.
        match answered {
            true => Ok(()),
            false => read_away(&mut client).await,
        }
    };
    let farewell = async {
        if heard && let Ok(Err(error)) = timeout(PATIENCE, farewell).await {
            tracing::trace!(%error, "the client left before the goodbye");
        }
    };
    let broker = async {
        if let Some(broker) = broker {
            wait_for_end(broker).await;
        }
    };
    let goodbye = async { tokio::join!(farewell, broker) };
    // CANCEL: the first poll has written what is written without waiting; a cut waits for nobody.
    tokio::select! {
        biased;
        _ = goodbye => {}
        () = gateway.drain.cut() => {}
    }
}

/// MQTT 5's DISCONNECT, where there is one to say.
fn last_packet(
    reason: &Reason,
    version: Option<Version>,
    reference: Option<&str>,
) -> Option<Vec<u8>> {
    let (code, version) = reason.mqtt().zip(version)?;
    match reference {
        Some(reference) => mqtt::send_away(version, reference),
        None => mqtt::disconnect(version, code).map(Vec::from),
    }
}

/// A broker that was told DISCONNECT closes by itself, and so keeps the TIME_WAIT.
async fn wait_for_end(mut broker: Stream) {
    const PATIENCE: Duration = Duration::from_millis(500);
    drop(timeout(PATIENCE, read_away(&mut broker)).await);
}
