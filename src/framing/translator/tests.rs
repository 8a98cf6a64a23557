//! Byte transparency: whatever the cut of the input and the framing of both sides, the packets that leave are the packets
//! that came, each in one message. tungstenite reads what we write.

use proptest::prelude::*;
use tungstenite::protocol::frame::{FrameHeader, coding};

use super::*;
use crate::websocket::{CloseCode, Peer, close, control};

const ROOMY: Limits = Limits {
    packet: 1 << 28,
    frame: 1 << 24,
    watched: 1 << 16,
};

fn translator(input: Input, output: Output, limits: Limits) -> Translator {
    Translator::new(input, output, limits, Masks::new(1), Counters::default())
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// Messages of a stream of frames, unmasked, by tungstenite's header parser. Checks the mask rule on the way.
fn messages(wire: &[u8], masked: bool) -> Vec<(Vec<u8>, usize)> {
    let mut cursor = std::io::Cursor::new(wire);
    let mut messages: Vec<(Vec<u8>, usize)> = Vec::new();
    let mut open = false;
    while let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() {
        let start = usize::try_from(cursor.position()).unwrap();
        let end = start + usize::try_from(length).unwrap();
        let mut payload = wire[start..end].to_vec();
        cursor.set_position(end as u64);
        assert_eq!(header.mask.is_some(), masked);
        xor(&mut payload, header.mask.unwrap_or(NO_MASK));
        if open {
            assert_eq!(header.opcode, coding::OpCode::Data(coding::Data::Continue));
            let message = messages.last_mut().unwrap();
            message.0.extend_from_slice(&payload);
            message.1 += 1;
        } else {
            assert_eq!(header.opcode, coding::OpCode::Data(coding::Data::Binary));
            messages.push((payload, 1));
        }
        open = !header.is_final;
    }
    assert_eq!(
        usize::try_from(cursor.position()).unwrap(),
        wire.len(),
        "an incomplete frame at the end"
    );
    assert!(!open, "a message without its last frame");
    messages
}

/// Frames of these payload sizes, masked if a client sends them, with a ping now and then.
fn framed(stream: &[u8], sizes: &[usize], peer: Peer) -> Vec<u8> {
    let mask = (peer == Peer::Client).then_some([9, 8, 7, 6]);
    let mut wire = Vec::new();
    let mut rest = stream;
    for (count, size) in sizes.iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        if count % 3 == 2 {
            control(&mut wire, Opcode::Ping, b"now and then", mask);
        }
        let (payload, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        data_header(&mut wire, Opcode::Binary, true, payload.len() as u64, mask);
        let start = wire.len();
        wire.extend_from_slice(payload);
        xor(&mut wire[start..], mask.unwrap_or(NO_MASK));
    }
    wire
}

fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let body = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..20),
        2 => prop::collection::vec(any::<u8>(), 100..300),
        1 => (any::<u8>(), 65_500..65_600_usize).prop_map(|(byte, count)| vec![byte; count]),
    ];
    prop::collection::vec((0x10..=0xff_u8, body), 0..12).prop_map(|packets| {
        packets
            .iter()
            .map(|(first, body)| packet(*first, body))
            .collect()
    })
}

