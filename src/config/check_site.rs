//! Checks what routes and sites let web pages do, and what a site says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::Findings;
use super::model::{CacheRule, Cors, Hsts, Moved, OriginPolicy, Redirect, Site};
use super::names::{HeaderSetting, SitePath, header_name};
use super::origins::{Origin, Origins};
use super::raw_hsts;
use super::raw_site as raw;

/// What a list that browsers are shipped with asks for (hstspreload.org).
const PRELOAD: Duration = Duration::from_secs(365 * 86_400);

pub(super) fn hsts(raw: &raw_hsts::Hsts, findings: &mut Findings<'_>) -> Hsts {
    let hsts = Hsts {
        max_age: raw.max_age.0,
        include_subdomains: raw.include_subdomains,
        preload: raw.preload,
    };
    if hsts.preload && (hsts.max_age < PRELOAD || !hsts.include_subdomains) {
        findings.problem(
            "tls.hsts.preload",
            "the list of browsers takes nobody with less than a year or without subdomains",
            "add `max_age: 365d` and `include_subdomains: true`, or leave `preload` out",
        );
    }
    hsts
}

/// Which WebSockets the route at `key` lets in.
pub(super) fn origins(
    allowed: Option<Vec<Origin>>,
    required: bool,
    has_web_sockets: bool,
    key: &str,
    findings: &mut Findings<'_>,
) -> OriginPolicy {
    let set = [("origins", allowed.is_some()), ("require_origin", required)];
    if let Some((name, _)) = set.iter().find(|(_, set)| *set && !has_web_sockets) {
        findings.problem(
            &format!("{key}.{name}"),
            "concerns WebSockets, and this route has no `pool` and no `proxy`",
            "put it beside `pool` or `proxy`; pages that may read the files of a site are `site.cors`",
        );
    } else if required && allowed.is_none() {
        findings.problem(
            &format!("{key}.require_origin"),
            "means nothing without `origins`: any page would do",
            "add `origins` with the pages that may connect",
        );
    }
    OriginPolicy {
        allowed: allowed.map(Origins),
        required,
    }
}

/// The site at `key`.
pub(super) fn site(raw: raw::Site, key: &str, findings: &mut Findings<'_>) -> Site {
    if raw.index.0.contains('/') {
        findings.problem(
            &format!("{key}.index"),
            format!("`{}` is not a file name", raw.index.0),
            "the same name is looked for in every folder: `index.html`",
        );
    }
    if raw.fallback.is_some() && raw.not_found.is_some() {
        let help = "keep `fallback` for a single-page application, `not_found` for a site of pages";
        findings.problem(
            &format!("{key}.not_found"),
            "can never be served beside `fallback`",
            help,
        );
    }
    let error_pages = error_pages(raw.error_pages, &format!("{key}.error_pages"), findings);
    let cache = raw.cache.into_iter().map(|rule| CacheRule {
        files: rule.files.0,
        value: setting(rule.value),
    });
    Site {
        root: raw.root.0.into(),
        root_place: findings.places.of(&format!("{key}.root")),
        index: raw.index.0,
        fallback: raw.fallback.map(|file| file.0),
        not_found: raw.not_found.map(|file| file.0),
        error_pages,
        dot_files: raw.dot_files,
        symlinks: raw.symlinks,
        cache_control: setting(raw.cache_control),
        cache: cache.collect(),
        compress: raw.compress,
        memory: raw.memory.0,
        headers: headers(raw.headers, &format!("{key}.headers"), findings),
        redirects: redirects(raw.redirects, &format!("{key}.redirects"), findings),
        cors: raw
            .cors
            .map(|raw| cors(raw, &format!("{key}.cors"), findings)),
    }
}

/// An empty one is none.
fn setting(raw: HeaderSetting) -> Option<String> {
    Some(raw.0).filter(|value| !value.is_empty())
}

fn error_pages(
    raw: BTreeMap<String, SitePath>,
    key: &str,
    findings: &mut Findings<'_>,
) -> BTreeMap<u16, String> {
    let mut pages = BTreeMap::new();
    for (name, file) in raw {
        let place = format!("{key}.{name}");
        match name.as_str() {
            "405" | "500" | "503" => {
                let status = name.parse().unwrap_or_default(); // one of these three
                pages.insert(status, file.0);
            }
            "404" => findings.problem(
                &place,
                "has a key of its own",
                format!("write `not_found: {file}` beside `error_pages`"),
            ),
            _ => findings.problem(
                &place,
                "a site never answers so with a page",
                "allowed: 405, 500, 503; for 404 there is `not_found`",
            ),
        }
    }
    pages
}

