//! The load's side: many MQTT clients over wss on one thread. What they say is up to a `Script`; how they come to CONNACK
//! is here.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
};

use crate::poller::{self, Poller, Ready, now};
use crate::wire::{self, Frames, Packets};

/// Of RFC 6455 1.3, with its answer: a key of its own for each client would measure the load.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// How clients shake hands.
#[derive(Clone, Copy, PartialEq)]
pub enum Tls {
    /// X25519, no tickets.
    Full,
    /// X25519, with the ticket of the connection before.
    Resumed,
    /// X25519MLKEM768, no tickets.
    PostQuantum,
}

/// What the clients of a row do.
pub trait Script {
    /// CONNACK came. `began` is when the client began to connect.
    fn opened(&mut self, id: usize, began: u64, resumed: bool, out: &mut Outbox) -> Next;
    /// Any later packet.
    fn packet(&mut self, id: usize, packet: &[u8], out: &mut Outbox);
    /// The connection failed, or the other side ended it.
    fn lost(&mut self, id: usize, why: &str);
}

/// What becomes of a client that has just opened.
#[derive(Clone, Copy, PartialEq)]
pub enum Next {
    Stay,
    /// Leave, and come again as a new connection.
    Again,
}

/// Frames of one client that have not left yet. What gathers here until the next wake-up is one TLS record.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    key: u32,
}

