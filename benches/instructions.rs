//! Instructions for a packet, a frame, a choice of broker: counted by callgrind, held against benches/instructions.txt.
//! `make guard` fails when one of them rises by more than 5 %; `make guard-renew` writes the file.
//!
//! A count does not depend on what else the machine does, so a small rise is a real one. Each piece of work is run so
//! many times and then more times: what a run costs beside the work drops out of the difference.
//!
//! The bytes of the program are held likewise. This build is two megabytes larger than the one that ships, which takes minutes
//! more to link (`[profile.bench]`): what makes the one larger makes the other.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a tool for developers: it prints, and ends where it cannot go on"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::{env, fs};

use fastrand::Rng;
use tidegate::framing::{Input, Limits, Masks, Output, Translator};
use tidegate::mqtt::Connect;
use tidegate::pool::choose::{Candidate, RoundRobin, Rule, Seed, choose};
use tidegate::telemetry::Counters;
use tidegate::websocket::{Event, FrameReader, NO_MASK, Opcode, Peer, data_header, xor};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// How often a piece of work is done in the shorter run and in the longer one.
const TIMES: [u64; 2] = [200, 1200];

/// Stands beside the work in the baseline.
const PROGRAM: &str = "bytes-of-the-program";

/// What a count may rise by, in percent.
const RISE: f64 = 5.0;
/// The same under another compiler than the baseline's: code that it makes differs for its own reasons.
const RISE_ELSEWHERE: f64 = 25.0;

/// One piece of work: does it so many times.
type Work = fn(u64);

const WORK: &[(&str, Work)] = &[
    ("up-64B-ws-to-ws", |times| {
        up(times, Output::MaskedFrames, 1, 64)
    }),
    ("up-64B-ws-to-mqtt", |times| {
        up(times, Output::Stream, 1, 64)
    }),
    ("up-64B-ws-to-mqtt-32-in-one-read", |times| {
        up(times, Output::Stream, 32, 64)
    }),
    ("up-16KiB-ws-to-ws", |times| {
        up(times, Output::MaskedFrames, 1, 16 << 10)
    }),
    ("down-64B-ws-to-ws", |times| {
        down(times, frames_of_brokers, 64)
    }),
    ("down-64B-mqtt-to-ws", |times| {
        down(times, || Input::Stream, 64)
    }),
    ("down-16KiB-mqtt-to-ws", |times| {
        down(times, || Input::Stream, 16 << 10)
    }),
    ("frame-64B", frame),
    ("connect", connect),
    ("choose-round-robin-of-5", |times| {
        choice(times, Rule::RoundRobin)
    }),
    ("choose-least-sessions-of-5", |times| {
        choice(times, Rule::LeastSessions)
    }),
    ("choose-client-id-of-5", |times| {
        choice(times, Rule::Key(b"device-000042"))
    }),
];

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", name, times] => {
            let (_, work) = WORK.iter().find(|(known, _)| *known == name).unwrap();
            work(times.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["renew"] => {
            fs::write(BASELINE, Counts::now().text()).unwrap();
            println!("{BASELINE}: look at the difference before you commit it");
            ExitCode::SUCCESS
        }
        ["check"] => {
            let baseline = fs::read_to_string(BASELINE).unwrap();
            compare(&Counts::read(&baseline), &Counts::now())
        }
        _ => panic!("`make guard` or `make guard-renew`"),
    }
}

/// What was counted, and with what.
struct Counts {
    /// Compiler and machine.
    toolchain: String,
    each: BTreeMap<String, f64>,
}

impl Counts {
    fn now() -> Self {
        let each = WORK.iter().map(|(name, _)| {
            let [fewer, more] = TIMES.map(|times| counted(name, times));
            let count = (more - fewer) as f64 / (TIMES[1] - TIMES[0]) as f64;
            (name.to_string(), count)
        });
        let program = fs::metadata(env!("CARGO_BIN_EXE_tidegate")).unwrap().len();
        let program = (PROGRAM.to_owned(), program as f64);
        Self {
            toolchain: toolchain(),
            each: each.chain([program]).collect(),
        }
    }

    fn read(text: &str) -> Self {
        let mut counts = Self {
            toolchain: String::new(),
            each: BTreeMap::new(),
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            match name {
                "toolchain" => counts.toolchain = value.to_owned(),
                name => drop(counts.each.insert(name.to_owned(), value.parse().unwrap())),
            }
        }
        counts
    }

    fn text(&self) -> String {
        let mut text = "# Instructions for one of each, counted by callgrind, and the bytes of the program. Written by `make guard-renew`, held by `make guard`.\n"
            .to_owned();
        writeln!(text, "toolchain: {}", self.toolchain).unwrap();
        for (name, count) in &self.each {
            writeln!(text, "{name}: {count:.1}").unwrap();
        }
        text
    }
}

fn toolchain() -> String {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let said = Command::new(rustc).arg("--version").output().unwrap();
    let version = String::from_utf8(said.stdout).unwrap();
    format!("{} {}", version.trim(), env::consts::ARCH)
}

/// Instructions of a process that does it so many times.
fn counted(name: &str, times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args(["run", name, &times.to_string()])
        .output()
        .expect("valgrind is not installed: tests/install.sh valgrind:valgrind");
    let said = String::from_utf8_lossy(&output.stderr);
    let total = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let Some((_, total)) = total.filter(|_| output.status.success()) else {
        panic!("callgrind failed on {name}\n{said}");
    };
    total.trim().parse().unwrap()
}

