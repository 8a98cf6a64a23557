//! The files of `deploy/`: each goes through the checker of whoever reads it, and is used as far as that goes here.

mod debian;
mod docker;
mod kubernetes;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidegate::config;

use crate::support::authority::Authority;
use crate::support::program::command;
use crate::support::tools;

/// What is left of a grace period for the end of the process.
const RESERVE: Duration = Duration::from_secs(20);

/// As `openssl rand -base64 48` prints it.
const TICKET_KEY: &str = "bTJ1cVZ0cWJ3RkN6Tk1oS3BYc0xkUmdKeVRlVW5PaUFhQmZEa0c3MXhaSHZFOTQy\n";

/// The files that a shell reads.
const SCRIPTS: &[&str] = &[
    ".ci/run",
    "certs/make-dev-certs.sh",
    "deploy/debian/build",
    "deploy/debian/postinst",
    "deploy/debian/postrm",
    "deploy/systemd/certbot-deploy-hook",
    "tests/install-mosquitto-2.1.sh",
    "tests/install.sh",
];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file or folder of `deploy/`.
fn deploy(path: &str) -> PathBuf {
    project().join("deploy").join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything it says on both outputs; panics unless it succeeds.
fn said(command: &mut Command) -> String {
    let (code, said) = outcome(command);
    assert_eq!(code, Some(0), "{command:?}\n{said}");
    said
}

/// The exit code, and everything it says.
fn outcome(command: &mut Command) -> (Option<i32>, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), said)
}

/// The documents of a YAML file or stream.
fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// Runs `tidegate check` over a configuration that names its certificate as in `deploy/`.
fn check(configuration: &str) {
    let loaded = config::parse(Path::new("tidegate.yaml"), configuration);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let folder = TempDir::new().unwrap();
    let authority = Authority::make(folder.path());
    let tickets = folder.path().join("ticket.keys");
    fs::write(&tickets, TICKET_KEY).unwrap();
    let mut text = configuration.to_owned();
    for (there, here) in [
        ("/etc/tidegate-tls/tls.crt", &authority.chain),
        ("/etc/tidegate-tls/tls.key", &authority.key),
        (
            "chain: /etc/tidegate/tls/example.com.pem",
            &PathBuf::from(format!("chain: {}", authority.chain.display())),
        ),
        (
            "key: /etc/tidegate/tls/example.com.pem",
            &PathBuf::from(format!("key: {}", authority.key.display())),
        ),
        ("/etc/tidegate-tickets/ticket.keys", &tickets),
        ("/usr/share/tidegate/www", &project().join("config/www")),
    ] {
        text = text.replace(there, here.to_str().unwrap());
    }
    fs::write(folder.path().join("tidegate.yaml"), &text).unwrap();
    let told = said(&mut command(
        folder.path(),
        &["check", "-c", "tidegate.yaml"],
    ));
    assert!(told.contains("the configuration is good"), "{told}");
}

/// What a configuration allows a drain to take: the announcement and the end.
fn drain_of(configuration: &str) -> Duration {
    let loaded = config::parse(Path::new("tidegate.yaml"), configuration);
    let drain = loaded
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
        .drain;
    drain.announce + drain.max
}

#[test]
fn every_script_passes_shellcheck() {
    let mut shellcheck = Command::new(tools::shellcheck());
    shellcheck.args(SCRIPTS).current_dir(project());
    assert_eq!(said(&mut shellcheck), "");
    for folder in [".ci", "certs", "deploy", "tests"] {
        for file in files(&project().join(folder)) {
            let text = fs::read(&file).unwrap();
            let first = text.split(|&byte| byte == b'\n').next().unwrap();
            let name = file.strip_prefix(project()).unwrap().to_str().unwrap();
            let is_script = first.starts_with(b"#!") && first.ends_with(b"sh");
            assert!(
                !is_script || SCRIPTS.contains(&name),
                "{name} is not checked"
            );
        }
    }
}

/// Every file below the folder, but for what was installed there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let is_folder = entry.file_type().unwrap().is_dir();
        if !is_folder {
            found.push(entry.path());
        } else if entry.file_name() != "node_modules" {
            found.extend(files(&entry.path()));
        }
    }
    found
}

#[test]
fn every_page_of_the_manual_is_one_that_man_reads() {
    let folder = TempDir::new().unwrap();
    let told = said(&mut command(folder.path(), &["man", "pages"]));
    let mut names = Vec::new();
    for line in told.lines() {
        let page = read(&folder.path().join(line));
        let name = line
            .strip_prefix("pages/")
            .and_then(|name| name.strip_suffix(".8"))
            .unwrap();
        for part in [
            format!(".TH {} 8", name.to_uppercase()),
            ".SH NAME".to_owned(),
            ".SH SYNOPSIS".to_owned(),
        ] {
            assert!(page.contains(&part), "{name} has no {part}\n{page}");
        }
        names.push(name.to_owned());
    }
    // A page for each command, and the commands' own commands.
    let help = said(&mut command(folder.path(), &["--help"]));
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands = commands.split("\n\n").next().unwrap();
    for command in commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let page = format!("tidegate-{command}");
        assert!(
            command == "help" || names.contains(&page),
            "{page}: {names:?}"
        );
    }
    assert!(
        names.contains(&"tidegate".to_owned()) && names.contains(&"tidegate-cert-dev".to_owned())
    );
    assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
}

/// Unit, image, manifests and their page name commands; each must be one that the program has.
#[test]
fn every_command_that_is_told_is_one_that_there_is() {
    let folder = TempDir::new().unwrap();
    let help = said(&mut command(folder.path(), &["--help"]));
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut told = 0;
    for path in files(&project().join("deploy"))
        .into_iter()
        .chain([project().join("docs/deploy.md")])
    {
        let text = read(&path);
        // `tidegate WORD`, `/usr/bin/tidegate WORD` and `"/usr/bin/tidegate", "WORD"` in places where a program is started.
        for (start, end) in [
            ("/usr/bin/tidegate ", ' '),
            ("/usr/bin/tidegate\", \"", '"'),
            ("`tidegate ", '`'),
        ] {
            for rest in text.split(start).skip(1) {
                let word = rest.split([end, ' ', '`', '\n', '"']).next().unwrap();
                let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
                if is_word {
                    assert!(
                        commands.contains(&word),
                        "{}: tidegate {word}",
                        path.display()
                    );
                    told += 1;
                }
            }
        }
    }
    assert!(told >= 8, "{told}");
}
