//! One process after the other at the same sockets: an upgrade, and a restart by a supervisor that holds them. Nobody who
//! connects meanwhile is refused.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, timeout};
use tungstenite::Message;

use crate::support::admin::Admin;
use crate::support::client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::pool_of;
use crate::support::process::{Process, free_addresses};
use crate::support::program::{Program, command};
use crate::support::raw_http::{Request, rest};
use crate::support::{PATIENCE, eventually, packets};

/// A client that connects fifty times a second, from TCP to CONNACK, until it is told to stop.
struct Coming {
    stop: Arc<AtomicBool>,
    connected: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Coming {
    #[expect(clippy::disallowed_methods, reason = "a client has no drain")]
    fn begin(address: SocketAddr, ca: &std::path::Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let connected = Arc::new(AtomicUsize::new(0));
        let config = client::tls_config(ca, rustls::DEFAULT_VERSIONS);
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&connected));
        let task = tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis(20));
            let mut coming = JoinSet::new();
            while !stopped.load(Ordering::Relaxed) {
                tick.tick().await;
                let (config, counted) = (Arc::clone(&config), Arc::clone(&counted));
                coming.spawn(async move {
                    let ended = timeout(PATIENCE, come(address, config)).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                    match ended {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error),
                        Err(_) => Some("no answer".to_owned()),
                    }
                });
            }
            coming.join_all().await.into_iter().flatten().collect()
        });
        Self {
            stop,
            connected,
            task,
        }
    }

    /// Until so many more have come.
    async fn more(&self, count: usize) {
        let target = self.connected.load(Ordering::Relaxed) + count;
        assert!(eventually(async || self.connected.load(Ordering::Relaxed) >= target).await);
    }

    /// What failed, of all of them.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.task.await.unwrap();
        (self.connected.load(Ordering::Relaxed), failed)
    }
}

async fn come(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Result<(), String> {
    let told = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let stream = client::tls_as(address, "localhost", config).await;
    let stream = stream.map_err(|error| told("TCP or TLS", &error))?;
    let url = format!("wss://localhost:{}/mqtt", address.port());
    let opening = Box::pin(tokio_tungstenite::client_async(url, stream));
    let (mut socket, _) = opening.await.map_err(|error| told("upgrade", &error))?;
    let connect = Message::binary(packets::connect("", 60));
    socket
        .send(connect)
        .await
        .map_err(|error| told("CONNECT", &error))?;
    match socket.next().await {
        Some(Ok(Message::Binary(answer))) if answer[..] == packets::connack(0) => Ok(()),
        other => Err(format!("instead of CONNACK: {other:?}")),
    }
}

/// Sessions that stay until they are asked to leave, and say how they were.
async fn kept(address: SocketAddr, ca: &std::path::Path, count: usize) -> JoinSet<u16> {
    let mut kept = JoinSet::new();
    for _ in 0..count {
        let stream = client::tls_to(address, ca).await;
        let mut client = client::Client::over(stream).await;
        client.send(&packets::connect("", 60)).await;
        assert_eq!(client.receive().await, packets::connack(0));
        kept.spawn(async move { client.closed().await.code });
    }
    kept
}

/// At fixed addresses: the second process must find those of the first.
fn yaml(broker: &Crowd, listener: SocketAddr, admin: SocketAddr, more: &str) -> String {
    format!(
        "listeners: [{{ address: \"{listener}\", name: public }}]\nadmin: {{ address: \"{admin}\" }}\n{}{more}",
        pool_of(&[broker.url()])
    )
}

#[tokio::test]
async fn an_upgrade_refuses_nobody_and_the_old_sessions_leave_at_their_pace() {
    let broker = Crowd::start(Manners::Welcome).await;
    let [listener, admin] = free_addresses();
    let drain = "watch: false\ndrain: { rate: 40, close_code: 1012 }\n";
    let pid_file = "tidegate.pid";
    let mut program = Program::start(
        &yaml(&broker, listener, admin, &format!("{drain}workers: 1\n")),
        |mut command| {
            command.args(["--pid-file", pid_file]);
            command
        },
    )
    .await;
    let pid_file = program.folder().join(pid_file);
    let first = std::fs::read_to_string(&pid_file).unwrap();
    let mut old = kept(listener, &program.authority.ca, 40).await;
    let coming = Coming::begin(listener, &program.authority.ca);
    coming.more(20).await;
    // Another number of workers, so that none has the sockets that its likes had.
    program.rewrite(&yaml(
        &broker,
        listener,
        admin,
        &format!("{drain}workers: 3\n"),
    ));
    let begun = Instant::now();
    let finished = program.ask(&["upgrade"]).await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert!(
        finished.stdout.contains("serves; the old one drains"),
        "{}",
        finished.stdout
    );
    let second = std::fs::read_to_string(&pid_file).unwrap();
    assert_ne!(first, second, "the new process is the one in the PID file");
    while let Some(code) = old.join_next().await {
        assert_eq!(code.unwrap(), 1012);
    }
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(900),
        "forty at forty a second took {took:?}"
    );
    let ended = program.process.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(0), "{}", program.process.last_words());
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), second);
    coming.more(50).await;
    // From three workers to two, by the signal, with the old process as the new one's likes.
    program.rewrite(&yaml(
        &broker,
        listener,
        admin,
        &format!("{drain}workers: 2\n"),
    ));
    signal("USR2", &second);
    program.tells(&["the new process serves", "process="]).await;
    assert!(eventually(async || std::fs::read_to_string(&pid_file).unwrap() != second).await);
    has_ended(&second).await;
    coming.more(50).await;
    let (count, failed) = coming.end().await;
    assert!(
        failed.is_empty(),
        "{} of {count} failed: {failed:?}\n{}",
        failed.len(),
        program.process.last_words()
    );
}

