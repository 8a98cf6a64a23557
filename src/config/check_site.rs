//! Checks what routes and sites let web pages do, and what a site says of itself.

use super::check::Findings;
use super::model::{Cors, OriginPolicy, Site};
use super::origins::{Origin, Origins};
use super::raw_site as raw;

/// Which WebSockets the route at `key` lets in.
pub(super) fn origins(
    allowed: Option<Vec<Origin>>,
    required: bool,
    is_pool: bool,
    key: &str,
    findings: &mut Findings<'_>,
) -> OriginPolicy {
    let set = [("origins", allowed.is_some()), ("require_origin", required)];
    if let Some((name, _)) = set.iter().find(|(_, set)| *set && !is_pool) {
        findings.problem(
            &format!("{key}.{name}"),
            "concerns WebSockets, and this route has no `pool`",
            "put it beside `pool`; pages that may read the files of a site are `site.cors`",
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
    Site {
        root: raw.root.0.into(),
        root_place: findings.places.of(&format!("{key}.root")),
        index: raw.index.0,
        fallback: raw.fallback.map(|file| file.0),
        not_found: raw.not_found.map(|file| file.0),
        dot_files: raw.dot_files,
        cache_control: raw.cache_control.map(|value| value.0),
        cors: raw
            .cors
            .map(|raw| cors(raw, &format!("{key}.cors"), findings)),
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
