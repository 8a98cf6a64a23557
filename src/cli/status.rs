//! `tidegate status` and `tidegate healthcheck`: what a running gateway says of itself, for a terminal, a script and a
//! container's supervisor.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::ask::{Silence, Whom, ask};
use super::status_table::{Colour, table};
use crate::admin::report::{Report, SCHEMA};

/// It answers and takes no new clients.
const NOT_READY: u8 = 3;

/// From one look to the next.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    whom: Whom,
    /// Again every second, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// As it comes from /status.json (docs/status.md); with --watch a line a second
    #[arg(long)]
    json: bool,
}

/// Exit code 0: ready; 1: no answer; 3: not ready.
pub(super) fn status(options: &Options) -> ExitCode {
    let address = match options.whom.address() {
        Ok(address) => address,
        Err(silence) => return silent(&silence),
    };
    if !options.watch {
        return match look(address, options.json) {
            Ok(shown) => {
                let text = with_newline(shown.text);
                match say(&text) {
                    Ok(()) => shown.code,
                    Err(error) => super::failed(&error),
                }
            }
            Err(silence) => silent(&silence),
        };
    }
    loop {
        let text = match look(address, options.json) {
            Ok(shown) => with_newline(shown.text),
            Err(Silence::Nobody { address, error }) if !options.json => {
                format!("nothing answers on {address}: {error}\n")
            }
            // A reader of lines gets a line a look or none.
            Err(Silence::Nobody { .. }) => String::new(),
            Err(silence) => return silent(&silence),
        };
        let clear = match io::stdout().is_terminal() && !options.json {
            true => "\x1b[H\x1b[2J",
            false => "",
        };
        // A pipe whose reader has gone is how `| head` ends this.
        if say(&format!("{clear}{text}")).is_err() {
            return ExitCode::SUCCESS;
        }
        #[expect(clippy::disallowed_methods, reason = "no runtime is here to block")]
        std::thread::sleep(INTERVAL);
    }
}

struct Shown {
    text: String,
    code: ExitCode,
}

fn look(address: SocketAddr, json: bool) -> Result<Shown, Silence> {
    let (code, body) = ask(address, "/status.json")?;
    let report: Report = match serde_json::from_str(&body) {
        Ok(report) if code == 200 => report,
        _ => return Err(Silence::Stranger(address)),
    };
    if report.schema != SCHEMA {
        let (theirs, ours) = (&report.version, env!("CARGO_PKG_VERSION"));
        tracing::debug!(theirs, ours, "another form of status.json");
    }
    let code = match report.state.as_str() {
        "ready" => ExitCode::SUCCESS,
        _ => ExitCode::from(NOT_READY),
    };
    let colour = match io::stdout().is_terminal() && !no_colour() {
        true => Colour::On,
        false => Colour::Off,
    };
    let text = match json {
        true => body,
        false => table(&report, colour),
    };
    Ok(Shown { text, code })
}

/// <https://no-color.org>: set to anything but nothing.
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn with_newline(text: String) -> String {
    format!("{}\n", text.trim_end())
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Exit code 0 when the gateway takes new clients, else 1: what HEALTHCHECK of a container knows.
pub(super) fn healthcheck(whom: &Whom) -> ExitCode {
    let asked = whom.address().and_then(|address| ask(address, "/readyz"));
    match asked {
        Ok((200, _)) => ExitCode::SUCCESS,
        Ok((_, said)) => super::failed(&said.trim_end()),
        Err(silence) => {
            silent(&silence);
            // A container's supervisor knows 0 and 1 only.
            ExitCode::FAILURE
        }
    }
}

fn silent(silence: &Silence) -> ExitCode {
    match silence {
        Silence::Configuration(problems) => super::bad_config(problems),
        other => super::failed(other),
    }
}
