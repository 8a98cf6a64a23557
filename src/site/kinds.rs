//! What kind of file a name stands for.

use http::HeaderValue;

/// Sent as it is.
const UNKNOWN: &str = "application/octet-stream";

/// Beside `text/…`, `…+xml` and `…+json`. Pictures, films, archives and web fonts are compressed already.
const COMPRESSIBLE: [&str; 9] = [
    "application/json",
    "application/xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "application/rtf",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
];

/// What is told of a file's content.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) content_type: HeaderValue,
    /// Worth the work of compressing it.
    pub(super) is_compressible: bool,
}

impl Kind {
    pub(super) fn of(path: &str) -> Self {
        let name = mime_guess::from_path(path).first_raw().unwrap_or(UNKNOWN);
        // RFC 9239 6: the others are of the past.
        let name = match name {
            "application/javascript" | "application/x-javascript" => "text/javascript",
            name => name,
        };
        let is_text = name.starts_with("text/");
        // Text is UTF-8; without saying so, browsers guess (RFC 2046 4.1.2, RFC 9239 4.2).
        let content_type = match is_text {
            true => HeaderValue::try_from(format!("{name}; charset=utf-8"))
                .unwrap_or_else(|_none_of_these| HeaderValue::from_static(name)),
            false => HeaderValue::from_static(name),
        };
        Self {
            content_type,
            is_compressible: is_text
                || name.ends_with("+xml")
                || name.ends_with("+json")
                || COMPRESSIBLE.contains(&name),
        }
    }
}
