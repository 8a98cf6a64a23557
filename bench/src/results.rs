//! What was measured, as lines of JSON: the setting, then a line for each run; and the sums that tables and chart share.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gateways::Kind;

/// Other work, in parts of one core, from which on a run counts as disturbed.
pub const QUIET: f64 = 0.1;

/// Where and how it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    pub date: String,
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub versions: Vec<String>,
    pub rounds: usize,
    pub seconds: f64,
    /// Loopback of a network namespace of its own.
    pub isolated: bool,
}

/// One row on one gateway in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub row: String,
    pub gateway: Kind,
    pub round: usize,
    /// In the row's unit.
    pub figure: f64,
    /// Units a second.
    pub per_second: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Of broker and clients, in parts of one core.
    pub load_share: f64,
    /// Of everything else on the machine, in parts of one core.
    pub other_share: f64,
    /// What did not come back, or wrong.
    pub amiss: u64,
}

/// KiB for each idle session.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Of the gateway, ten seconds (or as long as the plan says) after all have left.
    pub left: f64,
    /// Slab of the kernel for both ends of both connections.
    pub slab: f64,
    /// TCP buffers of the same.
    pub buffers: f64,
    pub sessions: usize,
    pub left_after_seconds: f64,
}

pub struct Results {
    pub setting: Setting,
    pub runs: Vec<Run>,
}

/// Least, median and greatest.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => *values.get(middle)?,
            _ => (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0,
        };
        Some(Self {
            least: *values.first()?,
            median,
            most: *values.last()?,
        })
    }
}

impl Results {
    pub fn read(file: &Path) -> crate::Result<Self> {
        let text = fs::read_to_string(file)?;
        let (setting, runs) = text.split_once('\n').ok_or("an empty file")?;
        Ok(Self {
            setting: serde_json::from_str(setting)?,
            runs: runs
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn write(&self, file: &Path) -> crate::Result<()> {
        let mut text = serde_json::to_string(&self.setting)? + "\n";
        for run in &self.runs {
            text += &(serde_json::to_string(run)? + "\n");
        }
        Ok(fs::write(file, text)?)
    }

    /// The runs that count: those of rounds in which the machine had little else to do, for all gateways. All, where there
    /// is no such round. Other work makes a message dearer, and cheaper where it delays load and gateway so that several
    /// messages come at once: then neither least nor median means anything.
    pub fn of<'a>(&'a self, row: &'a str, gateway: Kind) -> impl Iterator<Item = &'a Run> {
        let quiet = self.quiet_rounds(row);
        self.runs.iter().filter(move |run| {
            let counts = quiet.is_empty() || quiet.contains(&run.round);
            run.row == row && run.gateway == gateway && counts
        })
    }

    pub fn quiet_rounds(&self, row: &str) -> Vec<usize> {
        let runs = || self.runs.iter().filter(|run| run.row == row);
        let disturbed = |round| runs().any(|run| run.round == round && run.other_share > QUIET);
        let rounds = 1..=self.setting.rounds;
        rounds
            .filter(|round| !disturbed(*round) && runs().any(|run| run.round == *round))
            .collect()
    }

    pub fn spread(
        &self,
        row: &str,
        gateway: Kind,
        value: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.of(row, gateway).filter_map(value))
    }

    pub fn figure(&self, row: &str, gateway: Kind) -> Option<Spread> {
        self.spread(row, gateway, |run| Some(run.figure))
    }

    /// Least by least, and the median of the rounds: to nginx.
    pub fn ratio(&self, row: &str, gateway: Kind) -> Option<(f64, f64)> {
        let least = self.figure(row, gateway)?.least / self.figure(row, Kind::Nginx)?.least;
        let rounds = self.of(row, gateway).filter_map(|run| {
            let base = self
                .of(row, Kind::Nginx)
                .find(|base| base.round == run.round)?;
            Some(run.figure / base.figure)
        });
        Some((least, Spread::of(rounds)?.median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: usize, gateway: Kind, figure: f64, other_share: f64) -> Run {
        Run {
            row: "rate".to_owned(),
            gateway,
            round,
            figure,
            per_second: 1.0,
            p50_us: None,
            p99_us: None,
            memory: None,
            load_share: 0.0,
            other_share,
            amiss: 0,
        }
    }

    #[test]
    fn a_round_counts_for_all_gateways_or_for_none() {
        let setting = Setting {
            date: String::new(),
            processor: String::new(),
            cores: 2,
            kernel: String::new(),
            versions: Vec::new(),
            rounds: 3,
            seconds: 1.0,
            isolated: true,
        };
        let mut results = Results {
            setting,
            runs: vec![
                run(1, Kind::Nginx, 10.0, 0.0),
                run(1, Kind::TidegateWs, 8.0, 0.0),
                run(2, Kind::Nginx, 5.0, 0.9),
                run(2, Kind::TidegateWs, 8.0, 0.0),
                run(3, Kind::Nginx, 20.0, 0.05),
                run(3, Kind::TidegateWs, 12.0, 0.0),
            ],
        };
        assert_eq!(results.quiet_rounds("rate"), [1, 3]);
        let (least, median) = results.ratio("rate", Kind::TidegateWs).unwrap();
        assert!((least - 0.8).abs() < 1e-9 && (median - 0.7).abs() < 1e-9);
        results
            .runs
            .iter_mut()
            .for_each(|run| run.other_share = 1.0);
        assert_eq!(results.figure("rate", Kind::Nginx).unwrap().least, 5.0);
    }

    #[test]
    fn a_spread_knows_its_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert!(spread(&[]).is_none());
        assert_eq!(spread(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[4.0, 1.0]).unwrap().most, 4.0);
    }
}
