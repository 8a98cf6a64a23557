//! The units: what systemd reads them as, what they keep the process from, and that it still works behind that.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::config;

use super::{RESERVE, check, deploy, drain_of, outcome, project, read, said};
use crate::support::broker::Broker;
use crate::support::client::{Client, tls_to};
use crate::support::gateway::pool_of;
use crate::support::program::Program;
use crate::support::{PATIENCE, packets, tools};

const UNITS: &[&str] = &[
    "tidegate.service",
    "tidegate.socket",
    "tidegate-redirect.socket",
];

/// What the kernel asks for in a unit, 20 is 2.0.
const THRESHOLD: &str = "--threshold=20";

/// A system with the units, these drop-ins, and something that can be executed as `/usr/bin/tidegate`.
fn system(drop_ins: &[&str]) -> TempDir {
    let root = TempDir::new().unwrap();
    let units = root.path().join("usr/lib/systemd/system");
    let own = root.path().join("etc/systemd/system/tidegate.service.d");
    for folder in [&units, &own, &root.path().join("usr/bin")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::copy("/bin/true", root.path().join("usr/bin/tidegate")).unwrap();
    let mut there = Command::new("cp");
    there.args(["-r", "/lib/systemd/system/.", units.to_str().unwrap()]);
    said(&mut there);
    for unit in UNITS {
        fs::copy(deploy("systemd").join(unit), units.join(unit)).unwrap();
    }
    for drop_in in drop_ins {
        let from = deploy("systemd/tidegate.service.d").join(drop_in);
        fs::copy(from, own.join(drop_in)).unwrap();
    }
    root
}

/// `systemd-analyze` in that system.
fn analyze(root: &TempDir, verb: &str, options: &[&str]) -> Command {
    let mut analyze = Command::new(tools::systemd_analyze());
    analyze
        .arg(verb)
        .arg(format!("--root={}", root.path().display()))
        .args(options);
    analyze
}

fn verify(root: &TempDir) -> Command {
    let mut verify = analyze(root, "verify", &["--man=no", "--recursive-errors=yes"]);
    verify.args(UNITS);
    verify
}

/// The values of a key in a unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = read(&deploy("systemd").join(unit));
    let prefix = format!("{key}=");
    let values = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    values.map(str::to_owned).collect()
}

fn value(unit: &str, key: &str) -> String {
    let mut values = values(unit, key);
    assert_eq!(values.len(), 1, "{unit} has {key} {} times", values.len());
    values.remove(0)
}

fn seconds(value: &str) -> Duration {
    let number = value.strip_suffix('s').unwrap_or_else(|| panic!("{value}"));
    Duration::from_secs(number.parse().unwrap())
}

#[test]
fn systemd_reads_the_units_without_a_complaint() {
    for drop_ins in [&[][..], &["10-sockets.conf"]] {
        assert_eq!(said(&mut verify(&system(drop_ins))), "", "{drop_ins:?}");
    }
    let (code, told) = outcome(&mut verify(&system(&["20-notify-reload.conf"])));
    // 253 knows it, older ones keep `notify` and say so.
    if version() >= 253 {
        assert_eq!((code, told.as_str()), (Some(0), ""));
    } else {
        let one_complaint = told.lines().count() == 1 && told.contains("ignoring: notify-reload");
        assert!(one_complaint, "{told}");
    }
}

fn version() -> u32 {
    let told = said(Command::new(tools::systemd_analyze()).arg("--version"));
    let number = told.split_whitespace().nth(1).unwrap();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn the_service_is_exposed_by_less_than_2_of_10() {
    let page = read(&project().join("docs/deploy.md"));
    for (drop_ins, words) in [
        (&[][..], " of 10"),
        (&["10-sockets.conf"], " with the sockets"),
    ] {
        let root = system(drop_ins);
        let options = ["--offline=true", THRESHOLD, "tidegate.service"];
        let told = said(&mut analyze(&root, "security", &options));
        let (_, level) = told.rsplit_once("tidegate.service: ").unwrap();
        let level = level.split(' ').next().unwrap();
        assert!(
            page.contains(&format!("{level}{words}")),
            "docs/deploy.md: {level}{words}"
        );
    }
}

/// `Type=notify` and the rest are only words in a file until they fit the process.
#[test]
fn the_unit_gives_a_drain_its_time_and_does_not_repeat_a_wrong_configuration() {
    let configuration = read(&deploy("debian/tidegate.yaml"));
    let stop = seconds(&value("tidegate.service", "TimeoutStopSec"));
    assert!(
        drain_of(&configuration) + RESERVE <= stop,
        "{stop:?} is too short"
    );
    let hopeless = value("tidegate.service", "RestartPreventExitStatus");
    assert_eq!(hopeless, "2 78");
    check(&configuration);
}

/// `LISTEN_FDNAMES` is how the process knows which socket is whose.
#[test]
fn sockets_have_names_and_addresses_of_listeners_that_are_packaged() {
    let text = read(&deploy("debian/tidegate.yaml"));
    let loaded = config::parse(Path::new("tidegate.yaml"), &text).unwrap();
    let listeners: BTreeSet<_> = loaded
        .config
        .listeners
        .iter()
        .map(|listener| (listener.name.to_string(), listener.address.to_string()))
        .collect();
    let sockets: BTreeSet<_> = UNITS
        .iter()
        .filter(|unit| unit.ends_with(".socket"))
        .map(|unit| {
            (
                value(unit, "FileDescriptorName"),
                value(unit, "ListenStream"),
            )
        })
        .collect();
    assert_eq!(sockets, listeners);
    let named = value("tidegate.service.d/10-sockets.conf", "Sockets");
    let named: BTreeSet<&str> = named.split(' ').collect();
    let units = UNITS.iter().filter(|unit| unit.ends_with(".socket"));
    assert_eq!(named, units.copied().collect());
}

/// The names of a set of system calls, with those of the sets in it.
fn system_calls(set: &str) -> BTreeSet<String> {
    let mut command = Command::new(tools::systemd_analyze());
    let told = said(command.args(["syscall-filter", set]));
    let mut calls = BTreeSet::new();
    let lines = told.lines().filter(|line| line.starts_with("    "));
    for line in lines.map(str::trim).filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('@') {
            Some(_) => calls.extend(system_calls(line)),
            None => _ = calls.insert(line.to_owned()),
        }
    }
    calls
}

