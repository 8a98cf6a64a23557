//! The status page: one file in the binary, which asks nobody but the listener that it came from.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

pub(super) const PAGE: &str = include_str!("www/status.html");

/// SECURITY: the page shows what clients call themselves. Should its own escaping ever fail, no script but its own runs, and
/// nothing leaves for anywhere: the hashes are those of the one script and the one style sheet.
pub(super) static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    HeaderValue::try_from(policy).ok()
});

/// As CSP 3 (8.4) wants it: of the text between the tags.
fn hash(tag: &str) -> String {
    let text = PAGE
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
        .map_or("", |(text, _)| text);
    let digest = digest(&SHA256, text.as_bytes());
    format!("sha256-{}", STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_sheet_and_asks_nobody_else() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}>")).count(), 1, "{tag}");
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        // The name of SVG is not an address.
        let page = PAGE.replace("http://www.w3.org/2000/svg", "");
        for stranger in [
            "http://",
            "https://",
            "src=\"",
            "@import",
            " style=",
            " onclick=",
        ] {
            assert!(!page.contains(stranger), "{stranger}");
        }
    }

    /// What clients say reaches the page as text only.
    #[test]
    fn nothing_on_the_page_makes_markup_of_text() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(way), "{way}");
        }
    }

    #[test]
    fn the_policy_allows_exactly_the_pages_own_parts() {
        let policy = POLICY.as_ref().unwrap().to_str().unwrap();
        assert_eq!(policy.matches("sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_ne!(hash("script"), hash("none"));
    }
}
