//! The status as aligned columns for a terminal.
//!
//! SECURITY: client ids and user names are the clients' own words: what could steer a terminal is shown, not sent.

use crate::admin::report::{Broker, Outcome, Report};

/// Brokers that are shown of a pool whose others are well.
const BROKERS: usize = 20;

/// Outcomes that are shown.
const OUTCOMES: usize = 10;

/// Certificates that end later are fine.
const SOON: f64 = 14.0 * DAY;
const DAY: f64 = 86_400.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    None,
    Good,
    Warn,
    Bad,
    Quiet,
}

impl Paint {
    fn of_state(state: &str) -> Self {
        match state {
            "up" | "ready" => Self::Good,
            "ejected" | "draining" | "starting" => Self::Warn,
            "down" | "unwell" => Self::Bad,
            _ => Self::Quiet,
        }
    }

    fn over(self, text: &str, colour: Colour) -> String {
        let code = match self {
            _ if colour == Colour::Off => return text.to_owned(),
            Self::None => return text.to_owned(),
            Self::Good => 32,
            Self::Warn => 33,
            Self::Bad => 31,
            Self::Quiet => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One cell.
struct Cell(String, Paint);

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.to_string(), Paint::None)
    }
}

/// The whole status.
pub(super) fn table(report: &Report, colour: Colour) -> String {
    let mut text = head(report, colour);
    let blocks = [
        drain(report),
        refused(report, colour),
        pools(report, colour),
        listeners(report, colour),
        certificates(report, colour),
        outcomes(report, colour),
    ];
    for block in blocks.iter().filter(|block| !block.is_empty()) {
        text.push('\n');
        text.push_str(block);
    }
    text
}

fn head(report: &Report, colour: Colour) -> String {
    let state = Paint::of_state(&report.state).over(&report.state, colour);
    let configuration = &report.configuration;
    let history = &report.history;
    let rate = |column: &[f64]| column.last().copied().unwrap_or(0.0);
    let took = |column: &[Option<f64>]| match column.last().copied().flatten() {
        Some(seconds) => format!("{:.1} ms", seconds * 1000.0),
        None => "-".to_owned(),
    };
    let pending = match report.pending.is_empty() || report.state == "draining" {
        true => String::new(),
        false => format!(": {}", report.pending.join(", ")),
    };
    let process = &report.process;
    format!(
        "{state}{pending}   tidegate {}, up {}, configuration {} for {}\n\
         sessions {}, connections {} of {}, new sessions {}/s\n\
         packets {}/s from clients, {}/s to them; bytes {}/s and {}/s\n\
         CONNECT to CONNACK {} for half, {} for 99 of 100\n\
         memory {}, open files {} of {}\n",
        report.version,
        span(report.now - report.started),
        configuration.generation,
        span(report.now - configuration.since),
        report.sessions,
        report.connections.open,
        report.connections.limit,
        short(rate(&history.joined)),
        short(rate(&history.packets_up)),
        short(rate(&history.packets_down)),
        size(rate(&history.bytes_up)),
        size(rate(&history.bytes_down)),
        took(&history.connack_p50),
        took(&history.connack_p99),
        process.memory_bytes.map_or_else(|| "-".to_owned(), size),
        process.open_files.map_or_else(|| "-".to_owned(), short),
        process
            .open_files_limit
            .map_or_else(|| "-".to_owned(), short),
    )
}

fn drain(report: &Report) -> String {
    let Some(drain) = &report.drain else {
        return String::new();
    };
    format!(
        "draining: {} of {} sessions have left, {} a second are asked to, about {} left\n",
        drain.sessions - drain.left.min(drain.sessions),
        drain.sessions,
        drain.rate,
        span(drain.seconds_left.ceil())
    )
}

fn refused(report: &Report, colour: Colour) -> String {
    let Some(refused) = &report.configuration.refused else {
        return String::new();
    };
    let ago = span(report.now - refused.at);
    let mut text = Paint::Bad.over(&format!("the last reload was refused {ago} ago"), colour);
    for problem in &refused.problems {
        text.push_str(&format!("\n  {}", plain(problem)));
    }
    text + "\n"
}

fn pools(report: &Report, colour: Colour) -> String {
    let mut rows = vec![heads(&[
        "POOL",
        "BROKER",
        "STATE",
        "FOR",
        "WEIGHT",
        "SESSIONS",
        "SHARE",
        "LAST ERROR",
    ])];
    let mut hidden = Vec::new();
    for pool in &report.pools {
        let many = pool.brokers.len() > BROKERS;
        let mut shown = 0;
        for broker in &pool.brokers {
            // The ones that an operator looks for come whatever their place.
            if many && broker.state == "up" && shown >= BROKERS {
                continue;
            }
            shown += 1;
            rows.push(of_broker(&pool.name, broker, report.now));
        }
        if shown < pool.brokers.len() {
            let more = pool.brokers.len() - shown;
            hidden.push(format!("{}: {more} more are up\n", pool.name));
        }
    }
    aligned(&rows, colour) + &hidden.concat()
}

fn of_broker(pool: &str, broker: &Broker, now: f64) -> Vec<Cell> {
    let backup = if broker.backup { " (backup)" } else { "" };
    let max = broker.max_sessions.map(|max| format!(" of {max}"));
    let error = broker
        .last_error
        .as_ref()
        .map_or_else(String::new, |error| {
            format!("{} ago: {}", span(now - error.at), plain(&error.text))
        });
    vec![
        pool.into(),
        broker.url.as_str().into(),
        Cell(broker.state.clone(), Paint::of_state(&broker.state)),
        span(now - broker.since).into(),
        format!("{}{backup}", broker.weight).into(),
        format!("{}{}", broker.sessions, max.unwrap_or_default()).into(),
        format!("{:.0} %", broker.share * 100.0).into(),
        error.into(),
    ]
}

