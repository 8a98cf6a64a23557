//! Raw → model: defaults that depend on other keys, and everything that must fit together.
//!
//! Collects every problem. A problem is for what can never work; what is merely suspicious becomes a warning.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use super::check_acme::{acme, certificates};
use super::check_applications::application;
use super::check_bounds::{drain, limits, timeouts};
use super::check_dns::dns;
use super::check_listeners::{certificates_nobody_asks_for, client_certificates, http2, networks};
use super::check_pools::pools;
use super::check_site::{check_status, hsts, origins, site};
use super::model::{
    Action, Admin, Config, Listener, Log, Redirect, Route, Speaks, Strictness, TicketKeysFile,
    TlsPolicy, TlsVersion,
};
use super::problem::Problem;
use super::raw;
use super::raw_admin;
use super::structure::Places;
use super::suggest::closest;
use super::values::Count;

/// What the checks write to.
pub(super) struct Findings<'a> {
    pub places: &'a Places,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Findings<'_> {
    pub(super) fn problem(
        &mut self,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems
            .push(Problem::new(&self.places.of(key), message).help(help));
    }

    pub(super) fn warning(
        &mut self,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.warnings
            .push(Problem::new(&self.places.of(key), message).help(help));
    }

    /// Where a key stands, for messages about two of them.
    pub(super) fn line(&self, key: &str) -> usize {
        self.places.of(key).line
    }
}

/// Checks the whole file. The result is to be used only where no problem was found.
pub(super) fn check(
    raw: raw::Config,
    state_directory: Option<&str>,
    findings: &mut Findings<'_>,
) -> Config {
    let listeners = listeners(raw.listeners, findings);
    let admin = admin(raw.admin, &listeners, findings);
    let acme = acme(raw.acme, state_directory, findings);
    let certificates = certificates(raw.certificates, acme.as_ref(), &listeners, findings);
    let pools = pools(raw.pools, findings);
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let routes = routes(raw.routes, &names, findings);
    certificates_nobody_asks_for(&listeners, &pools, findings);
    Config {
        listeners,
        trusted_proxies: networks(&raw.trusted_proxies, "trusted_proxies", findings),
        admin,
        certificates,
        acme,
        tls: TlsPolicy {
            strictness: match raw.tls.policy {
                raw::TlsPolicy::Modern => Strictness::Modern,
                raw::TlsPolicy::Compatible => Strictness::Compatible,
            },
            minimum: match raw.tls.minimum {
                raw::TlsVersion::Tls12 => TlsVersion::Tls12,
                raw::TlsVersion::Tls13 => TlsVersion::Tls13,
            },
            ticket_keys: raw.tls.ticket_keys.map(|file| TicketKeysFile {
                path: file.0.into(),
                place: findings.places.of("tls.ticket_keys"),
            }),
            hsts: raw.tls.hsts.map(|raw| hsts(&raw, findings)),
        },
        routes,
        pools,
        dns: dns(raw.dns, findings),
        limits: limits(&raw.limits, findings),
        timeouts: timeouts(&raw.timeouts, findings),
        drain: drain(&raw.drain, findings),
        log: Log {
            level: raw.log.level.0,
            format: raw.log.format,
            sessions: raw.log.sessions,
            identities: raw.log.identities,
        },
        watch: raw.watch,
        workers: match raw.workers {
            Count::Exactly(count) => NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN),
            Count::Auto => available_parallelism().unwrap_or(NonZeroUsize::MIN),
        },
    }
}

fn listeners(raw: Vec<raw::Listener>, findings: &mut Findings<'_>) -> Vec<Listener> {
    let mut names = BTreeMap::new();
    let mut listeners: Vec<Listener> = Vec::with_capacity(raw.len());
    for (index, listener) in raw.into_iter().enumerate() {
        let key = format!("listeners[{index}]");
        let address = listener.address.0;
        let place = findings.places.of(&format!("{key}.address"));
        let taken = taken(&listeners, address);
        if let Some((message, help)) = &taken {
            findings.problem(&place.key, message, *help);
        }
        let name = listener
            .name
            .map_or_else(|| address.to_string(), |name| name.0);
        if let Some(line) = names
            .insert(name.clone(), place.line)
            .filter(|_| taken.is_none() && address.port() != 0)
        {
            findings.problem(
                &format!("{key}.name"),
                format!("`{name}` already names the listener of line {line}"),
                "give each its own name",
            );
        }
        let speaks = match listener.plain {
            None => Speaks::Tls,
            Some(raw::Plain::Routes) => Speaks::Plain,
            Some(raw::Plain::Redirect) => Speaks::PlainRedirect,
        };
        let proxy_protocol = listener.proxy_protocol.map(|raw| {
            networks(
                &raw.trusted,
                &format!("{key}.proxy_protocol.trusted"),
                findings,
            )
        });
        let client_certificates = listener.client_certificates.and_then(|raw| {
            client_certificates(raw, speaks, &format!("{key}.client_certificates"), findings)
        });
        listeners.push(Listener {
            address,
            name,
            speaks,
            http2: http2(listener.http2, speaks, &format!("{key}.http2"), findings),
            proxy_protocol,
            client_certificates,
            place,
        });
    }
    listeners
}