/// Waits until a process, which may be another one's child, has ended.
async fn has_ended(pid: &str) {
    let stat = format!("/proc/{}/stat", pid.trim());
    let is_gone =
        async || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    assert!(eventually(is_gone).await, "process {pid} did not end");
}

fn signal(name: &str, pid: &str) {
    let sent = Command::new("sh")
        .args(["-c", r#"kill -s "$0" "$1""#, name, pid.trim()])
        .status();
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn where_the_new_process_does_not_come_up_the_old_one_goes_on_and_says_so() {
    let broker = Crowd::start(Manners::Welcome).await;
    let [listener, admin] = free_addresses();
    let program = Program::run(&yaml(&broker, listener, admin, "watch: false\n")).await;
    let coming = Coming::begin(listener, &program.authority.ca);
    let mut stays = kept(listener, &program.authority.ca, 1).await;
    program.rewrite(&yaml(
        &broker,
        listener,
        admin,
        "watch: false\ncolour: red\n",
    ));
    let finished = program.ask(&["upgrade"]).await;
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    assert!(
        finished.stderr.contains("exit status: 78"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("the old process goes on"),
        "{}",
        finished.stderr
    );
    program.tells(&["ERROR", "no new process took over"]).await;
    assert!(
        program.process.stderr().contains("colour"),
        "the new one says why"
    );
    coming.more(50).await;
    let (_, failed) = coming.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    assert!(stays.try_join_next().is_none(), "a session was ended");
    assert_eq!(program.admin.get("/readyz").await.0, 200);
    // And it can be tried again.
    program.rewrite(&yaml(&broker, listener, admin, "watch: false\n"));
    let finished = program.ask(&["upgrade"]).await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert_eq!(stays.join_next().await.unwrap().unwrap(), 1001);
}

/// Two processes would serve, of which one was to end.
#[tokio::test]
async fn a_drain_or_a_stop_ends_the_process_that_was_to_take_over() {
    let broker = Crowd::start(Manners::Welcome).await;
    for stops in [false, true] {
        let [listener, admin] = free_addresses();
        let program = Program::run(&yaml(&broker, listener, admin, "watch: false\n")).await;
        // It waits for somebody to write to its configuration.
        let file = program.folder().join("tidegate.yaml");
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        program.process.signal("USR2");
        program.tells(&["a new process is to take over"]).await;
        match stops {
            true => program.process.signal("TERM"),
            false => {
                let begun = program.ask(&["drain"]).await;
                assert_eq!(begun.status.code(), Some(0), "{}", begun.stderr);
            }
        }
        program
            .tells(&["no new process took over", "a drain has begun"])
            .await;
        if !stops {
            program.tells(&["drained asked=0"]).await;
            program.process.signal("TERM");
        }
        assert_eq!(
            program.process.finish(PATIENCE).await.status.code(),
            Some(0)
        );
    }
}

/// The listening socket is the test's, as it is systemd's with a socket unit.
fn activated(usual: &Command, socket: &OwnedFd, name: &str) -> Command {
    let mut command = Command::new("bash");
    let number = socket.as_raw_fd();
    let script = format!(
        "exec 3<&{number} {number}<&-; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}; exec \"$@\""
    );
    command
        .args(["-c", &script, "bash"])
        .arg(usual.get_program())
        .args(usual.get_args());
    if let Some(folder) = usual.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

#[tokio::test]
async fn a_restart_with_sockets_of_the_supervisor_refuses_nobody() {
    let broker = Crowd::start(Manners::Welcome).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // A copy that a child process keeps.
    let passed = nix::unistd::dup(&socket).unwrap();
    let [admin] = free_addresses();
    // Found by its name: the address of the configuration is another one.
    let nowhere = "203.0.113.1:1".parse().unwrap();
    let yaml = yaml(
        &broker,
        nowhere,
        admin,
        "workers: 2\ndrain: { rate: 1000 }\n",
    );
    let mut program = Program::start(&yaml, |usual| activated(&usual, &passed, "public")).await;
    assert_eq!(program.address(0), address);
    let coming = Coming::begin(address, &program.authority.ca);
    for _ in 0..3 {
        coming.more(30).await;
        program.process.signal("TERM");
        program.process.ended(PATIENCE).await;
        let usual = command(program.folder(), &["run", "-c", "tidegate.yaml"]);
        program.process = Process::start(&activated(&usual, &passed, "public"));
        let is_ready = async || {
            TcpStream::connect(admin).await.is_ok() && Admin(admin).get("/readyz").await.0 == 200
        };
        assert!(
            eventually(is_ready).await,
            "{}",
            program.process.last_words()
        );
    }
    coming.more(30).await;
    let (count, failed) = coming.end().await;
    assert!(
        failed.is_empty(),
        "{} of {count} failed: {failed:?}",
        failed.len()
    );
}

/// The configuration has another address: only the name leads to the socket, in each process that comes.
#[tokio::test]
async fn an_upgrade_passes_the_names_of_the_supervisors_sockets_on() {
    let broker = Crowd::start(Manners::Welcome).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let passed = nix::unistd::dup(&socket).unwrap();
    let [elsewhere, admin] = free_addresses();
    let yaml = yaml(&broker, elsewhere, admin, "drain: { rate: 1000 }\n");
    let program = Program::start(&yaml, |usual| activated(&usual, &passed, "public")).await;
    let coming = Coming::begin(address, &program.authority.ca);
    let mut serving = program.process.id();
    for _ in 0..2 {
        coming.more(20).await;
        let finished = program.ask(&["upgrade"]).await;
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        has_ended(&serving.to_string()).await;
        serving = process_of(&finished.stdout);
    }
    coming.more(20).await;
    let (count, failed) = coming.end().await;
    assert!(
        failed.is_empty(),
        "{} of {count} failed: {failed:?}",
        failed.len()
    );
    assert!(TcpStream::connect(elsewhere).await.is_err());
    // The supervisor's socket queues, so that a stop refuses nobody who has come.
    let mut waiting = client::tls_to(address, &program.authority.ca).await;
    signal("TERM", &serving.to_string());
    program.tells(&["stopping", "sessions=0"]).await;
    assert_eq!(Request::get("/").ask(&mut waiting).await.status, 404);
}

/// From `process 4711 serves; …`.
fn process_of(said: &str) -> u32 {
    let number = said
        .split_whitespace()
        .skip_while(|word| *word != "process")
        .nth(1);
    number.and_then(|number| number.parse().ok()).unwrap()
}

/// Two successors would share the sockets, and the next upgrade reach only one.
#[tokio::test]
async fn of_two_upgrades_at_once_one_is_refused() {
    let broker = Crowd::start(Manners::Welcome).await;
    for _ in 0..5 {
        let [listener, admin] = free_addresses();
        let _program = Program::run(&yaml(&broker, listener, admin, "watch: false\n")).await;
        // Both are the first process's before there is a second one.
        let mut asking = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(admin).await.unwrap();
            assert_eq!(Request::get("/livez").ask(&mut stream).await.status, 200);
            asking.push(stream);
        }
        let answers = asking.iter_mut().map(|stream| async {
            let request = Request::new("POST", "/upgrade").with("Content-Length", "0");
            request.ask(stream).await.status
        });
        let mut codes = futures_util::future::join_all(answers).await;
        codes.sort_unstable();
        assert!(codes[0] == 200 && codes[1] > 400, "{codes:?}");
    }
}

/// Nobody has its sockets but the process itself: who comes while it stops is to go elsewhere.
#[tokio::test]
async fn a_stop_after_an_upgrade_turns_new_sessions_away() {
    let broker = Crowd::start(Manners::Welcome).await;
    let [listener, admin] = free_addresses();
    let program = Program::run(&yaml(&broker, listener, admin, "watch: false\n")).await;
    let upgraded = program.ask(&["upgrade"]).await;
    assert_eq!(upgraded.status.code(), Some(0), "{}", upgraded.stderr);
    // It would let the connection in as well.
    has_ended(&program.process.id().to_string()).await;
    let mut late = client::tls_to(listener, &program.authority.ca).await;
    signal("TERM", &process_of(&upgraded.stdout).to_string());
    // The first process has said so too.
    let drains = async || program.process.stderr().matches("draining, about").count() == 2;
    assert!(eventually(drains).await, "{}", program.process.last_words());
    let request = Request::upgrade("/mqtt").text();
    late.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut late).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 503 "));
}

#[tokio::test]
async fn a_socket_that_no_listener_is_for_is_told_and_closed() {
    let broker = Crowd::start(Manners::Welcome).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = nix::unistd::dup(&socket).unwrap();
    let [admin] = free_addresses();
    let free = "127.0.0.1:0".parse().unwrap();
    let program = Program::start(&yaml(&broker, free, admin, ""), |usual| {
        activated(&usual, &passed, "other")
    })
    .await;
    let address = socket.local_addr().unwrap().to_string();
    program
        .tells(&["WARN", "no listener is for", "other", &address])
        .await;
    assert_ne!(
        program.address(0).port(),
        socket.local_addr().unwrap().port()
    );
}

/// What systemd hears, as pairs of name and value.
struct Heard(UnixDatagram);

impl Heard {
    /// The next datagram with this assignment.
    async fn next(&self, assignment: &str) -> String {
        let mut found = None;
        let heard = eventually(async || {
            let mut bytes = [0; 4096];
            while let Ok(count) = self.0.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                if text.lines().any(|line| line.starts_with(assignment)) {
                    found = Some(text);
                    return true;
                }
            }
            false
        });
        assert!(heard.await, "{assignment} was not said");
        found.unwrap()
    }
}

#[tokio::test]
async fn the_supervisor_hears_of_the_start_of_reloads_of_an_upgrade_and_of_the_end() {
    let broker = Crowd::start(Manners::Welcome).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let heard = Heard(socket);
    let [listener, admin] = free_addresses();
    let good = yaml(&broker, listener, admin, "watch: false\n");
    let program = Program::start(&good, |mut command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "400000");
        command
    })
    .await;
    assert!(
        heard
            .next("READY=1")
            .await
            .contains("STATUS=0 sessions, configuration 1")
    );
    heard.next("WATCHDOG=1").await;
    for (text, status) in [
        (&good, "configuration 2"),
        (&format!("{good}colour: red\n"), "refused"),
    ] {
        program.rewrite(text);
        program.process.signal("HUP");
        // systemd matches the two by the time.
        let reloading = heard.next("RELOADING=1").await;
        let micros = reloading
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(micros.unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
        let ready = heard.next("READY=1").await;
        assert!(ready.contains(status), "{ready}");
    }
    program.rewrite(&good);
    let old = program.ask(&["upgrade"]).await;
    let said = heard.next("MAINPID=").await;
    let new = said
        .lines()
        .find_map(|line| line.strip_prefix("MAINPID="))
        .unwrap()
        .to_owned();
    assert!(old.stdout.contains(&new), "{}", old.stdout);
    assert_eq!(Admin(admin).get("/readyz").await.0, 200);
    signal("TERM", &new);
    let stopping = heard.next("STOPPING=1").await;
    assert!(
        stopping.contains("EXTEND_TIMEOUT_USEC=65000000"),
        "{stopping}"
    );
}

/// Nothing may come between the line that says where it listens and the readiness to hear signals.
#[tokio::test]
async fn a_signal_right_after_the_first_line_is_an_order_and_does_not_kill() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\nadmin: off\n{}",
        pool_of(&["mqtt://127.0.0.1:1".to_owned()])
    );
    std::fs::write(folder.path().join("tidegate.yaml"), yaml).unwrap();
    for signal in ["TERM", "HUP"] {
        let process = Process::start(&command(folder.path(), &["run", "-c", "tidegate.yaml"]));
        let begun = async || process.stderr().contains("open files");
        assert!(eventually(begun).await);
        let listens = async || process.stderr().contains("listening");
        assert!(eventually(listens).await);
        process.signal(signal);
        if signal == "HUP" {
            let reloaded = async || process.stderr().contains("configuration reloaded");
            assert!(eventually(reloaded).await, "{}", process.last_words());
            process.signal("TERM");
        }
        let finished = process.finish(PATIENCE).await;
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    }
}
