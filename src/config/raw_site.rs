//! What the file may say of a site.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{FilePath, HeaderName, HeaderValue, SitePath};
use super::origins::Origin;
use super::values::Span;

/// Static files.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    /// Folder that holds the files.
    pub root: FilePath,
    /// File served for a folder.
    #[serde(default = "index_html")]
    pub index: SitePath,
    /// File below `root` served with status 200 where no file is found: for single-page applications.
    pub fallback: Option<SitePath>,
    /// File below `root` served with status 404 where no file is found.
    pub not_found: Option<SitePath>,
    /// Serve names that begin with a dot. `/.well-known/` is always served.
    #[serde(default)]
    pub dot_files: bool,
    /// Value of the `Cache-Control` header of every file; none is sent unless set.
    pub cache_control: Option<HeaderValue>,
    /// Pages of other origins that may read the files (CORS). None may unless set.
    pub cors: Option<Cors>,
}

fn index_html() -> SitePath {
    SitePath("index.html".to_owned())
}

/// Pages of other origins that may read the files (CORS). They may GET and HEAD; a site knows nothing else.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cors {
    /// `https://example.com`, `https://*.example.com` for one label, `"null"` for files and sandboxed frames, `"*"` for
    /// every page.
    #[schemars(length(min = 1))]
    pub origins: Vec<Origin>,
    /// Request headers that a page may send beyond those that need no permission, such as `Authorization`.
    #[serde(default)]
    pub headers: Vec<HeaderName>,
    /// Response headers that a page may read beyond `Cache-Control`, `Content-Length`, `Content-Type` and the like: `ETag`.
    #[serde(default)]
    pub expose: Vec<HeaderName>,
    /// How long a browser may keep the answer to its preflight; it keeps none longer than two hours to a day.
    #[serde(default = "ten_minutes")]
    pub max_age: Span,
    /// Browsers send cookies and passwords along. Not with `*` and `null`.
    #[serde(default)]
    pub credentials: bool,
}

fn ten_minutes() -> Span {
    Span(Duration::from_secs(600))
}
