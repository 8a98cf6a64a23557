//! Names that the configuration refers to things by: addresses, hosts, paths, header values.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::values::Fault;

/// A text type: what was written, once `$read` has found nothing wrong with it.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $read:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub String);

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                $read(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

pub(super) use text;

text!(
    /// `example.com` or `*.example.com`, lower case.
    HostPattern, host_pattern
);
text!(
    /// A path prefix of a route, without a trailing `/` unless it is `/` itself.
    RoutePath, route_path
);
text!(
    /// An absolute URL or path that clients are redirected to.
    RedirectTarget, redirect_target
);
text!(
    /// The value of an HTTP header.
    HeaderValue, header_value
);
text!(
    /// The value of an HTTP header, or nothing for none.
    HeaderSetting, header_setting
);
text!(
    /// Names or paths of a site, with `*`, `**` and `{hash}`.
    FilePattern, file_pattern
);
text!(
    /// A path that a client asks for, perhaps with `*` at its end.
    MovedPath, moved_path
);
text!(
    /// The name of an HTTP header.
    HeaderName, header_name
);
text!(
    /// One token of RFC 9110 5.6.2.
    Token, token
);
text!(
    /// A file or folder of this machine.
    FilePath, file_path
);
text!(
    /// A file below a site's root.
    SitePath, site_path
);
text!(
    /// A DNS name or an IP address.
    ServerName, server_name
);
text!(
    /// A `tracing` filter.
    LogFilter, log_filter
);
text!(
    /// Something a person calls a thing: a listener, a pool.
    Label, label
);

/// An IP address and a port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let fault = Fault::new("is not an IP address with a port");
        if text.parse::<Ipv4Addr>().is_ok() {
            return Err(fault.help(format!("add a port: \"{text}:PORT\"")));
        }
        let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
        let host = text.rsplit_once(':').map_or("", |(host, _)| host);
        let port = port
            .parse::<u16>()
            .map_or_else(|_error| "PORT".to_owned(), |port| port.to_string());
        Err(match host {
            "" | "*" => fault.help(format!("write \"[::]:{port}\" for every address, \"127.0.0.1:{port}\" for this machine alone")),
            "localhost" => fault.help(format!("write \"127.0.0.1:{port}\"; names are not looked up here")),
            _ if host.contains(':') && !host.starts_with('[') => fault.help(format!("an IPv6 address needs brackets: \"[{host}]:{port}\"")),
            _ => fault.help(format!("write an address, as \"192.0.2.1:{port}\" or \"[2001:db8::1]:{port}\"; names are not looked up here")),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

fn host_pattern(text: &str) -> Result<String, Fault> {
    let host = text.to_ascii_lowercase();
    let name = host.strip_prefix("*.").unwrap_or(&host);
    if host == "*" {
        return Err(Fault::new("is not a host name").help("leave `host` out to serve every host"));
    }
    if let Some((_, rest)) = host.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or_default();
        return Err(Fault::new("is a URL").help(format!("write the host alone: `{name}`")));
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|digit| digit.is_ascii_digit())
    {
        return Err(
            Fault::new("carries a port").help(format!("write `{name}`: it stands for every port"))
        );
    }
    if name.contains('*') {
        return Err(Fault::new("has a wildcard inside")
            .help("`*.` may stand for the first label only: `*.example.com`"));
    }
    is_dns_name(name).then_some(()).ok_or_else(|| {
        Fault::new("is not a host name").help("write `example.com` or `*.example.com`")
    })?;
    Ok(host)
}

pub(super) fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn server_name(text: &str) -> Result<String, Fault> {
    let known = is_dns_name(text) || text.parse::<IpAddr>().is_ok();
    known.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        Fault::new("is not a host name or an IP address")
            .help("write it without scheme, port or brackets: `emqx.internal`")
    })
}