fn listeners(report: &Report, colour: Colour) -> String {
    let mut rows = vec![heads(&[
        "LISTENER",
        "ADDRESS",
        "SPEAKS",
        "CONNECTIONS",
        "SESSIONS",
        "ACCEPTED",
    ])];
    rows.extend(report.listeners.iter().map(|listener| {
        vec![
            plain(&listener.name).into(),
            listener.address.as_str().into(),
            listener.speaks.as_str().into(),
            listener.connections.into(),
            listener.sessions.into(),
            listener.accepted.into(),
        ]
    }));
    aligned(&rows, colour)
}

fn certificates(report: &Report, colour: Colour) -> String {
    if report.certificates.is_empty() {
        return String::new();
    }
    let mut rows = vec![heads(&["CERTIFICATE", "USE", "LEFT", "FILE"])];
    let mut certificates: Vec<_> = report.certificates.iter().collect();
    certificates.sort_by(|a, b| a.not_after.total_cmp(&b.not_after));
    for certificate in certificates {
        let left = certificate.not_after - report.now;
        let paint = match left {
            left if left < 0.0 => Paint::Bad,
            left if left < SOON => Paint::Warn,
            _ => Paint::Good,
        };
        let words = match left < 0.0 {
            true => "over".to_owned(),
            false => format!("{:.0} days", (left / DAY).floor()),
        };
        rows.push(vec![
            plain(&certificate.names.join(", ")).into(),
            certificate.kind.replace('_', " ").into(),
            Cell(words, paint),
            certificate.file.as_str().into(),
        ]);
    }
    aligned(&rows, colour)
}

fn outcomes(report: &Report, colour: Colour) -> String {
    let unusual = report.outcomes.iter().filter(|outcome| outcome.unusual);
    let shown: Vec<&Outcome> = unusual.take(OUTCOMES).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut rows = vec![heads(&[
        "UNUSUAL END",
        "WHO",
        "WHY",
        "CLIENT",
        "WHAT HAPPENED",
    ])];
    for outcome in shown {
        let client = match outcome.client_id.as_str() {
            "" => outcome.client.clone(),
            id => format!("{} {}", plain(id), outcome.client),
        };
        rows.push(vec![
            format!("{} ago", span(report.now - outcome.at)).into(),
            outcome.who.as_str().into(),
            outcome.why.as_str().into(),
            client.into(),
            plain(&outcome.text).into(),
        ]);
    }
    aligned(&rows, colour)
}

fn heads(names: &[&str]) -> Vec<Cell> {
    names
        .iter()
        .map(|name| Cell((*name).to_owned(), Paint::Quiet))
        .collect()
}

/// Two spaces between columns; nothing behind the last word of a line.
fn aligned(rows: &[Vec<Cell>], colour: Colour) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|Cell(text, _)| text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(wide).collect();
    let mut text = String::new();
    for row in rows {
        let last = row.iter().rposition(|Cell(text, _)| !text.is_empty());
        for (at, Cell(word, paint)) in row.iter().enumerate() {
            if last.is_none_or(|last| at > last) {
                break;
            }
            text.push_str(&paint.over(word, colour));
            if Some(at) != last {
                let gap = widths[at] - word.chars().count() + 2;
                text.extend(std::iter::repeat_n(' ', gap));
            }
        }
        text.push('\n');
    }
    text
}

/// Control characters, and those that turn the direction of the text round, in a form that can be seen.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || turns {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}

fn span(seconds: f64) -> String {
    // Whole seconds, and not below none.
    let seconds = std::time::Duration::try_from_secs_f64(seconds).map_or(0, |span| span.as_secs());
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn short(number: f64) -> String {
    match number {
        number if number >= 1e10 => "any number".to_owned(),
        number if number >= 1e6 => format!("{:.1}M", number / 1e6),
        number if number >= 1e4 => format!("{:.1}k", number / 1e3),
        number if number >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        number => format!("{number:.1}"),
    }
}

fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes if bytes >= 1e3 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{bytes:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_colour_takes_no_room() {
        let rows = vec![
            heads(&["A", "BBBB", "C"]),
            vec!["long word".into(), Cell("ü".into(), Paint::Bad), "".into()],
        ];
        let text = aligned(&rows, Colour::Off);
        assert_eq!(text, "A          BBBB  C\nlong word  ü\n");
        let painted = aligned(&rows, Colour::On);
        assert!(painted.contains("\x1b[31mü\x1b[0m"), "{painted:?}");
        for code in ["\x1b[31m", "\x1b[2m", "\x1b[0m"] {
            assert!(!text.contains(code));
        }
    }

    #[test]
    fn what_could_steer_a_terminal_is_shown_and_not_sent() {
        let hostile = "\x1b]0;title\x07\n\u{202e}txt\u{9b}31m 客户端";
        let shown = plain(hostile);
        assert!(
            !shown.contains(|letter: char| letter.is_control()),
            "{shown:?}"
        );
        assert!(
            !shown.contains('\u{202e}') && shown.ends_with("客户端"),
            "{shown}"
        );
    }
}
