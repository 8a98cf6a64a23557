//! The path that the application is asked for, and the places it sends clients to.

use super::{ask, field};
use crate::support::client::tls;
use crate::support::gateway::Gateway;
use crate::support::raw_http::Request;
use crate::support::scripted::{Scripted, with_body};

#[tokio::test]
async fn the_routes_path_is_kept_taken_off_or_exchanged() {
    for (rule, asked, got) in [
        ("keep", "/api/a%20b?c=%2F", "/api/a%20b?c=%2F"),
        ("strip", "/api/a%20b?c=%2F", "/a%20b?c=%2F"),
        ("strip", "/api", "/"),
        ("/v2/", "/api/a", "/v2/a"),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route_with(&format!("path: {rule}"))).await;
        let (_, head) = ask(
            &gateway,
            &application,
            &Request::get(asked),
            &with_body("200 OK", ""),
        )
        .await;
        assert!(
            head.starts_with(&format!("GET {got} HTTP/1.1\r\n")),
            "{rule}: {head}"
        );
        let prefix = (rule != "keep").then_some("/api");
        assert_eq!(field(&head, "x-forwarded-prefix"), prefix, "{rule}");
    }
}

#[tokio::test]
async fn clients_are_sent_to_places_that_they_can_reach() {
    for (more, place, expected) in [
        ("path: strip", "/login?next=/", "/api/login?next=/"),
        ("path: strip", "/api/login", "/api/login"),
        ("path: keep", "/login", "/login"),
        ("path: keep", "relative", "relative"),
        (
            "path: keep",
            "https://other.example/a",
            "https://other.example/a",
        ),
        (
            "path: strip, host: application",
            "http://{own}/a#b",
            "/api/a#b",
        ),
        ("path: keep, host: application", "http://{own}/a", "/a"),
        (
            "path: keep, host: client",
            "http://localhost/a",
            "http://localhost/a",
        ),
        (
            "path: strip, host: client",
            "https://LOCALHOST:443/login?a#b",
            "https://LOCALHOST:443/api/login?a#b",
        ),
        (
            "path: strip, host: app.internal",
            "https://app.internal:443/login",
            "/api/login",
        ),
        ("path: strip", "//other.example/a", "//other.example/a"),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route_with(more)).await;
        let place = place.replace("{own}", &application.authority());
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n");
        let (answer, _) = ask(&gateway, &application, &Request::get("/api"), &answer).await;
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("location"), Some(expected), "{more} {place}");
    }
}

#[tokio::test]
async fn a_path_that_climbs_out_of_its_route_reaches_nobody() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    for path in [
        "/api/../admin",
        "/api/%2e%2e/admin",
        "/api/..%2fadmin",
        "/api/x/..",
        "/api/..;/a",
    ] {
        let answer = Request::get(path).ask(&mut tls(&gateway).await).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.body.contains(".."), "{}", answer.body);
    }
    assert!(application.is_left_alone().await);
}
