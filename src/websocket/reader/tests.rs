//! The frame reader against tables of RFC 6455 and against tungstenite as an oracle.

use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::*;

fn masked(frame: &[u8]) -> Result<Vec<Event<'_>>, Violation> {
    events(Peer::Client, frame)
}

fn events(peer: Peer, mut input: &[u8]) -> Result<Vec<Event<'_>>, Violation> {
    let mut reader = FrameReader::new(peer);
    let mut events = Vec::new();
    loop {
        match reader.next(&mut input)? {
            Event::End => return Ok(events),
            event => events.push(event),
        }
    }
}

#[test]
fn each_violation_is_found_in_the_first_two_bytes_or_in_the_length() {
    let key = [0; 4];
    let with_key = |head: &[u8]| [head, &key].concat();
    let table = [
        (
            with_key(&[0x81, 0x80]),
            Violation::Text,
            CloseCode::Unsupported,
        ),
        (
            with_key(&[0xc2, 0x80]),
            Violation::ReservedBits,
            CloseCode::Protocol,
        ),
        (
            with_key(&[0x83, 0x80]),
            Violation::ReservedOpcode,
            CloseCode::Protocol,
        ),
        (vec![0x82, 0x01], Violation::Unmasked, CloseCode::Protocol),
        (
            vec![0x89, 0xfe],
            Violation::ControlTooLong,
            CloseCode::Protocol,
        ),
        (
            vec![0x09, 0x80],
            Violation::ControlFragmented,
            CloseCode::Protocol,
        ),
        (
            vec![0x80, 0x80],
            Violation::Continuation,
            CloseCode::Protocol,
        ),
        (
            [&with_key(&[0x02, 0x80])[..], &[0x82, 0x80]].concat(),
            Violation::Interrupted,
            CloseCode::Protocol,
        ),
        (
            with_key(&[0x82, 0xfe, 0, 125]),
            Violation::Length,
            CloseCode::Protocol,
        ),
        (
            with_key(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            Violation::Length,
            CloseCode::Protocol,
        ),
        (
            with_key(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0]),
            Violation::Length,
            CloseCode::Protocol,
        ),
        (
            [&with_key(&[0x88, 0x81])[..], &[3]].concat(),
            Violation::CloseCode,
            CloseCode::Protocol,
        ),
        (
            [&with_key(&[0x88, 0x82])[..], &1005_u16.to_be_bytes()].concat(),
            Violation::CloseCode,
            CloseCode::Protocol,
        ),
        (
            [
                &with_key(&[0x88, 0x83])[..],
                &1000_u16.to_be_bytes(),
                &[0xff],
            ]
            .concat(),
            Violation::CloseReason,
            CloseCode::Invalid,
        ),
    ];
    for (frame, violation, code) in table {
        assert_eq!(masked(&frame), Err(violation), "{frame:02x?}");
        assert_eq!(violation.close_code(), code);
    }
    assert_eq!(events(Peer::Broker, &[0x82, 0x80]), Err(Violation::Masked));
}

#[test]
fn control_frames_may_stand_inside_a_fragmented_message() {
    let input = [
        &[0x02, 0x01, b'a'][..],
        &[0x89, 0x02, b'h', b'i'],
        &[0x80, 0x01, b'b'],
        &[0x88, 0x00],
    ]
    .concat();
    let found = events(Peer::Broker, &input).unwrap();
    assert_eq!(
        found,
        [
            Event::Data {
                bytes: b"a",
                key: NO_MASK
            },
            Event::Control(Control::Ping(b"hi".to_vec())),
            Event::Data {
                bytes: b"b",
                key: NO_MASK
            },
            Event::Control(Control::Close(CloseCode::Status)),
        ]
    );
}

/// A valid stream of frames, its payload and its control frames, by tungstenite.
fn frame_stream() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, usize)> {
    let frame = (prop::collection::vec(any::<u8>(), 0..300), 0..4_u8);
    prop::collection::vec(frame, 0..12).prop_map(|frames| {
        let (mut wire, mut payload, mut pings) = (Vec::new(), Vec::new(), 0);
        let mut open = false;
        for (bytes, kind) in frames {
            let frame = if kind == 3 {
                pings += 1;
                Frame::ping(bytes[..bytes.len().min(125)].to_vec())
            } else {
                payload.extend_from_slice(&bytes);
                let opcode = if open { Data::Continue } else { Data::Binary };
                let last = kind > 0;
                open = !last;
                Frame::message(bytes, OpCode::Data(opcode), last)
            };
            let mut header: FrameHeader = frame.header().clone();
            let key = [7, 99, 200, 3];
            header.mask = Some(key);
            header
                .format(frame.payload().len() as u64, &mut wire)
                .unwrap();
            let start = wire.len();
            wire.extend_from_slice(frame.payload());
            xor(&mut wire[start..], key);
        }
        (wire, payload, pings)
    })
}

proptest! {
    #[test]
    fn any_cut_of_any_frames_gives_the_same_payload(
        (wire, payload, pings) in frame_stream(),
        cuts in prop::collection::vec(1..40_usize, 1..20),
    ) {
        let mut reader = FrameReader::new(Peer::Client);
        let (mut found, mut found_pings) = (Vec::new(), 0);
        let mut rest = &wire[..];
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (mut piece, after) = rest.split_at((*size).min(rest.len()));
            rest = after;
            loop {
                match reader.next(&mut piece).unwrap() {
                    Event::End => break,
                    Event::Data { bytes, key } => {
                        let start = found.len();
                        found.extend_from_slice(bytes);
                        xor(&mut found[start..], key);
                    }
                    Event::Control(_) => found_pings += 1,
                }
            }
        }
        prop_assert_eq!(found, payload);
        prop_assert_eq!(found_pings, pings);
    }

    #[test]
    fn no_bytes_make_it_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(events(Peer::Client, &bytes));
        drop(events(Peer::Broker, &bytes));
    }
}
