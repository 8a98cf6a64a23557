//! A site of the configuration → what serves it, or what is wrong with its folder.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};

use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::config::model::Site;
use crate::config::{Place, Problem};

use super::SiteService;
use super::confined::{Confined, Kind};
use super::cors::Cors;
use super::file::SMALL;
use super::files::Files;
use super::kinds;
use super::page::Page;
use super::policy::{CacheControl, Pattern};

/// Safe for every site, and changed by name (OWASP Secure Headers): no guessing of content types; the origin alone to other
/// sites, nothing from https to http; no frames but on pages of this site.
const DEFAULTS: [(HeaderName, &str); 3] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "strict-origin-when-cross-origin"),
    (X_FRAME_OPTIONS, "SAMEORIGIN"),
];

impl SiteService {
    /// Checks the folder and the files that the configuration names in it.
    ///
    /// A missing index is not a problem, only logged: a site may consist of folders.
    ///
    /// # Errors
    /// The root is no readable folder, a file that is named is none below it, or a name leads out of it.
    pub fn new(site: &Site) -> Result<Self, Problem> {
        let place = &site.root_place;
        let root = site.root.display();
        std::fs::read_dir(&site.root).map_err(|error| {
            Problem::new(place, format!("{root} cannot be served: {error}"))
                .help("`root` is a folder of files that the user tidegate runs as can read")
        })?;
        let confined = Confined::new(&site.root, site.symlinks);
        for (key, name) in [("fallback", &site.fallback), ("not_found", &site.not_found)] {
            let Some(name) = name else { continue };
            let kind = confined.kind(&below(name, site)?);
            if !matches!(kind, Ok(Kind::File)) {
                return Err(Problem::new(
                    place,
                    format!("there is no file {name} in {root}, which `{key}` names"),
                ));
            }
        }
        if !matches!(confined.kind(&below(&site.index, site)?), Ok(Kind::File))
            && site.fallback.is_none()
        {
            tracing::warn!(root = %root, index = site.index, "the site has no index: its first page will be 404");
        }
        let value = |text: &Option<String>, key: &str| {
            let value = text.as_deref().map(HeaderValue::try_from).transpose();
            value.map_err(|_error| not_a_value(place, key))
        };
        let mut rules = Vec::new();
        for rule in &site.cache {
            rules.push((Pattern::new(&rule.files), value(&rule.value, "cache")?));
        }
        let cache_control = CacheControl::new(rules, value(&site.cache_control, "cache_control")?);
        let cors = site.cors.as_ref().map(Cors::new).transpose();
        Ok(Self {
            error_pages: error_pages(site, &confined)?,
            files: Files::new(
                confined,
                &site.index,
                cache_control,
                site.memory,
                site.compress,
            ),
            fallback: site.fallback.clone(),
            not_found: site.not_found.clone(),
            dot_files: site.dot_files,
            moved: site.redirects.clone(),
            headers: headers(site)?,
            cors: cors.map_err(|_error| not_a_value(place, "cors"))?,
        })
    }
}

fn not_a_value(place: &Place, key: &str) -> Problem {
    Problem::new(place, format!("`{key}` is not a header value"))
}

/// What is set on every answer: the defaults, and the operator's own in their place.
fn headers(site: &Site) -> Result<Vec<(HeaderName, Option<HeaderValue>)>, Problem> {
    let mut headers: Vec<_> = DEFAULTS
        .into_iter()
        .map(|(name, value)| (name, Some(HeaderValue::from_static(value))))
        .collect();
    for (name, value) in &site.headers {
        let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name.as_str()),
            value.as_deref().map(HeaderValue::try_from).transpose(),
        ) else {
            return Err(not_a_value(&site.root_place, "headers"));
        };
        // A policy says it better, and browsers that know none of it are few; two that differ only confuse.
        let frames = value.as_ref().is_some_and(|value| {
            let text = value.to_str().unwrap_or_default();
            name == CONTENT_SECURITY_POLICY && text.contains("frame-ancestors")
        });
        let is_set =
            |(other, _): &(HeaderName, _)| *other == name || frames && *other == X_FRAME_OPTIONS;
        headers.retain(|header| !is_set(header));
        headers.push((name, value));
    }
    Ok(headers)
}

/// Read now: when they are needed, the file system may be what has failed.
fn error_pages(site: &Site, confined: &Confined) -> Result<BTreeMap<StatusCode, Page>, Problem> {
    let mut pages = BTreeMap::new();
    for (status, name) in &site.error_pages {
        let unreadable = |why: String| {
            let root = site.root.display();
            Problem::new(&site.root_place, format!("the page {name} in {root} {why}"))
        };
        let read = confined.open(&below(name, site)?).and_then(|(file, _)| {
            let mut bytes = Vec::new();
            file.take(SMALL + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = read.map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        if bytes.len() as u64 > SMALL {
            return Err(unreadable("is larger than 256 KiB".to_owned()));
        }
        let page = Page {
            content_type: kinds::Kind::of(name).content_type,
            bytes: bytes.into(),
        };
        if let Ok(status) = StatusCode::from_u16(*status) {
            pages.insert(status, page);
        }
    }
    Ok(pages)
}

/// A name from the configuration, which must stay below the root.
fn below(name: &str, site: &Site) -> Result<String, Problem> {
    let plain = |part| matches!(part, Component::Normal(_));
    if name.is_empty() || !Path::new(name).components().all(plain) {
        return Err(Problem::new(
            &site.root_place,
            format!(
                "`{name}` does not name a file below {}",
                site.root.display()
            ),
        ));
    }
    Ok(name.to_owned())
}
