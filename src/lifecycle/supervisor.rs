//! What systemd, or whoever started us as it does, is told: sd_notify(3). Without `NOTIFY_SOCKET` nothing is.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Where the supervisor listens.
#[derive(Debug, Default)]
pub struct Supervisor {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// From the environment. An address that cannot be used is told, and nothing else happens.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name);
        let to = variable("NOTIFY_SOCKET").and_then(|path| {
            connect(&path)
                .map_err(|error| tracing::warn!(%error, ?path, "NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // sd_watchdog_enabled(3): where a process is named, it is meant for that one.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| *time > 0 && is_ours);
        Self {
            watchdog: to.as_ref().and(watchdog).map(Duration::from_micros),
            to,
        }
    }

    /// How often `watchdog` has to be said: twice as often as is asked for.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// Followed by `ready`, also when nothing was changed.
    pub fn reloading(&self) {
        // systemd 253 and later match the two by the time, and wait for ever without it.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        if let Ok(time) = time {
            let micros = time.as_micros();
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }

    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", line(status)));
    }

    /// From here on the supervisor waits for the end, at least so long as this.
    pub fn stopping(&self, status: &str, at_least: Duration) {
        let micros = at_least.as_micros();
        let status = line(status);
        self.tell(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS={status}"
        ));
    }

    pub fn watchdog(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Another process has taken this one's place.
    pub fn main_pid(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
    }

    fn tell(&self, words: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(error) = socket.send_to_addr(words.as_bytes(), to)
        {
            tracing::debug!(%error, "the supervisor cannot be told");
        }
    }
}

fn connect(path: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// A line end would begin another assignment.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
