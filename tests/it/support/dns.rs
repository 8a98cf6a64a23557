//! A name server on loopback that says what a test tells it to: over UDP, and over TCP what is too long for that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::Instant;

const A: u16 = 1;
const SRV: u16 = 33;

/// What is said of a name.
#[derive(Debug, Clone)]
pub enum Saying {
    /// A records.
    Addresses(Vec<Ipv4Addr>),
    /// One after the other, from the first again.
    Turns(Vec<Vec<Ipv4Addr>>),
    /// Priority, weight, port, target.
    Services(Vec<(u16, u16, u16, &'static str)>),
    /// The name is there, and has nothing.
    Empty,
    /// Nothing is said.
    Silence,
}

/// Of an answer over UDP (RFC 1035 2.3.4).
const LONGEST: usize = 512;

/// The same port of both kinds.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        if let Ok(listener) = TcpListener::bind(address).await {
            return (socket, listener);
        }
    }
}

/// Names that it does not know do not exist (NXDOMAIN).
pub struct NameServer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    ttl: u32,
    sayings: HashMap<String, Saying>,
    /// When A or SRV was asked for.
    asked: HashMap<String, Vec<Instant>>,
}

impl NameServer {
    pub async fn start(ttl: u32) -> Self {
        let (socket, listener) = sockets().await;
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            ttl,
            ..Shared::default()
        }));
        let mut task = JoinSet::new();
        let serving = Arc::clone(&shared);
        task.spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                let answer = serving.lock().unwrap().answer(&packet[..length]);
                if let Some(mut answer) = answer {
                    if answer.len() > LONGEST {
                        // Header and question, and the bit that says so.
                        answer.truncate(question_end(&packet));
                        answer[2] |= 2;
                        answer[6..12].fill(0);
                    }
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        let serving = Arc::clone(&shared);
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut packet = vec![0; usize::from(length)];
                    stream.read_exact(&mut packet).await.unwrap();
                    let answer = serving.lock().unwrap().answer(&packet);
                    if let Some(answer) = answer {
                        let length = u16::try_from(answer.len()).unwrap();
                        stream.write_u16(length).await.unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                }
            }
        });
        Self {
            address,
            shared,
            _task: task,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn say(&self, name: &str, saying: Saying) {
        let mut shared = self.shared.lock().unwrap();
        shared.sayings.insert(name.to_owned(), saying);
    }

    /// There is no such name any more.
    pub fn forget(&self, name: &str) {
        self.shared.lock().unwrap().sayings.remove(name);
    }

    /// When the name was asked for.
    pub fn asked(&self, name: &str) -> Vec<Instant> {
        let shared = self.shared.lock().unwrap();
        shared.asked.get(name).cloned().unwrap_or_default()
    }
}

impl Shared {
    fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let mut at = 12;
        let mut labels = Vec::new();
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_ascii_lowercase());
            at = end;
        }
        let name = labels.join(".");
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let question = &query[12..at + 5];
        let turn = self.asked.get(&name).map_or(0, Vec::len);
        if kind == A || kind == SRV {
            let times = self.asked.entry(name.clone()).or_default();
            times.push(Instant::now());
        }
        let saying = self.sayings.get(&name);
        let records: Vec<Vec<u8>> = match (saying, kind) {
            (Some(Saying::Silence), _) => return None,
            (Some(Saying::Addresses(list)), A) => list.iter().map(octets).collect(),
            (Some(Saying::Turns(lists)), A) => {
                lists[turn % lists.len()].iter().map(octets).collect()
            }
            (Some(Saying::Services(list)), SRV) => list.iter().map(service).collect(),
            _nothing => Vec::new(),
        };
        let code = if saying.is_some() { 0x80 } else { 0x83 };
        let count = u16::try_from(records.len()).unwrap();
        let mut answer = vec![query[0], query[1], 0x81, code, 0, 1];
        answer.extend(count.to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(question);
        for data in records {
            // The name is the question's.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1]);
            answer.extend(self.ttl.to_be_bytes());
            answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}

/// Behind the name, its type and its class.
fn question_end(query: &[u8]) -> usize {
    let mut at = 12;
    while query[at] != 0 {
        at += 1 + usize::from(query[at]);
    }
    at + 5
}

fn octets(address: &Ipv4Addr) -> Vec<u8> {
    address.octets().to_vec()
}

fn service((priority, weight, port, target): &(u16, u16, u16, &str)) -> Vec<u8> {
    let mut data = [
        priority.to_be_bytes(),
        weight.to_be_bytes(),
        port.to_be_bytes(),
    ]
    .concat();
    for label in target.split('.') {
        data.push(u8::try_from(label.len()).unwrap());
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}

/// An IPv4 loopback address.
pub fn loopback(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// The same, as a socket has it.
pub fn at(last: u8, port: u16) -> SocketAddr {
    (IpAddr::from(loopback(last)), port).into()
}
