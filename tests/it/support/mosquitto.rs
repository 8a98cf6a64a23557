//! A real mosquitto with a tcp, a tls, a ws and a wss listener on free loopback ports, and one on a Unix socket.
//!
//! Its ws listeners stall on outgoing messages over about 130 kB (mosquitto 2.0 on old libwebsockets), with and without
//! a gateway: send big ones over tcp or tls.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::process::{Process, free_addresses};
use crate::support::tools;

const DEADLINE: Duration = Duration::from_secs(20);

/// How often another set of ports is tried when somebody else was quicker.
const ATTEMPTS: usize = 5;

/// What differs from one test to the next.
#[derive(Default)]
pub struct Options<'a> {
    /// Name and password. Everybody else is let in too, unless there is an access list.
    pub users: &'a [(&'a str, &'a str)],
    /// The text of an `acl_file`; with it, anonymous clients are refused.
    pub access_list: Option<&'a str>,
    /// Every name is let in as who it says it is, and the log tells everything.
    pub believes_names: bool,
    /// The largest packet in bytes.
    pub max_packet: Option<usize>,
    /// The tls and wss listeners want a certificate of the same authority, whose common name is then the user name; with
    /// `proxy_protocol` the others do too, of the client.
    pub wants_certificate: bool,
    /// Not the system's 2.0 but a 2.1, whose tcp, ws and Unix listeners want a PROXY header of this version. It refuses to
    /// have that and TLS of its own on one listener.
    pub proxy_protocol: Option<u8>,
}

/// A running mosquitto; dropping it kills it.
pub struct Mosquitto {
    process: Process,
    authority: Authority,
    tcp: SocketAddr,
    tls: SocketAddr,
    ws: SocketAddr,
    wss: SocketAddr,
    folder: TempDir,
}

impl Mosquitto {
    pub async fn start(options: Options<'_>) -> Self {
        let folder = TempDir::with_prefix("tidegate-mosquitto-").unwrap();
        let authority = Authority::make(folder.path());
        write_users(folder.path(), options.users);
        let mut last_error = String::new();
        for _ in 0..ATTEMPTS {
            let [tcp, tls, ws, wss] = free_addresses();
            let file = folder.path().join("mosquitto.conf");
            fs::write(
                &file,
                configuration(folder.path(), &authority, &options, [tcp, tls, ws, wss]),
            )
            .unwrap();
            let program = match options.proxy_protocol {
                Some(_) => tools::mosquitto_2_1(),
                None => tools::mosquitto(),
            };
            let mut process = Process::start(Command::new(program).arg("-c").arg(file));
            match process
                .wait_until_listening(&[tcp, tls, ws, wss], DEADLINE)
                .await
            {
                Ok(()) => {
                    return Self {
                        process,
                        authority,
                        tcp,
                        tls,
                        ws,
                        wss,
                        folder,
                    };
                }
                Err(error)
                    if error.contains("Address already in use")
                        // libwebsockets says no more than this of a port that is taken.
                        || error.contains("Unable to create websockets listener") =>
                {
                    last_error = error;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{ATTEMPTS} sets of free ports were all taken: {last_error}");
    }

    pub fn mqtt_url(&self) -> String {
        format!("mqtt://{}", self.tcp)
    }

    pub fn mqtts_url(&self) -> String {
        format!("mqtts://{}", self.tls)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("mqtt.sock")
    }

    pub fn unix_url(&self) -> String {
        format!("unix+mqtt://{}", self.socket().display())
    }

    pub fn ws_url(&self) -> String {
        format!("ws://{}/mqtt", self.ws)
    }

    pub fn wss_url(&self) -> String {
        format!("wss://{}/mqtt", self.wss)
    }

    pub fn tcp_port(&self) -> u16 {
        self.tcp.port()
    }

    /// The authority behind the tls and wss listeners.
    pub fn ca_file(&self) -> &Path {
        &self.authority.ca
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        self.process.last_words()
    }

    /// That authority, with a certificate that it takes from a client too.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Waits for a line of its log with all of these words.
    pub async fn says(&self, words: &[&str]) {
        let said = |text: &str| {
            text.lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        };
        let heard = crate::support::eventually(async || said(&self.log())).await;
        assert!(heard, "mosquitto does not say {words:?}\n{}", self.log());
    }

    /// A power cut: no DISCONNECT, no Close, only the end of every connection.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// As its service would be: it ends its sessions and itself.
    pub fn stop(&self) {
        self.process.signal("TERM");
    }

    /// It hangs: the kernel goes on taking connections for it.
    pub fn hang(&self) {
        self.process.signal("STOP");
    }

    pub fn go_on(&self) {
        self.process.signal("CONT");
    }
}

/// An empty file lets nobody in by name, so that a wrong password is refused in every test.
fn write_users(folder: &Path, users: &[(&str, &str)]) {
    let file = folder.join("users");
    fs::write(&file, "").unwrap();
    for (name, password) in users {
        let status = Command::new(tools::mosquitto_passwd())
            .arg("-b")
            .arg(&file)
            .args([name, password])
            .status();
        assert!(
            status.unwrap().success(),
            "mosquitto_passwd failed for {name}"
        );
    }
}

fn configuration(
    folder: &Path,
    authority: &Authority,
    options: &Options<'_>,
    at: [SocketAddr; 4],
) -> String {
    // Started as root, mosquitto becomes the user `mosquitto`, who may not read our folder; otherwise `user` is ignored.
    // The default drops what goes beyond 1,000 queued messages. 0, for no limit, is worse: 2.0.11 then ends the connection
    // of a client whose publication the access list forbids.
    let mut text = String::from(
        "user root\npersistence false\nlog_dest stderr\nmax_queued_messages 100000\nmax_keepalive 65535\n",
    );
    match options.believes_names {
        true => text.push_str("log_type all\n"),
        false => writeln!(text, "password_file {}", folder.join("users").display()).unwrap(),
    }
    writeln!(text, "allow_anonymous {}", options.access_list.is_none()).unwrap();
    if let Some(list) = options.access_list {
        let file = folder.join("access");
        fs::write(&file, list).unwrap();
        writeln!(text, "acl_file {}", file.display()).unwrap();
    }
    if let Some(bytes) = options.max_packet {
        writeln!(text, "max_packet_size {bytes}").unwrap();
    }
    let mut proxy_protocol = String::new();
    if let Some(version) = options.proxy_protocol {
        writeln!(proxy_protocol, "enable_proxy_protocol {version}").unwrap();
        if options.wants_certificate {
            // Of the client of whom the PROXY header tells.
            proxy_protocol.push_str("require_certificate true\nuse_identity_as_username true\n");
        }
    }
    // First, so that it is there when the last of the others is.
    let socket = folder.join("mqtt.sock");
    writeln!(text, "listener 0 {}\n{proxy_protocol}", socket.display()).unwrap();
    let [tcp, tls, ws, wss] = at;
    let mut encrypted = format!(
        "certfile {}\nkeyfile {}\n",
        authority.chain.display(),
        authority.key.display()
    );
    if options.wants_certificate {
        writeln!(
            encrypted,
            "cafile {}\nrequire_certificate true\nuse_identity_as_username true",
            authority.ca.display()
        )
        .unwrap();
    }
    for (address, lines) in [
        (tcp, proxy_protocol.clone()),
        (tls, encrypted.clone()),
        (ws, format!("protocol websockets\n{proxy_protocol}")),
        (wss, format!("protocol websockets\n{encrypted}")),
    ] {
        writeln!(
            text,
            "listener {} {}\n{lines}",
            address.port(),
            address.ip()
        )
        .unwrap();
    }
    text
}
