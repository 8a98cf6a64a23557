//! The page that `make bench` writes: tables of everything measured, and how to read them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::chart;
use crate::gateways::Kind;
use crate::results::{QUIET, Results, Spread};
use crate::rows::{ROWS, Row};

/// With fewer quiet rounds the figures are no more than a hint.
const ENOUGH_ROUNDS: usize = 3;

/// Writes benchmark.md and benchmark.svg.
pub fn render(file: &Path, out: &Path) -> crate::Result<()> {
    let results = Results::read(file)?;
    fs::create_dir_all(out)?;
    fs::write(out.join("benchmark.md"), page(&results)?)?;
    fs::write(out.join("benchmark.svg"), chart::draw(&results)?)?;
    eprintln!("{0}/benchmark.md, {0}/benchmark.svg", out.display());
    Ok(())
}

fn page(results: &Results) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    let setting = &results.setting;
    writeln!(
        page,
        "<!-- Written by `make bench`: change bench/src/page.rs instead. -->\n\
         # Benchmark\n\n\
         Tidegate, nginx and HAProxy side by side, each on one core, with TLS 1.3 towards clients, on {}.\n\
         `make bench` repeats it on any Debian or Ubuntu with two cores, in under half an hour.\n\n\
         ![CPU and memory relative to nginx](benchmark.svg)\n",
        setting.date
    )?;
    let hints: Vec<_> = measured(results)
        .filter(|row| row.id != "idle" && results.quiet_rounds(row.id).len() < ENOUGH_ROUNDS)
        .map(|row| row.title)
        .collect();
    if !hints.is_empty() {
        writeln!(
            page,
            "**A hint, no more**, since there were fewer than {ENOUGH_ROUNDS} rounds without other work on the machine: {}.\n",
            hints.join("; ")
        )?;
    }
    costs(&mut page, results)?;
    latency(&mut page, results)?;
    memory(&mut page, results)?;
    disturbance(&mut page, results)?;
    reading(&mut page, results)?;
    Ok(page)
}

fn kinds(results: &Results) -> Vec<Kind> {
    let there = |kind: &Kind| results.runs.iter().any(|run| run.gateway == *kind);
    Kind::ALL.into_iter().filter(there).collect()
}

