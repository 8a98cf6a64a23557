//! Keeps ARCHITECTURE.md true: a module uses only modules of a lower layer.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. Modules of the same layer do not know each other.
const LAYERS: &[&[&str]] = &[
    &["config", "mqtt", "websocket"],
    &[
        "lifecycle",
        "telemetry",
        "identity",
        "proxy_protocol",
        "tls",
        "http2",
    ],
    &["certificates", "framing", "stream"],
    &["pool", "site", "acme"],
    &["gateway", "admin"],
    &["app", "demo"],
    &["cli"],
];

#[test]
fn nothing_points_back() {
    let layer_of = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut back_edges = Vec::new();
    for (level, layer) in LAYERS.iter().enumerate() {
        for module in *layer {
            for target in modules_used(&code_of(module)) {
                let known_and_not_lower = layer_of(&target).is_some_and(|at| level <= at);
                if target != *module && known_and_not_lower {
                    back_edges.push(format!("{module} uses {target}"));
                }
            }
        }
    }
    assert!(back_edges.is_empty(), "{}", back_edges.join("\n"));
}

/// `super` is the other way out of a module, and this test would not see where it leads.
#[test]
fn no_path_climbs_out_of_its_module() {
    let modules = LAYERS.concat();
    for file in rust_files(Path::new("src")) {
        let code = without_comments(&fs::read_to_string(&file).unwrap());
        assert!(!code.contains("super::super"), "{}", file.display());
        let front = file.parent() == Some(Path::new("src"))
            || (file.ends_with("mod.rs") && file.components().count() == 3);
        let climbs = |module: &&str| code.contains(&format!("super::{module}"));
        if front && let Some(module) = modules.iter().find(|module| climbs(module)) {
            panic!("{} reaches {module} by super", file.display());
        }
    }
}

#[test]
fn every_module_has_a_layer() {
    let map = fs::read_to_string("src/lib.rs").unwrap();
    let listed: Vec<_> = map
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "))
        .map(|module| module.trim_end_matches(';'))
        .collect();
    for module in &listed {
        assert!(
            LAYERS.concat().contains(module),
            "{module} is missing from LAYERS"
        );
    }
    for module in LAYERS.concat() {
        assert!(
            listed.contains(&module),
            "{module} is not in src/lib.rs any more"
        );
    }
    let private = map.lines().find(|line| line.starts_with("mod "));
    assert_eq!(private, None, "a module without `pub` would escape this");
}

#[test]
fn the_layers_in_architecture_md_are_these() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    for (level, layer) in LAYERS.iter().enumerate() {
        let told = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{level}  ")))
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no line for layer {level}"));
        let names = told.split("  ").next().unwrap();
        let mut names: Vec<_> = names.split_whitespace().collect();
        let mut layer = layer.to_vec();
        names.sort_unstable();
        layer.sort_unstable();
        assert_eq!(names, layer, "layer {level}");
    }
}

/// Top-level modules named after `crate::`, alone or inside a `{…}` group.
fn modules_used(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let mut depth = 0;
        let mut at_start_of_path = true;
        let mut name = String::new();
        for c in rest.chars() {
            if c.is_alphanumeric() || c == '_' {
                if at_start_of_path {
                    name.push(c);
                }
                continue;
            }
            if !name.is_empty() {
                used.push(std::mem::take(&mut name));
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => at_start_of_path = true,
                _ if c.is_whitespace() => {}
                _ => at_start_of_path = false,
            }
            if depth < 1 && c != ':' {
                break;
            }
        }
    }
    used
}

/// All code of `src/<module>.rs` and `src/<module>/**`, without comment lines.
fn code_of(module: &str) -> String {
    let folder = Path::new("src").join(module);
    let files: Vec<PathBuf> = if folder.is_dir() {
        rust_files(&folder)
    } else {
        vec![folder.with_extension("rs")]
    };
    files
        .iter()
        .map(|file| without_comments(&fs::read_to_string(file).unwrap()))
        .collect()
}

/// Every Rust file below a folder.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_reader_of_paths_sees_groups_and_nesting() {
    let code = "use crate::{app, config::{model, Problem}};\nlet x = crate::pool::join(crate::mqtt::Version::V5);";
    assert_eq!(modules_used(code), ["app", "config", "pool", "mqtt"]);
}

/// One that no `mod` names is never compiled, and every test in it passes by not being there.
#[test]
fn every_file_of_these_tests_is_a_module() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_named = main
            .lines()
            .any(|line| line.trim() == format!("mod {name};"));
        assert!(
            name == "main" || is_named,
            "{name} is in no `mod` of tests/it/main.rs"
        );
    }
}
