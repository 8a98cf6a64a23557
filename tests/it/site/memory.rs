//! What is kept in memory: how soon a change is seen, that it stays within its bound, and large files, which are not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use http::{Method, Request};
use http_body_util::BodyExt;
use tokio::time::advance;

use super::{Fixture, HOST, ask, configured, get, set_age};

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

/// When a file is looked at again.
const VALID: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_change_is_seen_after_a_second_and_not_before() {
    let site = Fixture::new();
    let service = site.service();
    let first = get(&service, "/hello.txt", &[]).await;
    // What a deployment does: the new file takes the place of the old one.
    let next = site.write("www/next", "HELLO, WORLD");
    fs::rename(next, site.path("www/hello.txt")).unwrap();
    advance(VALID / 2).await;
    assert_eq!(get(&service, "/hello.txt", &[]).await.body, first.body);
    advance(VALID / 2).await;
    let second = get(&service, "/hello.txt", &[]).await;
    assert_eq!(second.body, "HELLO, WORLD");
    assert_ne!(second.header(ETAG), first.header(ETAG));
    // In place, of the same length and with the same date.
    site.write("www/hello.txt", "hello, again");
    advance(VALID).await;
    assert_eq!(get(&service, "/hello.txt", &[]).await.body, "hello, again");
    fs::remove_file(site.path("www/hello.txt")).unwrap();
    advance(VALID).await;
    assert_eq!(get(&service, "/hello.txt", &[]).await.status, 404);
    site.write("www/hello.txt", "back");
    assert_eq!(get(&service, "/hello.txt", &[]).await.body, "back");
}

