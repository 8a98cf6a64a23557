//! The gateways: how each is configured and started. Every one gets one core and the same broker, and prefers the same
//! cipher and key exchange.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::accounts::Family;
use crate::clients::Tls;
use crate::poller::now;
use crate::rows::Load;

#[derive(
    Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Nginx,
    Haproxy,
    /// Tidegate before a broker that speaks ws.
    TidegateWs,
    /// Tidegate before a broker that speaks MQTT over TCP: the others cannot.
    TidegateMqtt,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::Nginx,
        Self::Haproxy,
        Self::TidegateWs,
        Self::TidegateMqtt,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::TidegateWs => "Tidegate → ws",
            Self::TidegateMqtt => "Tidegate → mqtt",
        }
    }

    /// Whether the row is one for it.
    pub fn can(self, load: &Load) -> bool {
        match load {
            // The peers here are built on an OpenSSL that does not know X25519MLKEM768.
            Load::Handshakes(Tls::PostQuantum) => self.is_tidegate(),
            // HAProxy serves no files, and the broker makes no difference to them.
            Load::Files { .. } => matches!(self, Self::Nginx | Self::TidegateWs),
            Load::Handshakes(Tls::Full | Tls::Resumed)
            | Load::Rate { .. }
            | Load::Window { .. }
            | Load::FanOut { .. }
            | Load::Idle { .. } => true,
        }
    }

    fn is_tidegate(self) -> bool {
        matches!(self, Self::TidegateWs | Self::TidegateMqtt)
    }
}

/// What every gateway is told.
pub struct Surroundings<'a> {
    pub folder: &'a Path,
    pub tidegate: &'a Path,
    pub ws: SocketAddr,
    pub tcp: SocketAddr,
    pub core: usize,
}

/// A program that is stopped, by its own process id, when it is dropped.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts it on that core; its output goes to a file in `folder`.
    pub fn start(mut command: Command, core: usize, folder: &Path) -> crate::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = folder.join(format!("{}.out", now()));
        let out = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let own = pin(core)?;
        let child = command.spawn();
        sched_setaffinity(Pid::from_raw(0), &own)?;
        let child = child.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{name} is not installed: `make bench` does it"),
            _ => format!("cannot start {name}: {error}"),
        })?;
        Ok(Self { child, name, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes connections.
    pub fn wait_for(&mut self, address: SocketAddr) -> crate::Result<()> {
        const PATIENCE: u64 = 10_000_000_000;
        let begin = now();
        while TcpStream::connect(address).is_err() {
            if self.child.try_wait()?.is_some() || now() - begin > PATIENCE {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("{} does not listen on {address}\n{said}", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else {
            return;
        };
        // SIGTERM first: nginx' master takes its worker along.
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        let begin = now();
        while now() - begin < 3_000_000_000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Puts this process, and what it starts, on that core. Answers where it was.
pub fn pin(core: usize) -> crate::Result<CpuSet> {
    let before = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(before)
}

/// A gateway that runs.
pub struct Gateway {
    pub address: SocketAddr,
    pub family: Family,
    _program: Program,
}

pub fn start(kind: Kind, around: &Surroundings<'_>) -> crate::Result<Gateway> {
    let address = free_address()?;
    let (template, file) = match kind {
        Kind::Nginx => (include_str!("../gateways/nginx.conf"), "nginx.conf"),
        Kind::Haproxy => (include_str!("../gateways/haproxy.cfg"), "haproxy.cfg"),
        Kind::TidegateWs => (include_str!("../gateways/tidegate.yaml"), "ws.yaml"),
        Kind::TidegateMqtt => (include_str!("../gateways/tidegate.yaml"), "mqtt.yaml"),
    };
    let broker = match kind {
        Kind::TidegateMqtt => format!("mqtt://{}", around.tcp),
        _ => format!("ws://{}/mqtt", around.ws),
    };
    let files = getrlimit(Resource::RLIMIT_NOFILE)?.1.min(1 << 20);
    let folder = around.folder.display().to_string();
    let text = [
        ("%port%", address.port().to_string()),
        ("%ws%", around.ws.to_string()),
        ("%broker%", broker),
        ("%files%", files.to_string()),
        ("%sessions%", (files / 2 - 60).to_string()),
        ("%chain%", format!("{folder}/tidegate-dev.pem")),
        ("%key%", format!("{folder}/tidegate-dev.key")),
        ("%pem%", format!("{folder}/haproxy.pem")),
        ("%folder%", folder),
    ]
    .iter()
    .fold(template.to_owned(), |text, (name, value)| {
        text.replace(name, value)
    });
    let file = around.folder.join(file);
    fs::write(&file, text)?;
    let mut command = match kind {
        Kind::Nginx => command("nginx", &["-c"]),
        Kind::Haproxy => command("haproxy", &["-db", "-f"]),
        Kind::TidegateWs | Kind::TidegateMqtt => {
            let mut command = Command::new(around.tidegate);
            command.args(["run", "-c"]);
            command
        }
    };
    command.arg(&file);
    let mut program = Program::start(command, around.core, around.folder)?;
    program.wait_for(address)?;
    Ok(Gateway {
        address,
        family: Family::of(program.pid()),
        _program: program,
    })
}

/// A plain user's PATH on Debian has no sbin.
fn command(name: &str, arguments: &[&str]) -> Command {
    let sbin = Path::new("/usr/sbin").join(name);
    let mut command = Command::new(if sbin.exists() { sbin } else { name.into() });
    command.args(arguments);
    command
}

/// A certificate for all, by Tidegate's own development authority.
pub fn make_certificate(tidegate: &Path, folder: &Path) -> crate::Result<()> {
    let made = Command::new(tidegate)
        .args(["cert", "dev", "--name", "localhost", "--out"])
        .arg(folder)
        .output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into());
    }
    let both = [
        folder.join("tidegate-dev.pem"),
        folder.join("tidegate-dev.key"),
    ]
    .map(fs::read_to_string);
    let [chain, key] = both;
    fs::write(folder.join("haproxy.pem"), chain? + &key?)?;
    Ok(())
}

/// First line of what each says of its version.
pub fn version(kind: Kind, tidegate: &Path) -> String {
    let (mut command, words) = match kind {
        Kind::Nginx => (command("nginx", &["-v"]), 0),
        Kind::Haproxy => (command("haproxy", &["-v"]), 3),
        Kind::TidegateWs | Kind::TidegateMqtt => (Command::new(tidegate), 2),
    };
    if kind.is_tidegate() {
        command.arg("--version");
    }
    let Ok(output) = command.output() else {
        return format!("{} (not there)", kind.name());
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("nginx version: ");
    match words {
        0 => line.to_owned(),
        count => line.split(' ').take(count).collect::<Vec<_>>().join(" "),
    }
}

/// One that was free a moment ago.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
