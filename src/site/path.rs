//! The path of a request → a path below the root, or nothing. No I/O.
//!
//! SECURITY: this is the gate. A path that any part of the way could read in two manners (an encoded slash, a backslash,
//! `..` in any spelling, control characters, broken UTF-8) is refused, not repaired.

use std::fmt::Write;

/// The one hidden folder that is always public (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// A path below the root that may be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Decoded segments joined by `/`, with one at the end where the request named a folder. The root is empty, or `/`.
    pub(super) path: String,
}

impl Wanted {
    /// A file that the configuration names.
    pub(super) fn file(path: &str) -> Self {
        Self {
            path: path.to_owned(),
        }
    }
}

/// Decodes and checks `raw`, the path behind the route's prefix: empty, or beginning with `/`.
pub(super) fn parse(raw: &str, dot_files: bool) -> Option<Wanted> {
    if !raw.is_empty() && !raw.starts_with('/') {
        return None;
    }
    let mut path = String::with_capacity(raw.len());
    for segment in raw.split('/').filter(|segment| !segment.is_empty()) {
        let segment = decode(segment)?;
        let first = path.is_empty();
        if !may_be_served(&segment, first, dot_files) {
            return None;
        }
        if !first {
            path.push('/');
        }
        path.push_str(&segment);
    }
    if raw.ends_with('/') {
        path.push('/');
    }
    Some(Wanted { path })
}

fn may_be_served(segment: &str, first: bool, dot_files: bool) -> bool {
    let ambiguous = |character: char| matches!(character, '/' | '\\') || character.is_control();
    if segment == "." || segment == ".." || segment.contains(ambiguous) {
        return false;
    }
    !segment.starts_with('.') || dot_files || (first && segment == WELL_KNOWN)
}

/// Percent-decoding, once (RFC 3986 2.1). `None` for a bare `%` and for bytes that are not UTF-8.
fn decode(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
            decoded.push(u8::try_from(high? * 16 + low?).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// The decoded path as it stands in a URL: everything but unreserved characters and `/` is encoded (RFC 3986 2.3).
pub(super) fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else if write!(encoded, "%{byte:02X}").is_err() {
            return encoded; // a String takes everything
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Option<String> {
        parse(raw, false).map(|wanted| wanted.path)
    }

    #[test]
    fn paths_are_decoded_once_and_cleaned() {
        for (raw, expected) in [
            ("", ""),
            ("/", "/"),
            ("/a.html", "a.html"),
            ("//a///b/", "a/b/"),
            ("/a%20b/%E4%B8%AD", "a b/中"),
            ("/%2561", "%61"),
            ("/a..b/c.", "a..b/c."),
            ("/.well-known/x", ".well-known/x"),
        ] {
            assert_eq!(path(raw).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for raw in [
            "a",
            "/..",
            "/a/../b",
            "/%2e%2e/b",
            "/.%2E",
            "/a%2fb",
            "/a%2Fb",
            "/..%2f",
            "/a%5cb",
            "/a\\b",
            "/%00",
            "/a%0a",
            "/.",
            "/%2e",
            "/.git/config",
            "/a/.env",
            "/a/.well-known/x",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%ff",
            "/%c0%ae%c0%ae",
        ] {
            assert_eq!(path(raw), None, "{raw}");
        }
    }

    #[test]
    fn dot_files_are_a_choice_and_dot_dot_is_not() {
        assert!(parse("/.a/.b", true).is_some());
        assert!(parse("/a/..", true).is_none());
        assert!(parse("/%2e%2e/a", true).is_none());
    }

    #[test]
    fn encoding_turns_decoding_round() {
        for name in ["a b", "中/%61", "q?x#y", "\"<>", "c:d"] {
            assert_eq!(path(&format!("/{}", encode(name))).as_deref(), Some(name));
        }
    }
}
