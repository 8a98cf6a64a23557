//! `tidegate check`: the code that start-up runs, without binding; then what would be served.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::acme::{Access, prepare, standing};
use crate::certificates::{Report, Tickets};
use crate::config::Config;
use crate::config::model::{Action, HostHeader, Listener, Pool, Speaks, Trust};
use crate::config::networks::Networks;
use crate::config::values::Span;
use crate::gateway::Snapshot;
use crate::lifecycle::Drain;
use crate::pool::Registry;
use crate::telemetry::Metrics;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: super::File,
    /// What the supervisor grants before it kills (TimeoutStopSec, terminationGracePeriodSeconds): a drain of all connections
    /// is compared with it, in the place of drain.grace
    #[arg(long, value_name = "TIME")]
    grace: Option<Span>,
}

pub(super) fn check(options: &Options) -> ExitCode {
    let path = &options.file.config;
    let loaded = match super::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => return super::bad_config(&problems),
    };
    let mut warnings = match prepare(&loaded.config, Access::Look) {
        Ok(warnings) => warnings,
        Err(problem) => {
            return match loaded.source.problems(vec![problem]) {
                Some(problems) => super::bad_config(&problems),
                None => ExitCode::FAILURE,
            };
        }
    };
    let built = match Snapshot::build(
        &loaded.config,
        &Metrics::new(1),
        &Registry::default(),
        &Tickets::default(),
        &Drain::default(),
    ) {
        Ok(built) => built,
        Err(problems) => {
            return match loaded.source.problems(problems) {
                Some(problems) => super::bad_config(&problems),
                None => ExitCode::FAILURE,
            };
        }
    };
    warnings.extend(built.warnings);
    super::warn(&loaded, warnings);
    println!("{}: the configuration is good", path.display());
    tell(&loaded.config, &built.certificates);
    let grace = options.grace.map(|grace| grace.0);
    tell_drain(&loaded.config, grace.or(loaded.config.drain.grace));
    ExitCode::SUCCESS
}

fn tell(config: &Config, certificates: &[Report]) {
    println!("\nlisteners");
    for listener in &config.listeners {
        let speaks = match listener.speaks {
            Speaks::Tls if listener.http2 => "https and wss, HTTP/2 and HTTP/1.1",
            Speaks::Tls => "https and wss, HTTP/1.1 only",
            Speaks::Plain => "http and ws, without TLS",
            Speaks::PlainRedirect => "redirects to https",
        };
        println!("  {:<24} {speaks}", listener.address.to_string());
        tell_trust(listener);
    }
    match &config.admin {
        Some(admin) => println!(
            "  {:<24} admin: status page, /status.json, /metrics, probes",
            admin.address.to_string()
        ),
        None => println!(
            "  {:<24} no admin listener: no status, no metrics, no probes, no commands",
            "-"
        ),
    }
    if !certificates.is_empty() {
        println!("\ncertificates");
        for report in certificates {
            let days = days_left(report.not_after);
            println!(
                "  {:<24} {}, {days} days left, {}",
                report.path.display().to_string(),
                report.key,
                report.names.join(" ")
            );
        }
    }
    tell_acme(config);
    println!("\nroutes, the most specific first");
    let mut routes: Vec<_> = config.routes.iter().collect();
    routes.sort_by_key(|route| {
        (
            route.host.is_none(),
            route.host.clone(),
            std::cmp::Reverse(route.path.len()),
        )
    });
    for route in routes {
        let from = format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path);
        let to = match &route.action {
            Action::Pool(at) => format!("pool {}", config.pools[*at].name),
            Action::Site(site) => format!("files in {}", site.root.display()),
            Action::Redirect(redirect) => format!("{} to {}", redirect.status, redirect.to),
            Action::Application(application) => {
                let servers = &application.servers.brokers;
                let servers: Vec<_> = servers.iter().map(|server| server.url.as_str()).collect();
                format!("application at {}", servers.join(", "))
            }
        };
        println!("  {from:<24} {to}");
    }
    for pool in &config.pools {
        tell_pool(pool);
    }
    let limits = &config.limits;
    println!("\nlimits");
    println!(
        "  {} connections, {} handshakes at once, packets up to {} bytes",
        limits.connections, limits.handshakes, limits.packet
    );
}

/// What is ordered, and how that goes, by what is stored: nobody is asked.
fn tell_acme(config: &Config) {
    let Some(acme) = &config.acme else { return };
    println!("\ncertificates that are ordered from {}", acme.directory);
    println!("  kept in {}", acme.state.display());
    let now = SystemTime::now();
    for ordered in config.acme_certificates() {
        println!("  {}", ordered.names.join(" "));
        for line in standing(ordered, now).told(now) {
            println!("      {line}");
        }
    }
    let tls = config.listeners.iter();
    let mut tls = tls.filter(|listener| listener.speaks == Speaks::Tls);
    if !tls.any(|listener| listener.address.port() == 443) {
        println!(
            "  no TLS listener has port 443, to which the CA connects: something has to lead there"
        );
    }
}

