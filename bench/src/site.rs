//! Files of a web site: wrk asks for them over HTTP/1.1, h2load over HTTP/2. Both are public, so nobody need trust ours.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::{fs, str};

use crate::accounts::Span;
use crate::load::{Measured, Place, Times};

/// Connections, and over HTTP/2 requests at a time on each.
const CONNECTIONS: &str = "50";
const STREAMS: &str = "8";

#[derive(Clone, Copy, PartialEq)]
pub enum Version {
    Http1,
    Http2,
}

/// A file of so many bytes that no compression makes smaller.
pub fn make_file(folder: &Path, bytes: usize) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(bytes)
    .collect();
    let folder = folder.join("www");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name(bytes)), noise)
}

fn name(bytes: usize) -> String {
    format!("{}k.bin", bytes >> 10)
}

pub fn requests(
    bytes: usize,
    version: Version,
    place: &Place,
    times: Times,
) -> crate::Result<Measured> {
    ask(bytes, version, place.gateway, times.warm_up)?;
    let span = Span::begin(&place.family, place.broker);
    let asked = ask(bytes, version, place.gateway, times.seconds)?;
    Ok(Measured {
        units: asked.answered,
        spent: span.end(),
        latency: None,
        amiss: asked.amiss,
    })
}

#[derive(Debug, Default, PartialEq)]
struct Asked {
    answered: u64,
    amiss: u64,
}

fn ask(bytes: usize, version: Version, gateway: SocketAddr, seconds: f64) -> crate::Result<Asked> {
    // wrk counts whole seconds.
    let seconds = seconds.ceil().max(1.0).to_string();
    let url = format!("https://{gateway}/{}", name(bytes));
    let (program, arguments) = match version {
        Version::Http1 => (
            "wrk",
            ["-t", "1", "-c", CONNECTIONS, "-d", &seconds, &url].to_vec(),
        ),
        Version::Http2 => (
            "h2load",
            [
                "-t",
                "1",
                "-c",
                CONNECTIONS,
                "-m",
                STREAMS,
                "-D",
                &seconds,
                &url,
            ]
            .to_vec(),
        ),
    };
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not installed: `make bench` does it"),
        _ => format!("cannot start {program}: {error}"),
    })?;
    let said = str::from_utf8(&output.stdout)?;
    let asked = match version {
        Version::Http1 => wrk(said),
        Version::Http2 => h2load(said),
    };
    asked.ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("{program} told no figures:\n{said}{complaint}").into()
    })
}

fn wrk(said: &str) -> Option<Asked> {
    let mut asked = Asked::default();
    for line in said.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [count, "requests", "in", ..] => asked.answered = count.parse().ok()?,
            // Counted among the requests.
            ["Non-2xx", .., count] => asked.amiss += count.parse::<u64>().ok()?,
            ["Socket", "errors:", ref kinds @ ..] => {
                let counts = kinds.iter().map(|word| word.trim_end_matches(','));
                let counts = counts.filter_map(|word| word.parse::<u64>().ok());
                asked.amiss += counts.sum::<u64>();
            }
            _ => {}
        }
    }
    (asked.answered > 0).then_some(asked)
}

fn h2load(said: &str) -> Option<Asked> {
    let mut asked = Asked::default();
    for line in said.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [
                "status",
                "codes:",
                good,
                "2xx,",
                other,
                "3xx,",
                wrong,
                "4xx,",
                failed,
                "5xx",
            ] => {
                asked.answered = good.parse().ok()?;
                for count in [other, wrong, failed] {
                    asked.amiss += count.parse::<u64>().ok()?;
                }
            }
            [
                "requests:",
                ..,
                failed,
                "failed,",
                errored,
                "errored,",
                timed_out,
                "timeout",
            ] => {
                // What is errored or timed out is failed as well.
                let _ = (errored, timed_out);
                asked.amiss += failed.parse::<u64>().ok()?;
            }
            _ => {}
        }
    }
    (asked.answered > 0).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_wrk_and_h2load_tell_them() {
        let said = "Running 1s test @ https://127.0.0.1:1/1k.bin\n  1 threads and 50 connections\n\
             \x20 4321 requests in 1.10s, 5.57MB read\n  Socket errors: connect 0, read 2, write 0, timeout 1\n\
             \x20 Non-2xx or 3xx responses: 7\nRequests/sec:   4286.00\n";
        let (answered, amiss) = (4321, 10);
        assert_eq!(wrk(said), Some(Asked { answered, amiss }));
        let said = "finished in 1.00s, 2332.00 req/s, 2.30MB/s\n\
             requests: 2340 total, 2740 started, 2332 done, 2330 succeeded, 3 failed, 2 errored, 0 timeout\n\
             status codes: 2330 2xx, 0 3xx, 2 4xx, 0 5xx\n";
        let (answered, amiss) = (2330, 5);
        assert_eq!(h2load(said), Some(Asked { answered, amiss }));
        assert_eq!(wrk("unable to connect"), None);
    }
}