fn route_path(text: &str) -> Result<String, Fault> {
    if !text.starts_with('/') {
        let help = if text.starts_with(['~', '^']) {
            "paths are plain prefixes, not regular expressions: `/mqtt`".to_owned()
        } else {
            format!("write `/{text}`")
        };
        return Err(Fault::new("does not begin with `/`").help(help));
    }
    if let Some(stem) = text.strip_suffix('*') {
        let stem = stem.trim_end_matches('/');
        let stem = if stem.is_empty() { "/" } else { stem };
        return Err(Fault::new("has a wildcard")
            .help(format!("write `{stem}`: a path covers everything below it")));
    }
    if text.contains(['?', '#']) {
        return Err(Fault::new("carries a query").help("routes are chosen by the path alone"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::new("has a character that a URL cannot carry")
            .help("percent-encode it: `%20` for a space"));
    }
    if text.contains("//") || text.split('/').any(|part| part == "." || part == "..") {
        return Err(Fault::new("has an empty, `.` or `..` segment")
            .help("clients resolve these before they ask; such a path is never requested"));
    }
    let trimmed = text.strip_suffix('/').filter(|rest| !rest.is_empty());
    Ok(trimmed.unwrap_or(text).to_owned())
}

fn redirect_target(text: &str) -> Result<String, Fault> {
    let absolute = text.starts_with("https://") || text.starts_with("http://");
    let local = text.starts_with('/') && !text.starts_with("//");
    if !absolute && !local {
        return Err(Fault::new("is neither a URL nor an absolute path")
            .help("write `https://example.com{path}` or `/elsewhere`"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::new("has a character that a URL cannot carry")
            .help("percent-encode it: `%20` for a space"));
    }
    let mut rest = text;
    while let Some((_, from)) = rest.split_once('{') {
        let name = from.split('}').next().unwrap_or_default();
        if !["host", "path", "query", "rest"].contains(&name) || !from.contains('}') {
            return Err(Fault::new("has an unknown placeholder")
                .help("allowed: `{host}`, `{path}`, `{query}`"));
        }
        rest = from;
    }
    Ok(text.to_owned())
}

fn header_value(text: &str) -> Result<String, Fault> {
    let printable = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if text.is_empty() || text.trim() != text || !printable {
        return Err(Fault::new("cannot be the value of a header")
            .help("printable ASCII only, without spaces around it, and not empty"));
    }
    Ok(text.to_owned())
}

fn header_setting(text: &str) -> Result<String, Fault> {
    match text {
        "" => Ok(String::new()),
        text => header_value(text),
    }
}

fn file_pattern(text: &str) -> Result<String, Fault> {
    let is_known = !text.replace("{hash}", "").contains(['{', '}']);
    if !is_known {
        return Err(Fault::new("has an unknown placeholder")
            .help("`{hash}` is the only one: `*.{hash}.js`; alternatives are rules of their own"));
    }
    if text.is_empty()
        || text.contains(['\\', '?', '['])
        || text.split('/').any(|part| part == "..")
    {
        return Err(Fault::new("is not a pattern for files")
            .help("`*.html` for names, `assets/**` for all below a folder"));
    }
    Ok(text.to_owned())
}

fn moved_path(text: &str) -> Result<String, Fault> {
    let (path, has_star) = match text.strip_suffix('*') {
        Some(path) => (path, true),
        None => (text, false),
    };
    if !path.starts_with('/') {
        return Err(Fault::new("does not begin with `/`").help(format!("write `/{text}`")));
    }
    if path.contains('*') || has_star && !path.ends_with('/') {
        return Err(Fault::new("has a wildcard inside")
            .help("`*` may stand behind the last `/` only: `/blog/*`"));
    }
    if path.contains(['?', '#']) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::new("is not the path of a URL")
            .help("without a query, and percent-encoded: `%20` for a space"));
    }
    Ok(text.to_owned())
}

pub(super) fn header_name(text: &str) -> Result<String, Fault> {
    let name = token(text).map_err(|_not_one| {
        Fault::new("is not the name of a header")
            .help("write one name without a colon: `X-Frame-Options`")
    });
    name.map(|name| name.to_ascii_lowercase())
}

fn token(text: &str) -> Result<String, Fault> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        let fault = Fault::new("is not one token");
        return Err(match text.contains(',') {
            true => fault.help("write exactly one, without a comma"),
            false => fault.help("write one word, as `mqtt` or `X-Tenant`"),
        });
    }
    Ok(text.to_owned())
}

fn file_path(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new("is not a path"));
    }
    Ok(text.to_owned())
}

fn site_path(text: &str) -> Result<String, Fault> {
    let inside = !text.is_empty()
        && !text.contains(['\0', '\\'])
        && text
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    inside.then(|| text.to_owned()).ok_or_else(|| {
        Fault::new("is not a file below `root`")
            .help("write it relative to `root`, without `..`: `index.html`")
    })
}

fn log_filter(text: &str) -> Result<String, Fault> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |level: &str| LEVELS.contains(&level.to_ascii_lowercase().as_str());
    let is_directive = |directive: &str| match directive.rsplit_once('=') {
        None => is_level(directive),
        Some((target, level)) => !target.is_empty() && is_level(level),
    };
    let parsed = text.parse::<tracing_subscriber::filter::Targets>();
    if parsed.is_err() || !text.split(',').all(|part| is_directive(part.trim())) {
        return Err(Fault::new("is not a log level").help("allowed: off, error, warn, info, debug, trace; per module: `info,tidegate::gateway=debug`"));
    }
    Ok(text.to_owned())
}

pub(super) fn label(text: &str) -> Result<String, Fault> {
    let fits = (1..=64).contains(&text.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:[]".contains(&byte);
    if !fits || !text.bytes().all(plain) {
        return Err(
            Fault::new("cannot be a name").help("1 to 64 letters, digits, `-`, `_`, `.` or `:`")
        );
    }
    Ok(text.to_owned())
}
