//! `tidegate demo`: the main job with nothing else installed. Gateway, development certificate, embedded broker, and a
//! page on `/` that talks MQTT through `/mqtt`.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::run;
use crate::app::Launch;
use crate::certificates::dev;
use crate::config::{self, Loaded};
use crate::demo::{DemoBroker, write_site};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where to listen; 0.0.0.0:8443 lets a phone on the same network in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// A further name or IP address for the certificate; may be given again
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The folder of the development certificate
    #[arg(long, value_name = "DIR", default_value = "certs")]
    certs: PathBuf,
}

pub(super) fn demo(options: &Options) -> ExitCode {
    let prepared = match Prepared::new(options) {
        Ok(prepared) => prepared,
        Err(error) => return super::failed(&format!("{error:#}")),
    };
    let Prepared {
        loaded,
        site,
        ca,
        _broker,
    } = prepared;
    let code = run::serve(loaded, Launch::default(), None, |app| {
        for (_, _, address) in app.addresses() {
            println!("\n  Tidegate demo   https://{}/", name(address));
            println!("  MQTT            wss://{}/mqtt", name(address));
            if address.ip().is_unspecified() {
                tell_phones(&options.names, address.port());
            }
            println!(
                "\n  The browser warns of the development certificate: go on, or trust {}.",
                ca.display()
            );
            println!("  Ctrl-C drains and stops.\n");
        }
    });
    // Temporary files of a demo: a failure leaves them to the system's own cleaning.
    drop(std::fs::remove_dir_all(site));
    code
}

/// What another machine on the network can open.
fn tell_phones(names: &[String], port: u16) {
    if names.is_empty() {
        println!("  From a phone    give --name with this machine's address, for the certificate");
    }
    for name in names {
        println!("  From a phone    https://{name}:{port}/");
    }
}

/// What a browser on this machine can open, and the certificate covers.
fn name(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    }
}

struct Prepared {
    loaded: Loaded,
    site: PathBuf,
    ca: PathBuf,
    _broker: DemoBroker,
}

impl Prepared {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let broker = DemoBroker::start()?;
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec();
        if !options.listen.ip().is_unspecified() && !options.listen.ip().is_loopback() {
            names.push(options.listen.ip().to_string());
        }
        names.extend(options.names.iter().cloned());
        let files = dev::dev(&options.certs, &names)?;
        // SECURITY: the folder must be ours alone; one that another user has put there is not taken.
        let site = std::env::temp_dir().join(format!("tidegate-demo-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&site).with_context(|| format!("{} cannot be made", site.display()))?;
        write_site(&site).with_context(|| format!("{} cannot be written", site.display()))?;
        let text = configuration(
            free(options.listen),
            broker.address,
            &files.certificate,
            &files.key,
            &site,
        );
        let loaded = config::parse(Path::new("the demo's configuration"), &text)?;
        Ok(Self {
            loaded,
            site,
            ca: files.ca,
            _broker: broker,
        })
    }
}

/// The address, or a free port of it when another program has that one.
fn free(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

fn configuration(
    listen: SocketAddr,
    broker: SocketAddr,
    chain: &Path,
    key: &Path,
    site: &Path,
) -> String {
    // A JSON string is a YAML string, whatever the path contains.
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    format!(
        "listeners: [{{ address: \"{listen}\" }}]\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         certificates: [{{ chain: {}, key: {} }}]\n\
         routes:\n  - {{ path: /mqtt, pool: brokers }}\n  - {{ path: /, site: {{ root: {} }} }}\n\
         pools: {{ brokers: {{ brokers: [{{ url: \"mqtt://{broker}\" }}] }} }}\n\
         workers: 1\n",
        quoted(chain),
        quoted(key),
        quoted(site),
    )
}
