//! Files and folders, conditions, ranges and encodings; what is not there, and what nobody may get.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request};
use tidegate::site::SiteService;

use super::{Answer, Fixture, HOST};

const HTML: (&str, &str) = ("accept", "text/html,*/*;q=0.8");

fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn files_are_sent_with_type_length_and_validators() {
    let site = Fixture::new();
    let answer = is_send(site.get("/hello.txt", &[])).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello, world"));
    assert_eq!(answer.header(CONTENT_TYPE), "text/plain; charset=utf-8");
    assert_eq!(answer.header(CONTENT_LENGTH), "12");
    assert_eq!(answer.header(ACCEPT_RANGES), "bytes");
    assert!(answer.header(ETAG).starts_with('"'));
    assert!(answer.header(LAST_MODIFIED).ends_with(" GMT"));
    assert_eq!(answer.header(VARY), "Accept-Encoding");
    assert_eq!(answer.header(CACHE_CONTROL), "no-cache");
    assert_eq!(answer.header(X_CONTENT_TYPE_OPTIONS), "nosniff");
}

#[tokio::test]
async fn content_types_are_right() {
    let site = Fixture::new();
    for (name, expected) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.png", "image/png"),
        ("a.HTML", "text/html; charset=utf-8"),
        ("nothing", "application/octet-stream"),
    ] {
        site.write(&format!("www/{name}"), "x");
        assert_eq!(
            site.get(&format!("/{name}"), &[])
                .await
                .header(CONTENT_TYPE),
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn folders_are_answered_by_their_index_and_never_listed() {
    let mut site = Fixture::new();
    assert_eq!(site.get("/", &[]).await.body, "<h1>start</h1>");
    assert_eq!(site.get("/docs/", &[]).await.body, "<h1>docs</h1>");
    assert_eq!(site.get("/a%20b/%C3%BC.html", &[]).await.body, "umlaut");
    assert_eq!(site.get("/empty/", &[]).await.status, 404);
    assert_eq!(site.get("/hello.txt/", &[]).await.status, 404);
    site.site.index = "readme.md".to_owned();
    assert_eq!(site.get("/empty/", &[]).await.body, "# nothing");
    assert_eq!(site.get("/docs/", &[]).await.status, 404);
}

#[tokio::test]
async fn a_folder_without_slash_is_redirected_within_the_route() {
    let site = Fixture::new();
    for (prefix, path, expected) in [
        ("/", "/docs", "/docs/"),
        ("/", "/docs?a=b%20c", "/docs/?a=b%20c"),
        ("/", "//docs", "/docs/"),
        ("/", "/a%20b", "/a%20b/"),
        ("/site", "/site", "/site/"),
        ("/site", "/site/docs", "/site/docs/"),
    ] {
        let answer = site.ask_at(prefix, Method::GET, path, &[]).await;
        assert_eq!(
            (answer.status, answer.header(LOCATION)),
            (301, expected),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_prefix_of_the_route_is_taken_off() {
    let site = Fixture::new();
    let get = |path| site.ask_at("/site", Method::GET, path, &[]);
    assert_eq!(get("/site/").await.body, "<h1>start</h1>");
    assert_eq!(get("/site/hello.txt").await.body, "hello, world");
    assert_eq!(get("/sitehello.txt").await.status, 404);
    assert_eq!(get("/hello.txt").await.status, 404);
}

#[tokio::test]
async fn one_range_is_sent_and_impossible_ones_are_refused() {
    let site = Fixture::new();
    for (range, status, body, content_range) in [
        ("bytes=0-4", 206, "hello", "bytes 0-4/12"),
        ("bytes=7-", 206, "world", "bytes 7-11/12"),
        ("bytes=-5", 206, "world", "bytes 7-11/12"),
        ("bytes=20-", 416, "", "bytes */12"),
        ("bytes=0-0,2-2", 200, "hello, world", ""),
        ("lines=0-1", 200, "hello, world", ""),
    ] {
        let answer = site.get("/hello.txt", &[("range", range)]).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{range}"
        );
        assert_eq!(answer.header(CONTENT_RANGE), content_range, "{range}");
    }
    let head = site
        .ask(Method::HEAD, "/hello.txt", &[("range", "bytes=0-4")])
        .await;
    assert_eq!((head.status, head.header(CONTENT_LENGTH)), (200, "12"));
}

#[tokio::test]
async fn a_range_of_an_older_version_gets_the_whole_file() {
    let site = Fixture::new();
    let known = site.get("/hello.txt", &[]).await;
    let weak = format!("W/{}", known.header(ETAG));
    for (condition, status) in [
        (known.header(ETAG), 206),
        (known.header(LAST_MODIFIED), 206),
        ("\"other\"", 200),
        (weak.as_str(), 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ] {
        let headers = [("range", "bytes=0-4"), ("if-range", condition)];
        assert_eq!(
            site.get("/hello.txt", &headers).await.status,
            status,
            "{condition}"
        );
    }
}

#[tokio::test]
async fn conditional_requests_are_answered_by_304_and_412() {
    let mut site = Fixture::new();
    site.site.cache_control = Some("max-age=60".to_owned());
    let known = site.get("/hello.txt", &[]).await;
    let (tag, date) = (known.header(ETAG), known.header(LAST_MODIFIED));
    assert_eq!(known.header(CACHE_CONTROL), "max-age=60");
    for (name, value, status) in [
        ("if-none-match", tag, 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", date, 304),
        ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("if-match", tag, 200),
        ("if-match", "\"other\"", 412),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 412),
    ] {
        let answer = site.get("/hello.txt", &[(name, value)]).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        assert!(status == 200 || answer.body.is_empty());
        if status == 304 {
            // The rest describes a content, and there is none (RFC 9110 15.4.5).
            for name in [CONTENT_TYPE, CONTENT_LENGTH, LAST_MODIFIED, ACCEPT_RANGES] {
                assert_eq!(answer.header(name), "");
            }
            assert_eq!(answer.header(ETAG), tag);
            assert_eq!(answer.header(CACHE_CONTROL), "max-age=60");
            assert_eq!(answer.header(VARY), "Accept-Encoding");
        }
    }
}

#[tokio::test]
async fn precompressed_files_are_sent_to_clients_that_accept_them() {
    let site = Fixture::new();
    let mut tags = Vec::new();
    for (accepted, encoding, body) in [
        ("", "", "let a = 'plain';"),
        ("gzip", "gzip", "gz"),
        ("gzip, br", "br", "br"),
        ("zstd", "zstd", "zst"),
        ("br;q=0, gzip;q=0.5", "gzip", "gz"),
        ("identity", "", "let a = 'plain';"),
    ] {
        let answer = site.get("/app.js", &[("accept-encoding", accepted)]).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, body),
            "{accepted}"
        );
        assert_eq!(answer.header(CONTENT_ENCODING), encoding, "{accepted}");
        assert_eq!(
            answer.header(CONTENT_TYPE),
            "text/javascript; charset=utf-8"
        );
        assert_eq!(answer.header(VARY), "Accept-Encoding");
        tags.push(answer.header(ETAG).to_owned());
    }
    assert_ne!(tags[0], tags[1]);
    let plain = site.get("/hello.txt", &[("accept-encoding", "br")]).await;
    assert_eq!(
        (plain.body.as_str(), plain.header(CONTENT_ENCODING)),
        ("hello, world", "")
    );
}

#[tokio::test]
async fn the_fallback_is_for_people_only() {
    let mut site = Fixture::new();
    site.site.fallback = Some("index.html".to_owned());
    for path in ["/orders/7", "/empty/", "/hello.txt/"] {
        let answer = site.get(path, &[HTML]).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "<h1>start</h1>"),
            "{path}"
        );
    }
    assert_eq!(
        site.ask(Method::HEAD, "/orders/7", &[HTML]).await.status,
        200
    );
    for accept in ["*/*", "image/png", "text/html;q=0"] {
        assert_eq!(
            site.get("/old.js", &[("accept", accept)]).await.status,
            404,
            "{accept}"
        );
    }
    assert_eq!(site.get("/old.js", &[]).await.status, 404);
    assert_eq!(
        site.ask(Method::POST, "/orders/7", &[HTML]).await.status,
        405
    );
    assert_eq!(site.get("/.env", &[HTML]).await.status, 404);
    assert_eq!(site.get("/hello.txt", &[HTML]).await.body, "hello, world");
}

#[tokio::test]
async fn what_is_not_there_is_404_by_the_sites_page_or_ours() {
    let mut site = Fixture::new();
    let ours = site.get("/nothing", &[]).await;
    assert_eq!(ours.status, 404);
    assert!(ours.body.contains("color-scheme"));
    assert_eq!(ours.header(CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(ours.header(CACHE_CONTROL), "no-cache");
    let head = site.ask(Method::HEAD, "/nothing", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (404, ""));
    assert_eq!(head.header(CONTENT_LENGTH), ours.header(CONTENT_LENGTH));

    site.write("www/lost.html", "lost");
    site.site.not_found = Some("lost.html".to_owned());
    let theirs = site
        .get(
            "/nothing",
            &[("if-none-match", "*"), ("range", "bytes=0-0")],
        )
        .await;
    assert_eq!((theirs.status, theirs.body.as_str()), (404, "lost"));
    assert_eq!(theirs.header(ETAG), "");
    assert_eq!(theirs.header(CACHE_CONTROL), "no-cache");
}

#[tokio::test]
async fn other_methods_are_refused_with_the_list() {
    let site = Fixture::new();
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::TRACE,
    ] {
        let answer = site.ask(method, "/hello.txt", &[]).await;
        assert_eq!(
            (answer.status, answer.header(ALLOW)),
            (405, "GET, HEAD, OPTIONS")
        );
    }
    let options = site.ask(Method::OPTIONS, "/hello.txt", &[]).await;
    assert_eq!(
        (options.status, options.header(ALLOW)),
        (204, "GET, HEAD, OPTIONS")
    );
    let head = site.ask(Method::HEAD, "/hello.txt", &[]).await;
    assert_eq!(
        (head.status, head.body.as_str(), head.header(CONTENT_LENGTH)),
        (200, "", "12")
    );
}

#[tokio::test]
async fn nothing_outside_the_root_is_reached() {
    let site = Fixture::new();
    for path in [
        "/../secret.txt",
        "/docs/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E/secret.txt",
        "/.%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/docs/%2e%2e/hello.txt",
        "/docs/../hello.txt",
        "/hello.txt%00",
        "/%00",
        "/hello.txt%00.html",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/%5cetc%5cpasswd",
        "/%252e%252e/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/%u002e/secret.txt",
        "/...//secret.txt",
        "/./hello.txt",
        "/proc/self/environ",
        "/docs%2findex.html",
    ] {
        let answer = site.get(path, &[HTML]).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains("secret"), "{path}");
    }
    let long = format!("/{}", "a".repeat(5000));
    assert_eq!(site.get(&long, &[]).await.status, 404);
}

#[tokio::test]
async fn links_are_followed_inside_the_root_only() {
    let site = Fixture::new();
    let link = |to: &Path, at: &str| symlink(to, site.path(at)).unwrap();
    link(&site.path("secret.txt"), "www/out.txt");
    link(Path::new("../secret.txt"), "www/relative.txt");
    link(site.folder.path(), "www/up");
    link(&site.path("secret.txt"), "www/hello.txt.gz");
    link(Path::new("loop"), "www/loop");
    link(Path::new("hello.txt"), "www/in.txt");
    for path in [
        "/out.txt",
        "/relative.txt",
        "/up/secret.txt",
        "/up/",
        "/up",
        "/loop",
    ] {
        assert_eq!(site.get(path, &[]).await.status, 404, "{path}");
    }
    let neighbour = site.get("/hello.txt", &[("accept-encoding", "gzip")]).await;
    assert!(!neighbour.body.contains("secret"));
    assert_eq!(neighbour.body, "hello, world");
    assert_eq!(site.get("/in.txt", &[]).await.body, "hello, world");
}

#[tokio::test(start_paused = true)]
async fn the_root_may_be_a_link_that_moves() {
    let mut site = Fixture::new();
    site.write("next/index.html", "next");
    let current = site.path("current");
    symlink(site.path("www"), &current).unwrap();
    site.site.root.clone_from(&current);
    let service = SiteService::new(&site.site).unwrap();
    let ask = || async {
        Answer::read(service.respond("/", HOST, Request::new(())).await)
            .await
            .body
    };
    assert_eq!(ask().await, "<h1>start</h1>");
    fs::remove_file(&current).unwrap();
    symlink(site.path("next"), &current).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ask().await, "next");
}

