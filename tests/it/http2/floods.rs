//! Clients that use HTTP/2 against us: each is told GOAWAY, counted under a reason of its own, and holds nothing.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::support::PATIENCE;
use crate::support::broker::Broker;
use crate::support::client::tls_offering;
use crate::support::frames::{BINARY, FIN, masked};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

const ENHANCE_YOUR_CALM: u32 = 0xb;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET https://localhost/`, without compression but for the static table (RFC 7541 A).
fn get() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x84, 0x41, 9];
    block.extend(b"localhost");
    block
}

/// The same for another path.
pub(crate) fn get_of(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x41, 9];
    block.extend(b"localhost");
    block.extend(literal(":path", path));
    block
}

fn upgrade() -> Vec<u8> {
    let mut block = literal(":method", "CONNECT");
    block.extend(literal(":protocol", "websocket"));
    block.push(0x87);
    block.extend(literal(":path", "/mqtt"));
    block.extend(literal(":authority", "localhost"));
    block.extend(literal("sec-websocket-version", "13"));
    block
}

/// A field without indexing; lengths below 127.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.push(u8::try_from(value.len()).unwrap());
    bytes.extend(value.as_bytes());
    bytes
}

/// A frame of the gateway's.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection whose frames are written by hand.
pub(crate) struct Raw {
    stream: TlsStream<TcpStream>,
}

impl Raw {
    pub(crate) async fn connect(gateway: &Gateway) -> Self {
        let mut stream = tls_offering(gateway, &[b"h2"]).await;
        stream.write_all(PREFACE).await.unwrap();
        let mut raw = Self { stream };
        raw.send(&frame(SETTINGS, 0, 0, b"")).await;
        raw
    }

    /// A session whose windows never fill: SETTINGS_INITIAL_WINDOW_SIZE and the connection's window are 2^31 - 1.
    pub(super) async fn open_wide(&mut self) {
        let most = 0x7fff_ffff_u32;
        let mut bytes = frame(SETTINGS, 0, 0, &[&[0, 4][..], &most.to_be_bytes()].concat());
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes()));
        bytes.extend(frame(HEADERS, END_HEADERS, 1, &upgrade()));
        let connect = masked(FIN | BINARY, &packets::connect("wide", 60));
        bytes.extend(frame(DATA, 0, 1, &connect));
        self.send(&bytes).await;
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream),
                payload,
            })
        };
        timeout(PATIENCE, reading).await.expect("nothing came")
    }

    /// The next frame of that kind.
    async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection ended");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Sends until the gateway says GOAWAY; answers its code.
    async fn flood(self, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
        let Self { stream } = self;
        let (reader, mut writer) = tokio::io::split(stream);
        let writing = async {
            // Two million frames are far more than any limit.
            for number in 0..2_000_000 {
                if writer.write_all(&next(number)).await.is_err() {
                    return;
                }
            }
            panic!("all of it was taken");
        };
        let reading = async {
            let mut reader = reader;
            loop {
                let mut head = [0; 9];
                reader.read_exact(&mut head).await.expect("no GOAWAY came");
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                reader.read_exact(&mut payload).await.unwrap();
                if head[3] == GOAWAY {
                    return code_of(&payload);
                }
            }
        };
        let flooding = async {
            tokio::select! {
                code = reading => code,
                never = async { writing.await; std::future::pending().await } => never,
            }
        };
        timeout(PATIENCE, flooding).await.expect("it was borne")
    }
}

fn code_of(goaway: &[u8]) -> u32 {
    u32::from_be_bytes(goaway[4..8].try_into().unwrap())
}

async fn gateway(more: &str) -> (Gateway, Broker) {
    let broker = Broker::start().await;
    let yaml = format!("{}{more}", pool_of(&[broker.mqtt_url()]));
    (Gateway::start(&yaml).await, broker)
}

/// Odd numbers: the client's streams.
fn stream(number: u32) -> u32 {
    number * 2 + 1
}

async fn is_stopped(next: impl FnMut(u32) -> Vec<u8>) {
    let (gateway, _broker) = gateway("").await;
    let raw = Raw::connect(&gateway).await;
    assert_eq!(raw.flood(next).await, ENHANCE_YOUR_CALM);
    gateway.outcome("client", "http", "http2_flood").await;
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}

/// CVE-2023-44487.
pub(crate) fn rapid_reset(number: u32) -> Vec<u8> {
    let id = stream(number);
    let mut both = frame(HEADERS, END_STREAM | END_HEADERS, id, &get());
    both.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    both
}

/// Resets that we are made to send (CVE-2025-8671): a window of 2^31.
pub(crate) fn mistakes(number: u32) -> Vec<u8> {
    let id = stream(number);
    let mut both = frame(HEADERS, END_HEADERS, id, &upgrade());
    both.extend(frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes()));
    both
}

pub(crate) fn ping(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, &[0; 8]).repeat(100)
}

pub(crate) fn settings(_: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, b"").repeat(100)
}

pub(crate) fn empty_data(number: u32) -> Vec<u8> {
    match number {
        0 => frame(HEADERS, END_HEADERS, 1, &upgrade()),
        _ => frame(DATA, 0, 1, b"").repeat(100),
    }
}

