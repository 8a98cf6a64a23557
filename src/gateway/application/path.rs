//! The path of a request as the application is asked for it, and the application's paths as clients know them.

use http::Uri;
use http::uri::PathAndQuery;

use crate::config::model::ApplicationPath;

/// A route's path, and what stands in its place at the application.
#[derive(Debug)]
pub(super) struct Paths<'a> {
    /// Without a trailing `/`: empty for `/`.
    route: &'a str,
    /// `None`: paths are the same on both sides. Without a trailing `/`, too.
    instead: Option<&'a str>,
}

impl<'a> Paths<'a> {
    pub(super) fn new(route: &'a str, rule: &'a ApplicationPath) -> Self {
        let route = route.trim_end_matches('/');
        let instead = match rule {
            ApplicationPath::Keep => None,
            ApplicationPath::Strip => Some(""),
            ApplicationPath::Instead(path) => Some(path.as_str()),
        };
        Self {
            route,
            instead: instead.filter(|instead| *instead != route),
        }
    }

    /// The prefix that the application does not see in its paths.
    pub(super) fn told_prefix(&self) -> Option<&str> {
        self.instead
            .and((!self.route.is_empty()).then_some(self.route))
    }

    /// What the application is asked for.
    pub(super) fn of_application(&self, asked: &Uri) -> PathAndQuery {
        let root = PathAndQuery::from_static("/");
        let Some(asked) = asked.path_and_query() else {
            return root;
        };
        let Some(instead) = self.instead else {
            return asked.clone();
        };
        let Some(rest) = asked.as_str().strip_prefix(self.route) else {
            return asked.clone();
        };
        let slash = if rest.starts_with('/') || !instead.is_empty() {
            ""
        } else {
            "/"
        };
        format!("{instead}{slash}{rest}").parse().unwrap_or(root)
    }

    /// What clients ask for to get that of the application; `None` where it is the same.
    pub(super) fn of_client(&self, path: &str) -> Option<String> {
        let instead = self.instead?;
        let is_below = |path: &str, prefix: &str| {
            let rest = path.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
        };
        // It may have heard of the prefix.
        if !self.route.is_empty() && is_below(path, self.route) || !is_below(path, instead) {
            return None;
        }
        Some(format!("{}{}", self.route, &path[instead.len()..]))
    }
}

/// A path that means another one to whoever resolves its `..`, before or after taking `%2e` and `%2f` apart.
///
/// SECURITY: a route is for its path alone; `/api/..%2fadmin` would reach what no route leads to.
pub(super) fn climbs(path: &str) -> bool {
    if !path.contains("..") && !path.contains('%') {
        return false;
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let code = digit(behind.first()).zip(digit(behind.get(1)));
        let code = code.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        let (byte, next) = match code {
            Some(code) if *first == b'%' => (code, &behind[2..]),
            _ => (*first, behind),
        };
        decoded.push(byte);
        rest = next;
    }
    decoded
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .any(|segment| segment == b".." || segment.starts_with(b"..;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(route: &str, rule: &ApplicationPath, path: &str) -> String {
        let uri: Uri = path.parse().unwrap();
        Paths::new(route, rule).of_application(&uri).to_string()
    }

    #[test]
    fn a_prefix_is_kept_taken_off_or_exchanged() {
        let instead = ApplicationPath::Instead("/v2".to_owned());
        for (route, rule, path, expected) in [
            ("/shop", &ApplicationPath::Keep, "/shop/a?b", "/shop/a?b"),
            ("/shop", &ApplicationPath::Strip, "/shop/a?b", "/a?b"),
            ("/shop", &ApplicationPath::Strip, "/shop", "/"),
            ("/shop", &ApplicationPath::Strip, "/shop/", "/"),
            ("/shop", &ApplicationPath::Strip, "/shop?x=1", "/?x=1"),
            ("/shop", &instead, "/shop/a", "/v2/a"),
            ("/shop", &instead, "/shop?x", "/v2?x"),
            ("/", &instead, "/a", "/v2/a"),
            ("/", &instead, "/", "/v2/"),
            ("/", &ApplicationPath::Strip, "/a//b", "/a//b"),
        ] {
            assert_eq!(asked(route, rule, path), expected, "{route} {rule} {path}");
        }
    }

    #[test]
    fn places_of_the_application_become_the_clients() {
        let instead = ApplicationPath::Instead("/v2".to_owned());
        let of = |rule, path| Paths::new("/shop", rule).of_client(path);
        let is = |path: &str| Some(path.to_owned());
        assert_eq!(of(&ApplicationPath::Keep, "/a"), None);
        assert_eq!(of(&ApplicationPath::Strip, "/a?b"), is("/shop/a?b"));
        assert_eq!(of(&ApplicationPath::Strip, "/shop/a"), None);
        assert_eq!(
            of(&ApplicationPath::Strip, "/shopping"),
            is("/shop/shopping")
        );
        assert_eq!(of(&instead, "/v2/a"), is("/shop/a"));
        assert_eq!(of(&instead, "/other"), None);
    }

    #[test]
    fn paths_that_climb_are_known_by_any_spelling() {
        for path in [
            "/a/../b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a/..%2fb",
            "/a%5c..%5cb",
            "/a/..;x/b",
        ] {
            assert!(climbs(path), "{path}");
        }
        for path in [
            "/a/b", "/a..b/c", "/...", "/a%20b", "/100%", "/%zz/..a", "/a/.%",
        ] {
            assert!(!climbs(path), "{path}");
        }
    }
}