/// Headers that other keys or the request decide.
const DECIDED_ELSEWHERE: [(&str, &str); 13] = [
    (
        "cache-control",
        "`cache_control` and `cache` of the site set it",
    ),
    (
        "strict-transport-security",
        "`tls.hsts` sets it, for every answer over TLS",
    ),
    ("location", "`redirects` of the site sets it"),
    ("vary", "it is what the answer depends on"),
    (
        "connection",
        "it belongs to the connection, not to the site",
    ),
    (
        "keep-alive",
        "it belongs to the connection, not to the site",
    ),
    (
        "transfer-encoding",
        "it belongs to the connection, not to the site",
    ),
    ("upgrade", "it belongs to the connection, not to the site"),
    ("trailer", "it belongs to the connection, not to the site"),
    ("content-length", "it is counted"),
    (
        "content-encoding",
        "`compress: false` sends files as they are",
    ),
    ("content-range", "it is what the client asked for"),
    ("date", "it is the clock's"),
];

fn headers(
    raw: BTreeMap<String, HeaderSetting>,
    key: &str,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, Option<String>> {
    let mut headers = BTreeMap::new();
    for (written, value) in raw {
        let place = format!("{key}.{written}");
        let name = match header_name(&written) {
            Ok(name) => name,
            Err(fault) => {
                let help = fault.help.unwrap_or_default();
                findings.problem(&place, format!("`{written}` {}", fault.message), help);
                continue;
            }
        };
        if let Some((_, why)) = DECIDED_ELSEWHERE.iter().find(|(other, _)| *other == name) {
            findings.problem(&place, "cannot be set here", *why);
        } else if name.starts_with("access-control-") {
            findings.problem(&place, "cannot be set here", "`cors` of the site sets it");
        }
        if headers.insert(name, setting(value)).is_some() {
            let help = "names of headers have no case: keep one";
            findings.problem(&place, "is there twice", help);
        }
    }
    headers
}

fn redirects(raw: Vec<raw::Moved>, key: &str, findings: &mut Findings<'_>) -> Vec<Moved> {
    let redirects = raw.into_iter().enumerate().map(|(index, moved)| {
        let key = format!("{key}[{index}]");
        let (from, to) = (moved.from.0, moved.to.0);
        if !from.ends_with('*') && to.contains("{rest}") {
            findings.problem(
                &format!("{key}.to"),
                "`{rest}` stands for nothing: `from` has no `*`",
                format!(
                    "write `from: {}/*`, or leave `{{rest}}` out",
                    from.trim_end_matches('/')
                ),
            );
        }
        if to == from {
            findings.problem(
                &key,
                "leads to itself",
                "browsers give up after twenty rounds",
            );
        }
        check_status(moved.status, &format!("{key}.status"), findings);
        let redirect = Redirect {
            to,
            status: moved.status,
        };
        Moved { from, redirect }
    });
    redirects.collect()
}

/// One that sends a client elsewhere.
pub(super) fn check_status(status: u16, key: &str, findings: &mut Findings<'_>) {
    if ![301, 302, 303, 307, 308].contains(&status) {
        findings.problem(
            key,
            format!("`{status}` does not redirect"),
            "allowed: 301, 302, 303, 307, 308",
        );
    }
}

fn cors(raw: raw::Cors, key: &str, findings: &mut Findings<'_>) -> Cors {
    for (index, origin) in raw.origins.iter().enumerate() {
        let place = format!("{key}.origins[{index}]");
        match origin {
            Origin::Own => findings.problem(
                &place,
                "the site's own pages need no permission",
                "leave it out: CORS is for pages of other origins",
            ),
            // SECURITY: any page could then read what the visitor alone may see; a sandboxed frame is `null` on every page.
            Origin::Any | Origin::Null if raw.credentials => findings.problem(
                &place,
                format!("`{origin}` cannot be beside `credentials: true`: every page could read what a visitor may"),
                "name the origins, or leave `credentials` out",
            ),
            Origin::Any | Origin::Null | Origin::Exact(_) | Origin::Wildcard(..) => {}
        }
    }
    Cors {
        origins: Origins(raw.origins),
        headers: raw.headers.into_iter().map(|name| name.0).collect(),
        expose: raw.expose.into_iter().map(|name| name.0).collect(),
        max_age: raw.max_age.0,
        credentials: raw.credentials,
    }
}
