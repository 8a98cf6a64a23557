//! A folder of static files, answered as browsers and caches expect (RFC 9110, RFC 9111).
//!
//! Promises: nothing outside the root that `symlinks` does not allow and no hidden file is ever read, no folder is listed;
//! every ETag is strong and of the bytes that are sent; a changed file is seen within a second or two.

mod body;
mod build;
mod cache;
mod conditions;
mod confined;
mod cors;
mod encodings;
mod file;
mod files;
mod kinds;
mod page;
mod path;
mod policy;
pub mod redirects;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LOCATION, RETRY_AFTER, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::config::model::Moved;

use self::conditions::Verdict;
use self::cors::Cors;
use self::encodings::{Accepted, Encoding};
use self::file::{Content, Entry, Representation};
use self::files::{Files, Found};
use self::page::Page;
use self::path::Wanted;

pub use self::body::Body;

/// Methods of a file, for `Allow` (RFC 9110 10.2.1).
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What an error page may be kept for: it stops being true when the file is put there.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// What a redirect may be kept for: browsers would keep a permanent one for as long as they like, and the operator could
/// never take it back.
const SOON_OVER: HeaderValue = HeaderValue::from_static("max-age=60");

/// Every file may have another one beside it that holds it compressed, or get it.
const VARIES: HeaderValue = HeaderValue::from_static("Accept-Encoding");

/// Headers of a file's answer, CORS and most of an operator's own: the map does not grow.
const HEADERS: usize = 24;

/// Serves one `site` of the configuration; built once, shared by all requests.
#[derive(Debug)]
pub struct SiteService {
    files: Files,
    fallback: Option<String>,
    not_found: Option<String>,
    error_pages: BTreeMap<StatusCode, Page>,
    dot_files: bool,
    moved: Vec<Moved>,
    /// Set on every answer; `None` takes one away.
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
    cors: Option<Cors>,
}

impl SiteService {
    /// Answers one request; its body is not read. `host` is the one that was asked, with its port.
    ///
    /// `prefix` is the path of the route that matched (`/`, or `/docs`): it is taken off before the file is looked for,
    /// and put back into redirects.
    pub async fn respond<B>(
        &self,
        prefix: &str,
        host: &str,
        request: Request<B>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        drop(body);
        let mut response = match head.method {
            Method::GET | Method::HEAD => match self.moved(host, &head) {
                Some(response) => response,
                None => self.find_and_send(prefix, &head).await,
            },
            Method::OPTIONS => allowed(page::empty(StatusCode::NO_CONTENT)),
            _ => allowed(self.error(StatusCode::METHOD_NOT_ALLOWED, &head)),
        };
        let headers = response.headers_mut();
        for (name, value) in &self.headers {
            match value {
                Some(value) => drop(headers.insert(name, value.clone())),
                None => drop(headers.remove(name)),
            }
        }
        if let Some(cors) = &self.cors {
            cors.add_headers(&head, headers);
        }
        response
    }

    fn moved(&self, host: &str, head: &Parts) -> Option<Response<Body>> {
        let (path, query) = (head.uri.path(), head.uri.query());
        let (redirect, rest) = redirects::find(&self.moved, path)?;
        let asked = redirects::Asked { host, path, query };
        let location = redirects::location(redirect, asked, rest)?;
        let status = StatusCode::from_u16(redirect.status).ok()?;
        Some(sent_to(status, location))
    }

    async fn find_and_send(&self, prefix: &str, head: &Parts) -> Response<Body> {
        let prefix = prefix.trim_end_matches('/');
        let wanted = head
            .uri
            .path()
            .strip_prefix(prefix)
            .and_then(|path| path::parse(path, self.dot_files));
        let Some(wanted) = wanted else {
            return self.send_not_found(head).await; // never the fallback: such a path is no page of an application
        };
        match self.files.find(&wanted).await {
            Ok(Found::File(entry)) => self.send(&wanted, &entry, head).await,
            Ok(Found::Folder) => redirect(prefix, &wanted, head),
            Ok(Found::Nothing) => self.send_fallback(head).await,
            Err(error) => self.failed(&error, head),
        }
    }

