//! Pages of other origins that read the files of a site, as the Fetch standard has browsers ask.

use tempfile::TempDir;

use crate::support::client::tls;
use crate::support::gateway::{Gateway, site};
use crate::support::raw_http::{Answer, Request};

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";

struct Served {
    gateway: Gateway,
    _site: TempDir,
}

impl Served {
    async fn start(cors: &str) -> Self {
        let (folder, root) = site();
        let yaml = format!("routes: [{{ path: /, site: {{ root: {root:?}, cors: {cors} }} }}]\n");
        Self {
            gateway: Gateway::start(&yaml).await,
            _site: folder,
        }
    }

    async fn ask(&self, request: Request) -> Answer {
        request.ask(&mut tls(&self.gateway).await).await
    }

    async fn get(&self, origin: &str) -> Answer {
        self.ask(Request::get("/").with("Origin", origin)).await
    }

    async fn preflight(&self, origin: &str) -> Answer {
        let request = Request::new("OPTIONS", "/")
            .with("Origin", origin)
            .with("Access-Control-Request-Method", "GET")
            .with("Access-Control-Request-Headers", "authorization");
        self.ask(request).await
    }
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

/// What caches are told to look at.
fn varies_by_origin(answer: &Answer) -> bool {
    let lines = answer.head.to_ascii_lowercase();
    let mut vary = lines.lines().filter(|line| line.starts_with("vary:"));
    vary.any(|line| line.contains("origin"))
}

#[tokio::test]
async fn a_named_page_may_read_and_others_are_told_nothing() {
    let served = Served::start(
        "{ origins: [\"https://*.example.com\"], headers: [Authorization, X-Token], expose: [ETag], max_age: 5m }",
    )
    .await;
    let answer = served.get(APP).await;
    assert_eq!((answer.status, allowed(&answer)), (200, Some(APP)));
    assert_eq!(answer.header("access-control-expose-headers"), Some("etag"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(answer.header("access-control-allow-methods"), None);
    assert!(varies_by_origin(&answer));
    for origin in [EVIL, "null", "http://app.example.com"] {
        let answer = served.get(origin).await;
        assert_eq!((answer.status, allowed(&answer)), (200, None), "{origin}");
        assert_eq!(answer.header("access-control-expose-headers"), None);
        assert!(varies_by_origin(&answer));
    }
    // A cache must not give this one to a page.
    let nobody = served.ask(Request::get("/")).await;
    assert_eq!(allowed(&nobody), None);
    assert!(varies_by_origin(&nobody));
}

#[tokio::test]
async fn a_preflight_is_answered_with_what_may_be_asked() {
    let served = Served::start(
        "{ origins: [\"https://app.example.com\"], headers: [Authorization, X-Token], max_age: 5m }",
    )
    .await;
    let answer = served.preflight(APP).await;
    assert_eq!((answer.status, allowed(&answer)), (204, Some(APP)));
    assert_eq!(answer.body, "");
    for (name, value) in [
        ("access-control-allow-methods", "GET, HEAD"),
        ("access-control-allow-headers", "authorization, x-token"),
        ("access-control-max-age", "300"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert!(varies_by_origin(&answer));
    let stranger = served.preflight(EVIL).await;
    assert_eq!((stranger.status, allowed(&stranger)), (204, None));
    assert_eq!(stranger.header("access-control-allow-headers"), None);
    // OPTIONS by a program is no preflight.
    let options = served
        .ask(Request::new("OPTIONS", "/").with("Origin", APP))
        .await;
    assert_eq!(options.header("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(options.header("access-control-max-age"), None);
}

#[tokio::test]
async fn errors_and_304_can_be_read_too() {
    let served = Served::start("{ origins: [\"https://app.example.com\"] }").await;
    let lost = Request::get("/nothing").with("Origin", APP);
    let lost = served.ask(lost).await;
    assert_eq!((lost.status, allowed(&lost)), (404, Some(APP)));
    let tag = served.get(APP).await;
    let again = Request::new("HEAD", "/")
        .with("Origin", APP)
        .with("If-None-Match", tag.header("etag").unwrap());
    let again = served.ask(again).await;
    assert_eq!((again.status, allowed(&again)), (304, Some(APP)));
    assert!(varies_by_origin(&again));
}

#[tokio::test]
async fn every_page_is_a_star_without_vary_and_never_with_credentials() {
    let served = Served::start("{ origins: [\"*\"] }").await;
    for origin in [APP, "null"] {
        let answer = served.get(origin).await;
        assert_eq!(allowed(&answer), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert!(!varies_by_origin(&answer));
    }
    let served =
        Served::start("{ origins: [\"https://app.example.com\"], credentials: true }").await;
    let answer = served.get(APP).await;
    assert_eq!(allowed(&answer), Some(APP));
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    let stranger = served.get(EVIL).await;
    assert_eq!(stranger.header("access-control-allow-credentials"), None);
}
