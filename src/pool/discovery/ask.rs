//! One question to the name servers, and what their answer means.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use super::resolver::Resolver;
use super::{Endpoint, MOST, Question};

/// What a name stands for, in any order, and how long it does.
#[derive(Debug)]
pub(super) struct Answer {
    pub endpoints: Vec<Endpoint>,
    pub ttl: Duration,
}

/// Why a name has no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DnsFailure {
    #[error("no name server answered within the time for it (dns.timeout)")]
    Timeout,
    #[error("there is no such name (NXDOMAIN)")]
    NoName,
    #[error("the name has no address: is any broker of it ready?")]
    NoAddress,
    #[error("{0} addresses: the first {MOST} are taken")]
    TooMany(usize),
    #[error("the system's name servers are not known: {0}")]
    Configuration(#[source] Arc<NetError>),
    #[error("{0}")]
    Server(#[source] NetError),
}

impl DnsFailure {
    /// The label in metrics.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoName => "nxdomain",
            Self::NoAddress => "no_address",
            Self::TooMany(_) => "too_many",
            Self::Configuration(_) => "configuration",
            Self::Server(_) => "server",
        }
    }
}

impl From<NetError> for DnsFailure {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Timeout => Self::Timeout,
            error if error.is_nx_domain() => Self::NoName,
            error if error.is_no_records_found() => Self::NoAddress,
            error => Self::Server(error),
        }
    }
}

impl Resolver {
    /// The caller has the deadline.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, DnsFailure> {
        let answer = match question {
            Question::None(_) | Question::Socket(_) => return Err(DnsFailure::NoAddress),
            Question::Addresses(name) => {
                let (addresses, ttl) = self.addresses(name).await?;
                let endpoint = |address| Endpoint {
                    backup: false,
                    address,
                    port: None,
                    weight: 1,
                };
                let endpoints = addresses.into_iter().map(endpoint).collect();
                Answer { endpoints, ttl }
            }
            Question::Services(name) => self.services(name).await?,
        };
        match answer.endpoints.is_empty() {
            true => Err(DnsFailure::NoAddress),
            false => Ok(answer),
        }
    }

    async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), DnsFailure> {
        let resolver = self
            .0
            .as_ref()
            .map_err(|error| DnsFailure::Configuration(Arc::clone(error)))?;
        let found = resolver.lookup_ip(name).await?;
        Ok((found.iter().collect(), ttl(found.as_lookup().answers())))
    }

    async fn services(&self, name: &str) -> Result<Answer, DnsFailure> {
        let resolver = self
            .0
            .as_ref()
            .map_err(|error| DnsFailure::Configuration(Arc::clone(error)))?;
        let found = resolver.lookup(name, RecordType::SRV).await?;
        let mut ttl = ttl(found.answers());
        let mut services: Vec<&SRV> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) if !service.target.is_root() => Some(service),
                _other => None,
            })
            .collect();
        services.sort_by_key(|service| (service.priority, service.target.clone(), service.port));
        services.truncate(MOST);
        let first = services.first().map(|service| service.priority);
        let mut endpoints = Vec::new();
        for service in services {
            let along = glue(found.additionals(), service);
            let addresses = match along.is_empty() {
                false => along,
                true => match self.addresses(&service.target.to_ascii()).await {
                    Ok((addresses, of_target)) => {
                        ttl = ttl.min(of_target);
                        addresses
                    }
                    // A target that is gone takes nothing from the others; any other fault is not known to be one.
                    Err(DnsFailure::NoName | DnsFailure::NoAddress) => continue,
                    Err(failure) => return Err(failure),
                },
            };
            endpoints.extend(addresses.into_iter().map(|address| Endpoint {
                backup: first != Some(service.priority),
                address,
                port: Some(service.port),
                // RFC 2782: "a very small chance", where ours would be none.
                weight: service.weight.max(1),
            }));
        }
        Ok(Answer { endpoints, ttl })
    }
}

/// Of the record that ends first.
fn ttl(records: &[Record]) -> Duration {
    let shortest = records.iter().map(|record| record.ttl).min();
    Duration::from_secs(shortest.unwrap_or(0).into())
}

/// The addresses of a target that came along with it.
fn glue(additionals: &[Record], service: &SRV) -> Vec<IpAddr> {
    let of_target = additionals
        .iter()
        .filter(|record| record.name == service.target);
    of_target
        .filter_map(|record| record.data.ip_addr())
        .collect()
}
