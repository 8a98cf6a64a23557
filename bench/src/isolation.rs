//! A network of its own: ports and port range are then nobody else's, and nothing here can be reached from outside.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Uid;

const INSIDE: &str = "TIDEGATE_BENCH_ISOLATED";

/// Whether there is one.
#[derive(Clone, Copy, PartialEq)]
pub enum Isolation {
    Own,
    /// The system does not let this user have one: the host's loopback is used.
    None,
}

/// Starts this program again in a network namespace, if that can be had, and raises the limit on open files.
pub fn enter() -> crate::Result<Isolation> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if !Uid::effective().is_root() {
        unshare.arg("--map-root-user");
    }
    let allowed = Command::new(unshare.get_program())
        .args(unshare.get_args())
        .arg("true")
        .output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("no network namespace for this user: the host's loopback is used");
        return Ok(Isolation::None);
    }
    let error = unshare
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error.into())
}

fn inside() -> crate::Result<Isolation> {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !up.success() {
        return Err("ip cannot switch loopback on (Debian package iproute2)".into());
    }
    // A gateway has one address towards one broker: the handshake rows would run out of the default 28,000 ports.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2000 65000")?;
    Ok(Isolation::Own)
}
