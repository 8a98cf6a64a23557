//! What the watch counts, however reads cut the frames.

use std::time::Duration;

use tokio::time::Instant;

use super::watch::Frames;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PING: u8 = 0x6;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, 1]);
    bytes.extend(payload);
    bytes
}

/// How many of these frames pass, each cut in pieces of `cut` bytes.
fn passed(frame: &[u8], count: usize, cut: usize) -> usize {
    let now = Instant::now();
    let mut frames = Frames::new(now);
    let mut bytes = PREFACE.to_vec();
    for passed in 0..count {
        bytes.extend(frame);
        for piece in std::mem::take(&mut bytes).chunks(cut) {
            if !frames.pass(piece, now) {
                return passed;
            }
        }
    }
    count
}

#[test]
fn idle_frames_pass_up_to_the_burst_however_reads_cut_them() {
    for cut in [1, 2, 7, 9, 10, 17, 1000] {
        assert_eq!(passed(&frame(PING, 0, &[0; 8]), 2000, cut), 1000, "{cut}");
    }
    // SETTINGS, PRIORITY, RST_STREAM, CONTINUATION, empty DATA, a type that nobody knows.
    for kind in [0x4, 0x2, 0x3, 0x9, 0x0, 0xfa] {
        assert_eq!(passed(&frame(kind, 0, b""), 2000, 1000), 1000, "{kind}");
    }
}

#[test]
fn what_a_session_needs_is_not_counted() {
    for (kind, flags, payload) in [
        (0x0, 0, &[0x82; 8][..]),
        (0x0, 1, b""),
        (0x1, 4, &[0x82; 40]),
        (0x8, 0, &[0, 0, 0, 8]),
    ] {
        assert_eq!(passed(&frame(kind, flags, payload), 5000, 1000), 5000);
    }
}

#[test]
fn a_frame_inside_a_payload_is_none() {
    let inner = frame(PING, 0, &[0; 8]).repeat(100);
    assert_eq!(passed(&frame(0x0, 0, &inner), 100, 13), 100);
}

#[test]
fn the_budget_comes_back_in_time() {
    let begun = Instant::now();
    let mut frames = Frames::new(begun);
    let ping = frame(PING, 0, &[0; 8]);
    assert!(frames.pass(PREFACE, begun));
    for second in 0..20 {
        let now = begun + Duration::from_secs(second);
        for _ in 0..100 {
            assert!(frames.pass(&ping, now), "second {second}");
        }
    }
    let now = begun + Duration::from_secs(20);
    assert!(!(0..5000).all(|_| frames.pass(&ping, now)));
}
