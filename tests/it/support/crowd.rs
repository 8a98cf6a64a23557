//! A scripted broker that answers everybody by itself, and whose manners can be changed while it runs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to whoever comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manners {
    /// CONNACK 0, and PINGRESP to everything after it.
    Welcome,
    /// CONNACK with this code.
    Refuse(u8),
    /// No answer at all.
    Hang,
    /// The end of the connection in the place of CONNACK.
    Close,
    /// Every client but the one with this id is welcome: its connection is closed.
    CloseOn(String),
}

/// A running broker; dropping it ends every session.
pub struct Crowd {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    manners: Mutex<Manners>,
    /// Client ids that were welcomed, with how often.
    welcomed: Mutex<HashMap<String, usize>>,
}

impl Crowd {
    pub async fn start(manners: Manners) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(free, manners).await.unwrap()
    }

    /// At one address; an error when it is taken.
    pub async fn start_at(address: SocketAddr, manners: Manners) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manners: Mutex::new(manners),
            welcomed: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Ok(Self {
            address,
            shared,
            _tasks: tasks,
        })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// For those who come from now on.
    pub fn change(&self, manners: Manners) {
        *self.shared.manners.lock().unwrap() = manners;
    }

    /// Sessions that were welcomed so far.
    pub fn welcomed(&self) -> usize {
        self.shared.welcomed.lock().unwrap().values().sum()
    }

    /// True when this client id was.
    pub fn knows(&self, client_id: &str) -> bool {
        self.shared.welcomed.lock().unwrap().contains_key(client_id)
    }
}

/// Ends quietly when the gateway leaves, however it does.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut packet = vec![0; 1024];
    let Ok(count @ 14..) = stream.read(&mut packet).await else {
        return;
    };
    let id_length = usize::from(packet[13]);
    let id = String::from_utf8_lossy(&packet[14..count.min(14 + id_length)]).into_owned();
    let manners = shared
        .manners
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let code = match manners {
        Manners::Close => return,
        Manners::CloseOn(poison) if poison == id => return,
        Manners::Hang => {
            while matches!(stream.read(&mut packet).await, Ok(count) if count > 0) {}
            return;
        }
        Manners::Refuse(code) => code,
        Manners::Welcome | Manners::CloseOn(_) => {
            *shared
                .welcomed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(id)
                .or_default() += 1;
            0
        }
    };
    if stream.write_all(&[0x20, 2, 0, code]).await.is_err() {
        return;
    }
    while matches!(stream.read(&mut packet).await, Ok(count) if count > 0) {
        if stream.write_all(&[0xd0, 0]).await.is_err() {
            return;
        }
    }
}