impl Outbox {
    pub fn send(&mut self, packet: &[u8]) {
        self.key = self.key.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        wire::client_frame(&mut self.bytes, packet, self.key | 1);
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Phase {
    Connecting,
    Tls,
    Upgrade,
    Connack,
    Open,
}

struct Client {
    socket: TcpStream,
    tls: ClientConnection,
    phase: Phase,
    head: Vec<u8>,
    frames: Frames,
    packets: Packets,
    out: Outbox,
    writable: bool,
    began: u64,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    client: Option<Box<Client>>,
    /// It is in `Clients::waiting`.
    waiting: bool,
}

pub struct Clients {
    target: SocketAddr,
    /// Each keeps a few tickets only, too few for many connections at once: taken in turn.
    configs: Vec<Arc<ClientConfig>>,
    name: ServerName<'static>,
    poller: Poller,
    ready: Vec<Ready>,
    slots: Vec<Slot>,
    /// Those with something in the outbox.
    waiting: Vec<usize>,
    scratch: Vec<u8>,
    plain: Vec<u8>,
    opened: u64,
}

impl Clients {
    pub fn new(target: SocketAddr, tls: Tls) -> crate::Result<Self> {
        let stores = if tls == Tls::Resumed { 64 } else { 1 };
        Ok(Self {
            target,
            configs: (0..stores).map(|_| config(tls)).collect::<Result<_, _>>()?,
            name: ServerName::try_from("localhost")?,
            poller: Poller::new()?,
            ready: Vec::new(),
            slots: Vec::new(),
            waiting: Vec::new(),
            scratch: vec![0; 256 << 10],
            plain: vec![0; 256 << 10],
            opened: 0,
        })
    }

    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// One more client, which begins to connect.
    pub fn add(&mut self) -> crate::Result<()> {
        self.slots.push(Slot::default());
        self.open(self.slots.len() - 1)
    }

    fn open(&mut self, id: usize) -> crate::Result<()> {
        self.opened += 1;
        let began = now();
        let socket = poller::connect(self.opened, self.target)?;
        let slot = &mut self.slots[id];
        slot.generation = slot.generation.wrapping_add(1);
        self.poller
            .add(&socket, u64::from(slot.generation) << 32 | id as u64)?;
        let config = Arc::clone(&self.configs[id % self.configs.len()]);
        let mut tls = ClientConnection::new(config, self.name.clone())?;
        tls.set_buffer_limit(None);
        slot.client = Some(Box::new(Client {
            socket,
            tls,
            phase: Phase::Connecting,
            head: Vec::new(),
            frames: Frames::default(),
            packets: Packets::default(),
            out: Outbox {
                bytes: Vec::new(),
                key: id as u32,
            },
            writable: false,
            began,
        }));
        Ok(())
    }

    /// The outbox of an open client; it leaves at the next `turn`.
    pub fn outbox(&mut self, id: usize) -> Option<&mut Outbox> {
        let slot = &mut self.slots[id];
        let client = slot.client.as_mut().filter(|it| it.phase == Phase::Open)?;
        if !slot.waiting {
            slot.waiting = true;
            self.waiting.push(id);
        }
        Some(&mut client.out)
    }

    /// Sends what waits, waits for events (at most `limit`), serves them.
    pub fn turn(&mut self, script: &mut impl Script, limit: Duration) -> crate::Result<()> {
        for id in std::mem::take(&mut self.waiting) {
            self.slots[id].waiting = false;
            if let Some(client) = &mut self.slots[id].client
                && let Err(error) = client.push()
            {
                self.slots[id].client = None;
                script.lost(id, &error.to_string());
            }
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(&mut ready, Some(limit))?;
        for event in &ready {
            let id = (event.token & 0xffff_ffff) as usize;
            if u64::from(self.slots[id].generation) == event.token >> 32 {
                self.serve(id, event, script)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn serve(&mut self, id: usize, event: &Ready, script: &mut impl Script) -> crate::Result<()> {
        let Some(client) = &mut self.slots[id].client else {
            return Ok(());
        };
        match client.serve(id, event, &mut self.scratch, &mut self.plain, script) {
            Ok(Next::Stay) => {}
            Ok(Next::Again) => {
                client.leave();
                self.open(id)?;
            }
            Err(error) => {
                let why = format!("{:?}: {error}", client.phase);
                self.slots[id].client = None;
                script.lost(id, &why);
            }
        }
        Ok(())
    }

    /// All leave as clients do: DISCONNECT, close_notify, FIN.
    pub fn leave(&mut self) {
        for slot in &mut self.slots {
            if let Some(mut client) = slot.client.take() {
                client.leave();
            }
        }
    }
}

impl Client {
    fn serve(
        &mut self,
        id: usize,
        event: &Ready,
        scratch: &mut [u8],
        plain: &mut [u8],
        script: &mut impl Script,
    ) -> io::Result<Next> {
        if event.writable {
            self.writable = true;
            if self.phase == Phase::Connecting {
                if let Some(error) = self.socket.take_error()? {
                    return Err(error);
                }
                self.phase = Phase::Tls;
            }
            self.push()?;
        }
        if !event.readable {
            return Ok(Next::Stay);
        }
        let mut next = Next::Stay;
        loop {
            let count = match (&self.socket).read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let mut wire = &scratch[..count];
            while !wire.is_empty() {
                self.tls.read_tls(&mut wire)?;
                let state = self.tls.process_new_packets().map_err(io::Error::other)?;
                if self.phase == Phase::Tls && !self.tls.is_handshaking() {
                    self.out.bytes.extend_from_slice(REQUEST.as_bytes());
                    self.phase = Phase::Upgrade;
                }
                let mut left = state.plaintext_bytes_to_read();
                while left > 0 {
                    let got = self.tls.reader().read(plain)?;
                    left = left.saturating_sub(got.max(1));
                    if self.take(id, &mut plain[..got], script)? == Next::Again {
                        next = Next::Again;
                    }
                }
            }
            if count < scratch.len() {
                break;
            }
        }
        if next == Next::Stay {
            self.push()?;
        }
        Ok(next)
    }

    /// Takes what came inside TLS.
    fn take(&mut self, id: usize, bytes: &mut [u8], script: &mut impl Script) -> io::Result<Next> {
        let mut rest;
        let mut bytes = bytes;
        if self.phase == Phase::Upgrade {
            self.head.extend_from_slice(bytes);
            let Some(end) = wire::head_end(&self.head) else {
                return Ok(Next::Stay);
            };
            rest = self.head.split_off(end);
            bytes = &mut rest;
            upgraded(&String::from_utf8_lossy(&std::mem::take(&mut self.head)))?;
            self.out.send(&wire::connect(&format!("bench-{id}")));
            self.phase = Phase::Connack;
        }
        let Self {
            tls,
            phase,
            frames,
            packets,
            out,
            began,
            ..
        } = self;
        let mut next = Next::Stay;
        let mut trouble = None;
        frames.feed(bytes, |opcode, payload| match opcode {
            wire::CLOSE => trouble = Some("a Close frame came"),
            wire::PING | wire::PONG => {}
            _ => packets.feed(payload, |packet| match *phase {
                Phase::Open => script.packet(id, packet, out),
                _ if packet[0] >> 4 == wire::CONNACK && packet.last() == Some(&0) => {
                    *phase = Phase::Open;
                    let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
                    next = script.opened(id, *began, resumed, out);
                }
                _ => trouble = Some("the answer to CONNECT was no success"),
            }),
        });
        match trouble {
            Some(trouble) => Err(io::Error::other(trouble)),
            None => Ok(next),
        }
    }

    /// From the outbox into TLS, from TLS to the socket.
    fn push(&mut self) -> io::Result<()> {
        if !self.out.bytes.is_empty() {
            self.tls.writer().write_all(&self.out.bytes)?;
            self.out.bytes.clear();
            self.out.bytes.shrink_to(64 << 10);
        }
        while self.writable && self.phase != Phase::Connecting && self.tls.wants_write() {
            match self.tls.write_tls(&mut &self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn leave(&mut self) {
        if self.phase == Phase::Open {
            self.out.send(&[wire::DISCONNECT << 4, 0]);
            // It is gone either way.
            let said = self.push();
            self.tls.send_close_notify();
            drop(said.and_then(|()| self.push()));
        }
    }
}

fn upgraded(head: &str) -> io::Result<()> {
    debug_assert!(REQUEST.contains(KEY));
    let line = head.lines().next().unwrap_or_default();
    if !line.starts_with("HTTP/1.1 101") {
        return Err(io::Error::other(format!("the upgrade was refused: {line}")));
    }
    for (name, wanted) in [
        ("sec-websocket-accept", ACCEPT),
        ("sec-websocket-protocol", "mqtt"),
    ] {
        if wire::header(head, name) != Some(wanted) {
            return Err(io::Error::other(format!("the 101 lacks a right {name}")));
        }
    }
    Ok(())
}

fn config(tls: Tls) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut provider = provider::default_provider();
    // What all gateways are set to: the cipher must not decide who is faster.
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups = match tls {
        Tls::Full | Tls::Resumed => vec![provider::kx_group::X25519],
        Tls::PostQuantum => vec![provider::kx_group::X25519MLKEM768],
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.resumption = match tls {
        Tls::Resumed => Resumption::in_memory_sessions(256),
        Tls::Full | Tls::PostQuantum => Resumption::disabled(),
    };
    Ok(Arc::new(config))
}

/// Believes every certificate and checks no signature: only the gateway's part is to be measured.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
