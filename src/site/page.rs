//! Answers that come from no file: empty ones, and a small page for each error.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};

use super::{ASK_AGAIN, Body};

/// A page that is held in memory.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) content_type: HeaderValue,
    pub(super) bytes: Bytes,
}

/// A status and nothing more.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

/// The page for an error; without its body for HEAD.
pub(super) fn of(status: StatusCode, method: &Method) -> Response<Body> {
    let page = Page {
        content_type: HeaderValue::from_static("text/html; charset=utf-8"),
        bytes: Bytes::from(html(status)),
    };
    with(status, &page, method)
}

/// The operator's own page.
pub(super) fn with(status: StatusCode, page: &Page, method: &Method) -> Response<Body> {
    let bytes = match *method == Method::HEAD {
        true => Bytes::new(),
        false => page.bytes.clone(),
    };
    let mut response = Response::new(Body::Memory(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, page.content_type.clone());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(page.bytes.len()));
    headers.insert(CACHE_CONTROL, ASK_AGAIN);
    response
}
/// SECURITY: nothing of the request stands in the page.
fn html(status: StatusCode) -> String {
    let code = status.as_u16();
    let reason = status.canonical_reason().unwrap_or("Error");
    format!(
        "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>{code} {reason}</title>
<style>
  body {{ margin: 0; min-height: 100vh; display: grid; place-content: center; text-align: center;
         font: 1rem/1.5 system-ui, sans-serif }}
  h1 {{ margin: 0; font-size: 4rem; font-weight: 300 }}
  p {{ margin: 0; opacity: .7 }}
</style>
<h1>{code}</h1>
<p>{reason}</p>
</html>
"
    )
}
