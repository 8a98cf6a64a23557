//! Every configuration that ships goes through the loader that start-up uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidegate::config;

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files: Vec<PathBuf> = [root.clone(), root.join("examples")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    files
}

/// A schema without references and without the `null` of optional keys, as far as this test looks.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(path) = schema["$ref"].as_str() {
        return resolve(root, root.pointer(path.trim_start_matches('#')).unwrap());
    }
    let mut alternatives = schema["anyOf"].as_array().into_iter().flatten();
    let object = alternatives.rfind(|alternative| alternative["type"] != "null");
    object.map_or(schema, |object| resolve(root, object))
}

/// Every key of the schema, `[]` and `<name>` standing for elements; with its default.
fn keys(root: &Value, schema: &Value, path: &str, found: &mut Paths) {
    let schema = resolve(root, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found.push((path.clone(), property["default"].clone()));
        keys(root, property, &path, found);
    }
    if schema["items"].is_object() {
        keys(root, &schema["items"], &format!("{path}[]"), found);
    }
    if schema["additionalProperties"].is_object() {
        keys(
            root,
            &schema["additionalProperties"],
            &format!("{path}.<name>"),
            found,
        );
    }
}

/// Every value of the file below the same paths.
fn values(value: &Value, path: &str, found: &mut Paths) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let name = if path == ".pools" { "<name>" } else { name };
                let path = format!("{path}.{name}");
                found.push((path.clone(), value.clone()));
                values(value, &path, found);
            }
        }
        Value::Array(list) => list
            .iter()
            .for_each(|value| values(value, &format!("{path}[]"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Paths with a value or a default each.
type Paths = Vec<(String, Value)>;

/// The keys of the schema, and what the full configuration gives them.
fn full() -> (Paths, Paths) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tidegate.full.yaml");
    let file: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (schema, mut keys_found, mut values_found) =
        (config::schema_of_types(), Vec::new(), Vec::new());
    keys(&schema, &schema, "", &mut keys_found);
    values(&file, "", &mut values_found);
    (keys_found, values_found)
}

#[test]
fn every_shipped_configuration_loads_without_a_warning() {
    let files = shipped();
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let loaded = config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(
            loaded.warnings.is_empty(),
            "{}: {:?}",
            file.display(),
            loaded.warnings
        );
    }
}

#[test]
fn the_smallest_configuration_has_fewer_than_15_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tidegate.yaml");
    assert!(fs::read_to_string(path).unwrap().lines().count() < 15);
}

#[test]
fn the_full_configuration_has_every_key() {
    let (keys, values) = full();
    let written: BTreeSet<&String> = values.iter().map(|(path, _)| path).collect();
    let missing: Vec<&String> = keys
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !written.contains(path))
        .collect();
    assert!(
        missing.is_empty(),
        "config/tidegate.full.yaml lacks {missing:?}"
    );
    assert!(keys.len() > 60, "the schema was not understood: {keys:?}");
}

#[test]
fn the_full_configuration_has_every_key_at_its_default() {
    let (keys, values) = full();
    let as_text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    for (path, default) in keys {
        // Paths of routes and lists are the operator's; only their scalars have defaults worth showing.
        if default.is_null()
            || default.is_object()
            || default.is_array()
            || path == ".routes[].path"
        {
            continue;
        }
        for (_, value) in values.iter().filter(|(other, _)| *other == path) {
            assert_eq!(as_text(value), as_text(&default), "{path}");
        }
    }
}
