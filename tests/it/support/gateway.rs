//! The gateway under test, in this process, on free ports with a certificate of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tempfile::TempDir;
use tidegate::app::{App, StartError, Stopper};
use tidegate::lifecycle::Ended;
use tokio::sync::mpsc;

use super::admin::Admin;
use super::authority::Authority;

/// A running gateway; dropping it stops it at once.
pub struct Gateway {
    listeners: Vec<SocketAddr>,
    admin: Admin,
    authority: Authority,
    stop: mpsc::Sender<&'static str>,
    thread: Option<JoinHandle<Ended>>,
    _folder: TempDir,
}

struct Told(mpsc::Receiver<&'static str>);

impl Stopper for Told {
    async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}

impl Gateway {
    /// Starts from a configuration that may leave out listeners, admin, certificates and workers.
    pub async fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::make(folder.path());
        let text = completed(yaml, &authority);
        let loaded = tidegate::config::parse(Path::new("test.yaml"), &text)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let app = App::bind(loaded.config).unwrap_or_else(|error| match error {
            StartError::Problems(list) | StartError::Listen(list) => {
                panic!("{}", loaded.source.problems(list).unwrap())
            }
            error @ StartError::Thread(_) => panic!("{error}"),
        });
        let listeners = app.addresses().map(|(_, _, address)| address).collect();
        let admin = Admin(app.admin_address().unwrap());
        let (stop, told) = mpsc::channel(2);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(app.run(Told(told), || {})).unwrap()
        });
        Self {
            listeners,
            admin,
            authority,
            stop,
            thread: Some(thread),
            _folder: folder,
        }
    }

    /// A gateway in front of these brokers, all with weight 1.
    pub async fn before(urls: &[String]) -> Self {
        Self::start(&pool_of(urls)).await
    }

    /// `wss://127.0.0.1:PORT` and the path.
    pub fn wss_url(&self, path: &str) -> String {
        format!("wss://127.0.0.1:{}{path}", self.port())
    }

    /// The authority that clients must trust.
    pub fn ca_file(&self) -> &Path {
        &self.authority.ca
    }

    /// Of the first listener.
    pub fn port(&self) -> u16 {
        self.listeners[0].port()
    }

    /// Of the listener at that place in the configuration.
    pub fn address(&self, listener: usize) -> SocketAddr {
        self.listeners[listener]
    }

    /// Status and body of a GET on the admin listener.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        self.admin.get(path).await
    }

    /// The sum of all samples whose name begins so and that have all of these labels (`why="idle"`).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.admin.metric(name, labels).await
    }

    /// Waits until the metric has the value.
    pub async fn metric_becomes(&self, name: &str, labels: &[&str], value: f64) {
        self.admin.metric_becomes(name, labels, value).await;
    }

    /// One end was recorded, for this reason.
    pub async fn outcome(&self, who: &str, phase: &str, why: &str) {
        self.admin.outcome(who, phase, why).await;
    }

    /// The admin listener itself.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.0
    }

    /// What SIGTERM does: begins to drain. A second call ends at once.
    pub fn stop(&self) {
        self.stop.try_send("test").unwrap();
    }

    /// Waits for the end of the drain that `stop` began.
    pub async fn ended(mut self) -> Ended {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap()
    }
}

/// The configuration with what it leaves out: a TLS listener and an admin listener on free ports, the authority's
/// certificate, one worker.
pub fn completed(yaml: &str, authority: &Authority) -> String {
    let mut text = yaml.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let certificates = format!(
        "certificates: [{{chain: {:?}, key: {:?}}}]",
        authority.chain, authority.key
    );
    for (key, default) in [
        ("listeners", "listeners: [{address: \"127.0.0.1:0\"}]"),
        ("admin", "admin: {address: \"127.0.0.1:0\"}"),
        ("certificates", &certificates),
        ("workers", "workers: 1"),
    ] {
        if !text
            .lines()
            .any(|line| line.starts_with(&format!("{key}:")))
        {
            text.push_str(default);
            text.push('\n');
        }
    }
    text
}

/// Routes and a pool of these brokers.
pub fn pool_of(urls: &[String]) -> String {
    let brokers: Vec<String> = urls
        .iter()
        .map(|url| format!("{{url: \"{url}\"}}"))
        .collect();
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{brokers: [{}]}}}}\n",
        brokers.join(", ")
    )
}

/// Writes a site of one page and answers its folder, to be kept alive.
pub fn site() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    fs::write(root.join("index.html"), "<h1>the site</h1>").unwrap();
    (folder, root)
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A test may have stopped it already; a full channel says the same.
            self.stop.try_send("drop").unwrap_or_default();
            self.stop.try_send("drop").unwrap_or_default();
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("the gateway panicked");
            }
        }
    }
}