fn compare(baseline: &Counts, now: &Counts) -> ExitCode {
    let machine = |toolchain: &str| toolchain.rsplit(' ').next().map(str::to_owned);
    if machine(&baseline.toolchain) != machine(&now.toolchain) {
        println!(
            "instructions are not compared: counted on {}, this is {}",
            baseline.toolchain, now.toolchain
        );
        return ExitCode::SUCCESS;
    }
    let allowed = match baseline.toolchain == now.toolchain {
        true => RISE,
        false => {
            println!(
                "counted with {}, this is {}: up to {RISE_ELSEWHERE} % more is let pass.\n\
                 After a change of the compiler run `make guard-renew` on the commit before and commit it by itself.",
                baseline.toolchain, now.toolchain
            );
            RISE_ELSEWHERE
        }
    };
    let mut risen = Vec::new();
    for (name, count) in &now.each {
        let Some(before) = baseline.each.get(name) else {
            risen.push(format!("{name} is not in the baseline"));
            continue;
        };
        let rise = (count / before - 1.0) * 100.0;
        println!("{name:34} {before:>10.1} → {count:>10.1}  {rise:+.1} %");
        if rise > allowed {
            risen.push(format!("{name} rose by {rise:.1} %"));
        }
    }
    let gone = baseline
        .each
        .keys()
        .filter(|name| !now.each.contains_key(*name));
    risen.extend(gone.map(|name| format!("{name} is not counted any more")));
    if risen.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "\n{}\n\nMore than {allowed} % is a fault, or a price that the commit explains: then `make guard-renew` and commit \
         benches/instructions.txt with the change.",
        risen.join("\n")
    );
    ExitCode::FAILURE
}

const ROOMY: Limits = Limits {
    packet: 1 << 28,
    frame: 1 << 24,
    watched: 1 << 16,
};

/// A PUBLISH with QoS 0.
fn publish(bytes: usize) -> Vec<u8> {
    let mut body = b"\0\x06b/0001".to_vec();
    body.resize(body.len() + bytes, 7);
    let mut packet = vec![0x30];
    let mut left = body.len();
    while left > 0x7f {
        packet.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    packet.push(u8::try_from(left).unwrap());
    packet.extend_from_slice(&body);
    packet
}

fn framed(packet: &[u8], peer: Peer) -> Vec<u8> {
    let mask = (peer == Peer::Client).then_some([0x37, 0xfa, 0x21, 0x3d]);
    let mut wire = Vec::new();
    data_header(&mut wire, Opcode::Binary, true, packet.len() as u64, mask);
    let start = wire.len();
    wire.extend_from_slice(packet);
    xor(&mut wire[start..], mask.unwrap_or(NO_MASK));
    wire
}

fn frames_of_brokers() -> Input {
    Input::Frames(FrameReader::new(Peer::Broker))
}

/// As the relay does: what one read gave, into a buffer that is there.
fn translate(times: u64, input: Input, output: Output, wire: &[u8]) {
    let mut translator = Translator::new(input, output, ROOMY, Masks::new(1), Counters::default());
    let mut out = Vec::with_capacity(2 * wire.len());
    for _ in 0..times {
        out.clear();
        let mut rest = black_box(wire);
        let signal = translator.translate(&mut rest, &mut out, usize::MAX);
        assert!(matches!(signal, Ok(None)) && rest.is_empty());
        black_box(&out);
    }
}

fn up(times: u64, output: Output, packets: usize, bytes: usize) {
    let wire = framed(&publish(bytes), Peer::Client).repeat(packets);
    let input = Input::Frames(FrameReader::new(Peer::Client));
    translate(times, input, output, &wire);
}

fn down(times: u64, input: fn() -> Input, bytes: usize) {
    let input = input();
    let wire = match input {
        Input::Frames(_) => framed(&publish(bytes), Peer::Broker),
        Input::Stream => publish(bytes),
    };
    translate(times, input, Output::Frames, &wire);
}

/// The codec alone.
fn frame(times: u64) {
    let wire = framed(&publish(64), Peer::Client);
    let mut reader = FrameReader::new(Peer::Client);
    for _ in 0..times {
        let mut rest = black_box(&wire[..]);
        while reader.next(&mut rest).unwrap() != Event::End {}
    }
}

fn connect(times: u64) {
    let mut packet = b"\x10\x19\0\x04MQTT\x04\x02\0\x3c\0\x0ddevice-000042".to_vec();
    packet[1] = u8::try_from(packet.len() - 2).unwrap();
    for _ in 0..times {
        let connect = Connect::read(black_box(&packet), 65_535).unwrap();
        black_box(connect.client_id);
    }
}

fn choice(times: u64, rule: Rule<'_>) {
    let candidates: Vec<_> = (1_u32..=5)
        .map(|number| Candidate {
            open: true,
            weight: number,
            sessions: 100 * number as usize,
            warmth: 1.0,
            seed: Seed::of(&format!("ws://10.10.1.{number}:8083/mqtt")),
        })
        .collect();
    // It begins by chance.
    fastrand::seed(1);
    let mut turns = RoundRobin::new(candidates.iter().map(|candidate| candidate.weight));
    let mut random = Rng::with_seed(1);
    for _ in 0..times {
        black_box(choose(rule, black_box(&candidates), &mut turns, &mut random).unwrap());
    }
}
