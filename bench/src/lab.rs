//! The order of things: broker and gateways side by side, row after row in interleaved rounds, so that what disturbs the
//! machine for a while disturbs all of them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::accounts::{Span, slab, socket_buffers};
use crate::gateways::{self, Gateway, Kind, Program, Surroundings};
use crate::isolation::Isolation;
use crate::load::{self, Place, Times};
use crate::page;
use crate::poller::now;
use crate::results::{Memory, Results, Run, Setting};
use crate::rows::{Load, ROWS, Row};
use crate::site;

/// The gateway has this core for itself; broker and clients share the other.
const GATEWAY_CORE: usize = 0;
const LOAD_CORE: usize = 1;

#[derive(clap::Args)]
pub struct Plan {
    /// The binary to measure
    #[arg(long)]
    pub tidegate: PathBuf,
    /// Every row on every gateway so often
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Measured seconds of each run
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Rows to measure, by name; all unless given
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Gateways to measure; all unless given
    #[arg(long, value_delimiter = ',')]
    pub gateways: Vec<Kind>,
    /// Sessions of the row `idle`; as many as the limit on open files allows, 9000 at most, unless given
    #[arg(long)]
    pub idle: Option<usize>,
    /// The folder to write to
    #[arg(long, default_value = "docs")]
    pub out: PathBuf,
}

impl Plan {
    /// A short run is for whoever tries it out; it waits for nothing that takes long.
    fn is_short(&self) -> bool {
        self.seconds < 3.0
    }

    fn times(&self) -> Times {
        Times {
            warm_up: if self.is_short() { 0.3 } else { 1.0 },
            seconds: self.seconds,
        }
    }

    fn sessions(&self, most: usize) -> usize {
        let files = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        // Two for a session in the gateway, and some that it keeps back.
        let room = files.map_or(1024, |(soft, _)| soft).saturating_sub(400) / 2;
        let room = usize::try_from(room).unwrap_or(most);
        let wanted = if self.is_short() { most / 3 } else { most };
        self.idle.unwrap_or(wanted).min(room)
    }
}

/// The stand-in broker.
struct Broker {
    ws: SocketAddr,
    tcp: SocketAddr,
    program: Program,
}

impl Broker {
    fn start(folder: &Path) -> crate::Result<Self> {
        let [ws, tcp] = [gateways::free_address()?, gateways::free_address()?];
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["broker", &ws.to_string(), &tcp.to_string()]);
        let mut program = Program::start(command, LOAD_CORE, folder)?;
        program.wait_for(tcp)?;
        Ok(Self { ws, tcp, program })
    }
}

struct Lab<'a> {
    plan: &'a Plan,
    folder: &'a Path,
    gateways: Vec<Kind>,
    runs: Vec<Run>,
}

pub fn run(plan: &Plan, isolation: Isolation) -> crate::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        return Err("two cores are needed: one for the gateway, one for the load".into());
    }
    if let Some(name) = plan
        .rows
        .iter()
        .find(|name| ROWS.iter().all(|row| row.id != **name))
    {
        let known: Vec<_> = ROWS.iter().map(|row| row.id).collect();
        return Err(format!("no row {name}; there are {}", known.join(", ")).into());
    }
    let setting = setting(plan, cores, isolation)?;
    let folder = tempfile::tempdir()?;
    gateways::make_certificate(&plan.tidegate, folder.path())?;
    for row in ROWS {
        if let Load::Files { bytes, .. } = row.load {
            site::make_file(folder.path(), bytes)?;
        }
    }
    gateways::pin(LOAD_CORE)?;
    let mut lab = Lab {
        plan,
        folder: folder.path(),
        gateways: match plan.gateways.is_empty() {
            true => Kind::ALL.to_vec(),
            false => plan.gateways.clone(),
        },
        runs: Vec::new(),
    };
    lab.rounds()?;
    lab.idle()?;
    let results = Results {
        setting,
        runs: lab.runs,
    };
    fs::create_dir_all(&plan.out)?;
    let file = plan.out.join("benchmark.jsonl");
    results.write(&file)?;
    page::render(&file, &plan.out)
}

fn setting(plan: &Plan, cores: usize, isolation: Isolation) -> crate::Result<Setting> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let date = Command::new("date").args(["-u", "+%F"]).output()?.stdout;
    let kinds = [Kind::TidegateWs, Kind::Nginx, Kind::Haproxy];
    Ok(Setting {
        date: String::from_utf8(date)?.trim().to_owned(),
        processor: model
            .map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':']))
            .to_owned(),
        cores,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        versions: kinds
            .map(|kind| gateways::version(kind, &plan.tidegate))
            .to_vec(),
        rounds: plan.rounds,
        seconds: plan.seconds,
        isolated: isolation == Isolation::Own,
    })
}

