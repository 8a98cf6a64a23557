//! Text that is compressed here, for clients that take it.

use std::io::Read;
use std::time::Duration;

use http::Method;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY,
};
use tokio::time::advance;

use super::{Answer, Fixture, ask, get};

const GZIP: (&str, &str) = ("accept-encoding", "gzip, deflate");

/// What compresses well.
fn text(length: usize) -> String {
    let line = "All work and no play makes a gateway dull.\n";
    let mut text = line.repeat(length / line.len() + 1);
    text.truncate(length);
    text
}

/// What does not.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

fn unpacked(answer: &Answer) -> String {
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&answer.bytes[..]);
    decoder.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn text_is_compressed_once_with_a_tag_of_its_own() {
    let site = Fixture::new();
    let long = text(50_000);
    site.write("www/long.css", &long);
    let service = site.service();
    let plain = get(&service, "/long.css", &[]).await;
    let packed = get(&service, "/long.css", &[GZIP]).await;
    assert_eq!((plain.header(CONTENT_ENCODING), &plain.body), ("", &long));
    assert_eq!(packed.header(CONTENT_ENCODING), "gzip");
    assert_eq!(unpacked(&packed), long);
    assert!(packed.bytes.len() < 5000);
    assert_eq!(
        packed.header(CONTENT_LENGTH),
        packed.bytes.len().to_string()
    );
    assert_eq!(packed.header(CONTENT_TYPE), "text/css; charset=utf-8");
    let tag = packed.header(ETAG);
    assert!(tag.starts_with('"') && tag != plain.header(ETAG));
    assert_eq!(packed.header(LAST_MODIFIED), plain.header(LAST_MODIFIED));
    for answer in [&plain, &packed] {
        assert_eq!(answer.header(VARY), "Accept-Encoding");
    }
    // The same bytes from another replica, or after a restart.
    let again = site.get("/long.css", &[GZIP]).await;
    assert_eq!((again.header(ETAG), &again.bytes), (tag, &packed.bytes));
    let known = get(&service, "/long.css", &[GZIP, ("if-none-match", tag)]).await;
    assert_eq!((known.status, known.header(ETAG)), (304, tag));
    let other = get(&service, "/long.css", &[("if-none-match", tag)]).await;
    assert_eq!(other.status, 200);
    let head = ask(&service, "/", Method::HEAD, "/long.css", &[GZIP]).await;
    for name in [CONTENT_ENCODING, CONTENT_LENGTH, ETAG, CONTENT_TYPE] {
        assert_eq!(head.header(name.clone()), packed.header(name));
    }
    assert!(head.bytes.is_empty());
}

/// It is there whole, so a part of it is as good as a part of any file.
#[tokio::test]
async fn a_range_is_one_of_the_bytes_that_were_sent_before() {
    let site = Fixture::new();
    site.write("www/long.css", text(50_000));
    let service = site.service();
    let whole = get(&service, "/long.css", &[GZIP]).await;
    let headers = [
        GZIP,
        ("range", "bytes=5-9"),
        ("if-range", whole.header(ETAG)),
    ];
    let part = get(&service, "/long.css", &headers).await;
    assert_eq!((part.status, &part.bytes[..]), (206, &whole.bytes[5..10]));
    let expected = format!("bytes 5-9/{}", whole.bytes.len());
    assert_eq!(part.header(CONTENT_RANGE), expected);
    // Of the plain one, for who has begun with that.
    let headers = [("range", "bytes=5-9"), ("if-range", whole.header(ETAG))];
    let other = get(&service, "/long.css", &headers).await;
    assert_eq!((other.status, other.bytes.len()), (200, 50_000));
}

