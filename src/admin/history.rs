//! The last five minutes, a row a second: a page that is opened now shows what led here.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::report;
use crate::telemetry::Counts;

/// From one row to the next.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Five minutes.
const KEPT: usize = 300;

/// Rows that a percentile is taken over: of one second's few sessions it would jump.
const WINDOW: usize = 10;

/// What is counted, at one moment.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    pub connections: u64,
    pub sessions: u64,
    pub accepted: u64,
    /// Packets and bytes.
    pub up: (u64, u64),
    pub down: (u64, u64),
    /// How long joins took.
    pub joins: Counts,
}

#[derive(Debug)]
struct Row {
    at: f64,
    connections: u64,
    sessions: u64,
    accepted: f64,
    joined: f64,
    up: (f64, f64),
    down: (f64, f64),
    connack: [Option<f64>; 2],
}

#[derive(Debug, Default)]
pub(super) struct History {
    rows: VecDeque<Row>,
    /// Rows so far.
    last: u64,
    before: Option<(Instant, Totals)>,
    /// The last `WINDOW`, and the one before them.
    joins: VecDeque<Counts>,
}

impl History {
    /// Adds a row. The first call only remembers where counting began.
    pub(super) fn add(&mut self, now: Instant, at: f64, totals: Totals) {
        self.joins.push_back(totals.joins.clone());
        if self.joins.len() > WINDOW + 1 {
            self.joins.pop_front();
        }
        let before = self.before.replace((now, totals.clone()));
        let Some((then, before)) = before else {
            return;
        };
        // A control thread that was held up makes one long row, not a wrong one.
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let both =
            |now: (u64, u64), before: (u64, u64)| (rate(now.0, before.0), rate(now.1, before.1));
        let recent = self.joins.front().map(|oldest| totals.joins.since(oldest));
        let percentile = |percent| {
            let took = recent
                .as_ref()
                .and_then(|recent| recent.percentile(percent));
            took.map(|took| took.as_secs_f64())
        };
        if self.rows.len() == KEPT {
            self.rows.pop_front();
        }
        self.last += 1;
        self.rows.push_back(Row {
            at,
            connections: totals.connections,
            sessions: totals.sessions,
            accepted: rate(totals.accepted, before.accepted),
            joined: rate(totals.joins.total(), before.joins.total()),
            up: both(totals.up, before.up),
            down: both(totals.down, before.down),
            connack: [percentile(50), percentile(99)],
        });
    }

    /// The rows behind that number; all of them where it is another process's.
    pub(super) fn after(&self, number: u64) -> report::History {
        let new = self.last.checked_sub(number).unwrap_or(self.last);
        let new = usize::try_from(new).unwrap_or(KEPT).min(self.rows.len());
        let mut columns = report::History {
            interval: INTERVAL.as_secs_f64(),
            last: self.last,
            ..report::History::default()
        };
        for row in self.rows.range(self.rows.len() - new..) {
            columns.at.push(row.at);
            columns.connections.push(row.connections);
            columns.sessions.push(row.sessions);
            columns.accepted.push(rounded(row.accepted));
            columns.joined.push(rounded(row.joined));
            columns.packets_up.push(rounded(row.up.0));
            columns.bytes_up.push(rounded(row.up.1));
            columns.packets_down.push(rounded(row.down.0));
            columns.bytes_down.push(rounded(row.down.1));
            columns.connack_p50.push(row.connack[0]);
            columns.connack_p99.push(row.connack[1]);
        }
        columns
    }
}

/// A tenth is enough for a rate, and half of the answer's bytes.
fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

/// Unix seconds, to the millisecond.
pub(super) fn unix(at: SystemTime) -> f64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| (since.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Spread;

    fn totals(accepted: u64, joins: &Spread) -> Totals {
        Totals {
            connections: 3,
            sessions: 2,
            accepted,
            up: (accepted * 2, accepted * 100),
            down: (0, 0),
            joins: joins.counts(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_has_rates_however_late_it_is() {
        let (mut history, joins) = (History::default(), Spread::default());
        let began = Instant::now();
        history.add(began, 0.0, totals(100, &joins));
        assert_eq!(history.after(0).at.len(), 0);
        joins.observe(Duration::from_millis(20));
        history.add(began + Duration::from_secs(4), 4.0, totals(140, &joins));
        let columns = history.after(0);
        assert_eq!((columns.accepted[0], columns.joined[0]), (10.0, 0.3));
        assert_eq!((columns.packets_up[0], columns.bytes_up[0]), (20.0, 1000.0));
        let p99 = columns.connack_p99[0].unwrap();
        assert!((0.0175..0.0225).contains(&p99), "{p99}");
    }

    #[tokio::test(start_paused = true)]
    async fn five_minutes_are_kept_and_only_new_rows_are_asked_for() {
        let (mut history, joins) = (History::default(), Spread::default());
        joins.observe(Duration::from_millis(20));
        let began = Instant::now();
        for second in 0..1000 {
            let at = began + INTERVAL * u32::try_from(second).unwrap();
            history.add(at, second as f64, totals(second, &joins));
        }
        let all = history.after(0);
        assert_eq!((all.at.len(), all.last, all.at[0]), (KEPT, 999, 700.0));
        assert_eq!(history.after(997).at, [998.0, 999.0]);
        assert!(history.after(999).at.is_empty());
        assert_eq!(history.after(5000).at.len(), KEPT);
        // Nothing was joined in the last seconds.
        assert_eq!(all.connack_p50.last(), Some(&None));
    }
}
