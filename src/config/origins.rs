//! Origins of web pages that are let in: as browsers write them in `Origin` (RFC 6454 6.2), with `*.` for one label.

use std::fmt;
use std::str::FromStr;

use super::values::Fault;

/// `https://example.com`, `https://*.example.com`, `self`, `null`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`: every page.
    Any,
    /// `self`: pages of the host that is asked.
    Own,
    /// `null`: pages without an origin: files, sandboxed frames.
    Null,
    Exact(String),
    /// What stands before and behind the label.
    Wildcard(String, String),
}

/// Which pages are let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(pub Vec<Origin>);

/// Where a request was sent to.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Of the request, with its port.
    pub host: &'a str,
    /// The client came by TLS.
    pub secure: bool,
}

impl Origins {
    /// `asked`: what `self` stands for; `None` where it stands for nothing.
    pub fn contains(&self, origin: &str, asked: Option<Asked<'_>>) -> bool {
        self.0.iter().any(|allowed| match allowed {
            Origin::Any => true,
            Origin::Own => asked.is_some_and(|asked| is_own(origin, asked)),
            Origin::Null => origin == "null",
            Origin::Exact(text) => text.eq_ignore_ascii_case(origin),
            Origin::Wildcard(before, behind) => {
                // Lengths first: the two may not overlap.
                let label = origin.len().checked_sub(before.len() + behind.len());
                let label = label.and_then(|_| {
                    strip_prefix(origin, before).and_then(|rest| strip_suffix(rest, behind))
                });
                label.is_some_and(is_label)
            }
        })
    }

    pub fn is_any(&self) -> bool {
        self.0.contains(&Origin::Any)
    }
}

/// SECURITY: whoever can change the bytes of an http page must not reach by it what is asked over TLS.
fn is_own(origin: &str, asked: Asked<'_>) -> bool {
    let of = |scheme: &str, port: &str| {
        let host = asked.host.strip_suffix(port).unwrap_or(asked.host);
        strip_prefix(origin, scheme).is_some_and(|own| own.eq_ignore_ascii_case(host))
    };
    of("https://", ":443") || !asked.secure && of("http://", ":80")
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn strip_suffix<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(head)
}

/// SECURITY: nothing that could end the host, such as `/`, `#`, `@` or `:`.
fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.bytes().all(plain)
}

impl FromStr for Origin {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let text = text.to_ascii_lowercase();
        let fault = || {
            Fault::new("is not an origin").help(
                "write `https://example.com`, `https://*.example.com`, `self`, `null`, or `*` for every page",
            )
        };
        match text.as_str() {
            "*" => return Ok(Self::Any),
            "self" => return Ok(Self::Own),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let help = format!("an origin begins with its scheme: `https://{text}`");
            return Err(fault().help(help));
        };
        if let Some(host) = rest.strip_suffix('/') {
            return Err(Fault::new("has a path").help(format!(
                "an origin ends with its host or port: `{scheme}://{host}`"
            )));
        }
        for (of, port) in [("https", ":443"), ("http", ":80")] {
            if let Some(host) = rest.strip_suffix(port)
                && scheme == of
            {
                return Err(Fault::new("has the usual port, which browsers leave out")
                    .help(format!("write `{scheme}://{host}`")));
            }
        }
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let (host, behind) = match rest.strip_prefix("*.") {
            Some(host) => (host, Some(host)),
            None => (rest, None),
        };
        // `file://` has none.
        let is_host = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
        if !is_scheme || !is_host || behind == Some("") {
            return Err(match host.contains('*') {
                true => Fault::new("has a wildcard inside")
                    .help("`*.` may stand for the first label only: `https://*.example.com`"),
                false => fault(),
            });
        }
        Ok(match behind {
            Some(host) => Self::Wildcard(format!("{scheme}://"), format!(".{host}")),
            None => Self::Exact(text),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("*"),
            Self::Own => out.write_str("self"),
            Self::Null => out.write_str("null"),
            Self::Exact(text) => out.write_str(text),
            Self::Wildcard(before, behind) => write!(out, "{before}*{behind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &[&str], origin: &str) -> bool {
        let list = list.iter().map(|text| text.parse().unwrap()).collect();
        Origins(list).contains(origin, None)
    }

    #[test]
    fn a_wildcard_stands_for_one_label_of_the_same_scheme_and_port() {
        let below = ["https://*.example.com"];
        assert!(allows(&below, "https://a.example.com"));
        assert!(allows(&below, "HTTPS://A.Example.Com"));
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://a.b.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://a.example.com.evil.org",
            "https://evil.org#.example.com",
            "https://evil.org/.example.com",
            "https://evil.org:1.example.com",
            "https://me@.example.com",
            "https://é.example.com",
            "null",
            "",
        ] {
            assert!(!allows(&below, origin), "{origin}");
        }
        assert!(allows(
            &["https://*.example.com:8443"],
            "https://a.example.com:8443"
        ));
    }

    #[test]
    fn null_is_an_origin_like_others() {
        assert!(allows(&["null"], "null"));
        assert!(!allows(&["https://null"], "null"));
        assert!(allows(&["*"], "null"));
        assert!(allows(&["file://"], "file://"));
        assert!(allows(&["capacitor://localhost"], "capacitor://localhost"));
    }

    #[test]
    fn self_is_the_host_that_is_asked() {
        let own = Origins(vec![Origin::Own]);
        for (origin, host, secure, expected) in [
            ("https://example.com", "example.com", true, true),
            ("https://Example.com", "example.com:443", true, true),
            ("https://example.com:8443", "example.com:8443", true, true),
            ("https://example.com", "example.com:8443", true, false),
            ("http://example.com", "example.com", true, false),
            ("http://example.com", "example.com:80", false, true),
            ("https://example.com", "example.com", false, true),
            ("https://other.com", "example.com", true, false),
            ("null", "null", true, false),
        ] {
            let asked = Some(Asked { host, secure });
            assert_eq!(own.contains(origin, asked), expected, "{origin} {host}");
        }
        assert!(!own.contains("https://example.com", None));
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "",
            "example.com",
            "https://example.com/",
            "https://example.com/app",
            "https://example.com:443",
            "http://example.com:80",
            "https://a.*.example.com",
            "https://*",
            "https://*.",
            "https://user@example.com",
            "1://a",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        for text in [
            "*",
            "self",
            "null",
            "https://a.b:8443",
            "https://*.b",
            "http://[::1]:80x",
        ] {
            if let Ok(origin) = text.parse::<Origin>() {
                assert_eq!(origin.to_string(), text);
            }
        }
    }
}