impl Lab<'_> {
    fn wants(&self, row: &Row) -> bool {
        self.plan.rows.is_empty() || self.plan.rows.iter().any(|name| name == row.id)
    }

    fn start(&self, kind: Kind, broker: &Broker) -> crate::Result<Gateway> {
        let around = Surroundings {
            folder: self.folder,
            tidegate: &self.plan.tidegate,
            ws: broker.ws,
            tcp: broker.tcp,
            core: GATEWAY_CORE,
        };
        gateways::start(kind, &around)
    }

    fn rounds(&mut self) -> crate::Result<()> {
        let rows: Vec<_> = ROWS
            .iter()
            .filter(|row| self.wants(row) && !matches!(row.load, Load::Idle { .. }))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let broker = Broker::start(self.folder)?;
        let gateways: Vec<_> = self
            .gateways
            .iter()
            .map(|kind| Ok((*kind, self.start(*kind, &broker)?)))
            .collect::<crate::Result<_>>()?;
        for round in 1..=self.plan.rounds {
            for row in &rows {
                for turn in 0..gateways.len() {
                    // Who comes first changes: the first one finds the caches of another row.
                    let (kind, gateway) = &gateways[(turn + round) % gateways.len()];
                    if !kind.can(&row.load) {
                        continue;
                    }
                    let run = self.once(row, *kind, gateway, &broker, round)?;
                    tell(row, &run);
                    self.runs.push(run);
                }
            }
        }
        Ok(())
    }

    fn once(
        &self,
        row: &Row,
        kind: Kind,
        gateway: &Gateway,
        broker: &Broker,
        round: usize,
    ) -> crate::Result<Run> {
        let place = Place {
            gateway: gateway.address,
            family: gateway.family.clone(),
            broker_tcp: broker.tcp,
            broker: broker.program.pid(),
        };
        let measured = load::run(row.load, &place, self.plan.times())
            .map_err(|error| format!("{} through {}: {error}", row.id, kind.name()))?;
        let units = measured.units.max(1) as f64;
        let quantile = |at: f64| {
            let latency = measured.latency.as_ref()?;
            Some(latency.value_at_quantile(at) as f64 / 1e3)
        };
        Ok(Run {
            row: row.id.to_owned(),
            gateway: kind,
            round,
            figure: measured.spent.gateway_ns as f64 / 1e3 / units,
            per_second: units / measured.spent.seconds,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            memory: None,
            load_share: measured.spent.load_share,
            other_share: measured.spent.other_share,
            amiss: measured.amiss,
        })
    }

    /// Memory: each gateway fresh, since what it has held before it would use again.
    fn idle(&mut self) -> crate::Result<()> {
        for row in ROWS {
            let Load::Idle { sessions } = row.load else {
                continue;
            };
            if !self.wants(row) {
                continue;
            }
            let sessions = self.plan.sessions(sessions);
            for kind in self.gateways.clone() {
                let run = self.hold(row, kind, sessions)?;
                tell(row, &run);
                self.runs.push(run);
            }
        }
        Ok(())
    }

    fn hold(&self, row: &Row, kind: Kind, sessions: usize) -> crate::Result<Run> {
        const RAMP: f64 = 2500.0;
        let broker = Broker::start(self.folder)?;
        let gateway = self.start(kind, &broker)?;
        // One session first: what the first of all costs is not the price of one.
        load::hold(gateway.address, 1, RAMP)?.leave();
        std::thread::sleep(Duration::from_secs(1));
        let before = (gateway.family.memory(), slab(), socket_buffers());
        let span = Span::begin(&gateway.family, broker.program.pid());
        let mut held = load::hold(gateway.address, sessions, RAMP)
            .map_err(|error| format!("{} through {}: {error}", row.id, kind.name()))?;
        let spent = span.end();
        held.wait(Duration::from_secs(if self.plan.is_short() {
            1
        } else {
            3
        }))?;
        let up = (gateway.family.memory(), slab(), socket_buffers());
        held.leave();
        let patience = if self.plan.is_short() { 3.0 } else { 10.0 };
        let closed = now();
        std::thread::sleep(Duration::from_secs_f64(patience));
        let per = |up: u64, before: u64| (up as f64 - before as f64) / sessions as f64;
        Ok(Run {
            row: row.id.to_owned(),
            gateway: kind,
            round: 1,
            figure: per(up.0, before.0),
            per_second: sessions as f64 / spent.seconds,
            p50_us: None,
            p99_us: None,
            memory: Some(Memory {
                left: per(gateway.family.memory(), before.0),
                slab: per(up.1, before.1),
                buffers: per(up.2, before.2),
                sessions,
                left_after_seconds: (now() - closed) as f64 / 1e9,
            }),
            load_share: spent.load_share,
            other_share: spent.other_share,
            amiss: 0,
        })
    }
}

fn tell(row: &Row, run: &Run) {
    eprintln!(
        "round {} {:10} {:16} {:>8.2} {:26} {:>9.0}/s  other work {:.2} of a core",
        run.round,
        row.id,
        run.gateway.name(),
        run.figure,
        row.unit.name(),
        run.per_second,
        run.other_share,
    );
}