pub(crate) fn continuation(number: u32) -> Vec<u8> {
    match number {
        0 => frame(HEADERS, 0, 1, &get()),
        _ => frame(CONTINUATION, 0, 1, &literal("x-more", &"x".repeat(100))),
    }
}

/// Four thousand bytes into the table, then a byte for each copy.
pub(crate) fn header_bomb(number: u32) -> Vec<u8> {
    let mut block = get();
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend(vec![b'x'; 4000]);
    block.extend(vec![0xbe; 10_000]);
    frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &block)
}

#[tokio::test]
async fn rapid_reset_is_stopped() {
    is_stopped(rapid_reset).await;
}

#[tokio::test]
async fn mistakes_that_make_us_reset_are_stopped() {
    is_stopped(mistakes).await;
}

#[tokio::test]
async fn a_ping_flood_is_stopped() {
    is_stopped(ping).await;
}

#[tokio::test]
async fn a_settings_flood_is_stopped() {
    is_stopped(settings).await;
}

#[tokio::test]
async fn a_priority_flood_is_stopped() {
    is_stopped(|number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 1])).await;
}

#[tokio::test]
async fn a_flood_of_unknown_frames_is_stopped() {
    is_stopped(|_| frame(0xfa, 0, 0, b"").repeat(100)).await;
}

#[tokio::test]
async fn empty_data_frames_are_stopped() {
    is_stopped(empty_data).await;
}

#[tokio::test]
async fn a_continuation_flood_is_stopped() {
    let (gateway, _broker) = gateway("").await;
    let raw = Raw::connect(&gateway).await;
    assert_eq!(raw.flood(continuation).await, ENHANCE_YOUR_CALM);
    gateway.outcome("client", "http", "http2_flood").await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_answered_with_431() {
    let (gateway, _broker) = gateway("limits: { request_head: 8KiB }\n").await;
    let mut raw = Raw::connect(&gateway).await;
    let mut block = get();
    for _ in 0..100 {
        block.extend(literal("x-more", &"x".repeat(100)));
    }
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block))
        .await;
    let answer = raw.until(HEADERS).await;
    // `:status`, and 431 as Huffman writes it (RFC 7541 B).
    assert_eq!(answer.payload, [0x48, 0x83, 0x69, 0x90, 0xff]);
}

/// What cannot be decoded within four times the limit ends the connection.
#[tokio::test]
async fn a_bomb_of_compressed_headers_ends_the_connection() {
    let (gateway, _broker) = gateway("limits: { request_head: 8KiB }\n").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&header_bomb(0)).await;
    let said = raw.until(GOAWAY).await;
    assert_ne!(code_of(&said.payload), 0);
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_the_others_stay() {
    let (gateway, _broker) = gateway("limits: { streams: 2 }\n").await;
    let mut raw = Raw::connect(&gateway).await;
    for number in 0..3 {
        raw.send(&frame(HEADERS, END_HEADERS, stream(number), &upgrade()))
            .await;
    }
    let refused = raw.until(RST_STREAM).await;
    assert_eq!(refused.stream, stream(2));
    assert_eq!(refused.payload, 7_u32.to_be_bytes(), "REFUSED_STREAM");
    raw.send(&frame(PING, 0, 0, &[7; 8])).await;
    let pong = raw.until(PING).await;
    assert_eq!((pong.flags, pong.payload), (1, vec![7; 8]));
}

#[tokio::test]
async fn a_frame_over_its_size_is_told_and_named() {
    let (gateway, _broker) = gateway("").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]).await;
    let said = raw.until(GOAWAY).await;
    assert_eq!(code_of(&said.payload), 6, "FRAME_SIZE_ERROR");
    gateway.outcome("client", "http", "http2").await;
}

#[tokio::test]
async fn a_wrong_preface_ends_the_connection() {
    let (gateway, _broker) = gateway("").await;
    let mut stream = tls_offering(&gateway, &[b"h2"]).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    gateway.outcome("client", "http", "http2").await;
}

#[tokio::test]
async fn half_a_preface_and_half_a_head_have_a_deadline() {
    let (gateway, _broker) = gateway("timeouts: { request: 200ms }\n").await;
    let mut half = tls_offering(&gateway, &[b"h2"]).await;
    half.write_all(&PREFACE[..10]).await.unwrap();
    gateway.outcome("client", "http", "request_timeout").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&frame(HEADERS, 0, 1, &get())).await;
    gateway
        .metric_becomes("tidegate_outcomes_total", &["why=\"request_timeout\""], 2.0)
        .await;
}

/// Not a flood: a client that has much to say at once, in packets as small as can be.
#[tokio::test]
async fn a_burst_of_small_packets_is_taken() {
    let (gateway, broker) = gateway("limits: { streams: 1 }\n").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.open_wide().await;
    let mut session = broker.welcome().await;
    let ping = frame(DATA, 0, 1, &masked(FIN | BINARY, &packets::PINGREQ));
    raw.send(&ping.repeat(5000)).await;
    for _ in 0..5000 {
        assert_eq!(session.receive().await, packets::PINGREQ);
    }
    assert_eq!(gateway.metric("tidegate_outcomes_total", &[]).await, 0.0);
}
