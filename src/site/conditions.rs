//! Which of the request's headers concern the file: encodings, conditions and the range (RFC 9110 12.5.3, 13, 14).
//!
//! `ServeDir` decides by them, but knows no `If-Range`, answers a range on HEAD and refuses range units it does not know;
//! those are settled here, before it sees them.

use std::io;

use http::header::{
    ACCEPT_ENCODING, ETAG, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::SiteService;

const OF_A_FILE: [HeaderName; 5] = [
    ACCEPT_ENCODING,
    IF_MATCH,
    IF_UNMODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
];

/// Only the encodings: for a page that was not asked for.
pub(super) fn encodings(headers: &HeaderMap) -> HeaderMap {
    copied(headers, &[ACCEPT_ENCODING])
}

/// The headers that decide how `file` is sent.
pub(super) async fn headers(site: &SiteService, file: &str, head: &Parts) -> io::Result<HeaderMap> {
    let mut headers = copied(&head.headers, &OF_A_FILE);
    if let Some(range) = head.headers.get(RANGE)
        && applies(range, &head.method)
        && is_current(site, file, head).await?
    {
        headers.insert(RANGE, range.clone());
    }
    Ok(headers)
}

fn copied(from: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in names {
        for value in from.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// RFC 9110 14.2: ranges are defined for GET, and other units than bytes are ignored.
fn applies(range: &HeaderValue, method: &Method) -> bool {
    *method == Method::GET && range.as_bytes().starts_with(b"bytes=")
}

/// RFC 9110 13.1.5: a range is sent only while the client's part is of the same version, compared strongly.
async fn is_current(site: &SiteService, file: &str, head: &Parts) -> io::Result<bool> {
    let Some(condition) = head.headers.get(IF_RANGE) else {
        return Ok(true);
    };
    let now = site
        .call(file, Method::HEAD, encodings(&head.headers))
        .await?;
    let is_tag = condition.as_bytes().starts_with(b"\"");
    let validator = if is_tag { ETAG } else { LAST_MODIFIED };
    Ok(now.headers().get(validator) == Some(condition))
}
