//! Sockets that whoever started the process has opened: systemd (`LISTEN_FDS`, sd_listen_fds(3)), or the process that
//! this one takes over from (`tidegate upgrade`).
//!
//! The only module with `unsafe`: a number in the environment becomes an owned descriptor, and only here.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockRef, Type};

/// Numbers of listening sockets, for the process that takes over; `NUMBER=NAME` where a supervisor holds it. Colons between
/// them, which no name has (`LISTEN_FDNAMES`).
pub const SOCKETS: &str = "TIDEGATE_SOCKETS";

/// Number of the pipe that it says "ready" by.
pub const READY: &str = "TIDEGATE_READY";

/// The first number that systemd passes (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// What was passed, each to be taken once.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Passed>,
    ready: Option<Ready>,
}

/// Who else has a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    /// systemd, by this name: it queues connections when this process has ended.
    Supervisor(String),
}

impl Holder {
    /// The word in `SOCKETS`.
    pub fn word(&self, number: RawFd) -> String {
        match self {
            Self::Nobody => number.to_string(),
            Self::Supervisor(name) => format!("{number}={name}"),
        }
    }

    fn of(word: &str) -> Option<(Self, RawFd)> {
        let (number, holder) = match word.split_once('=') {
            Some((number, name)) => (number, Self::Supervisor(name.to_owned())),
            None => (word, Self::Nobody),
        };
        Some((holder, number.parse().ok()?))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Supervisor(name) if !name.is_empty() => Some(name),
            Self::Supervisor(_) | Self::Nobody => None,
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Door {
    pub socket: TcpListener,
    pub holder: Holder,
}

impl Door {
    /// One that this process has bound.
    pub fn own(socket: TcpListener) -> Self {
        Self {
            socket,
            holder: Holder::Nobody,
        }
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            holder: self.holder.clone(),
        })
    }
}

#[derive(Debug)]
struct Passed {
    address: SocketAddr,
    door: Door,
}

/// Tells the process that started this one that it may leave.
#[derive(Debug)]
pub struct Ready(File);

impl Inherited {
    /// What the environment names. Only the first call in a process answers anything: a descriptor has one owner.
    pub fn take() -> Self {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Self::default();
        }
        let mut inherited = Self::default();
        for (holder, number) in passed_by_systemd().into_iter().chain(passed_by_ourselves()) {
            match listener(number) {
                Ok((address, socket)) => inherited.sockets.push(Passed {
                    address,
                    door: Door { socket, holder },
                }),
                Err(error) => {
                    let name = holder.name();
                    tracing::warn!(%error, number, name, "a socket that was passed is of no use");
                }
            }
        }
        let ready = variable(READY).and_then(|number| number.parse().ok());
        inherited.ready = ready
            .and_then(|number| own(number).ok())
            .map(|pipe| Ready(pipe.into()));
        inherited
    }

    /// The sockets for a listener: those with its name, or those at its address.
    pub fn listeners(&mut self, name: &str, address: SocketAddr) -> Vec<Door> {
        let mut chosen = Vec::new();
        let mut others = Vec::new();
        for passed in self.sockets.drain(..) {
            let is_it = passed.door.holder.name() == Some(name) || passed.address == address;
            match is_it {
                true => chosen.push(passed.door),
                false => others.push(passed),
            }
        }
        self.sockets = others;
        chosen
    }

    /// Sockets that nobody has taken.
    pub fn rest(&self) -> impl Iterator<Item = (Option<&str>, SocketAddr)> {
        let sockets = self.sockets.iter();
        sockets.map(|passed| (passed.door.holder.name(), passed.address))
    }

    /// Closes them.
    pub fn forget_rest(&mut self) {
        self.sockets.clear();
    }

    /// Whom to tell when everything is served.
    pub fn ready(&mut self) -> Option<Ready> {
        self.ready.take()
    }
}

impl Ready {
    pub fn tell(mut self) -> io::Result<()> {
        self.0.write_all(b"ready\n")
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn passed_by_systemd() -> Vec<(Holder, RawFd)> {
    // Meant for this process, and not for one that started it.
    let is_ours = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let count = variable("LISTEN_FDS").filter(|_| is_ours);
    let count: RawFd = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    (FIRST..FIRST.saturating_add(count.clamp(0, 4096)))
        .map(|number| (Holder::Supervisor(names.next().unwrap_or_default()), number))
        .collect()
}

fn passed_by_ourselves() -> Vec<(Holder, RawFd)> {
    let words = variable(SOCKETS).unwrap_or_default();
    words.split(':').filter_map(Holder::of).collect()
}

fn listener(number: RawFd) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = own(number)?;
    let asked = SockRef::from(&socket);
    let listens = asked.r#type()? == Type::STREAM && asked.is_listener()?;
    let address = asked.local_addr()?.as_socket();
    let (Some(address), true) = (address, listens) else {
        return Err(io::Error::other("it is not a listening TCP socket"));
    };
    asked.set_nonblocking(true)?;
    Ok((address, socket.into()))
}

/// Takes an open descriptor over. It is not passed on to a process that this one starts.
#[expect(
    unsafe_code,
    reason = "a number in the environment is all that a starter can pass"
)]
fn own(number: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::BorrowedFd;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    if number < FIRST {
        return Err(io::Error::other("it is a standard stream"));
    }
    // SAFETY: the number may name nothing at all; fcntl then says EBADF, and nothing else is done with it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and `take` runs once, before anything of this process could have opened it: the starter gave it
    // to us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