#[tokio::test]
async fn a_fifo_does_not_hold_a_request() {
    let site = Fixture::new();
    let made = std::process::Command::new("mkfifo")
        .arg(site.path("www/pipe"))
        .status();
    assert!(made.unwrap().success());
    assert_eq!(site.get("/pipe", &[]).await.status, 404);
}

#[tokio::test]
async fn hidden_files_are_a_choice_but_well_known_is_public() {
    let mut site = Fixture::new();
    assert_eq!(site.get("/.well-known/acme", &[]).await.body, "token");
    for path in [
        "/.env",
        "/.git/config",
        "/docs/.well-known/x",
        "/%2eenv",
        "/.well-known/.env",
    ] {
        assert_eq!(site.get(path, &[]).await.status, 404, "{path}");
    }
    site.site.dot_files = true;
    assert_eq!(site.get("/.git/config", &[]).await.body, "secret");
}

#[test]
fn a_site_that_cannot_be_served_is_a_problem() {
    let mut site = Fixture::new();
    site.site.fallback = Some("app.html".to_owned());
    assert!(site.refused().starts_with("there is no file app.html in "));
    site.site.fallback = Some("../secret.txt".to_owned());
    assert!(
        site.refused()
            .starts_with("`../secret.txt` does not name a file below ")
    );
    site.site.fallback = None;
    site.site.not_found = Some("docs".to_owned());
    assert!(site.refused().starts_with("there is no file docs in "));
    site.site.not_found = None;
    site.site.cache_control = Some("a\nb".to_owned());
    assert!(
        site.refused()
            .starts_with("`cache_control` is not a header value")
    );
    site.site.cache_control = None;
    site.site.index = "none.html".to_owned();
    assert!(SiteService::new(&site.site).is_ok());
    site.site.root = site.path("secret.txt");
    assert!(site.refused().contains("cannot be served: "));
}

#[tokio::test]
async fn the_sample_site_is_served() {
    let mut site = Fixture::new();
    site.site.root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/www");
    site.site.not_found = Some("404.html".to_owned());
    assert!(site.get("/", &[]).await.body.contains("/mqtt"));
    assert!(site.get("/nothing", &[]).await.body.contains("404"));
}
