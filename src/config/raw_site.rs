//! What the file may say of a site.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::Symlinks;
use super::names::{
    FilePath, FilePattern, HeaderName, HeaderSetting, MovedPath, RedirectTarget, SitePath,
};
use super::origins::Origin;
use super::raw::moved_permanently;
use super::values::{Size, Span};

/// Static files.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    /// Folder that holds the files.
    pub root: FilePath,
    /// File served for a folder.
    #[serde(default = "index_html")]
    pub index: SitePath,
    /// File below `root` served with status 200 where no file is found and the client wants a page (`Accept` with `text/html`): for single-page applications.
    pub fallback: Option<SitePath>,
    /// File below `root` served with status 404 where no file is found.
    pub not_found: Option<SitePath>,
    /// Files below `root` served with other errors, by status: 405, 500 and 503 (the files cannot be read in time). They are
    /// read at start and at a reload, up to 256 KiB.
    #[serde(default)]
    pub error_pages: BTreeMap<String, SitePath>,
    /// Serve names that begin with a dot. `/.well-known/` is always served.
    #[serde(default)]
    pub dot_files: bool,
    /// Which symbolic links are followed. `root` itself may always be one.
    #[serde(default)]
    pub symlinks: Symlinks,
    /// Value of the `Cache-Control` header of files that no rule of `cache` is for; `""` sends none. `no-cache` lets browsers
    /// keep a file and ask each time whether it is still the same.
    #[serde(default = "no_cache")]
    pub cache_control: HeaderSetting,
    /// `Cache-Control` for some files. The first rule that fits counts.
    #[serde(default)]
    pub cache: Vec<CacheRule>,
    /// Send text of 1 KiB to 8 MiB as gzip to clients that take it, where no `.br`, `.zst` or `.gz` that they take stands
    /// beside the file. It is compressed once and kept in `memory`.
    #[serde(default = "yes")]
    pub compress: bool,
    /// Memory for files that were asked for lately: those up to 256 KiB, and what was compressed. A file is looked at again
    /// after a second. 0 keeps none and compresses none.
    #[serde(default = "sixteen_mib")]
    pub memory: Size,
    /// Headers of every answer of the site; `""` takes one away. Unless set: `X-Content-Type-Options: nosniff`,
    /// `Referrer-Policy: strict-origin-when-cross-origin`, `X-Frame-Options: SAMEORIGIN` (not beside a
    /// `Content-Security-Policy` with `frame-ancestors`).
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderSetting>,
    /// Paths that have moved. They are looked for before files; the first that fits counts.
    #[serde(default)]
    pub redirects: Vec<Moved>,
    /// Pages of other origins that may read the files (CORS). None may unless set.
    pub cors: Option<Cors>,
}

fn index_html() -> SitePath {
    SitePath("index.html".to_owned())
}

fn no_cache() -> HeaderSetting {
    HeaderSetting("no-cache".to_owned())
}

fn yes() -> bool {
    true
}

fn sixteen_mib() -> Size {
    Size(16 << 20)
}

/// `Cache-Control` for some files.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CacheRule {
    /// Names (`*.woff2`), or paths below `root` (`assets/**`). `*` is anything in one name, `**` in folders too, `{hash}` eight
    /// or more letters and digits, both: `*.{hash}.js`.
    pub files: FilePattern,
    /// Value of the header; `""` sends none.
    pub value: HeaderSetting,
}

/// A path that has moved.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Moved {
    /// Path as the client asks for it; `*` at its end is anything.
    pub from: MovedPath,
    /// Absolute URL or absolute path. `{rest}` is what `*` stands for; `{host}`, `{path}` and `{query}` are the request's own.
    pub to: RedirectTarget,
    /// Status of the answer: 301, 302, 303, 307 or 308.
    #[serde(default = "moved_permanently")]
    pub status: u16,
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
