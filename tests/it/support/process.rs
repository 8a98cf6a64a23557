//! A child process that ends with the test: killed and reaped on drop, by its own process group, whatever happens.
//!
//! It dies too when the test process itself is killed. A shell, forked before the program takes its place, waits in the
//! child's process group for the end of a pipe that only we hold, and then kills that group and nothing else.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How often a state is looked at that nobody announces.
const TICK: Duration = Duration::from_millis(20);

/// What a failure message may quote of a process: its last lines.
const KEPT_LINES: usize = 400;

/// Forks the watcher, then becomes the program: the pid we know is the program's.
const WATCHED: &str =
    r#"exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec 3<&-; exec "$@""#;

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    /// Closing it makes the watcher kill the group.
    lifeline: Option<ChildStdin>,
    stdout: Captured,
    stderr: Captured,
}

impl Process {
    /// Starts the program with the arguments, environment and folder of `command`.
    pub fn start(command: &Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut watched = Command::new("sh");
        watched
            .args(["-c", WATCHED, "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => watched.env(key, value),
                None => watched.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            watched.current_dir(folder);
        }
        watched
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = watched
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            lifeline: child.stdin.take(),
            stdout: Captured::read(child.stdout.take().unwrap()),
            stderr: Captured::read(child.stderr.take().unwrap()),
            name,
            child,
        }
    }

    /// Waits until every address takes connections; an error with the program's last words when it ends before that.
    pub async fn wait_until_listening(
        &mut self,
        addresses: &[SocketAddr],
        deadline: Duration,
    ) -> Result<(), String> {
        let deadline = Instant::now() + deadline;
        for address in addresses {
            while TcpStream::connect(address).await.is_err() {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return Err(format!(
                        "{} ended with {status}\n{}",
                        self.name,
                        self.last_words()
                    ));
                }
                if Instant::now() >= deadline {
                    return Err(format!(
                        "{} does not listen on {address}\n{}",
                        self.name,
                        self.last_words()
                    ));
                }
                sleep(TICK).await;
            }
        }
        Ok(())
    }

    /// Waits until the program ends by itself and gives its whole standard output.
    pub async fn finish(mut self, deadline: Duration) -> Finished {
        let ended = timeout(deadline, async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                sleep(TICK).await;
            }
        });
        let Ok(status) = ended.await else {
            panic!(
                "{} did not end within {deadline:?}\n{}",
                self.name,
                self.last_words()
            );
        };
        // The pipes may still be held by a program that the ended one has left behind.
        self.end_group();
        Finished {
            status,
            stdout: self.stdout.rest(),
            stderr: self.stderr.rest(),
        }
    }

    /// Waits until the program itself ends; what it started goes on.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let ended = timeout(deadline, async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                sleep(TICK).await;
            }
        });
        let ended = ended.await;
        ended.unwrap_or_else(|_| panic!("{} did not end\n{}", self.name, self.last_words()))
    }

    /// The program's own, under `/proc`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name: `TERM`, `INT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$0" "$1""#, name, &pid])
            .status()
            .unwrap();
        assert!(sent.success(), "{} is gone", self.name);
    }

    /// Everything on standard error, as far as it is kept.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Kills the program at once, as a power cut would, and reaps it.
    pub fn kill(&mut self) {
        self.end_group();
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// The end of what the program said, for failure messages.
    pub fn last_words(&self) -> String {
        format!(
            "--- its stdout\n{}\n--- its stderr\n{}",
            self.stdout.so_far(),
            self.stderr.so_far()
        )
    }

    fn end_group(&mut self) {
        self.lifeline = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What is left of a program that ended by itself.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// The last lines of one output, read by a thread of its own so that the program never waits for us.
struct Captured {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn read(output: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self {
            lines,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Waits for the end of the output. Only after the program and its group have ended.
    fn rest(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}

/// Loopback addresses that were free a moment ago, all different. Whoever uses them tries again when one is taken.
pub fn free_addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let held = [(); COUNT].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_process_gives_its_output_and_status() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $GREETING; echo trouble >&2; exit 3"])
        .env("GREETING", "hello");
    let finished = Process::start(&command)
        .finish(Duration::from_secs(10))
        .await;
    assert_eq!(finished.status.code(), Some(3));
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str()),
        ("hello", "trouble")
    );
}

#[tokio::test]
async fn a_dropped_process_takes_its_children_along() {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & echo $!; wait"]);
    let process = Process::start(&command);
    let grandchild = timeout(Duration::from_secs(10), async {
        loop {
            if let Ok(pid) = process.stdout.so_far().parse::<u32>() {
                return pid;
            }
            sleep(TICK).await;
        }
    });
    let status = format!("/proc/{}/stat", grandchild.await.unwrap());
    drop(process);
    let gone = timeout(Duration::from_secs(10), async {
        // A zombie waits for init to reap it: dead, all the same.
        while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z ")) {
            sleep(TICK).await;
        }
    });
    gone.await.unwrap();
}

#[tokio::test]
async fn a_process_that_ends_early_is_reported_with_its_last_words() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo no such option >&2; exit 1"]);
    let [address] = free_addresses();
    let error = Process::start(&command)
        .wait_until_listening(&[address], Duration::from_secs(10))
        .await
        .unwrap_err();
    assert!(error.contains("ended with exit status: 1"), "{error}");
}
