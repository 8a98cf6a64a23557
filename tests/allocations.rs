//! A packet costs no memory: what the threads that carry clients allocate while packets pass is counted, through a whole
//! gateway. A binary of its own, since the allocator of a process is one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::large_futures,
    reason = "a test that cannot go on should fail where it stands"
)]

#[path = "it/support/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest of it")]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::gettid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use support::broker::Broker;
use support::echo::{Echo, Speaks};
use support::frames::{self, BINARY, FIN, Frame};
use support::gateway::{Gateway, pool_of};
use support::{client, packets};

/// Allocations of each thread, by its id: Linux gives ids below 2^22, so in a process two hardly ever share a place.
static ALLOCATIONS: [AtomicU64; 1 << 16] = [const { AtomicU64::new(0) }; 1 << 16];

fn place(thread: i32) -> &'static AtomicU64 {
    let at = usize::try_from(thread).unwrap_or(0) % ALLOCATIONS.len();
    &ALLOCATIONS[at]
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is, by its contract; this one hands on to the system's"
)]
// SAFETY: every call goes on to `System` as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        place(gettid().as_raw()).fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        place(gettid().as_raw()).fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Of all threads that carry clients, since they began.
fn allocations() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let workers = threads.filter_map(|thread| {
        let path = thread.unwrap().path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let id = path.file_name()?.to_str()?.parse().ok()?;
        name.starts_with("worker-").then(|| place(id))
    });
    workers.map(|count| count.load(Ordering::Relaxed)).sum()
}

/// A client in its session, over TLS or not.
trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// Upgrades and says CONNECT, by hand: also over a listener without TLS.
async fn begin(wire: &mut impl Wire) {
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    wire.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(wire.read_u8().await.unwrap());
    }
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    say(wire, &packets::connect("c1", 60)).await;
}

async fn say(wire: &mut impl Wire, packet: &[u8]) {
    let frame = frames::masked(FIN | BINARY, packet);
    wire.write_all(&frame).await.unwrap();
}

const ROUND_TRIPS: u64 = 500;

/// What a heartbeat or a timer may take meanwhile.
const BESIDE: u64 = 10;

/// Bytes of payload, and what rustls 0.23 allocates for a round trip of it: it holds the plaintext of each record that it
/// reads, and each record that it writes, in a `Vec`.
const OF_RUSTLS: [(usize, u64); 2] = [(64, 2), (4096, 2)];

/// Sends packets to the broker and back, one after the other. Answers what the gateway allocated for them.
async fn counted(wire: &mut impl Wire, echo: &mut Echo, bytes: usize) -> u64 {
    let packet = packets::publish("b/0001", &vec![7; bytes]);
    let mut before = 0;
    for turn in 0..2 * ROUND_TRIPS {
        // The first half fills what is kept for good.
        if turn == ROUND_TRIPS {
            before = allocations();
        }
        say(wire, &packet).await;
        echo.echo(&packet).await;
        assert_eq!(frames::read(wire).await, Frame::binary(&packet));
    }
    allocations() - before
}

async fn holds(wire: &mut impl Wire, broker: &Broker, speaks: Speaks, allowed: [(usize, u64); 2]) {
    let ((), mut echo) = tokio::join!(begin(wire), Echo::welcome(broker, speaks));
    let connack = frames::read(wire).await;
    assert_eq!(connack, Frame::binary(&packets::connack(0)));
    for (bytes, each) in allowed {
        let count = counted(wire, &mut echo, bytes).await;
        assert!(
            count <= ROUND_TRIPS * each + BESIDE,
            "{count} allocations for {ROUND_TRIPS} round trips of {bytes} bytes, broker over {speaks:?}, {each} allowed for each"
        );
    }
}

/// One test: it counts for all threads that carry clients, so there must be one gateway at a time.
#[tokio::test]
async fn a_packet_allocates_nothing_but_what_rustls_does() {
    for speaks in Speaks::BOTH {
        let broker = Broker::start().await;
        let plain =
            "listeners: [{address: \"127.0.0.1:0\", plain: routes}, {address: \"127.0.0.1:0\"}]\n";
        let gateway = Gateway::start(&(plain.to_owned() + &pool_of(&[speaks.url(&broker)]))).await;
        let mut wire = TcpStream::connect(gateway.address(0)).await.unwrap();
        wire.set_nodelay(true).unwrap();
        holds(
            &mut wire,
            &broker,
            speaks,
            OF_RUSTLS.map(|(bytes, _)| (bytes, 0)),
        )
        .await;
        let mut wire = client::tls_to(gateway.address(1), gateway.ca_file()).await;
        holds(&mut wire, &broker, speaks, OF_RUSTLS).await;
    }
}
