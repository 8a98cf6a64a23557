//! A stand-in broker, as cheap as can be: every PUBLISH goes back to its sender, but one whose topic begins with `fan/`
//! goes to all who subscribed to it. One thread, no sessions, QoS 0.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::poller::{Poller, Ready, listen};
use crate::wire::{self, Frames, Packets};

/// Above this much unsent output a connection is not read.
const ENOUGH: usize = 16 << 20;
const WS: u64 = u64::MAX;
const TCP: u64 = u64::MAX - 1;

/// How packets stand on a connection.
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    /// The head of the upgrade is still to come.
    Upgrade,
    Frames,
    Stream,
}

struct Connection {
    socket: TcpStream,
    generation: u32,
    framing: Framing,
    head: Vec<u8>,
    frames: Frames,
    packets: Packets,
    out: Vec<u8>,
    sent: usize,
    readable: bool,
    ending: bool,
}

struct Broker {
    poller: Poller,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    generation: u32,
    subscribers: HashMap<Vec<u8>, Vec<(usize, u32)>>,
}

/// What a packet asks of others than its sender.
enum Wish {
    Fan(Vec<u8>, Vec<u8>),
    Subscribe(Vec<u8>),
}

pub fn run(ws: SocketAddr, tcp: SocketAddr) -> io::Result<()> {
    let poller = Poller::new()?;
    let listeners = [(WS, listen(ws)?), (TCP, listen(tcp)?)];
    for (token, listener) in &listeners {
        poller.add(listener, *token)?;
    }
    let mut broker = Broker {
        poller,
        connections: Vec::new(),
        free: Vec::new(),
        generation: 0,
        subscribers: HashMap::new(),
    };
    let mut scratch = vec![0; 256 << 10];
    let mut ready = Vec::new();
    loop {
        broker.poller.wait(&mut ready, None)?;
        for event in &ready {
            match listeners.iter().find(|(token, _)| *token == event.token) {
                Some((token, listener)) => broker.accept(listener, *token == WS)?,
                None => broker.serve(event, &mut scratch),
            }
        }
    }
}

impl Broker {
    fn accept(&mut self, listener: &TcpListener, websocket: bool) -> io::Result<()> {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
            self.poller
                .add(&socket, u64::from(self.generation) << 32 | slot as u64)?;
            self.connections[slot] = Some(Connection {
                socket,
                generation: self.generation,
                framing: match websocket {
                    true => Framing::Upgrade,
                    false => Framing::Stream,
                },
                head: Vec::new(),
                frames: Frames::default(),
                packets: Packets::default(),
                out: Vec::new(),
                sent: 0,
                readable: false,
                ending: false,
            });
        }
        Ok(())
    }

    fn serve(&mut self, event: &Ready, scratch: &mut [u8]) {
        let slot = (event.token & 0xffff_ffff) as usize;
        let known =
            |connection: &&mut Connection| u64::from(connection.generation) == event.token >> 32;
        let Some(connection) = self.connections[slot].as_mut().filter(known) else {
            return;
        };
        connection.readable |= event.readable;
        if event.writable {
            connection.flush();
        }
        let mut wishes = Vec::new();
        connection.read(scratch, &mut wishes);
        let me = (slot, connection.generation);
        if connection.ending {
            self.connections[slot] = None;
            self.free.push(slot);
        }
        for wish in wishes {
            match wish {
                Wish::Subscribe(topic) => self.subscribers.entry(topic).or_default().push(me),
                Wish::Fan(topic, packet) => self.fan_out(&topic, &packet),
            }
        }
    }

    fn fan_out(&mut self, topic: &[u8], packet: &[u8]) {
        let Some(subscribers) = self.subscribers.get_mut(topic) else {
            return;
        };
        let connections = &mut self.connections;
        subscribers.retain(|(slot, generation)| {
            match connections[*slot]
                .as_mut()
                .filter(|it| it.generation == *generation)
            {
                None => false,
                Some(connection) => {
                    emit(&mut connection.out, connection.framing, packet);
                    connection.flush();
                    true
                }
            }
        });
    }
}

