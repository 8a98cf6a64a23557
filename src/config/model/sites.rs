//! Static files, and how they are answered with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Redirect;
use crate::config::origins::Origins;
use crate::config::problem::Place;

/// Static files.
#[derive(Debug, Clone)]
pub struct Site {
    pub root: PathBuf,
    pub root_place: Place,
    /// File served for a folder.
    pub index: String,
    /// File below `root` served with status 200 where no file is found (single-page applications).
    pub fallback: Option<String>,
    /// File below `root` served with status 404 where no file is found.
    pub not_found: Option<String>,
    /// Files below `root` for 405, 500 and 503.
    pub error_pages: BTreeMap<u16, String>,
    /// Serve files and folders whose name begins with a dot (`/.well-known/` is always served).
    pub dot_files: bool,
    pub symlinks: Symlinks,
    /// Value of `Cache-Control` where no rule is for the file; `None` sends none.
    pub cache_control: Option<String>,
    /// The first that fits counts.
    pub cache: Vec<CacheRule>,
    pub compress: bool,
    /// Bytes for files that were asked for lately.
    pub memory: usize,
    /// Names in lower case. `None` takes one of ours away.
    pub headers: BTreeMap<String, Option<String>>,
    pub redirects: Vec<Moved>,
    /// Pages of other origins that may read the files; `None`: none may.
    pub cors: Option<Cors>,
}

/// Which symbolic links below a site's root are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Symlinks {
    /// Those that stay below `root`.
    #[default]
    Inside,
    /// None.
    None,
    /// All, wherever they lead.
    Follow,
}

/// `Cache-Control` for some files.
#[derive(Debug, Clone)]
pub struct CacheRule {
    /// Of names or paths, with `*`, `**` and `{hash}`.
    pub files: String,
    /// `None` sends none.
    pub value: Option<String>,
}

/// Paths of a site that have moved.
#[derive(Debug, Clone)]
pub struct Moved {
    /// As the client asks; `/*` at its end covers all below it.
    pub from: String,
    /// Its `{rest}` is what `*` stands for.
    pub redirect: Redirect,
}

/// What pages of other origins may do (Fetch standard 3.3).
#[derive(Debug, Clone)]
pub struct Cors {
    /// Never `Origin::Own`. Neither `Origin::Any` nor `Origin::Null` beside `credentials`.
    pub origins: Origins,
    /// Request headers beyond those that need no permission.
    pub headers: Vec<String>,
    /// Response headers that the page may read beyond those that it always may.
    pub expose: Vec<String>,
    /// How long a browser may keep the answer to a preflight.
    pub max_age: Duration,
    pub credentials: bool,
}
