//! The resolver of the system, or of the name servers that the configuration names.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::config::model::Dns;

/// Reads `/etc/resolv.conf` and `/etc/hosts` once.
pub(super) struct Resolver(pub Result<TokioResolver, Arc<NetError>>);

impl Resolver {
    pub(super) fn new(dns: &Dns) -> Self {
        let builder = match dns.servers.is_empty() {
            true => TokioResolver::builder_tokio(),
            false => {
                let servers = dns.servers.iter().copied().map(server).collect();
                let config = ResolverConfig::from_name_servers(servers);
                let provider = TokioRuntimeProvider::default();
                Ok(TokioResolver::builder_with_config(config, provider))
            }
        };
        let built = builder.and_then(|mut builder| {
            tune(builder.options_mut(), dns);
            builder.build()
        });
        Self(built.map_err(Arc::new))
    }
}

fn tune(options: &mut ResolverOpts, dns: &Dns) {
    // `discovery` keeps answers for as long as it wants to.
    options.cache_size = 0;
    // One lost packet is not to cost the whole time.
    options.timeout = options.timeout.min(dns.timeout / 2);
    options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
}

/// UDP, and TCP for what does not fit.
fn server(address: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}