    /// The file, as the request's conditions, range and encodings want it.
    async fn send(&self, wanted: &Wanted, entry: &Arc<Entry>, head: &Parts) -> Response<Body> {
        let accepted = Accepted::read(&head.headers);
        let (encoding, sent) = self.files.choose(wanted, entry, accepted).await;
        let verdict = conditions::judge(head, sent.current());
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = HeaderMap::with_capacity(HEADERS);
        let size = sent.content.length();
        let (status, from, length) = match verdict {
            Verdict::Whole => (StatusCode::OK, 0, size),
            Verdict::Part { from, length } => (StatusCode::PARTIAL_CONTENT, from, length),
            Verdict::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
            Verdict::Failed => return page::empty(StatusCode::PRECONDITION_FAILED),
            Verdict::Unsatisfiable => return unsatisfiable(size),
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(VARY, VARIES);
        if let Some(tag) = &sent.tag {
            headers.insert(ETAG, tag.clone());
        }
        if let Some(value) = &entry.cache_control {
            headers.insert(CACHE_CONTROL, value.clone());
        }
        if status == StatusCode::NOT_MODIFIED {
            return response; // the rest describes a content, and there is none (RFC 9110 15.4.5)
        }
        describe(entry, encoding, headers);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if let Some((_, date)) = &sent.modified {
            headers.insert(LAST_MODIFIED, date.clone());
        }
        if status == StatusCode::PARTIAL_CONTENT
            && let Ok(range) =
                HeaderValue::try_from(format!("bytes {from}-{}/{size}", from + length - 1))
        {
            headers.insert(CONTENT_RANGE, range);
        }
        if head.method == Method::GET {
            *response.body_mut() = content(sent, from, length);
        }
        response
    }

    /// A page of a single-page application, where a person asks and the application has one.
    async fn send_fallback(&self, head: &Parts) -> Response<Body> {
        if let Some(file) = &self.fallback
            && accepts_html(&head.headers)
        {
            let wanted = Wanted::file(file);
            if let Ok(Found::File(entry)) = self.files.find(&wanted).await {
                return self.send(&wanted, &entry, head).await;
            }
        }
        self.send_not_found(head).await
    }

    async fn send_not_found(&self, head: &Parts) -> Response<Body> {
        let status = StatusCode::NOT_FOUND;
        let Some(file) = &self.not_found else {
            return self.error(status, head);
        };
        let wanted = Wanted::file(file);
        let Ok(Found::File(entry)) = self.files.find(&wanted).await else {
            return self.error(status, head);
        };
        let accepted = Accepted::read(&head.headers);
        let (encoding, sent) = self.files.choose(&wanted, &entry, accepted).await;
        // No validators and no ranges: they would describe the page, not what was asked for.
        let length = sent.content.length();
        let body = match head.method == Method::GET {
            true => content(sent, 0, length),
            false => Body::empty(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        describe(&entry, encoding, headers);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(VARY, VARIES);
        headers.insert(CACHE_CONTROL, ASK_AGAIN);
        response
    }

    fn failed(&self, error: &io::Error, head: &Parts) -> Response<Body> {
        tracing::warn!(%error, path = head.uri.path(), "a file of the site cannot be read");
        if error.kind() != ErrorKind::TimedOut {
            return self.error(StatusCode::INTERNAL_SERVER_ERROR, head);
        }
        let mut response = self.error(StatusCode::SERVICE_UNAVAILABLE, head);
        let later = HeaderValue::from_static("10");
        response.headers_mut().insert(RETRY_AFTER, later);
        response
    }

    /// The operator's page for it, or ours.
    fn error(&self, status: StatusCode, head: &Parts) -> Response<Body> {
        match self.error_pages.get(&status) {
            Some(page) => page::with(status, page, &head.method),
            None => page::of(status, &head.method),
        }
    }
}

/// What the bytes are.
fn describe(entry: &Entry, encoding: Encoding, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, entry.kind.content_type.clone());
    if encoding != Encoding::Identity {
        let name = HeaderValue::from_static(encoding.name());
        headers.insert(CONTENT_ENCODING, name);
    }
}

fn content(sent: &Representation, from: u64, length: u64) -> Body {
    match &sent.content {
        Content::Open(file, _) => Body::large(file, from, length),
        Content::Memory(bytes) => {
            let range = usize::try_from(from).ok().zip(usize::try_from(length).ok());
            let (from, length) = range.unwrap_or_default(); // a part of what is in memory
            Body::Memory(bytes.slice(from..from + length))
        }
    }
}

fn unsatisfiable(size: u64) -> Response<Body> {
    let mut response = page::empty(StatusCode::RANGE_NOT_SATISFIABLE);
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

fn allowed(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

fn sent_to(status: StatusCode, location: HeaderValue) -> Response<Body> {
    let mut response = page::empty(status);
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, SOON_OVER);
    response
}

/// To the folder's own URL, so that relative links in its index work.
fn redirect(prefix: &str, wanted: &Wanted, head: &Parts) -> Response<Body> {
    // SECURITY: built from checked segments; the path as sent could begin with `//host` and lead elsewhere.
    let mut to = prefix.to_owned();
    if !wanted.path.is_empty() {
        to.push('/');
        to.push_str(&path::encode(&wanted.path));
    }
    to.push('/');
    if let Some(query) = head.uri.query() {
        to.push('?');
        to.push_str(query);
    }
    match HeaderValue::try_from(to) {
        Ok(location) => sent_to(StatusCode::MOVED_PERMANENTLY, location),
        Err(_) => page::of(StatusCode::NOT_FOUND, &head.method),
    }
}

/// Whether a person's browser asks for a page: scripts and images say `*/*`, and must not be given a page instead.
fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let html = parts
                .next()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
            html && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        })
}
