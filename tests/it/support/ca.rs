//! A real CA: Debian's pebble, which validates every name at the gateway's listener, by the DNS of pebble-challtestsrv. In front of
//! it a door of ours, for the faults that it cannot be made to show: answers that the door gives itself, changes in pebble's, and
//! a line that is dead.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::authority::Authority;
use super::client;
use super::process::{Process, free_addresses};
use super::{PATIENCE, eventually, tools};

const ATTEMPTS: usize = 5;

/// What pebble is told.
pub struct Issues {
    /// How long its certificates live, in seconds.
    pub validity: u64,
    pub wants_account_binding: bool,
    /// Percent of good nonces that it refuses.
    pub refused_nonces: u32,
}

impl Default for Issues {
    fn default() -> Self {
        Self {
            validity: 90 * 24 * 3600,
            wants_account_binding: false,
            refused_nonces: 0,
        }
    }
}

/// What the door does with a request whose path has this in it.
pub struct Rule {
    pub path: &'static str,
    /// For so many requests.
    pub times: usize,
    pub deed: Deed,
}

pub enum Deed {
    /// Answers itself: status, problem type, `Retry-After`.
    Refuse(u16, &'static str, Option<&'static str>),
    /// Closes the connection without a word.
    Hang,
    /// Answers itself, with this.
    Say(Value),
    /// Lets it wait for `release`.
    Hold,
    /// Changes what pebble answers.
    Change(fn(&mut Value)),
}

struct Door {
    pebble: watch::Sender<Option<SocketAddr>>,
    rules: Mutex<Vec<Rule>>,
    /// Path and, where there is one, the payload that was signed.
    seen: Mutex<Vec<(String, Value)>>,
    released: watch::Sender<bool>,
    tls: Arc<rustls::ClientConfig>,
}

/// Dropping it ends all of it.
pub struct Ca {
    /// Of the directory.
    pub url: String,
    /// Whom a client of the directory must trust.
    pub root: PathBuf,
    door: Arc<Door>,
    serving: JoinHandle<()>,
    running: Vec<Process>,
    authority: Authority,
    folder: TempDir,
}

