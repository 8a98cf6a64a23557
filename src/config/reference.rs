//! `docs/configuration.md`: the reference of every key, written from the schema so that it cannot be wrong about one.

use serde_json::Value;

use super::schema::{Shape, Shapes};
use super::schema_of_types;

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `UPDATE_DOCS=1 cargo test`; change the comments in `src/config/raw*.rs` instead. -->

One YAML file, `/etc/tidegate/tidegate.yaml` unless `-c` names another. `tidegate check -c FILE` reports every mistake in it
at once, with its line; unknown keys are mistakes. `tidegate config print` shows the file with every default filled in.
`config/tidegate.full.yaml` has every key, `config/examples/` has whole setups.

**Values.** Durations carry a unit: `500ms`, `10s`, `5m`, `24h`, `1h30m`, `7d`. Sizes: `64KiB`, `16MiB`, `1GiB`,
`64kB`, `1MB`, or bytes without a unit. A value that begins with `[`, such as `\"[::]:443\"`, needs quotes.

**Variables.** Inside any value `${NAME}` stands for an environment variable, `${NAME:-default}` for one that may be
missing or empty, `${file:/run/secrets/name}` for the text of a file (its last line end is left out). `$${` is a literal
`${`. A variable that is not set is a mistake. Between `{` and `}` or `[` and `]` such a value needs quotes.

**Files.** Relative paths are relative to the working directory of the process, not to the file.
";

/// The reference as Markdown.
pub fn reference() -> String {
    let schema = schema_of_types();
    let shapes = Shapes::new(&schema);
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, &shapes, &schema, "");
    text
}

/// One table for the object at `key`, then a section for each object below it.
fn section(text: &mut String, shapes: &Shapes<'_>, schema: &Value, key: &str) {
    let title = if key.is_empty() {
        "The file".to_owned()
    } else {
        format!("`{key}`")
    };
    text.push_str(&format!("\n## {title}\n\n"));
    let about = shapes.resolve(schema, true)["description"]
        .as_str()
        .unwrap_or_default();
    if !key.is_empty() && !about.is_empty() {
        text.push_str(&format!("{}\n\n", prose(about)));
    }
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    let required = shapes.required(schema);
    for (name, property) in shapes.properties(schema).into_iter().flatten() {
        let needed = required.contains(&name.as_str());
        let (value, default) = (value(shapes, property), default(property, needed));
        text.push_str(&format!(
            "| `{name}` | {value} | {default} | {} |\n",
            meaning(shapes, property)
        ));
    }
    for (name, property) in shapes.properties(schema).into_iter().flatten() {
        let path = if key.is_empty() {
            name.clone()
        } else {
            format!("{key}.{name}")
        };
        match shapes.of(property, true) {
            Shape::Object(object) => section(text, shapes, object, &path),
            Shape::Map(values) if shapes.properties(values).is_some() => {
                section(text, shapes, values, &format!("{path}.<name>"));
            }
            Shape::List(list) if shapes.properties(&list["items"]).is_some() => {
                section(text, shapes, &list["items"], &format!("{path}[]"));
            }
            Shape::Map(_)
            | Shape::List(_)
            | Shape::Words(_)
            | Shape::Boolean
            | Shape::Integer { .. }
            | Shape::Scalar { .. } => {}
        }
    }
}

fn value(shapes: &Shapes<'_>, property: &Value) -> String {
    let alternative = match shapes.of(property, false) {
        Shape::Words(words) if matches!(shapes.of(property, true), Shape::Object(_)) => {
            format!(" or `{}`", words.join("`, `"))
        }
        Shape::Scalar { format, .. }
            if matches!(shapes.of(property, true), Shape::Object(_) | Shape::List(_)) =>
        {
            format!(" or {format}")
        }
        Shape::Object(_)
        | Shape::Map(_)
        | Shape::List(_)
        | Shape::Words(_)
        | Shape::Boolean
        | Shape::Integer { .. }
        | Shape::Scalar { .. } => String::new(),
    };
    let value = match shapes.of(property, true) {
        Shape::Object(_) => "mapping".to_owned(),
        Shape::Map(_) => "mapping by name".to_owned(),
        Shape::List(list) => match list["items"]["format"].as_str() {
            Some(format) => format!("list of: {format}"),
            None => "list".to_owned(),
        },
        Shape::Words(words) => format!("`{}`", words.join("`, `")),
        Shape::Boolean => "`true`, `false`".to_owned(),
        Shape::Integer { least, most } if most == u64::from(u32::MAX) => {
            format!("number from {least}")
        }
        Shape::Integer { least, most } => format!("number, {least} to {most}"),
        Shape::Scalar {
            format: "count", ..
        } => "number or `auto`".to_owned(),
        Shape::Scalar { format, .. } => format.to_owned(),
    };
    value + &alternative
}

fn default(property: &Value, needed: bool) -> String {
    match &property["default"] {
        _ if needed => "*required*".to_owned(),
        Value::String(word) => format!("`{word}`"),
        Value::Bool(_) | Value::Number(_) => format!("`{}`", property["default"]),
        Value::Object(keys) if !keys.is_empty() => "see below".to_owned(),
        Value::Object(_) | Value::Null | Value::Array(_) => String::new(),
    }
}

/// The key's own description, and those of its words.
fn meaning(shapes: &Shapes<'_>, property: &Value) -> String {
    let mut meaning = prose(property["description"].as_str().unwrap_or_default());
    let words = shapes.resolve(property, false)["oneOf"].as_array();
    for word in words.into_iter().flatten() {
        if let (Some(name), Some(about)) = (word["const"].as_str(), word["description"].as_str()) {
            meaning.push_str(&format!(" `{name}`: {}", prose(about)));
        }
    }
    meaning.replace('|', "\\|")
}

fn prose(description: &str) -> String {
    description.replace('\n', " ")
}
