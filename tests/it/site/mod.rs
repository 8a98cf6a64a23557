//! The site: what browsers and caches ask of static files, and what nobody may get.

mod compression;
mod files;
mod lint;
mod policy;
mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::{HeaderName, Method, Request, Response};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tidegate::config::model::{Action, Site};
use tidegate::config::{self, Problems};
use tidegate::site::{Body, SiteService};

const HOST: &str = "example.com";

/// A root with a secret beside it.
struct Fixture {
    folder: TempDir,
    site: Site,
}

impl Fixture {
    /// A site with every key at its default.
    fn new() -> Self {
        Self::with("")
    }

    /// A site with these keys, each with a comma behind it.
    fn with(keys: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("www");
        let site = configured(&root, keys).unwrap_or_else(|problems| panic!("{problems}"));
        let fixture = Self { folder, site };
        for (name, text) in [
            ("secret.txt", "secret"),
            ("www/index.html", "<h1>start</h1>"),
            ("www/hello.txt", "hello, world"),
            ("www/docs/index.html", "<h1>docs</h1>"),
            ("www/empty/readme.md", "# nothing"),
            ("www/app.js", "let a = 'plain';"),
            ("www/app.js.br", "br"),
            ("www/app.js.zst", "zst"),
            ("www/app.js.gz", "gz"),
            ("www/.env", "secret"),
            ("www/.git/config", "secret"),
            ("www/.well-known/acme", "token"),
            ("www/a b/ü.html", "umlaut"),
        ] {
            fixture.write(name, text);
        }
        fixture
    }

    /// Writes a file that has been as it is for a while.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        set_age(&path, Duration::from_secs(3600));
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn service(&self) -> SiteService {
        SiteService::new(&self.site).unwrap()
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(&self.service(), "/", method, path, headers).await
    }

    async fn ask_at(
        &self,
        prefix: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        ask(&self.service(), prefix, method, path, headers).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Method::GET, path, headers).await
    }

    fn refused(&self) -> String {
        let problem = SiteService::new(&self.site).unwrap_err();
        assert_eq!(problem.place.key, "routes[0].site.root");
        problem.message
    }
}

/// The site of a configuration with these keys.
fn configured(root: &Path, keys: &str) -> Result<Site, Problems> {
    let yaml = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\n\
         routes: [{{ path: /, site: {{ {keys} root: {root:?} }} }}]\n"
    );
    let mut config = config::parse(Path::new("test.yaml"), &yaml)?.config;
    match config.routes.remove(0).action {
        Action::Site(site) => Ok(*site),
        other => panic!("{other:?}"),
    }
}

fn set_age(path: &Path, age: Duration) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

async fn ask(
    service: &SiteService,
    prefix: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).unwrap();
    Answer::read(service.respond(prefix, HOST, request).await).await
}

/// From the root, of a service that keeps what it has read.
async fn get(service: &SiteService, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(service, "/", Method::GET, path, headers).await
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    bytes: Vec<u8>,
    /// The bytes, where they are text.
    body: String,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        }
    }

    /// The value of a header that is there once at most; empty where it is not.
    fn header(&self, name: HeaderName) -> &str {
        let values = self.headers.get_all(&name);
        assert!(values.iter().count() < 2, "{name} in {:?}", self.headers);
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}