/// What is said of an address that cannot be had beside those. Port 0 asks for any free port: two of them never clash.
fn taken(listeners: &[Listener], address: SocketAddr) -> Option<(String, &'static str)> {
    let is_other = |listener: &&Listener| {
        let other = listener.address;
        address.port() != 0
            && address.port() == other.port()
            && (address == other
                || covers(address.ip(), other.ip())
                || covers(other.ip(), address.ip()))
    };
    let other = listeners.iter().find(is_other)?;
    let line = other.place.line;
    Some(match other.address == address {
        true => (
            format!("`{address}` is already taken in line {line}"),
            "each address can be listened on once",
        ),
        false => (
            format!("`{address}` and `{}` in line {line} overlap", other.address),
            "keep the wider one, which takes both: `[::]` is every address of this machine, `0.0.0.0` every IPv4 address",
        ),
    })
}

/// `[::]` takes IPv4 as well (`app::listen`).
fn covers(wide: IpAddr, narrow: IpAddr) -> bool {
    match wide {
        IpAddr::V6(ip) if ip.is_unspecified() => true,
        IpAddr::V4(ip) if ip.is_unspecified() => narrow.is_ipv4(),
        // One link's address at another link is another one (fe80::1%1 and %2).
        _ => false,
    }
}

fn admin(
    raw: raw_admin::Admin,
    listeners: &[Listener],
    findings: &mut Findings<'_>,
) -> Option<Admin> {
    let raw_admin::Admin::At(admin) = raw else {
        return None;
    };
    let address = admin.address.0;
    if let Some((message, _)) = taken(listeners, address) {
        let help = "health and metrics need an address of their own";
        findings.problem("admin.address", message, help);
    }
    Some(Admin {
        address,
        hosts: admin.hosts.into_iter().map(|host| host.0).collect(),
        place: findings.places.of("admin.address"),
    })
}

fn routes(raw: Vec<raw::Route>, pools: &[&str], findings: &mut Findings<'_>) -> Vec<Route> {
    let mut known = BTreeMap::new();
    let mut used = vec![false; pools.len()];
    let mut routes = Vec::with_capacity(raw.len());
    for (index, route) in raw.into_iter().enumerate() {
        let key = format!("routes[{index}]");
        let place = findings.places.of(&key);
        let host = route.host.map(|host| host.0);
        let path = route.path.0;
        if let Some(line) = known.insert((host.clone(), path.clone()), place.line) {
            let shown = format!("{}{path}", host.as_deref().unwrap_or_default());
            findings.problem(
                &key,
                format!("`{shown}` already has a route in line {line}"),
                "each host and path can have one route",
            );
        }
        let has_web_sockets = route.pool.is_some() || route.proxy.is_some();
        let origins = origins(
            route.origins,
            route.require_origin,
            has_web_sockets,
            &key,
            findings,
        );
        let action = match (route.pool, route.site, route.redirect, route.proxy) {
            (Some(name), None, None, None) => find_pool(&name.0, pools, &key, findings)
                .inspect(|pool| used[*pool] = true)
                .map(Action::Pool),
            (None, Some(site), None, None) => {
                let site = self::site(site, &format!("{key}.site"), findings);
                Some(Action::Site(Box::new(site)))
            }
            (None, None, None, Some(proxy)) => {
                let name = format!("{}{path}", host.as_deref().unwrap_or_default());
                let application = application(proxy, name, &key, findings);
                Some(Action::Application(Box::new(application)))
            }
            (None, None, Some(redirect), None) => {
                Some(Action::Redirect(self::redirect(redirect, &key, findings)))
            }
            (None, None, None, None) => {
                findings.problem(
                    &key,
                    "does nothing",
                    "give it one of `pool`, `proxy`, `site` or `redirect`",
                );
                None
            }
            _several => {
                findings.problem(
                    &key,
                    "has more than one of `pool`, `proxy`, `site` and `redirect`",
                    "keep one; a second route can have the other",
                );
                None
            }
        };
        if let Some(action) = action {
            routes.push(Route {
                host,
                path,
                action,
                origins,
                place,
            });
        }
    }
    for (pool, _) in pools.iter().zip(used).filter(|(_, used)| !used) {
        findings.warning(
            &format!("pools.{pool}"),
            "not used by any route",
            format!("add a route with `pool: {pool}`"),
        );
    }
    routes
}

fn find_pool(name: &str, pools: &[&str], key: &str, findings: &mut Findings<'_>) -> Option<usize> {
    let found = pools.iter().position(|pool| *pool == name);
    if found.is_none() {
        let help = match closest(name, pools.iter().copied()) {
            _ if pools.is_empty() => "add it below `pools`".to_owned(),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", pools.join(", ")),
        };
        findings.problem(
            &format!("{key}.pool"),
            format!("there is no pool `{name}`"),
            help,
        );
    }
    found
}

fn redirect(raw: raw::Redirect, key: &str, findings: &mut Findings<'_>) -> Redirect {
    check_status(raw.status, &format!("{key}.redirect.status"), findings);
    if raw.to.0.contains("{rest}") {
        findings.problem(
            &format!("{key}.redirect.to"),
            "`{rest}` is for `redirects` of a site",
            "write `{path}` for the whole path",
        );
    }
    Redirect {
        to: raw.to.0,
        status: raw.status,
    }
}