/// Feeds `wire` in pieces of these sizes and takes the output off in helpings of `enough`.
fn drive(
    translator: &mut Translator,
    wire: &[u8],
    cuts: &[usize],
    enough: usize,
) -> (Vec<u8>, Vec<Signal>) {
    let (mut written, mut signals) = (Vec::new(), Vec::new());
    let mut rest = wire;
    for size in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut piece, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        loop {
            let mut out = Vec::new();
            let signal = translator.translate(&mut piece, &mut out, enough).unwrap();
            let idle = signal.is_none() && out.is_empty() && piece.is_empty();
            signals.extend(signal);
            written.extend_from_slice(&out);
            if idle {
                break;
            }
        }
    }
    (written, signals)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packets_leave_as_they_came(
        packets in packets(),
        frames in prop::collection::vec(1..400_usize, 1..8),
        cuts in prop::collection::vec(1..5000_usize, 1..8),
        enough in prop_oneof![Just(1), Just(700), Just(usize::MAX)],
        from_client in any::<bool>(),
        input_framed in any::<bool>(),
        output_kind in 0..3_u8,
        largest_frame in prop_oneof![Just(7_u64), Just(1000), Just(1 << 24)],
    ) {
        let stream = packets.concat();
        let peer = if from_client { Peer::Client } else { Peer::Broker };
        let (input, wire) = if input_framed {
            (Input::Frames(FrameReader::new(peer)), framed(&stream, &frames, peer))
        } else {
            (Input::Stream, stream.clone())
        };
        let output = match output_kind {
            0 => Output::Stream,
            1 => Output::Frames,
            _ => Output::MaskedFrames,
        };
        let mut translator = translator(input, output, Limits { frame: largest_frame, ..ROOMY });
        let (written, _) = drive(&mut translator, &wire, &cuts, enough);
        prop_assert!(translator.at_boundary() && translator.at_frame_boundary());
        prop_assert_eq!(translator.tally.bytes.iter().sum::<u64>(), stream.len() as u64);
        prop_assert_eq!(translator.tally.packets.iter().sum::<u64>(), packets.len() as u64);
        if output == Output::Stream {
            prop_assert_eq!(written, stream);
        } else {
            let found = messages(&written, output != Output::Frames);
            prop_assert_eq!(found.len(), packets.len());
            for ((message, fragments), packet) in found.iter().zip(&packets) {
                prop_assert_eq!(message, packet);
                prop_assert_eq!(*fragments as u64, (packet.len() as u64).div_ceil(largest_frame).max(1));
            }
        }
    }

    #[test]
    fn watched_packets_are_given_whole_and_passed_on(
        packets in packets(),
        cuts in prop::collection::vec(1..500_usize, 1..8),
    ) {
        let stream = packets.concat();
        let mut translator = translator(Input::Stream, Output::Stream, ROOMY);
        translator.watch(PacketType::Disconnect);
        let small = packets.iter().all(|packet| packet.len() < 60_000);
        prop_assume!(small);
        let (written, signals) = drive(&mut translator, &stream, &cuts, usize::MAX);
        prop_assert_eq!(written, stream);
        let expected: Vec<_> = packets
            .iter()
            .filter(|packet| packet[0] >> 4 == 14)
            .map(|packet| Signal::Packet(PacketType::Disconnect, packet.clone()))
            .collect();
        prop_assert_eq!(signals, expected);
    }
}