impl Ca {
    /// The door is open, and lets whoever comes wait for `begin`.
    #[expect(clippy::disallowed_methods, reason = "a CA has no drain")]
    pub async fn open() -> Self {
        let folder = TempDir::with_prefix("tidegate-ca-").unwrap();
        let authority = Authority::make(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Arc::new(Door {
            pebble: watch::Sender::new(None),
            rules: Mutex::default(),
            seen: Mutex::default(),
            released: watch::Sender::new(false),
            tls: client::tls_config(&authority.ca, rustls::DEFAULT_VERSIONS),
        });
        let (acceptor, serving) = (authority.acceptor(), Arc::clone(&door));
        let serving = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, door) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(|request| door.answer(request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    // A line that the door cuts ends with an error, as it should.
                    drop(
                        connection
                            .serve_connection(TokioIo::new(tls), service)
                            .await,
                    );
                });
            }
        });
        Self {
            url: format!("https://{address}/dir"),
            root: authority.ca.clone(),
            door,
            serving,
            running: Vec::new(),
            authority,
            folder,
        }
    }

    /// Starts pebble, which looks at that port of every name.
    pub async fn begin(&mut self, port: u16, issues: Issues) {
        let mut last_error = String::new();
        for _ in 0..ATTEMPTS {
            let [acme, dns, management] = free_addresses();
            let mut names = Process::start(
                Command::new(tools::pebble_challtestsrv())
                    .args([
                        "-http01",
                        "",
                        "-https01",
                        "",
                        "-tlsalpn01",
                        "",
                        "-defaultIPv6",
                        "",
                    ])
                    .args([
                        "-dns01",
                        &dns.to_string(),
                        "-management",
                        &management.to_string(),
                    ]),
            );
            let file = self.folder.path().join("pebble.json");
            fs::write(&file, self.configuration(acme, port, &issues).to_string()).unwrap();
            let mut pebble = Process::start(
                Command::new(tools::pebble())
                    .arg("-config")
                    .arg(&file)
                    .args(["-dnsserver", &dns.to_string()])
                    .env("PEBBLE_VA_NOSLEEP", "1")
                    .env("PEBBLE_AUTHZREUSE", "0")
                    .env("PEBBLE_WFE_NONCEREJECT", issues.refused_nonces.to_string())
                    .env_remove("PEBBLE_VA_ALWAYS_VALID"),
            );
            let listening = async {
                names.wait_until_listening(&[management], PATIENCE).await?;
                pebble.wait_until_listening(&[acme], PATIENCE).await
            };
            match listening.await {
                Ok(()) => {
                    self.running = vec![names, pebble];
                    self.door.pebble.send_replace(Some(acme));
                    return;
                }
                Err(error) if error.contains("address already in use") => last_error = error,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{ATTEMPTS} sets of free ports were all taken: {last_error}");
    }

    fn configuration(&self, acme: SocketAddr, port: u16, issues: &Issues) -> Value {
        let mut pebble = json!({
            "listenAddress": acme.to_string(),
            "certificate": self.authority.chain,
            "privateKey": self.authority.key,
            // Nothing is there: what is validated was validated at the gateway's own port.
            "httpPort": 9,
            "tlsPort": port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": issues.wants_account_binding,
            "certificateValidityPeriod": issues.validity,
        });
        if issues.wants_account_binding {
            pebble["externalAccountMACKeys"] = json!({ "kid-1": MAC_KEY });
        }
        json!({ "pebble": pebble })
    }

    /// What the door does from now on, first come first.
    pub fn script(&self, rules: Vec<Rule>) {
        *self.door.rules.lock().unwrap() = rules;
    }

    /// Lets those go on that are held, and holds nobody any more.
    pub fn release(&self) {
        self.script(Vec::new());
        self.door.released.send_replace(true);
    }

    /// Requests so far whose path has this in it.
    pub fn asked(&self, path: &str) -> usize {
        let seen = self.door.seen.lock().unwrap();
        seen.iter()
            .filter(|(other, _)| other.contains(path))
            .count()
    }

    /// What was signed in them.
    pub fn payloads(&self, path: &str) -> Vec<Value> {
        let seen = self.door.seen.lock().unwrap();
        let seen = seen.iter().filter(|(other, _)| other.contains(path));
        seen.map(|(_, payload)| payload.clone()).collect()
    }

    /// Waits until so many orders were placed.
    pub async fn ordered(&self, count: usize) {
        let placed = eventually(async || self.asked("/order-plz") >= count).await;
        let seen = self.door.seen.lock().unwrap();
        assert!(
            placed,
            "{} of {count} orders: {seen:?}",
            self.asked("/order-plz")
        );
    }

    /// The `acme` section of a configuration that orders here.
    pub fn section(&self, state: &Path) -> String {
        format!(
            "acme: {{ agree_tos: true, directory: \"{}\", ca: {:?}, state: {state:?} }}\n",
            self.url, self.root
        )
    }
}

/// Of the account binding that it wants.
pub const MAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

impl Drop for Ca {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Answered = Result<Response<Full<Bytes>>, std::io::Error>;

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Answered {
        let (mut parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map_err(std::io::Error::other)?
            .to_bytes();
        let path = parts.uri.path().to_owned();
        self.seen
            .lock()
            .unwrap()
            .push((path.clone(), payload(&body)));
        let mut change = None;
        match self.rule(&path) {
            Some(Deed::Hang) => return Err(std::io::ErrorKind::ConnectionReset.into()),
            Some(Deed::Refuse(status, problem, retry_after)) => {
                return Ok(refusal(status, problem, retry_after));
            }
            Some(Deed::Say(value)) => {
                let mut answer = Response::new(Full::from(value.to_string()));
                let six_hours = HeaderValue::from_static("21600");
                answer.headers_mut().insert(RETRY_AFTER, six_hours);
                return Ok(answer);
            }
            Some(Deed::Change(by)) => change = Some(by),
            Some(Deed::Hold) => {
                let mut released = self.released.subscribe();
                let waited = released.wait_for(|released| *released).await;
                drop(waited.map_err(std::io::Error::other)?);
            }
            None => {}
        }
        let mut running = self.pebble.subscribe();
        let address = running.wait_for(Option::is_some).await;
        let address = address.map_err(std::io::Error::other)?.unwrap();
        let tcp = TcpStream::connect(address).await?;
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let tls = TokioIo::new(connector.connect(name, tcp).await?);
        let connecting = hyper::client::conn::http1::handshake(tls).await;
        let (mut sender, connection) = connecting.map_err(std::io::Error::other)?;
        parts.headers.remove(CONTENT_LENGTH);
        let asking = async {
            // Its URLs are made from `Host`: they lead through the door.
            let request = Request::from_parts(parts, Full::new(body));
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            drop(sender);
            Ok::<_, hyper::Error>(Response::from_parts(parts, body))
        };
        let (answer, _connection) = tokio::join!(asking, connection);
        let (mut parts, mut body) = answer.map_err(std::io::Error::other)?.into_parts();
        if let Some(change) = change {
            let mut value = serde_json::from_slice(&body).unwrap();
            change(&mut value);
            body = value.to_string().into();
            parts.headers.remove(CONTENT_LENGTH);
        }
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    fn rule(&self, path: &str) -> Option<Deed> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules
            .iter_mut()
            .find(|rule| rule.times > 0 && path.contains(rule.path))?;
        rule.times -= 1;
        Some(match &rule.deed {
            Deed::Refuse(status, problem, retry_after) => {
                Deed::Refuse(*status, problem, *retry_after)
            }
            Deed::Hang => Deed::Hang,
            Deed::Hold => Deed::Hold,
            Deed::Say(value) => Deed::Say(value.clone()),
            Deed::Change(by) => Deed::Change(*by),
        })
    }
}

/// What a JWS signs.
fn payload(body: &[u8]) -> Value {
    use base64::Engine;
    let read = || {
        let jws: Value = serde_json::from_slice(body).ok()?;
        let text = jws["payload"].as_str()?;
        let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    read().unwrap_or(Value::Null)
}

fn refusal(status: u16, problem: &str, retry_after: Option<&'static str>) -> Response<Full<Bytes>> {
    let text = json!({
        "type": format!("urn:ietf:params:acme:error:{problem}"),
        "detail": format!("the test says {problem}"),
        "status": status,
    });
    let mut answer = Response::new(Full::from(text.to_string()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(value) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
    }
    answer
}
