//! A gateway with one worker, clients that behave, and what they and its memory tell before, during and after an attack.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::support::admin::Admin;
use crate::support::client::{Client, tls_as, tls_config};
use crate::support::crowd::{Crowd, Manners};
use crate::support::frames::{BINARY, FIN, masked};
use crate::support::gateway::site;
use crate::support::packets;
use crate::support::program::Program;
use crate::support::raw_http::Request;

const BEFORE: Duration = Duration::from_secs(4);
const AFTER: Duration = Duration::from_secs(5);

/// How long a newcomer waits for its CONNACK, as an impatient client does.
pub(super) const PATIENT: Duration = Duration::from_secs(5);

/// In the site; more than any buffer holds.
pub(super) const LARGE: &str = "/large.bin";

type Attacking = Pin<Box<dyn Future<Output = ()>>>;

/// One attack: it goes on until it is dropped.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) size: &'static str,
    pub(super) lasts: Duration,
    /// More configuration.
    pub(super) yaml: &'static str,
    pub(super) run: fn(Target) -> Attacking,
}

/// Whom it is directed at.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) http1: Arc<ClientConfig>,
    pub(super) http2: Arc<ClientConfig>,
}

impl Target {
    pub(super) async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        tls_as(self.address, "localhost", Arc::clone(&self.http1)).await
    }

    pub(super) async fn http2(&self) -> io::Result<TlsStream<TcpStream>> {
        tls_as(self.address, "localhost", Arc::clone(&self.http2)).await
    }

    /// A client from nothing to CONNACK.
    pub(super) async fn newcomer(&self) -> io::Result<Duration> {
        let began = Instant::now();
        let coming = async {
            let mut stream = self.tls().await?;
            let upgrade = Request::upgrade("/mqtt").with("Sec-WebSocket-Protocol", "mqtt");
            stream.write_all(upgrade.text().as_bytes()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let connect = masked(FIN | BINARY, &packets::connect("newcomer", 60));
            stream.write_all(&connect).await?;
            let mut connack = [0; 6];
            stream.read_exact(&mut connack).await?;
            assert_eq!(connack[2..], packets::connack(0));
            Ok(())
        };
        let came: io::Result<()> = timeout(PATIENT, coming).await?;
        came.map(|()| began.elapsed())
    }
}

/// What clients that behave have met since it was last taken.
#[derive(Default)]
pub(super) struct Met {
    round_trips: Vec<Duration>,
    arrivals: Vec<Duration>,
    not_arrived: usize,
    peak: f64,
}

fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    let at = times.len() * percent / 100;
    times.get(at).copied().unwrap_or_default()
}

impl Met {
    pub(super) fn p50(&self) -> Duration {
        percentile(self.round_trips.clone(), 50)
    }

    fn p99(&self) -> Duration {
        percentile(self.round_trips.clone(), 99)
    }
}

/// The gateway, and what surrounds it.
pub(super) struct Lab {
    program: Program,
    target: Target,
    met: Arc<Mutex<Met>>,
    stop: Option<oneshot::Sender<()>>,
    victims: Option<JoinHandle<()>>,
    _site: tempfile::TempDir,
}

impl Lab {
    pub(super) async fn start(attack: &Attack) -> Self {
        let (site, root) = site();
        std::fs::write(root.join(&LARGE[1..]), vec![7; 64 << 20]).unwrap();
        // The broker lives with the victims.
        let (told, address) = oneshot::channel();
        let (begin, beginning) = oneshot::channel::<(Target, Admin, Arc<Mutex<Met>>)>();
        let (stop, stopped) = oneshot::channel();
        let victims = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let crowd = Crowd::start(Manners::Welcome).await;
                told.send(crowd.url()).unwrap();
                let (target, admin, met) = beginning.await.unwrap();
                tokio::select! {
                    () = behave(target, admin, met) => {}
                    _ = stopped => {}
                }
            });
        });
        let broker = address.await.unwrap();
        let dear = dear_to_sign_for(site.path());
        let yaml = format!(
            "routes: [{{ path: /mqtt, pool: brokers }}, {{ path: /, site: {{ root: {root:?} }} }}]\n\
             pools: {{ brokers: {{ brokers: [{{ url: \"{broker}\" }}] }} }}\n\
             log: {{ sessions: false, level: \"error,tidegate::cli=info\" }}\n{}\n",
            attack.yaml.replace("RSA", &format!("{dear:?}"))
        );
        let program = Program::run(&yaml).await;
        // Clients trust either.
        let ca = site.path().join("trusted.pem");
        let both =
            [&program.authority.ca, &dear].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&ca, both.concat()).unwrap();
        let http1 = tls_config(&ca, rustls::DEFAULT_VERSIONS);
        let mut http2 = ClientConfig::clone(&http1);
        http2.alpn_protocols = vec![b"h2".to_vec()];
        // Everyone of a herd is new.
        let mut new = ClientConfig::clone(&http1);
        new.resumption = rustls::client::Resumption::disabled();
        http2.resumption = rustls::client::Resumption::disabled();
        let target = Target {
            address: program.address(0),
            http1: Arc::new(new),
            http2: Arc::new(http2),
        };
        let met = Arc::default();
        let victim = (target.clone(), program.admin, Arc::clone(&met));
        assert!(begin.send(victim).is_ok());
        Self {
            program,
            target,
            met,
            stop: Some(stop),
            victims: Some(victims),
            _site: site,
        }
    }

    fn take(&self) -> Met {
        std::mem::take(&mut *self.met.lock().unwrap())
    }

    async fn ends(&self) -> BTreeMap<String, f64> {
        let metrics = self.program.admin.metrics().await;
        let ends = metrics.into_iter().filter_map(|(name, count)| {
            let label = if name.starts_with("tidegate_outcomes_total") {
                name.split("why=\"").nth(1)?
            } else if name.starts_with("tidegate_refused_total") {
                name.split("reason=\"").nth(1)?
            } else {
                return None;
            };
            Some((label.split('"').next()?.to_owned(), count))
        });
        let mut sums = BTreeMap::new();
        for (label, count) in ends {
            *sums.entry(label).or_default() += count;
        }
        sums
    }

    async fn memory(&self) -> f64 {
        resident(&self.program.admin).await
    }

    pub(super) async fn run(&self, attack: &Attack) -> Row {
        sleep(BEFORE / 4).await;
        drop(self.take());
        sleep(BEFORE).await;
        let before = self.take();
        let before_bytes = self.memory().await;
        let ends = self.ends().await;
        let attacking = (attack.run)(self.target.clone());
        drop(timeout(attack.lasts, attacking).await);
        let during = self.take();
        sleep(AFTER).await;
        let after_bytes = self.memory().await;
        let mut more = self.ends().await;
        more.retain(|why, count| {
            *count -= ends.get(why).copied().unwrap_or_default();
            *count > 0.0
        });
        Row {
            name: attack.name,
            size: attack.size,
            before,
            peak: during.peak,
            during,
            before_bytes,
            after_bytes,
            ends: more,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(victims) = self.victims.take() {
            victims.join().unwrap();
        }
    }
}

