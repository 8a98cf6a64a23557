//! Certificates, keys and configurations for the tests of this folder.

use std::fs;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use tempfile::TempDir;
use tidegate::config::model::{
    Action, Certificate, CertificateFiles, Config, Drain, Limits, Listener, Log, LogFormat,
    OriginPolicy, Redirect, Route, Speaks, Strictness, Timeouts, TlsPolicy, TlsVersion,
};
use tidegate::config::networks::Networks;
use tidegate::config::{Place, Problem};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A certificate with its key, and with what issued it.
pub(super) struct Made {
    pub(super) pem: String,
    pub(super) key: KeyPair,
    pub(super) params: CertificateParams,
}

/// A certificate that stands on its own, for names, valid 100 days.
pub(super) fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    let common = names.first().map_or("nameless", String::as_str);
    params.distinguished_name.push(DnType::CommonName, common);
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + 100 * DAY).into();
    params
}

pub(super) fn self_signed(params: CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Made { pem, key, params }
}

pub(super) fn authority(name: &str, above: Option<&Made>) -> Made {
    let mut params = params(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    match above {
        Some(above) => issued(params, above, &rcgen::PKCS_ECDSA_P256_SHA256),
        None => self_signed(params),
    }
}

pub(super) fn issued(
    params: CertificateParams,
    by: &Made,
    algorithm: &'static SignatureAlgorithm,
) -> Made {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let issuer = Issuer::from_params(&by.params, &by.key);
    let pem = params.signed_by(&key, &issuer).unwrap().pem();
    Made { pem, key, params }
}

/// A folder of PEM files and the configuration that names them.
pub(super) struct Files {
    pub(super) folder: TempDir,
    pub(super) config: Config,
}

impl Files {
    /// The first pair.
    pub(super) fn first(&self) -> &CertificateFiles {
        self.config.certificate_files().next().unwrap()
    }

    pub(super) fn first_mut(&mut self) -> &mut CertificateFiles {
        match &mut self.config.certificates[0] {
            Certificate::Files(files) => files,
            Certificate::Acme(_) => panic!("an ordered one"),
        }
    }

    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            config: config(),
        }
    }

    /// The usual single pair: `chain.pem` and `key.pem`.
    pub(super) fn of(chain: &str, key: &str) -> Self {
        Self::new().pair(chain, key)
    }

    pub(super) fn pair(mut self, chain: &str, key: &str) -> Self {
        let number = self.config.certificates.len();
        let chain = self.write(&format!("chain{number}.pem"), chain.as_bytes());
        let key = self.write(&format!("key{number}.pem"), key.as_bytes());
        self.config.certificates.push(files(number, chain, key));
        self
    }

    pub(super) fn route(mut self, host: &str) -> Self {
        let number = self.config.routes.len();
        self.config.routes.push(Route {
            host: Some(host.to_owned()),
            path: "/".to_owned(),
            action: Action::Redirect(Redirect {
                to: "/".to_owned(),
                status: 302,
            }),
            origins: OriginPolicy::default(),
            place: place(&format!("routes[{number}]")),
        });
        self
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        mode(&path, 0o600);
        path
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        tidegate::certificates::server(&self.config, &tidegate::certificates::Tickets::default())
            .unwrap_err()
    }

    /// The one problem, as `key: message`, without the folder's name.
    pub(super) fn problem(&self) -> String {
        self.only(self.problems())
    }

    /// The one warning, in the same form.
    pub(super) fn warning(&self) -> String {
        self.only(
            tidegate::certificates::server(
                &self.config,
                &tidegate::certificates::Tickets::default(),
            )
            .unwrap()
            .warnings,
        )
    }

    fn only(&self, list: Vec<Problem>) -> String {
        assert_eq!(list.len(), 1, "{list:#?}");
        let folder = format!("{}/", self.folder.path().display());
        let one = &list[0];
        format!("{}: {}", one.place.key, one.message).replace(&folder, "")
    }
}

pub(super) fn files(number: usize, chain: PathBuf, key: PathBuf) -> Certificate {
    Certificate::Files(CertificateFiles {
        chain,
        chain_place: place(&format!("certificates[{number}].chain")),
        key,
        key_place: place(&format!("certificates[{number}].key")),
    })
}

pub(super) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(super) fn place(key: &str) -> Place {
    Place {
        key: key.to_owned(),
        line: 1,
        column: 1,
    }
}

fn config() -> Config {
    let second = Duration::from_secs(1);
    let some = NonZeroUsize::MIN;
    Config {
        listeners: vec![Listener {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: "test".to_owned(),
            speaks: Speaks::Tls,
            http2: true,
            proxy_protocol: None,
            client_certificates: None,
            place: place("listeners[0]"),
        }],
        trusted_proxies: Networks::default(),
        admin: None,
        certificates: Vec::new(),
        acme: None,
        tls: TlsPolicy {
            strictness: Strictness::Modern,
            minimum: TlsVersion::Tls12,
            ticket_keys: None,
            hsts: None,
        },
        routes: Vec::new(),
        dns: tidegate::config::model::Dns {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            shortest: Duration::from_secs(5),
            longest: Duration::from_secs(30),
        },
        pools: Vec::new(),
        limits: Limits {
            connections: some,
            handshakes: some,
            handshake_age: second,
            streams: 1,
            request_head: 1,
            connect: 1,
            packet: 1,
            frame: 1,
            client_id: 1,
        },
        timeouts: Timeouts {
            tls: second,
            request: second,
            connect: second,
            broker_connect: second,
            connack: second,
            join: second,
            idle_margin: second,
            ping: second,
            write: second,
        },
        drain: Drain {
            announce: second,
            rate: NonZeroU32::MIN,
            max: second,
            close_code: 1001,
            server_reference: None,
            max_session_age: None,
            grace: None,
        },
        log: Log {
            level: "info".to_owned(),
            format: LogFormat::Text,
            sessions: true,
            identities: true,
        },
        watch: true,
        workers: some,
    }
}

/// A TLS handshake in memory, to its end and past the tickets.
pub(super) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
        wire.clear();
    }
    Ok((client, server))
}
