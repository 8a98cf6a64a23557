//! httplint, which is REDbot's judgement, finds nothing to say against any answer of a site.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::process::Process;
use crate::support::tools;

use super::Fixture;

const DEADLINE: Duration = Duration::from_secs(60);

const APP: &str = "https://app.example.com";

/// Everything that a browser and a cache ask of a file.
fn of_a_file(path: &str) -> Vec<Value> {
    let asked = |method: &str, status: u16, headers: Value| json!({ "method": method, "path": path, "status": status, "headers": headers });
    let mut requests = vec![
        asked("GET", 200, json!({})),
        asked("HEAD", 200, json!({})),
        asked("OPTIONS", 204, json!({})),
        asked("POST", 405, json!({ "Content-Length": "0" })),
        asked("GET", 304, json!({ "If-None-Match": "ETAG" })),
        asked("HEAD", 304, json!({ "If-None-Match": "W/ETAG, \"x\"" })),
        asked("GET", 304, json!({ "If-Modified-Since": "LAST-MODIFIED" })),
        asked("GET", 200, json!({ "If-Match": "ETAG" })),
        asked("GET", 412, json!({ "If-Match": "\"other\"" })),
        asked("GET", 206, json!({ "Range": "bytes=1-3" })),
        asked(
            "GET",
            206,
            json!({ "Range": "bytes=-2", "If-Range": "ETAG" }),
        ),
        asked(
            "GET",
            200,
            json!({ "Range": "bytes=1-3", "If-Range": "\"other\"" }),
        ),
        asked("GET", 416, json!({ "Range": "bytes=99999999-" })),
        asked("GET", 200, json!({ "Origin": APP })),
    ];
    for accepted in ["gzip", "gzip, deflate, br, zstd", "identity;q=0.1, gzip"] {
        for method in ["GET", "HEAD"] {
            requests.push(asked(method, 200, json!({ "Accept-Encoding": accepted })));
        }
    }
    requests
}

#[tokio::test]
async fn httplint_has_nothing_to_say() {
    let site = Fixture::new();
    site.write("www/style.3f2a1b9c.css", "p { margin: 0 }\n".repeat(300));
    site.write("www/data.bin", vec![7; 400_000]);
    site.write(
        "www/lost.html",
        "<!doctype html><title>lost</title>\n".repeat(60),
    );
    let root = site.path("www");
    let yaml = format!(
        "
tls: {{ hsts: {{ max_age: 365d, include_subdomains: true, preload: true }} }}
routes:
  - path: /plain
    site: {{ root: {root:?} }}
  - path: /
    site:
      root: {root:?}
      not_found: lost.html
      cache: [{{ files: \"*.{{hash}}.*\", value: \"max-age=31536000, immutable\" }}]
      headers: {{ Content-Security-Policy: \"default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'\" }}
      redirects: [{{ from: /moved, to: /hello.txt }}]
      cors: {{ origins: [\"{APP}\"], expose: [etag] }}
"
    );
    let gateway = Gateway::start(&yaml).await;
    let mut requests = Vec::new();
    let files = [
        "/",
        "/hello.txt",
        "/style.3f2a1b9c.css",
        "/data.bin",
        "/docs/",
    ];
    requests.extend(files.into_iter().flat_map(of_a_file));
    requests.extend(of_a_file("/plain/hello.txt"));
    for (path, status) in [
        ("/moved", 308),
        ("/docs", 301),
        ("/nothing", 404),
        ("/.env", 404),
        ("/plain/nothing", 404),
    ] {
        for headers in [json!({}), json!({ "Accept-Encoding": "gzip" })] {
            for method in ["GET", "HEAD"] {
                requests.push(
                    json!({ "method": method, "path": path, "status": status, "headers": headers }),
                );
            }
        }
    }
    let preflight = json!({ "Origin": APP, "Access-Control-Request-Method": "GET" });
    requests.push(json!({ "method": "OPTIONS", "path": "/", "status": 204, "headers": preflight }));
    let file = site.path("requests.json");
    std::fs::write(&file, serde_json::to_vec(&requests).unwrap()).unwrap();
    let mut command = Command::new(tools::python());
    command
        .arg(tools::client("lint_site.py"))
        .args(["--url", &format!("https://127.0.0.1:{}", gateway.port())])
        .arg("--ca")
        .arg(gateway.ca_file())
        .arg("--requests")
        .arg(&file);
    let finished = Process::start(&command).finish(DEADLINE).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    let mut lines: Vec<&str> = finished.stdout.lines().collect();
    let summary: Value = serde_json::from_str(lines.pop().unwrap()).unwrap();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert_eq!(summary["answers"], requests.len());
    assert_eq!(summary["wrong"], 0);
    // It has looked: validators, freshness and the like are worth a word of praise.
    assert!(summary["good"].as_u64().unwrap() > 0, "{summary}");
}
