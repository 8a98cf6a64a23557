//! Paths that have moved: the first rule that fits, before any file is looked for. No I/O.

use http::HeaderValue;

use crate::config::model::{Moved, Redirect};

/// What stands in a target for the request's own.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// With its port.
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

/// Where a request is sent; `rest` is what `{rest}` stands for. `None` for what cannot be told in a header.
pub fn location(redirect: &Redirect, asked: Asked<'_>, rest: &str) -> Option<HeaderValue> {
    let query = asked.query.map(|query| format!("?{query}"));
    let to = redirect
        .to
        .replace("{host}", asked.host)
        .replace("{path}", asked.path)
        .replace("{rest}", rest)
        .replace("{query}", &query.unwrap_or_default());
    // SECURITY: `//host` and `/\host` lead elsewhere, and the visitor may have written the part behind the first slash.
    let to = match redirect.to.starts_with('/') {
        true => format!("/{}", to.trim_start_matches(['/', '\\'])),
        false => to,
    };
    HeaderValue::try_from(to).ok()
}

/// The rule for a path, and what `*` stands for.
pub(super) fn find<'a>(rules: &'a [Moved], path: &'a str) -> Option<(&'a Redirect, &'a str)> {
    rules.iter().find_map(|rule| {
        let rest = match rule.from.strip_suffix('*') {
            Some(prefix) => path.strip_prefix(prefix)?,
            None => (rule.from == path).then_some("")?,
        };
        Some((&rule.redirect, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(from: &str, to: &str) -> Moved {
        Moved {
            from: from.to_owned(),
            redirect: Redirect {
                to: to.to_owned(),
                status: 308,
            },
        }
    }

    fn sent(rule: Moved, path: &str) -> Option<String> {
        let rules = [rule];
        let (redirect, rest) = find(&rules, path)?;
        let asked = Asked {
            host: "example.com",
            path,
            query: Some("q=1"),
        };
        let location = location(redirect, asked, rest)?;
        Some(location.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_star_is_the_rest() {
        let blog = || moved("/blog/*", "https://blog.{host}/{rest}{query}");
        let to = sent(blog(), "/blog/2024/a");
        assert_eq!(to.as_deref(), Some("https://blog.example.com/2024/a?q=1"));
        assert_eq!(
            sent(blog(), "/blog/").as_deref(),
            Some("https://blog.example.com/?q=1")
        );
        assert_eq!(sent(blog(), "/blog"), None);
        assert_eq!(sent(moved("/a", "/b"), "/a/"), None);
        assert_eq!(sent(moved("/a", "/b"), "/a").as_deref(), Some("/b"));
    }

    #[test]
    fn what_a_visitor_writes_never_leads_to_another_host() {
        for path in [
            "/old//evil.example",
            "/old/\\evil.example",
            "/old///evil.example",
        ] {
            let to = sent(moved("/old/*", "/{rest}"), path);
            assert_eq!(to.as_deref(), Some("/evil.example"), "{path}");
        }
    }
}
