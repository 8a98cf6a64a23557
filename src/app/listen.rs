//! Listening sockets: one for each worker on the same port, so that the kernel spreads connections and no worker hands
//! one to another.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Binds `shares` sockets. With port 0 all get the port that the first one was given.
pub(super) fn bind(address: SocketAddr, shares: usize) -> io::Result<Vec<TcpListener>> {
    // With SO_REUSEPORT a second process of the same user binds without an error and takes half of the connections: the
    // port is tried without it first.
    let mut address = address;
    let alone = socket(address, Sharing::Alone)?;
    if shares == 1 {
        return Ok(vec![alone]);
    }
    address.set_port(alone.local_addr()?.port());
    drop(alone);
    (0..shares)
        .map(|_| socket(address, Sharing::Shared))
        .collect()
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
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What the operator can do about it.
pub(super) fn remedy(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("; `ss -ltnp 'sport = :{}'` shows who has the port", address.port()),
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep, or AmbientCapabilities= in the unit)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address".to_owned(),
        _ => String::new(),
    }
}
