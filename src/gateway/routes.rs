//! Host and longest path prefix → pool, application, site or redirect.

use std::sync::Arc;

use super::application::Application;
use crate::config::model::{Action, OriginPolicy, Redirect};
use crate::config::{Config, Problem};
use crate::pool::{Pool, Registry};
use crate::site::SiteService;
use crate::telemetry::Metrics;

/// The routes of one snapshot, the most specific first.
#[derive(Debug)]
pub struct Routes {
    routes: Vec<Route>,
    pools: Vec<Arc<Pool>>,
    /// Of web applications.
    servers: Vec<Arc<Pool>>,
}

#[derive(Debug)]
pub(super) struct Route {
    host: Host,
    pub(super) path: String,
    pub(super) target: Target,
    /// Which WebSockets it lets in.
    pub(super) origins: OriginPolicy,
}

#[derive(Debug)]
pub(super) enum Target {
    Pool(Arc<Pool>),
    Site(Box<SiteService>),
    Redirect(Redirect),
    Application(Box<Application>),
}

/// In the order in which they win.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Exact(String),
    /// `.example.com`: one label stands before it.
    Wildcard(String),
    Any,
}

impl Host {
    fn covers(&self, host: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host.is_some_and(|host| host.eq_ignore_ascii_case(name)),
            Self::Wildcard(suffix) => host
                .and_then(|host| host.find('.').map(|at| (at, host)))
                .is_some_and(|(at, host)| at > 0 && host[at..].eq_ignore_ascii_case(suffix)),
        }
    }
}

impl Routes {
    /// Opens what the routes lead to. Answers all problems.
    pub fn build(
        config: &Config,
        metrics: &Metrics,
        brokers: &Registry,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut pools = Vec::new();
        for pool in &config.pools {
            match Pool::new(pool, config.timeouts, metrics, brokers) {
                Ok(pool) => pools.push(Arc::new(pool)),
                Err(problem) => problems.push(problem),
            }
        }
        let mut servers = Vec::new();
        let mut routes = Vec::new();
        for route in &config.routes {
            let target = match &route.action {
                // A pool that failed is a problem already, and shifts the others: nothing is built then.
                Action::Pool(at) => pools.get(*at).map(|pool| Target::Pool(Arc::clone(pool))),
                Action::Site(site) => SiteService::new(site)
                    .map_err(|problem| problems.push(problem))
                    .ok()
                    .map(|site| Target::Site(Box::new(site))),
                Action::Redirect(redirect) => Some(Target::Redirect(redirect.clone())),
                Action::Application(application) => {
                    let (timeouts, workers) = (config.timeouts, config.workers.get());
                    Application::new(application, timeouts, workers, metrics, brokers)
                        .map_err(|problem| problems.push(problem))
                        .ok()
                        .map(|application| {
                            servers.push(Arc::clone(application.pool()));
                            Target::Application(Box::new(application))
                        })
                }
            };
            let host = match route.host.as_deref() {
                None => Host::Any,
                Some(host) => match host.strip_prefix('*') {
                    Some(suffix) => Host::Wildcard(suffix.to_owned()),
                    None => Host::Exact(host.to_owned()),
                },
            };
            if let Some(target) = target {
                let path = route.path.clone();
                let origins = route.origins.clone();
                routes.push(Route {
                    host,
                    path,
                    target,
                    origins,
                });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        routes.sort_by(|a, b| a.host.cmp(&b.host).then(b.path.len().cmp(&a.path.len())));
        Ok(Self {
            routes,
            pools,
            servers,
        })
    }

    /// Every pool, whether or not a route leads to it.
    pub fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    /// These, and the servers of web applications: whoever has names to be resolved, and health to be looked after.
    pub fn pools_and_servers(&self) -> Vec<Arc<Pool>> {
        self.pools.iter().chain(&self.servers).cloned().collect()
    }

    /// The route of a request. A more specific host wins over a longer path.
    pub(super) fn choose(&self, host: Option<&str>, path: &str) -> Option<&Route> {
        self.routes
            .iter()
            .find(|route| route.host.covers(host) && is_below(path, &route.path))
    }

    /// The paths of this host that lead to a pool, for the answer to an upgrade elsewhere.
    pub(super) fn pool_paths<'a>(&'a self, host: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        self.routes
            .iter()
            .filter(move |route| matches!(route.target, Target::Pool(_)) && route.host.covers(host))
            .map(|route| route.path.as_str())
    }
}

/// `/mqtt` covers `/mqtt` and `/mqtt/x`, not `/mqttx`.
fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        assert!(is_below("/mqtt", "/mqtt"));
        assert!(is_below("/mqtt/a", "/mqtt"));
        assert!(!is_below("/mqttx", "/mqtt"));
        assert!(!is_below("/mqt", "/mqtt"));
        assert!(is_below("/anything", "/"));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let wildcard = Host::Wildcard(".example.com".into());
        assert!(wildcard.covers(Some("a.example.com")));
        assert!(wildcard.covers(Some("A.Example.COM")));
        assert!(!wildcard.covers(Some("example.com")));
        assert!(!wildcard.covers(Some("a.b.example.com")));
        assert!(!wildcard.covers(Some(".example.com")));
        assert!(!wildcard.covers(None));
        assert!(Host::Any.covers(None));
    }

    #[test]
    fn exact_wins_over_wildcard_and_wildcard_over_any() {
        assert!(Host::Exact("z".into()) < Host::Wildcard("a".into()));
        assert!(Host::Wildcard("z".into()) < Host::Any);
    }
}
