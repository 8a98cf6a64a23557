//! A folder of static files, answered as browsers expect (RFC 9110, RFC 9111).
//!
//! Content types, ETags, ranges and precompressed files come from tower-http's `ServeDir`; which file a path means, what
//! may be served at all, and what is answered when there is none is decided here. Promises: nothing outside the root and
//! no hidden file is ever read, and no folder is listed.

mod body;
mod conditions;
mod confined;
mod cors;
mod page;
mod path;

use std::io;
use std::path::{Component, Path};

use http::header::{
    ACCEPT, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;

use crate::config::Problem;
use crate::config::model::Site;

use self::confined::{Confined, Kind};
use self::cors::Cors;
use self::path::Wanted;

pub use self::body::Body;

/// Methods of a file, for `Allow` (RFC 9110 10.2.1).
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What an error page may be kept for: it stops being true when the file is put there.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// Serves one `site` of the configuration; built once, shared by all requests.
#[derive(Debug)]
pub struct SiteService {
    files: ServeDir<DefaultServeDirFallback, Confined>,
    confined: Confined,
    index: String,
    fallback: Option<String>,
    not_found: Option<String>,
    dot_files: bool,
    cache_control: Option<HeaderValue>,
    cors: Option<Cors>,
}

/// What the file system has for a path.
enum Found {
    /// A file, as a path below the root.
    File(String),
    /// A folder asked for without its trailing slash.
    Folder,
    Nothing,
}

impl SiteService {
    /// Checks the folder and the files that the configuration names in it.
    ///
    /// A missing index is not a problem, only logged: a site may consist of folders.
    ///
    /// # Errors
    /// The root is no readable folder, `fallback` or `not_found` is no file below it, or a name leads out of it.
    pub fn new(site: &Site) -> Result<Self, Problem> {
        let place = &site.root_place;
        let root = site.root.display();
        std::fs::read_dir(&site.root).map_err(|error| {
            Problem::new(place, format!("{root} cannot be served: {error}"))
                .help("`root` is a folder of files that the user tidegate runs as can read")
        })?;
        let confined = Confined::new(&site.root);
        for name in [&site.fallback, &site.not_found].into_iter().flatten() {
            let kind = confined.kind(&below(name, site)?);
            if !matches!(kind, Ok(Kind::File)) {
                return Err(Problem::new(
                    place,
                    format!("there is no file {name} in {root}"),
                ));
            }
        }
        if !matches!(confined.kind(&below(&site.index, site)?), Ok(Kind::File))
            && site.fallback.is_none()
        {
            tracing::warn!(root = %root, index = site.index, "the site has no index: its first page will be 404");
        }
        let cache_control = site.cache_control.as_deref().map(HeaderValue::from_str);
        Ok(Self {
            files: ServeDir::with_backend(&site.root, confined.clone())
                .append_index_html_on_directories(false)
                .precompressed_br()
                .precompressed_zstd()
                .precompressed_gzip()
                .ignore_multi_range_requests(true),
            confined,
            index: site.index.clone(),
            fallback: site.fallback.clone(),
            not_found: site.not_found.clone(),
            dot_files: site.dot_files,
            cache_control: cache_control.transpose().map_err(|error| {
                Problem::new(
                    place,
                    format!("`cache_control` is not a header value: {error}"),
                )
            })?,
            cors: site
                .cors
                .as_ref()
                .map(Cors::new)
                .transpose()
                .map_err(|error| Problem::new(place, format!("`cors`: {error}")))?,
        })
    }

    /// Answers one request; its body is not read.
    ///
    /// `prefix` is the path of the route that matched (`/`, or `/docs`): it is taken off before the file is looked for,
    /// and put back into redirects.
    pub async fn respond<B>(&self, prefix: &str, request: Request<B>) -> Response<Body> {
        let (head, body) = request.into_parts();
        drop(body);
        let mut response = match head.method {
            Method::GET | Method::HEAD => self.find_and_send(prefix, &head).await,
            Method::OPTIONS => allowed(page::empty(StatusCode::NO_CONTENT)),
            _ => allowed(page::of(StatusCode::METHOD_NOT_ALLOWED, &head.method)),
        };
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(cors) = &self.cors {
            cors.add_headers(&head, headers);
        }
        response
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
        match self.find(&wanted).await {
            Ok(Found::File(path)) => match self.send(&path, head).await {
                Ok(response) => response,
                Err(error) => self.failed(&error, head).await,
            },
            Ok(Found::Folder) => redirect(prefix, &wanted, head),
            Ok(Found::Nothing) => self.send_fallback(head).await,
            Err(error) => self.failed(&error, head).await,
        }
    }

    async fn find(&self, wanted: &Wanted) -> io::Result<Found> {
        let confined = self.confined.clone();
        let Wanted { path, folder } = wanted.clone();
        let index = self.index.clone();
        confined::blocking(move || {
            let kind = match confined.kind(&path) {
                Err(error) if confined::is_absence(&error) => return Ok(Found::Nothing),
                kind => kind?,
            };
            match (kind, folder) {
                (Kind::File, false) => Ok(Found::File(path)),
                (Kind::Folder, false) => Ok(Found::Folder),
                (Kind::Folder, true) => {
                    let index = if path.is_empty() {
                        index
                    } else {
                        format!("{path}/{index}")
                    };
                    let there = matches!(confined.kind(&index), Ok(Kind::File));
                    Ok(if there {
                        Found::File(index)
                    } else {
                        Found::Nothing
                    })
                }
                (Kind::File, true) | (Kind::Other, _) => Ok(Found::Nothing),
            }
        })
        .await
    }

    /// The file below the root, as the request's conditions, range and encodings want it.
    async fn send(&self, file: &str, head: &Parts) -> io::Result<Response<Body>> {
        let headers = conditions::headers(self, file, head).await?;
        let mut response = self.call(file, head.method.clone(), headers).await?;
        let sent = [
            StatusCode::OK,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::NOT_MODIFIED,
        ];
        if sent.contains(&response.status()) {
            let headers = response.headers_mut();
            headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            if let Some(value) = &self.cache_control {
                headers.insert(CACHE_CONTROL, value.clone());
            }
        }
        Ok(response)
    }

    async fn call(
        &self,
        file: &str,
        method: Method,
        headers: HeaderMap,
    ) -> io::Result<Response<Body>> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = path::uri(file).map_err(io::Error::other)?;
        *request.headers_mut() = headers;
        let response = self.files.clone().try_call(request).await?;
        let mut response = response.map(Body::File);
        add_charset(response.headers_mut());
        if response.status() == StatusCode::NOT_FOUND {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(response)
    }

    /// A page of a single-page application, where a person asks and the application has one.
    async fn send_fallback(&self, head: &Parts) -> Response<Body> {
        if let Some(file) = &self.fallback
            && accepts_html(&head.headers)
            && let Ok(response) = self.send(file, head).await
        {
            return response;
        }
        self.send_not_found(head).await
    }

    async fn send_not_found(&self, head: &Parts) -> Response<Body> {
        let own = match &self.not_found {
            Some(file) => {
                let headers = conditions::encodings(&head.headers);
                self.call(file, head.method.clone(), headers).await.ok()
            }
            None => None,
        };
        let Some(mut response) = own else {
            return page::of(StatusCode::NOT_FOUND, &head.method);
        };
        *response.status_mut() = StatusCode::NOT_FOUND;
        let headers = response.headers_mut();
        for of_a_file in [ETAG, LAST_MODIFIED, ACCEPT_RANGES] {
            headers.remove(of_a_file); // they describe the page, not what was asked for
        }
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(CACHE_CONTROL, ASK_AGAIN);
        response
    }

    async fn failed(&self, error: &io::Error, head: &Parts) -> Response<Body> {
        if confined::is_absence(error) {
            return self.send_not_found(head).await;
        }
        tracing::warn!(%error, path = head.uri.path(), "a file of the site cannot be read");
        page::of(StatusCode::INTERNAL_SERVER_ERROR, &head.method)
    }
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

fn allowed(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(ALLOW, METHODS);
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
    let Ok(location) = HeaderValue::try_from(to) else {
        return page::of(StatusCode::NOT_FOUND, &head.method);
    };
    let mut response = page::empty(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    response
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

/// Text is UTF-8; without saying so, browsers guess (RFC 2046 4.1.2, RFC 9239 4.2).
fn add_charset(headers: &mut HeaderMap) {
    let Some(kind) = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
    else {
        return;
    };
    let text = kind.starts_with("text/") || kind == "application/javascript";
    if !text || kind.contains("charset") {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(format!("{kind}; charset=utf-8")) {
        headers.insert(CONTENT_TYPE, value);
    }
}