/// What becomes of `wire` in pieces of `size` bytes, to its end or to a fault.
fn fate(
    translator: &mut Translator,
    wire: &[u8],
    size: usize,
) -> (Vec<u8>, Vec<Signal>, Result<(), Fault>) {
    let (mut written, mut signals) = (Vec::new(), Vec::new());
    for mut piece in wire.chunks(size.max(1)) {
        loop {
            match translator.translate(&mut piece, &mut written, usize::MAX) {
                Ok(Some(signal)) => signals.push(signal),
                Ok(None) => break,
                Err(fault) => return (written, signals, Err(fault)),
            }
        }
    }
    (written, signals, Ok(()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Packets that are whole in one read take a short way. Byte by byte none does: both must lead to the same place.
    #[test]
    fn the_short_way_and_the_long_way_lead_to_the_same_place(
        packets in packets(),
        spoilt in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        joined in 1..4_usize,
        from_client in any::<bool>(),
        input_framed in any::<bool>(),
        output_kind in 0..3_u8,
        packet_limit in prop_oneof![Just(12_u64), Just(300), Just(1 << 28)],
        frame_limit in prop_oneof![Just(7_u64), Just(1 << 24)],
        owes in any::<bool>(),
    ) {
        let peer = if from_client { Peer::Client } else { Peer::Broker };
        let mask = (peer == Peer::Client).then_some([9, 8, 7, 6]);
        let mut wire = Vec::new();
        for group in packets.chunks(joined) {
            let payload = group.concat();
            if input_framed {
                data_header(&mut wire, Opcode::Binary, true, payload.len() as u64, mask);
            }
            let start = wire.len();
            wire.extend_from_slice(&payload);
            xor(&mut wire[start..], mask.filter(|_| input_framed).unwrap_or(NO_MASK));
        }
        if let Some((index, byte)) = spoilt && !wire.is_empty() {
            let at = index.index(wire.len());
            wire[at] = byte;
        }
        let make = || {
            let input = match input_framed {
                true => Input::Frames(FrameReader::new(peer)),
                false => Input::Stream,
            };
            let output = [Output::Stream, Output::Frames, Output::MaskedFrames][usize::from(output_kind)];
            let limits = Limits { packet: packet_limit, frame: frame_limit, ..ROOMY };
            let mut translator = translator(input, output, limits);
            translator.watch(PacketType::Disconnect);
            translator.forbid(PacketType::Connect);
            if owes && output != Output::Stream {
                translator.owe(Opcode::Ping, b"owed".to_vec());
            }
            translator
        };
        let (mut short, mut long) = (make(), make());
        let one = fate(&mut short, &wire, wire.len());
        let other = fate(&mut long, &wire, 1);
        prop_assert_eq!(&one.1, &other.1);
        prop_assert_eq!(&one.2, &other.2);
        prop_assert_eq!(short.tally, long.tally);
        prop_assert_eq!(short.at_boundary(), long.at_boundary());
        prop_assert!(one.0 == other.0, "{:?} {:?}", one.0, other.0);
    }
}

#[test]
fn a_packet_over_the_limit_is_refused_at_its_header() {
    let mut translator = translator(
        Input::Stream,
        Output::Frames,
        Limits {
            packet: 100,
            ..ROOMY
        },
    );
    let mut out = Vec::new();
    let fits = packet(0x30, &[0; 98]);
    assert_eq!(
        translator.translate(&mut &fits[..], &mut out, usize::MAX),
        Ok(None)
    );
    let over = packet(0x30, &[0; 99]);
    assert_eq!(
        translator.translate(&mut &over[..2], &mut out, usize::MAX),
        Err(Fault::TooLarge(101))
    );
}

#[test]
fn nothing_leaves_before_a_header_is_whole() {
    let mut translator = translator(Input::Stream, Output::Frames, ROOMY);
    let mut out = Vec::new();
    translator
        .translate(&mut &[0x30, 0x80][..], &mut out, usize::MAX)
        .unwrap();
    assert!(out.is_empty() && translator.at_frame_boundary() && !translator.at_boundary());
}

#[test]
fn a_close_frame_is_told() {
    let mut wire = Vec::new();
    close(&mut wire, CloseCode::Normal, "bye", Some([1, 2, 3, 4]));
    let mut translator = translator(
        Input::Frames(FrameReader::new(Peer::Client)),
        Output::Stream,
        ROOMY,
    );
    let signal = translator
        .translate(&mut &wire[..], &mut Vec::new(), usize::MAX)
        .unwrap();
    assert_eq!(
        signal,
        Some(Signal::Control(Control::Close(CloseCode::Normal)))
    );
}

#[test]
fn a_control_frame_that_is_owed_finds_its_place_between_packets_of_one_read() {
    let mut translator = translator(Input::Stream, Output::Frames, ROOMY);
    let mut out = Vec::new();
    let first = packet(0x30, &[7; 10]);
    translator
        .translate(&mut &first[..6], &mut out, usize::MAX)
        .unwrap();
    translator.owe(Opcode::Ping, Vec::new());
    translator.pay(&mut out);
    assert!(translator.owes(), "a frame is half written");
    let rest = [&first[6..], &packet(0x30, &[8; 3])].concat();
    translator
        .translate(&mut &rest[..], &mut out, usize::MAX)
        .unwrap();
    assert!(!translator.owes());
    let expected = [
        &[0x82, 12][..],
        &first,
        &[0x89, 0],
        &[0x82, 5, 0x30, 3, 8, 8, 8],
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn a_forbidden_packet_is_a_fault_before_a_byte_of_it_is_written() {
    let mut translator = translator(Input::Stream, Output::Stream, ROOMY);
    translator.forbid(PacketType::Connect);
    let mut out = Vec::new();
    let both = [packet(0xc0, &[]), packet(0x10, &[0; 10])].concat();
    assert_eq!(
        translator.translate(&mut &both[..], &mut out, usize::MAX),
        Err(Fault::Forbidden(PacketType::Connect))
    );
    assert_eq!(out, [0xc0, 0]);
}