impl Connection {
    fn read(&mut self, scratch: &mut [u8], wishes: &mut Vec<Wish>) {
        while self.readable && !self.ending && self.out.len() - self.sent < ENOUGH {
            match (&self.socket).read(scratch) {
                Ok(0) => self.ending = true,
                Ok(count) => {
                    self.readable = count == scratch.len();
                    self.take(&mut scratch[..count], wishes);
                    self.flush();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => self.ending = true,
            }
        }
    }

    fn take(&mut self, bytes: &mut [u8], wishes: &mut Vec<Wish>) {
        let Self {
            framing,
            head,
            frames,
            packets,
            out,
            ending,
            ..
        } = self;
        let mut rest;
        let mut bytes = bytes;
        if *framing == Framing::Upgrade {
            head.extend_from_slice(bytes);
            let Some(end) = wire::head_end(head) else {
                return;
            };
            rest = head.split_off(end);
            bytes = &mut rest;
            upgrade(&String::from_utf8_lossy(head), out);
            *framing = Framing::Frames;
            *head = Vec::new();
        }
        let framing = *framing;
        let mut end = false;
        let mut packet = |packet: &[u8], out: &mut Vec<u8>| {
            end |= answer(packet, framing, out, wishes);
        };
        if framing == Framing::Stream {
            packets.feed(bytes, |bytes| packet(bytes, out));
        } else {
            let mut closed = false;
            frames.feed(bytes, |opcode, payload| match opcode {
                wire::CLOSE => closed = true,
                wire::PING => {
                    wire::frame_head(out, wire::PONG, payload.len(), 0);
                    out.extend_from_slice(payload);
                }
                wire::PONG => {}
                _ => packets.feed(payload, |bytes| packet(bytes, out)),
            });
            if closed {
                wire::frame_head(out, wire::CLOSE, 0, 0);
                end = true;
            }
        }
        *ending |= end;
    }

    fn flush(&mut self) {
        while self.sent < self.out.len() {
            match (&self.socket).write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.ending = true;
                    break;
                }
            }
        }
        self.sent = 0;
        self.out.clear();
        self.out.shrink_to(64 << 10);
    }
}

fn upgrade(head: &str, out: &mut Vec<u8>) {
    let key = wire::header(head, "sec-websocket-key").unwrap_or_default();
    out.extend_from_slice(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
            wire::accept_key(key)
        )
        .as_bytes(),
    );
}

/// Answers one packet. True for the last one.
fn answer(packet: &[u8], framing: Framing, out: &mut Vec<u8>, wishes: &mut Vec<Wish>) -> bool {
    match packet[0] >> 4 {
        1 => emit(out, framing, &[wire::CONNACK << 4, 2, 0, 0]),
        wire::PUBLISH => match wire::published(packet) {
            Some((topic, _)) if topic.starts_with(b"fan/") => {
                wishes.push(Wish::Fan(topic.to_vec(), packet.to_vec()));
            }
            _ => emit(out, framing, packet),
        },
        wire::SUBSCRIBE => {
            let topic = wire::subscribed(packet).unwrap_or_default();
            wishes.push(Wish::Subscribe(topic.to_vec()));
            emit(out, framing, &[wire::SUBACK << 4, 3, 0, 1, 0]);
        }
        wire::PINGREQ => emit(out, framing, &[13 << 4, 0]),
        wire::DISCONNECT => return true,
        _ => {}
    }
    false
}

fn emit(out: &mut Vec<u8>, framing: Framing, packet: &[u8]) {
    if framing != Framing::Stream {
        wire::frame_head(out, wire::BINARY, packet.len(), 0);
    }
    out.extend_from_slice(packet);
}
