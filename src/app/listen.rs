//! Listening sockets: one for each worker on the same port, so that the kernel spreads connections and no worker hands
//! one to another.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::model::{self, Config};
use crate::config::{Place, Problem};
use crate::lifecycle::inherited::{Door, Inherited};
use crate::stream::tune_clients;

/// Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

type Bound<'a> = (&'a model::Listener, SocketAddr, Vec<Door>);

/// The sockets of one configuration.
pub(super) struct AllBound<'a> {
    pub(super) listeners: Vec<Bound<'a>>,
    pub(super) admin: Option<Door>,
}

/// Takes the sockets that were passed, and binds the others. Answers all problems.
pub(super) fn bind_all<'a>(
    config: &'a Config,
    inherited: &mut Inherited,
) -> Result<AllBound<'a>, Vec<Problem>> {
    let mut listeners = Vec::new();
    let mut unbound = Vec::new();
    for listener in &config.listeners {
        let passed = inherited.listeners(&listener.name, listener.address);
        let first = passed.first();
        let passed_address = first.and_then(|door| door.socket.local_addr().ok());
        if let Some(address) = passed_address {
            listeners.push((listener, address, passed));
            continue;
        }
        match bind(listener.address, config.workers.get()) {
            Ok((address, sockets)) => {
                let doors = sockets.into_iter().map(Door::own);
                listeners.push((listener, address, doors.collect()));
            }
            Err(error) => {
                unbound.push(problem(&listener.place, listener.address, &error));
            }
        }
    }
    let admin = config.admin.as_ref().and_then(|admin| {
        let passed = inherited.listeners("admin", admin.address).pop();
        let bound = passed.map_or_else(|| bind_admin(admin), Ok);
        bound
            .map_err(|error| unbound.push(problem(&admin.place, admin.address, &error)))
            .ok()
    });
    match unbound.is_empty() {
        true => Ok(AllBound { listeners, admin }),
        false => Err(unbound),
    }
}

fn bind_admin(admin: &model::Admin) -> io::Result<Door> {
    let listener = TcpListener::bind(admin.address)?;
    listener.set_nonblocking(true)?;
    Ok(Door::own(listener))
}

/// Binds `shares` sockets. With port 0 all get the port that the first one was given; it is in the answered address.
pub(super) fn bind(
    address: SocketAddr,
    shares: usize,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // With SO_REUSEPORT a second process of the same user binds without an error and takes half of the connections: the
    // port is tried without it first.
    let mut address = address;
    let alone = socket(address, Sharing::Alone)?;
    address.set_port(alone.local_addr()?.port());
    if shares == 1 {
        return Ok((address, vec![alone]));
    }
    drop(alone);
    let sockets = (0..shares)
        .map(|_| socket(address, Sharing::Shared))
        .collect::<io::Result<_>>()?;
    Ok((address, sockets))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Shared,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` means IPv4 too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Before the first client: what waits in the queue has the options of its coming.
    tune_clients(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Gives every worker at least one socket, and every socket at least one worker. Sockets that were passed may be fewer than
/// the workers, which then share one, or more: a connection in the queue of one that nobody accepts from would be lost.
pub(super) fn share(
    sockets: Vec<TcpListener>,
    workers: usize,
) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for extra in sockets.len()..workers {
        let shared = sockets[extra % sockets.len()].try_clone()?;
        shares[extra].push(shared);
    }
    for (at, socket) in sockets.into_iter().enumerate() {
        shares[at % workers].push(socket);
    }
    Ok(shares)
}

/// Every listening socket once more, for the process that takes over. Shut when accepting ends: a socket that somebody
/// holds goes on queueing.
#[derive(Debug, Clone, Default)]
pub(super) struct Doors {
    doors: Arc<Mutex<Vec<Door>>>,
}

impl Doors {
    pub(super) fn keep(&self, door: &Door) -> io::Result<()> {
        let door = door.try_clone()?;
        self.lock().push(door);
        Ok(())
    }

    pub(super) fn shut(&self) {
        self.lock().clear();
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an address cannot be had, and what the operator can do about it.
pub(super) fn problem(place: &Place, address: SocketAddr, error: &io::Error) -> Problem {
    let problem = Problem::new(place, format!("cannot listen on {address}: {error}"));
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        let port = address.port();
        problem.help(format!(
            "`ss -ltnp 'sport = :{port}'` shows who has the port"
        ))
    } else if kind == io::ErrorKind::PermissionDenied {
        problem.help(
            "ports below 1024 need CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep, or AmbientCapabilities= in the unit)",
        )
    } else if kind == io::ErrorKind::AddrNotAvailable {
        problem.help("no interface of this machine has the address")
    } else {
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(count: usize) -> Vec<TcpListener> {
        let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        (0..count).map(bind).collect()
    }

    #[test]
    fn every_worker_has_a_socket_and_every_socket_a_worker() {
        for (count, workers) in [(1, 1), (1, 4), (2, 5), (4, 4), (5, 2), (7, 1)] {
            let sockets = sockets(count);
            let mut addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
            let shares = share(sockets, workers).unwrap();
            assert_eq!(shares.len(), workers);
            assert!(shares.iter().all(|share| !share.is_empty()));
            let served = shares.iter().flatten().map(|s| s.local_addr().unwrap());
            let mut served: Vec<_> = served.collect();
            served.sort();
            served.dedup();
            addresses.sort();
            assert_eq!(served, addresses);
        }
    }
}