#[tokio::test(start_paused = true)]
async fn a_file_beside_is_seen_when_it_comes_and_when_it_goes() {
    let site = Fixture::new();
    let service = site.service();
    let ask = || get(&service, "/hello.txt", &[GZIP]);
    assert_eq!(ask().await.header(CONTENT_ENCODING), "");
    let beside = site.write("www/hello.txt.gz", "squeezed");
    advance(VALID).await;
    let answer = ask().await;
    assert_eq!(answer.header(CONTENT_ENCODING), "gzip");
    assert_eq!(answer.body, "squeezed");
    fs::remove_file(beside).unwrap();
    advance(VALID).await;
    assert_eq!(ask().await.body, "hello, world");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_becomes_a_file_and_an_index_that_changes_are_seen() {
    let site = Fixture::new();
    let service = site.service();
    assert_eq!(get(&service, "/docs/", &[]).await.body, "<h1>docs</h1>");
    site.write("www/docs/index.html", "<h1>more</h1>");
    advance(VALID).await;
    assert_eq!(get(&service, "/docs/", &[]).await.body, "<h1>more</h1>");
    fs::remove_dir_all(site.path("www/docs")).unwrap();
    site.write("www/docs", "a file");
    advance(VALID).await;
    assert_eq!(get(&service, "/docs/", &[]).await.status, 404);
    assert_eq!(get(&service, "/docs", &[]).await.body, "a file");
}

/// Files that have been as they are for long: what their dates say is believed, so it must be asked of the right file.
#[tokio::test(start_paused = true)]
async fn a_link_that_leads_to_another_old_file_is_seen() {
    let mut site = Fixture::new();
    site.site = configured(&site.path("www"), "symlinks: follow,").unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/www");
    let link = site.path("www/link.html");
    let service = site.service();
    for name in ["index.html", "404.html", "index.html"] {
        drop(fs::remove_file(&link));
        symlink(sample.join(name), &link).unwrap();
        advance(VALID).await;
        let expected = fs::read_to_string(sample.join(name)).unwrap();
        for _ in 0..3 {
            assert!(
                get(&service, "/link.html", &[]).await.body == expected,
                "{name}"
            );
            advance(VALID).await;
        }
    }
}

#[tokio::test]
async fn an_etag_is_of_the_bytes_and_not_of_the_dates() {
    let site = Fixture::new();
    let tag = site.get("/hello.txt", &[]).await.header(ETAG).to_owned();
    let copy = site.write("www/copy.txt", "hello, world");
    set_age(&copy, Duration::from_secs(5));
    assert_eq!(site.get("/copy.txt", &[]).await.header(ETAG), tag);
    let other = site.write("www/other.txt", "hello, World");
    let date = fs::metadata(site.path("www/hello.txt")).unwrap().modified();
    let file = fs::File::options().append(true).open(other).unwrap();
    file.set_modified(date.unwrap()).unwrap();
    assert_ne!(site.get("/other.txt", &[]).await.header(ETAG), tag);
}

/// Reproducible builds set all dates to the beginning of time: a validator that never changes would keep old files for ever.
#[tokio::test]
async fn a_date_that_means_nothing_is_not_told() {
    let site = Fixture::new();
    let path = site.write("www/built.txt", "built");
    let file = fs::File::options().append(true).open(&path).unwrap();
    for date in [
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        SystemTime::now() + Duration::from_secs(3600),
    ] {
        file.set_modified(date).unwrap();
        let answer = site.get("/built.txt", &[]).await;
        assert_eq!(answer.header(LAST_MODIFIED), "");
        assert_ne!(answer.header(ETAG), "");
    }
}

fn large() -> Vec<u8> {
    (0..1_000_003_u32).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn a_large_file_is_sent_whole_and_in_parts() {
    let site = Fixture::new();
    let bytes = large();
    site.write("www/film.mp4", &bytes);
    let service = site.service();
    let whole = get(&service, "/film.mp4", &[]).await;
    assert_eq!(whole.status, 200);
    assert!(whole.bytes == bytes);
    assert_eq!(whole.header(CONTENT_LENGTH), "1000003");
    let tag = whole.header(ETAG);
    for (range, from, to) in [
        ("bytes=0-", 0, 1_000_003),
        ("bytes=65535-65537", 65_535, 65_538),
        ("bytes=-70000", 930_003, 1_000_003),
    ] {
        let headers = [("range", range), ("if-range", tag)];
        let part = get(&service, "/film.mp4", &headers).await;
        assert_eq!(part.status, 206, "{range}");
        assert!(part.bytes == bytes[from..to], "{range}");
        let expected = format!("bytes {from}-{}/1000003", to - 1);
        assert_eq!(part.header(CONTENT_RANGE), expected);
    }
    let head = ask(&service, "/", Method::HEAD, "/film.mp4", &[]).await;
    assert_eq!(head.header(CONTENT_LENGTH), "1000003");
    assert!(head.bytes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_large_file_that_is_replaced_is_sent_as_it_was_to_who_has_begun() {
    let site = Fixture::new();
    let old = large();
    site.write("www/film.mp4", &old);
    let service = site.service();
    let request = || Request::builder().uri("/film.mp4").body(()).unwrap();
    let mut begun = service.respond("/", HOST, request()).await.into_body();
    let mut received = begun
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap()
        .to_vec();
    let new = vec![7; 900_000];
    let next = site.write("www/next", &new);
    fs::rename(next, site.path("www/film.mp4")).unwrap();
    received.extend_from_slice(&begun.collect().await.unwrap().to_bytes());
    assert!(received == old);
    advance(VALID).await;
    assert!(get(&service, "/film.mp4", &[]).await.bytes == new);
}

#[tokio::test]
async fn a_large_file_that_shrinks_while_it_is_sent_ends_the_answer() {
    let site = Fixture::new();
    let path = site.write("www/film.mp4", large());
    let service = site.service();
    let request = Request::builder().uri("/film.mp4").body(()).unwrap();
    let body = service.respond("/", HOST, request).await.into_body();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(100_000).unwrap();
    let error = body.collect().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

/// With room for a few files only, and with none, everything is served all the same.
#[tokio::test]
async fn more_files_than_there_is_memory_for_are_served() {
    for memory in ["0", "64KiB", "16MiB"] {
        let site = Fixture::with(&format!("memory: {memory},"));
        let service = site.service();
        for round in 0..3 {
            for number in 0..40 {
                let text = format!("{number} ").repeat(2000);
                if round == 0 {
                    site.write(&format!("www/{number}.txt"), &text);
                }
                let answer = get(&service, &format!("/{number}.txt"), &[]).await;
                assert!(answer.body == text, "{memory} {round} {number}");
            }
        }
    }
}

#[tokio::test]
async fn many_at_once_are_answered_with_the_same() {
    let site = Fixture::new();
    let service = Arc::new(site.service());
    let asking: Vec<_> = (0..500)
        .map(|_| {
            let service = Arc::clone(&service);
            async move { get(&service, "/hello.txt", &[]).await.body }
        })
        .collect();
    for body in futures_util::future::join_all(asking).await {
        assert_eq!(body, "hello, world");
    }
}
