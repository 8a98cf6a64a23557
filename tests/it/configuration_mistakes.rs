//! What is answered to a mistake in a configuration file, and that nothing in one can stop the program.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tidegate::config::{self, Problem};

use crate::configuration::{SMALLEST, assert_file, load, repository};

fn refuse(text: &str) -> String {
    match config::parse(Path::new("test.yaml"), text) {
        Ok(loaded) => panic!("accepted: {:?}", loaded.config),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn every_bad_file_is_answered_as_expected() {
    let folder = repository("tests/fixtures/config/bad");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = Path::new(file.file_name().unwrap());
        let text = fs::read_to_string(&file).unwrap();
        let answer = match config::parse_with(name, &text, &|_name| None) {
            Ok(loaded) => panic!("{} was accepted: {:?}", name.display(), loaded.config),
            Err(problems) => problems.to_string(),
        };
        assert_file(&file.with_extension("expected"), &answer);
    }
}

#[test]
fn nothing_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "hunter2 hunter2").unwrap();
    let from_file = refuse(&SMALLEST.replace(
        "ws://127.0.0.1:8083",
        &format!("${{file:{}}}", secret.display()),
    ));
    assert!(!from_file.contains("hunter2"), "{from_file}");
    for url in [
        "ws://user:hunter2@host",
        "ws://user:hun/ter2@host",
        "http://user:hunter2@host",
    ] {
        let answer = refuse(&SMALLEST.replace("ws://127.0.0.1:8083", url));
        assert!(
            !answer.contains("ter2") && !answer.contains("user:"),
            "{answer}"
        );
    }
}

#[test]
fn what_is_only_suspicious_is_a_warning() {
    let warning = |url: &str| load(&SMALLEST.replace("ws://127.0.0.1:8083", url)).warnings;
    for url in [
        "ws://a:8883",
        "ws://a:1883",
        "mqtts://a:8884",
        "mqtt://a:8083",
        "mqtt://a:8883",
        "ws://a:8084",
        "wss://a:8083",
    ] {
        let warnings = warning(url);
        assert_eq!(warnings.len(), 1, "{url}: {warnings:?}");
        assert_eq!(warnings[0].place.key, "pools.brokers.brokers[0].url");
    }
    for url in [
        "ws://a:8083",
        "wss://a:8084",
        "mqtt://a:1883",
        "mqtts://a:8883",
        "ws://a:9001",
        "ws://a:80",
        "wss://a",
    ] {
        assert!(warning(url).is_empty(), "{url}");
    }
    let unused = SMALLEST.replace(
        "pools: {",
        "pools: { spare: { brokers: [{ url: 'ws://b' }] },",
    );
    assert_eq!(load(&unused).warnings.len(), 1);
}

#[test]
fn later_problems_are_shown_like_the_first_ones() {
    let loaded = load(SMALLEST);
    assert!(loaded.source.problems(Vec::new()).is_none());
    let problem = Problem::new(&loaded.config.listeners[0].place, "the address is in use")
        .help("stop the other program");
    let shown = loaded.source.problems(vec![problem]).unwrap().to_string();
    assert!(
        shown.starts_with("test.yaml:2:24: listeners[0].address: the address is in use\n"),
        "{shown}"
    );
    assert!(
        shown.contains("'127.0.0.1:0'") && shown.contains("help: stop the other program"),
        "{shown}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let problems = config::load(Path::new("/nowhere/tidegate.yaml")).unwrap_err();
    let shown = problems.to_string();
    assert!(
        shown.starts_with("/nowhere/tidegate.yaml: cannot be read: "),
        "{shown}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    refuse(&"[".repeat(100_000));
    refuse(&"a: {".repeat(10_000));
    refuse(&"- ".repeat(10_000));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        drop(config::parse_with(Path::new("x"), &text, &|_name| None));
    }

    /// Real files with a piece exchanged: this reaches every check, not only the YAML parser.
    #[test]
    fn a_damaged_file_never_panics(at in 0_usize..4000, length in 0_usize..12, put in "[\\PC\\n]{0,12}") {
        let mut text: Vec<char> = fs::read_to_string(repository("config/tidegate.full.yaml")).unwrap().chars().collect();
        let from = at.min(text.len());
        let to = (from + length).min(text.len());
        text.splice(from..to, put.chars());
        let text: String = text.into_iter().collect();
        if let Err(problems) = config::parse_with(Path::new("x"), &text, &|_name| None) {
            prop_assert!(!problems.list.is_empty());
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}
