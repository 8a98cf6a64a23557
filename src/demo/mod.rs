//! What `tidegate demo` shows: a broker inside the process and the page that talks to it through the gateway.
//! Promises: exists only with the feature `demo`; listens on loopback only; the page asks nobody but its own host.

mod broker;

use std::fs;
use std::io;
use std::path::Path;

pub use broker::DemoBroker;

/// The demo page: file name in the site's root, content.
pub const FILES: &[(&str, &[u8])] = &[
    ("index.html", include_bytes!("www/index.html")),
    ("style.css", include_bytes!("www/style.css")),
    ("app.js", include_bytes!("www/app.js")),
    ("mqtt.min.js", include_bytes!("www/mqtt.min.js")),
    ("mqtt.LICENSE.txt", include_bytes!("www/mqtt.LICENSE.txt")),
    ("icon.svg", include_bytes!("www/icon.svg")),
];

/// Writes the demo page into a folder that exists, so that the gateway serves it as it serves any other site.
pub fn write_site(folder: &Path) -> io::Result<()> {
    for (name, content) in FILES {
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(wanted: &str) -> &'static str {
        let found = FILES.iter().find(|(name, _)| *name == wanted);
        std::str::from_utf8(found.expect("the file is listed").1).expect("the file is text")
    }

    #[test]
    fn the_site_is_written_as_it_is_embedded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_site(folder.path()).expect("the site is written");
        for (name, content) in FILES {
            let written = fs::read(folder.path().join(name)).expect("the file was written");
            assert_eq!(&written, content, "{name}");
        }
    }

    #[test]
    fn every_file_the_page_asks_for_is_embedded() {
        let page = text_of("index.html");
        for attribute in ["src=\"", "href=\""] {
            for rest in page.split(attribute).skip(1) {
                let target = rest.split('"').next().unwrap_or_default();
                let local =
                    target.starts_with('#') || FILES.iter().any(|(name, _)| *name == target);
                assert!(local, "{target} is not part of the demo site");
            }
        }
    }

    /// The strict Content-Security-Policy of a site forbids both.
    #[test]
    fn the_page_has_no_inline_script_or_style() {
        let page = text_of("index.html");
        assert!(!page.contains("<style") && !page.contains(" style="));
        assert!(!page.contains(" onclick=") && !page.contains("<script>"));
    }
}