/// What the unit allows, in its order: one list of what is good, one of what is bad.
fn allowed() -> BTreeSet<String> {
    let mut allowed = system_calls("@default");
    for filter in values("tidegate.service", "SystemCallFilter") {
        let (bad, sets) = match filter.strip_prefix('~') {
            Some(sets) => (true, sets),
            None => (false, filter.as_str()),
        };
        for set in sets.split(' ') {
            let calls = system_calls(set);
            assert!(!calls.is_empty(), "{set}");
            if bad {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    allowed
}

#[tokio::test]
async fn a_session_from_start_to_drain_needs_no_call_and_no_socket_that_the_unit_forbids() {
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace");
    let broker = Broker::start().await;
    let program = Program::start(&pool_of(&[broker.mqtt_url()]), |run| {
        let mut traced = Command::new(tools::strace());
        // -D: the program keeps its own process id, for the signal.
        traced.args(["-D", "-f", "-qq", "-o"]).arg(&trace);
        traced.arg(run.get_program()).args(run.get_args());
        traced.current_dir(run.get_current_dir().unwrap());
        traced
    })
    .await;
    let stream = tls_to(program.address(0), &program.authority.ca).await;
    let mut client = Client::over(stream).await;
    client.send(&packets::connect("traced", 60)).await;
    let _session = broker.welcome().await;
    assert_eq!(client.receive().await, packets::connack(0));
    program.process.signal("TERM");
    assert_eq!(client.closed().await.code, 1001);
    assert!(program.process.finish(PATIENCE).await.status.success());

    let trace = read(&trace);
    let ours = after_execution(&trace);
    let used: BTreeSet<String> = ours
        .iter()
        .filter_map(|line| line.split_once('('))
        .map(|(name, _)| name.trim_start_matches("<... ").to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(
        used.contains("accept4") && used.contains("epoll_wait"),
        "{used:?}"
    );
    let forbidden: Vec<_> = used.difference(&allowed()).cloned().collect();
    assert!(forbidden.is_empty(), "the unit forbids {forbidden:?}");

    let families = value("tidegate.service", "RestrictAddressFamilies");
    let families: BTreeSet<&str> = families.split(' ').collect();
    for line in ours.iter().filter(|line| line.starts_with("socket(")) {
        let family = line["socket(".len()..].split(',').next().unwrap();
        assert!(families.contains(family), "{line}");
    }
    // MemoryDenyWriteExecute.
    let writable_code = ours
        .iter()
        .find(|line| line.contains("PROT_WRITE|PROT_EXEC"));
    assert_eq!(writable_code, None);
}

/// The lines of the program itself, without process ids: what comes before its execution is the shell's.
fn after_execution(trace: &str) -> Vec<&str> {
    let calls: Vec<&str> = trace
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.trim_start())
        .collect();
    let start = calls.iter().rposition(|call| call.starts_with("execve("));
    calls[start.unwrap() + 1..].to_vec()
}

/// `key = value` of the sysctl file.
fn settings() -> Vec<(String, String)> {
    let text = read(&deploy("systemd/60-tidegate.conf"));
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
        .map(|line| {
            let (key, value) = line.trim_start_matches('#').split_once(" = ").unwrap();
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// Not in a container, which has a network of its own; and the last one only where the firewall is loaded.
const ELSEWHERE: &[&str] = &[
    "net.core.netdev_max_backlog",
    "net.ipv4.tcp_max_orphans",
    "net.netfilter.nf_conntrack_max",
];

#[test]
fn every_kernel_setting_exists_and_agrees_with_the_units() {
    let settings = settings();
    let number = |key: &str| -> u64 {
        let found = settings.iter().find(|(name, _)| name == key);
        found
            .unwrap_or_else(|| panic!("no {key}"))
            .1
            .parse()
            .unwrap()
    };
    for (key, _) in &settings {
        let optional = ELSEWHERE.contains(&key.as_str());
        let file = format!("/proc/sys/{}", key.replace('.', "/"));
        assert!(optional || Path::new(&file).exists(), "{file}");
    }
    let open_files: u64 = value("tidegate.service", "LimitNOFILE").parse().unwrap();
    assert!(open_files <= number("fs.nr_open"));
    assert!(number("fs.nr_open") <= number("fs.file-max"));
    // 100,000 sessions, two descriptors each.
    assert!(open_files > 200_000);
    let backlog: u64 = value("tidegate.socket", "Backlog").parse().unwrap();
    assert!(backlog <= number("net.core.somaxconn"));
    let range = settings
        .iter()
        .find(|(key, _)| key.ends_with("ip_local_port_range"));
    let (first, last) = range.unwrap().1.split_once(' ').unwrap();
    let ports = last.parse::<u32>().unwrap() - first.parse::<u32>().unwrap() + 1;
    assert_eq!(ports, 55_296, "the comments say 55,296");
}