#[tokio::test]
async fn what_is_not_worth_it_is_sent_as_it_is() {
    let site = Fixture::new();
    let long = text(50_000);
    site.write("www/short.css", text(1000));
    site.write("www/photo.jpg", &long);
    site.write("www/font.woff2", &long);
    site.write("www/archive.zip", &long);
    site.write("www/unknown", &long);
    site.write("www/noise.txt", noise(50_000));
    for path in [
        "/short.css",
        "/photo.jpg",
        "/font.woff2",
        "/archive.zip",
        "/unknown",
        "/noise.txt",
    ] {
        let answer = site.get(path, &[GZIP]).await;
        assert_eq!(
            (answer.status, answer.header(CONTENT_ENCODING)),
            (200, ""),
            "{path}"
        );
    }
    for name in [
        "a.svg",
        "a.json",
        "a.wasm",
        "a.webmanifest",
        "a.html",
        "a.js",
        "a.ttf",
    ] {
        site.write(&format!("www/{name}"), &long);
        let answer = site.get(&format!("/{name}"), &[GZIP]).await;
        assert_eq!(answer.header(CONTENT_ENCODING), "gzip", "{name}");
    }
}

#[tokio::test]
async fn who_does_not_take_gzip_gets_none() {
    let site = Fixture::new();
    site.write("www/long.css", text(50_000));
    for (accepted, expected) in [
        ("br", ""),
        ("gzip;q=0", ""),
        ("identity, gzip;q=0.5", ""),
        ("*;q=0", ""),
        ("br, gzip;q=0.1", "gzip"),
        ("*", "gzip"),
    ] {
        let answer = site
            .get("/long.css", &[("accept-encoding", accepted)])
            .await;
        assert_eq!(answer.header(CONTENT_ENCODING), expected, "{accepted}");
    }
}

#[tokio::test]
async fn a_file_that_was_compressed_beforehand_wins() {
    let site = Fixture::new();
    site.write("www/long.css", text(50_000));
    site.write("www/long.css.br", "brotli");
    let answer = site
        .get("/long.css", &[("accept-encoding", "gzip, br")])
        .await;
    assert_eq!(
        (answer.header(CONTENT_ENCODING), answer.body.as_str()),
        ("br", "brotli")
    );
    let answer = site
        .get("/long.css", &[("accept-encoding", "gzip, br;q=0.1")])
        .await;
    assert_eq!(answer.header(CONTENT_ENCODING), "br");
    assert_eq!(
        site.get("/long.css", &[GZIP])
            .await
            .header(CONTENT_ENCODING),
        "gzip"
    );
}

#[tokio::test]
async fn files_over_the_memory_limit_of_small_ones_are_compressed_too() {
    let site = Fixture::new();
    let long = text(3_000_000);
    site.write("www/bundle.js", &long);
    let service = site.service();
    let answer = get(&service, "/bundle.js", &[GZIP]).await;
    assert_eq!(answer.header(CONTENT_ENCODING), "gzip");
    assert!(unpacked(&answer) == long);
    assert!(get(&service, "/bundle.js", &[]).await.body == long);
}

#[tokio::test]
async fn it_can_be_turned_off_and_takes_no_memory_that_there_is_not() {
    for keys in ["compress: false,", "memory: 0,", "memory: 32KiB,"] {
        let site = Fixture::with(keys);
        site.write("www/long.css", text(50_000));
        let service = site.service();
        for _ in 0..2 {
            let answer = get(&service, "/long.css", &[GZIP]).await;
            assert_eq!(
                (answer.status, answer.header(CONTENT_ENCODING)),
                (200, ""),
                "{keys}"
            );
        }
        let beside = get(&service, "/app.js", &[GZIP]).await;
        assert_eq!(beside.body, "gz", "{keys}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_compressed_anew() {
    let site = Fixture::new();
    site.write("www/long.css", text(50_000));
    let service = site.service();
    let old = get(&service, "/long.css", &[GZIP]).await;
    site.write("www/long.css", text(60_000));
    advance(Duration::from_secs(1)).await;
    let new = get(&service, "/long.css", &[GZIP]).await;
    assert_eq!(unpacked(&new), text(60_000));
    assert_ne!(new.header(ETAG), old.header(ETAG));
}

#[tokio::test]
async fn an_error_page_is_compressed_like_any_file() {
    let site = Fixture::with("not_found: lost.html,");
    site.write("www/lost.html", text(5000));
    let answer = site.get("/nothing", &[GZIP]).await;
    assert_eq!(
        (answer.status, answer.header(CONTENT_ENCODING)),
        (404, "gzip")
    );
    assert_eq!(unpacked(&answer), text(5000));
}
