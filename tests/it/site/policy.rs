//! What the operator decides: how long files are kept, headers, redirects, error pages, links.

use std::fs;
use std::os::unix::fs::symlink;

use http::Method;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::{Fixture, configured};

const HTML: (&str, &str) = ("accept", "text/html");

#[tokio::test]
async fn files_are_asked_about_each_time_unless_a_rule_says_how_long_they_keep() {
    let site = Fixture::with(
        "cache: [
           { files: \"*.{hash}.js\", value: \"max-age=31536000, immutable\" },
           { files: \"docs/**\", value: max-age=60 },
           { files: \"*.txt\", value: \"\" },
         ],",
    );
    site.write("www/app.3f2a1b9c.js", "1");
    site.write("www/docs/app.3f2a1b9c.js", "1");
    site.write("www/docs/deep/app.js", "1");
    for (path, expected) in [
        ("/", "no-cache"),
        ("/app.js", "no-cache"),
        ("/app.3f2a1b9c.js", "max-age=31536000, immutable"),
        ("/docs/app.3f2a1b9c.js", "max-age=31536000, immutable"),
        ("/docs/deep/app.js", "max-age=60"),
        ("/docs/", "max-age=60"),
        ("/hello.txt", ""),
        ("/nothing.3f2a1b9c.js", "no-cache"),
    ] {
        let answer = site.get(path, &[]).await;
        assert_eq!(answer.header(CACHE_CONTROL), expected, "{path}");
    }
    let known = site.get("/docs/", &[]).await;
    let again = [("if-none-match", known.header(ETAG))];
    let again = site.get("/docs/", &again).await;
    assert_eq!(
        (again.status, again.header(CACHE_CONTROL)),
        (304, "max-age=60")
    );
    let site = Fixture::with("cache_control: \"\",");
    assert_eq!(site.get("/", &[]).await.header(CACHE_CONTROL), "");
}

/// The application's page is not kept under the name that was asked for.
#[tokio::test]
async fn the_fallback_is_kept_as_the_file_that_it_is() {
    let site =
        Fixture::with("fallback: index.html, cache: [{ files: \"app/**\", value: max-age=60 }],");
    let answer = site.get("/app/orders", &[HTML]).await;
    assert_eq!(
        (answer.status, answer.header(CACHE_CONTROL)),
        (200, "no-cache")
    );
}

#[tokio::test]
async fn every_answer_has_safe_headers_and_the_operators_own() {
    let site = Fixture::new();
    let requests = [
        (Method::GET, "/", 200),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/docs", 301),
        (Method::POST, "/", 405),
        (Method::OPTIONS, "/", 204),
    ];
    for (method, path, status) in &requests {
        let answer = site.ask(method.clone(), path, &[]).await;
        assert_eq!(answer.status, *status);
        assert_eq!(answer.header(X_CONTENT_TYPE_OPTIONS), "nosniff");
        let referrer = answer.header(REFERRER_POLICY);
        assert_eq!(referrer, "strict-origin-when-cross-origin");
        assert_eq!(answer.header(X_FRAME_OPTIONS), "SAMEORIGIN");
        assert_eq!(answer.header(CONTENT_SECURITY_POLICY), "");
    }
    let site = Fixture::with(
        "headers: {
           Content-Security-Policy: \"default-src 'self'; frame-ancestors 'none'\",
           Referrer-Policy: no-referrer, X-Content-Type-Options: \"\", Permissions-Policy: \"camera=()\",
         },",
    );
    for (method, path, _) in &requests {
        let answer = site.ask(method.clone(), path, &[]).await;
        let policy = answer.header(CONTENT_SECURITY_POLICY);
        assert_eq!(policy, "default-src 'self'; frame-ancestors 'none'");
        let permissions = HeaderName::from_static("permissions-policy");
        assert_eq!(answer.header(permissions), "camera=()");
        assert_eq!(answer.header(REFERRER_POLICY), "no-referrer");
        assert_eq!(answer.header(X_CONTENT_TYPE_OPTIONS), "");
        // frame-ancestors says it.
        assert_eq!(answer.header(X_FRAME_OPTIONS), "");
    }
}

#[tokio::test]
async fn paths_that_have_moved_lead_to_where_they_are_now() {
    let site = Fixture::with(
        "redirects: [
           { from: /hello.txt, to: /new.txt, status: 301 },
           { from: /blog/2020/*, to: \"/archive/{rest}{query}\", status: 302 },
           { from: /blog/*, to: \"https://blog.example.com/{rest}{query}\" },
         ],",
    );
    for (path, status, to) in [
        ("/hello.txt", 301, "/new.txt"),
        ("/hello.txt?a=1", 301, "/new.txt"),
        ("/blog/2020/a%20b?x=1", 302, "/archive/a%20b?x=1"),
        ("/blog/2020//evil.example", 302, "/archive//evil.example"),
        ("/blog/", 308, "https://blog.example.com/"),
        ("/blog/a/b?c", 308, "https://blog.example.com/a/b?c"),
    ] {
        let answer = site.get(path, &[]).await;
        assert_eq!(
            (answer.status, answer.header(LOCATION)),
            (status, to),
            "{path}"
        );
        let head = site.ask(Method::HEAD, path, &[]).await;
        assert_eq!((head.status, head.header(LOCATION)), (status, to), "{path}");
        assert_eq!(head.header(CACHE_CONTROL), "max-age=60");
    }
    assert_eq!(site.get("/blog", &[]).await.status, 404);
    assert_eq!(site.ask(Method::POST, "/hello.txt", &[]).await.status, 405);
}

#[tokio::test]
async fn errors_have_the_operators_pages() {
    let mut site = Fixture::new();
    site.write("www/errors/405.html", "<h1>not so</h1>");
    site.site.error_pages = [(405, "errors/405.html".to_owned())].into();
    let answer = site.ask(Method::PUT, "/", &[]).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (405, "<h1>not so</h1>")
    );
    assert_eq!(answer.header(CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(answer.header(CACHE_CONTROL), "no-cache");
    assert_eq!(answer.header(CONTENT_LENGTH), "15");
    assert_eq!(answer.header(ALLOW), "GET, HEAD, OPTIONS");
    // It was read at start.
    let service = site.service();
    fs::remove_file(site.path("www/errors/405.html")).unwrap();
    let again = super::ask(&service, "/", Method::PUT, "/", &[]).await;
    assert_eq!(again.body, "<h1>not so</h1>");
    assert!(site.refused().contains("cannot be read: "));
    site.write("www/errors/405.html", "x".repeat(300_000));
    assert!(site.refused().contains("is larger than 256 KiB"));
}

#[tokio::test]
async fn links_are_followed_as_far_as_the_operator_says() {
    let mut site = Fixture::new();
    symlink(site.path("secret.txt"), site.path("www/out.txt")).unwrap();
    symlink("hello.txt", site.path("www/in.txt")).unwrap();
    symlink("docs", site.path("www/more")).unwrap();
    symlink(site.path("www"), site.path("current")).unwrap();
    site.site.root = site.path("current");
    let paths = ["/out.txt", "/in.txt", "/more/", "/hello.txt", "/docs/"];
    for (keys, expected) in [
        ("symlinks: none,", [404, 404, 404, 200, 200]),
        ("symlinks: inside,", [404, 200, 200, 200, 200]),
        ("symlinks: follow,", [200, 200, 200, 200, 200]),
    ] {
        site.site = configured(&site.path("current"), keys).unwrap();
        for (path, status) in paths.into_iter().zip(expected) {
            assert_eq!(site.get(path, &[]).await.status, status, "{keys} {path}");
        }
        // Not even those that lead anywhere lead out by the request's own path.
        assert_eq!(site.get("/../secret.txt", &[]).await.status, 404);
    }
}
