//! Who may ask. The admin listener has no passwords: that it is on loopback or a private network is its lock, and a browser
//! on the same machine must not be the hole in it.
//!
//! SECURITY: a web page anywhere may point its own name at 127.0.0.1 (DNS rebinding), and the browser then lets it read what
//! is here: so a name that the public DNS could have is only right where the configuration has it. And it may send
//! requests to 127.0.0.1 itself, whose answers it cannot read but whose effects it gets: so what says that it comes from
//! another origin is refused.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// Ends of names that the public DNS cannot have (RFC 6761, RFC 6762, the reservation of .internal by ICANN), and the
/// one of Kubernetes' Services.
const PRIVATE: [&str; 4] = [".localhost", ".local", ".internal", ".svc"];

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Name,
    Origin,
}

impl Refusal {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Name => {
                "This name is not one that the admin listener is asked by: use its address, or add the name to admin.hosts.\n"
            }
            Self::Origin => "The admin listener is not for the pages of other sites.\n",
        }
    }
}

/// `hosts` are the configured names, lower case.
pub(super) fn check(headers: &HeaderMap, hosts: &[String]) -> Result<(), Refusal> {
    // HTTP/1.0 may leave it out, and no browser speaks that.
    let Some(host) = headers.get(HOST) else {
        return Ok(());
    };
    let host = host.to_str().map_err(|_not_text| Refusal::Name)?;
    if !is_ours(host, hosts) {
        return Err(Refusal::Name);
    }
    match headers.get(ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.to_str().is_ok_and(|origin| is_of(origin, host)) => Ok(()),
        Some(_) => Err(Refusal::Origin),
    }
}

fn is_of(origin: &str, host: &str) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn is_ours(host: &str, hosts: &[String]) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.split(']').next().unwrap_or_default();
        return address.parse::<IpAddr>().is_ok();
    }
    let name = host.split(':').next().unwrap_or_default();
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let labels = name.split('.').count();
    let is_private = labels == 1 || PRIVATE.iter().any(|end| name.ends_with(end));
    let is_named = |pattern: &String| match pattern.strip_prefix('*') {
        Some(suffix) => name
            .find('.')
            .is_some_and(|at| at > 0 && name[at..] == *suffix),
        None => name == *pattern,
    };
    !name.is_empty() && (is_private || hosts.iter().any(is_named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, origin: Option<&str>) -> Result<(), Refusal> {
        let hosts = ["status.example.com", "*.ops.example.com"].map(str::to_owned);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(&headers, &hosts)
    }

    #[test]
    fn addresses_and_names_that_are_never_public_are_right() {
        for host in [
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.0.0.7",
            "localhost:9090",
            "LOCALHOST",
            "tidegate:9090",
            "tidegate.monitoring.svc:9090",
            "tidegate.monitoring.svc.cluster.local.",
            "status.example.com",
            "a.ops.example.com:80",
        ] {
            assert_eq!(asked(host, None), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_name_that_anyone_could_own_is_refused() {
        for host in [
            "evil.example:9090",
            "example.com",
            "127.0.0.1.evil.example",
            "status.example.com.evil.example",
            "a.b.ops.example.com",
            "ops.example.com",
            "",
            ":9090",
            "[evil]",
        ] {
            assert_eq!(asked(host, None), Err(Refusal::Name), "{host}");
        }
    }

    #[test]
    fn another_sites_page_is_refused_even_by_address() {
        assert_eq!(
            asked("127.0.0.1:9090", Some("http://127.0.0.1:9090")),
            Ok(())
        );
        for origin in ["https://evil.example", "null", "http://127.0.0.1:8080"] {
            assert_eq!(
                asked("127.0.0.1:9090", Some(origin)),
                Err(Refusal::Origin),
                "{origin}"
            );
        }
    }
}