fn head(page: &mut String, first: &[&str], kinds: &[Kind]) -> std::fmt::Result {
    let names = first
        .iter()
        .copied()
        .chain(kinds.iter().map(|kind| kind.name()));
    let names: Vec<_> = names.collect();
    writeln!(
        page,
        "| {} |\n|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    )
}

fn costs(page: &mut String, results: &Results) -> std::fmt::Result {
    let kinds = kinds(results);
    writeln!(
        page,
        "## What one of each costs\n\n**Least** / median / most of {} rounds, without those in which the machine had other work.\n",
        results.setting.rounds
    )?;
    head(page, &["", "unit"], &kinds)?;
    for row in measured(results) {
        write!(page, "| {} | {} |", row.title, row.unit.name())?;
        for kind in &kinds {
            match results.figure(row.id, *kind) {
                Some(it) if it.least == it.most => write!(page, " **{}** |", figure(it.least))?,
                Some(it) => {
                    let [least, median, most] = [it.least, it.median, it.most].map(figure);
                    write!(page, " **{least}** / {median} / {most} |")?;
                }
                None => write!(page, " – |")?,
            }
        }
        writeln!(page)?;
    }
    let others: Vec<_> = kinds
        .iter()
        .copied()
        .filter(|kind| *kind != Kind::Nginx)
        .collect();
    writeln!(
        page,
        "\nThe same as a part of nginx': least ÷ least (median of the rounds).\n"
    )?;
    head(page, &[""], &others)?;
    for row in measured(results) {
        write!(page, "| {} |", row.title)?;
        for kind in &others {
            match results.ratio(row.id, *kind) {
                Some((least, median)) => write!(page, " **{least:.2}** ({median:.2}) |")?,
                None => write!(page, " – |")?,
            }
        }
        writeln!(page)?;
    }
    writeln!(
        page,
        "\nMost a second that went through one core (broker and clients share another one, and may be the limit):\n"
    )?;
    head(page, &[""], &kinds)?;
    for row in measured(results).filter(|row| row.id != "idle") {
        write!(page, "| {} |", row.title)?;
        for kind in &kinds {
            match results.spread(row.id, *kind, |run| Some(run.per_second)) {
                Some(rate) => write!(page, " {} |", grouped(rate.most))?,
                None => write!(page, " – |")?,
            }
        }
        writeln!(page)?;
    }
    writeln!(page)
}

fn latency(page: &mut String, results: &Results) -> std::fmt::Result {
    let kinds = kinds(results);
    let rows: Vec<_> = measured(results)
        .filter(|row| {
            results
                .runs
                .iter()
                .any(|run| run.row == row.id && run.p50_us.is_some())
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "## Latency at a fixed rate\n\nµs from when a message was due, median of the rounds: p50, p99. The 99th percentile is \
         mostly the machine's own.\n"
    )?;
    head(page, &[""], &kinds)?;
    for row in rows {
        write!(page, "| {} |", row.title)?;
        for kind in &kinds {
            let p50 = results.spread(row.id, *kind, |run| run.p50_us);
            let p99 = results.spread(row.id, *kind, |run| run.p99_us);
            match (p50, p99) {
                (Some(p50), Some(p99)) => {
                    write!(page, " {}, {} |", figure(p50.median), figure(p99.median))?
                }
                _ => write!(page, " – |")?,
            }
        }
        writeln!(page)?;
    }
    writeln!(page)
}

fn memory(page: &mut String, results: &Results) -> std::fmt::Result {
    let runs: Vec<_> = results
        .runs
        .iter()
        .filter_map(|run| Some((run, run.memory?)))
        .collect();
    let Some((_, first)) = runs.first() else {
        return Ok(());
    };
    writeln!(
        page,
        "## Memory of idle sessions\n\n{} sessions, a fresh process each, KiB for each session. The kernel's part is the same for \
         all: slab for four ends of two connections, of which two are the gateway's.\n\n\
         | | held (PSS) | left {:.0} s after all closed at once | kernel slab, four ends | TCP buffers |\n|---|---|---|---|---|",
        grouped(first.sessions as f64),
        first.left_after_seconds,
    )?;
    for (run, memory) in runs {
        writeln!(
            page,
            "| {} | **{:.1}** | {:.1} | {:.1} | {:.1} |",
            run.gateway.name(),
            run.figure,
            memory.left,
            memory.slab,
            memory.buffers
        )?;
    }
    writeln!(page)
}

fn disturbance(page: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(
        page,
        "## Other work on the machine\n\nIn parts of one core while a row ran, and what broker and clients took of theirs; median \
         and most. A round with more than {QUIET} does not count, unless a row has no other.\n\n| | other work | broker and clients |\n|---|---|---|"
    )?;
    for row in measured(results) {
        let runs = || results.runs.iter().filter(|run| run.row == row.id);
        let (Some(other), Some(load)) = (
            Spread::of(runs().map(|run| run.other_share)),
            Spread::of(runs().map(|run| run.load_share)),
        ) else {
            continue;
        };
        writeln!(
            page,
            "| {} | {:.2}, {:.2} | {:.2}, {:.2} |",
            row.title, other.median, other.most, load.median, load.most
        )?;
    }
    let amiss: u64 = results.runs.iter().map(|run| run.amiss).sum();
    writeln!(
        page,
        "\nMessages that did not come back, or came back wrong, in all {} runs: {amiss}.\n",
        results.runs.len()
    )
}

fn reading(page: &mut String, results: &Results) -> std::fmt::Result {
    let setting = &results.setting;
    let network = match setting.isolated {
        true => "loopback of a network namespace of their own",
        false => "loopback",
    };
    writeln!(
        page,
        "## How to read it\n\n\
         - {} ({} cores), Linux {}; {}. {} rounds of {} s.\n\
         - All run at the same time on {network}, each gateway pinned to one core, broker and clients to another; \
         only one has load at a time, in turn, and who begins changes from round to round.\n\
         - CPU is user and system time of all processes of a gateway, the kernel's work on loopback included. In a quiet round \
         what disturbs adds, so the least is the best estimate of the true cost. A core that sleeps between two messages \
         is dearer to wake than one that is busy: compare gateways, not rows.\n\
         - `→ ws` and `→ mqtt`: brokers that speak WebSocket, and MQTT over TCP. nginx and HAProxy can only do the first.\n\
         - A message is masked, in a frame of its own, a PUBLISH with QoS 0. A round trip is one up and its echo down.\n\
         - Files are asked for by 50 connections as fast as they are answered, by wrk, and over HTTP/2 eight at a time on each by h2load. \
         nginx keeps them open and sends them with sendfile. HAProxy serves none.\n\
         - \"On their way\" are closed loops: a gateway that is slower finds more messages at each wake-up, and spends less on \
         each. They show what goes through; what a message costs is in the rows with a rate.\n\
         - Latency counts from the time a message was due, so a stall is charged to all that it held up.\n\
         - All prefer TLS_AES_128_GCM_SHA256 and X25519 with a P-256 certificate. Tidegate would choose X25519MLKEM768 with a \
         client that offers it; that has a row of its own. The peers are Debian's builds, on its OpenSSL: newer libraries would \
         narrow the handshake rows.\n\
         - nginx and HAProxy look at no frame once the upgrade is done. Tidegate reads every packet.\n\
         - Not shown: networks with loss or delay, real network cards, more than one core, brokers over TLS.\n\
         - The configurations are in [bench/gateways](../bench/gateways), every run in [benchmark.jsonl](benchmark.jsonl).",
        setting.processor,
        setting.cores,
        setting.kernel,
        setting.versions.join(", "),
        setting.rounds,
        setting.seconds,
    )
}

fn measured(results: &Results) -> impl Iterator<Item = &'static Row> {
    ROWS.iter()
        .filter(|row| results.runs.iter().any(|run| run.row == row.id))
}

/// Three digits that count.
pub fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Three digits that count, and groups of three.
fn grouped(value: f64) -> String {
    let scale = 10_f64.powf((value.max(1.0).log10().floor() - 2.0).max(0.0));
    let digits = format!("{:.0}", (value / scale).round() * scale);
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        assert_eq!(
            [0.2123, 5.95, 9.996, 10.34, 217.4].map(figure),
            ["0.212", "5.95", "10.0", "10.3", "217"]
        );
        assert_eq!(
            [950.0, 10_020.0, 1_234_567.0].map(grouped),
            ["950", "10,000", "1,230,000"]
        );
    }
}