/// A certificate whose key is of RSA with 4096 bits, and the key.
fn dear_to_sign_for(folder: &Path) -> PathBuf {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let path = folder.join("rsa.pem");
    std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
    path
}

/// Bytes.
async fn resident(admin: &Admin) -> f64 {
    admin.metric("process_resident_memory_bytes", &[]).await
}

/// One session that asks a hundred times a second, and four newcomers in each; beside them a look at the memory.
async fn behave(target: Target, admin: Admin, met: Arc<Mutex<Met>>) {
    let session = async {
        let stream = target.tls().await.unwrap();
        let mut client = Client::over(stream).await;
        client.send(&packets::connect("victim", 600)).await;
        assert_eq!(client.receive().await, packets::connack(0));
        let mut tick = interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            let began = Instant::now();
            client.send(&packets::PINGREQ).await;
            assert_eq!(client.receive().await, packets::PINGRESP);
            met.lock().unwrap().round_trips.push(began.elapsed());
        }
    };
    let newcomers = async {
        let mut tick = interval(Duration::from_millis(250));
        let mut coming = JoinSet::new();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let target = target.clone();
                    coming.spawn(async move { target.newcomer().await });
                }
                Some(came) = coming.join_next() => {
                    let mut met = met.lock().unwrap();
                    match came.unwrap() {
                        Ok(took) => met.arrivals.push(took),
                        Err(_) => met.not_arrived += 1,
                    }
                }
            }
        }
    };
    let memory = async {
        let mut tick = interval(Duration::from_millis(250));
        loop {
            tick.tick().await;
            let now = resident(&admin).await;
            let mut met = met.lock().unwrap();
            met.peak = met.peak.max(now);
        }
    };
    tokio::join!(session, newcomers, memory);
}

/// One line of the table.
pub(super) struct Row {
    name: &'static str,
    size: &'static str,
    before: Met,
    pub(super) during: Met,
    pub(super) before_bytes: f64,
    pub(super) peak: f64,
    after_bytes: f64,
    ends: BTreeMap<String, f64>,
}

impl Row {
    pub(super) const HEAD: &str = "\
| attack | size | memory before, peak, after (MB) | round trip p50, p99 before (ms) | during | newcomers before | during | ended and refused |
|---|---|---|---|---|---|---|---|";
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: f64| format!("{:.0}", bytes / f64::from(1 << 20));
        let trips = |met: &Met| format!("{}, {}", millis(met.p50()), millis(met.p99()));
        let newcomers = |met: &Met| {
            let came = met.arrivals.len();
            let median = millis(percentile(met.arrivals.clone(), 50));
            format!("{came} of {}, {median} ms", came + met.not_arrived)
        };
        let ends = self.ends.iter();
        let ends: Vec<_> = ends
            .map(|(why, count)| format!("`{why}` {count}"))
            .collect();
        write!(
            out,
            "| {} | {} | {}, {}, {} | {} | {} | {} | {} | {} |",
            self.name,
            self.size,
            mb(self.before_bytes),
            mb(self.peak),
            mb(self.after_bytes),
            trips(&self.before),
            trips(&self.during),
            newcomers(&self.before),
            newcomers(&self.during),
            ends.join(", ")
        )
    }
}