/// How long a stop takes at most, and whether there is so much time.
fn tell_drain(config: &Config, grace: Option<Duration>) {
    let (limits, drain) = (&config.limits, &config.drain);
    let needed = limits.connections.get() as f64 / f64::from(drain.rate.get());
    println!(
        "  a drain ends {} sessions a second and cuts the rest after {:.0} s; all of {} would need {needed:.0} s",
        drain.rate,
        drain.max.as_secs_f64(),
        limits.connections
    );
    let announce = drain.announce.as_secs_f64();
    let whole = announce + needed;
    let Some(grace) = grace.map(|grace| grace.as_secs_f64()) else {
        println!("  how long the supervisor waits is not known: --grace or drain.grace tells it");
        return;
    };
    let takes = announce + needed.min(drain.max.as_secs_f64());
    if takes > grace {
        println!(
            "  TOO LONG for the {grace:.0} s that the supervisor grants: it would kill with sessions left"
        );
    } else if whole > takes {
        println!(
            "  within the {grace:.0} s that the supervisor grants, but not every session would have its turn"
        );
    } else {
        println!("  within the {grace:.0} s that the supervisor grants");
    }
    if whole > grace || whole > takes {
        let rate = (limits.connections.get() as f64 / (grace - announce).max(1.0)).ceil();
        println!(
            "  drain.rate {rate:.0} with a drain.max of {:.0} s would do, or a drain.max of {:.0} s and a grace period of {:.0} s",
            (grace - announce).max(1.0),
            needed.ceil(),
            whole.ceil()
        );
    }
}

/// Whom a listener believes about its clients.
fn tell_trust(listener: &Listener) {
    let shown = |networks: &Networks| {
        let networks: Vec<String> = networks.0.iter().map(ToString::to_string).collect();
        networks.join(" ")
    };
    if let Some(trusted) = &listener.proxy_protocol {
        println!("  {:<24} a PROXY header first from {}", "", shown(trusted));
    }
    if let Some(asked) = &listener.client_certificates {
        let who = match asked.required {
            true => "every client shows a certificate",
            false => "clients may show a certificate",
        };
        let lists = asked.crl.len();
        println!(
            "  {:<24} {who} of {}, {lists} revocation lists",
            "",
            asked.ca.display()
        );
    }
}

fn tell_pool(pool: &Pool) {
    println!("\npool {}: {}", pool.name, pool.balance.name());
    // Backups have a share of their own when nobody else is left, and those that are down have none.
    let sum = |backup: bool| -> u32 {
        let beside = pool.brokers.iter().filter(|broker| broker.backup == backup);
        let taking = beside.filter(|broker| !broker.down);
        taking.map(|broker| broker.weight).sum()
    };
    for broker in &pool.brokers {
        let share = 100.0 * f64::from(broker.weight) / f64::from(sum(broker.backup).max(1));
        let takes = match (broker.down, broker.backup) {
            (true, _) => "down: takes none".to_owned(),
            (false, true) => format!("backup: {share:.1} % when no other is left"),
            (false, false) => format!("{share:.1} % of new sessions"),
        };
        println!("  {:<40} weight {:<5} {takes}", broker.url, broker.weight);
    }
    if pool
        .brokers
        .iter()
        .any(|broker| broker.transport.is_websocket())
    {
        let host = match &pool.host {
            HostHeader::Broker => "the broker's own",
            HostHeader::Client => "the client's",
            HostHeader::Fixed(host) => host,
        };
        println!("  subprotocol {}, Host: {host}", pool.subprotocol);
    }
    if pool.brokers.iter().any(|broker| broker.transport.is_tls()) {
        let trust = match &pool.tls.trust {
            Trust::System => "the system's roots".to_owned(),
            Trust::Ca(file) => file.display().to_string(),
            Trust::Anyone => "any certificate: verification is off".to_owned(),
        };
        println!("  trusts {trust}");
        if let Some(files) = &pool.tls.certificate {
            println!(
                "  shows {} to brokers that ask for one",
                files.chain.display()
            );
        }
    }
    super::check_announcement::tell(pool);
}

fn days_left(not_after: SystemTime) -> u64 {
    const DAY: u64 = 24 * 60 * 60;
    not_after
        .duration_since(SystemTime::now())
        .map_or(0, |left| left.as_secs() / DAY)
}
