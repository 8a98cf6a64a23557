//! `${VAR}`, `${VAR:-default}` and `${file:/path}` inside string values. `$${` stands for a literal `${`.
//!
//! Opens only the files that the configuration names in this way.

use std::fs::File;
use std::io::Read;

use super::problem::{Place, Problem};
use super::tree::{Content, Node, Text};

/// Far above any secret; keeps a mistaken path from filling memory.
const MAX_FILE: u64 = 64 * 1024;

/// Looks a variable up.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands every string of the tree in place. A string that cannot be expanded is reported and marked `Broken`.
pub(super) fn expand(
    node: &mut Node,
    key: &str,
    environment: Environment<'_>,
    problems: &mut Vec<Problem>,
) {
    match &mut node.content {
        Content::Text(text) if text.text.contains("${") => {
            match expand_text(&text.text, environment) {
                Ok(expanded) => {
                    let written = std::mem::replace(&mut text.text, expanded);
                    text.written = Some(written);
                }
                Err(fault) => {
                    let place = Place {
                        key: key.to_owned(),
                        line: node.line,
                        column: node.column,
                    };
                    problems.push(Problem::new(&place, fault.message).help(fault.help));
                    node.content = Content::Broken;
                }
            }
        }
        Content::List(list) => {
            for (index, child) in list.iter_mut().enumerate() {
                expand(child, &format!("{key}[{index}]"), environment, problems);
            }
        }
        Content::Map(map) => {
            for (name, child) in map {
                expand(
                    child,
                    &super::structure::below(key, &name.name),
                    environment,
                    problems,
                );
            }
        }
        Content::Empty
        | Content::Bool(_)
        | Content::Number(_)
        | Content::Text(_)
        | Content::Broken => {}
    }
}

/// True when the value must not be shown: it was read from a file.
pub(super) fn is_secret(text: &Text) -> bool {
    text.written
        .as_ref()
        .is_some_and(|written| written.contains("${file:"))
}

struct Fault {
    message: String,
    help: String,
}

fn expand_text(text: &str, environment: Environment<'_>) -> Result<String, Fault> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(literal) = before.strip_suffix('$') {
            expanded.push_str(literal);
            expanded.push_str("${");
            rest = &from[2..];
            continue;
        }
        expanded.push_str(before);
        let Some((name, behind)) = from[2..].split_once('}') else {
            return Err(Fault {
                message: "`${` without a closing `}`".to_owned(),
                help: "write `$${` for a literal `${`".to_owned(),
            });
        };
        expanded.push_str(&look_up(name, environment)?);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn look_up(name: &str, environment: Environment<'_>) -> Result<String, Fault> {
    if let Some(path) = name.strip_prefix("file:") {
        return read_file(path).map_err(|error| Fault {
            message: format!("cannot read `{path}`: {error}"),
            help: "the file must exist, be readable by this user and hold UTF-8 text of at most 64 KiB".to_owned(),
        });
    }
    let (variable, default) = match name.split_once(":-") {
        Some((variable, default)) => (variable, Some(default)),
        None => (name, None),
    };
    let valid = !variable.is_empty()
        && !variable.starts_with(|first: char| first.is_ascii_digit())
        && variable
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !valid {
        return Err(Fault {
            message: format!("`{variable}` is not the name of a variable"),
            help: "use `${NAME}`, `${NAME:-default}` or `${file:/path}`; `$${` is a literal `${`"
                .to_owned(),
        });
    }
    let value = environment(variable).filter(|value| !value.is_empty() || default.is_none());
    value
        .or_else(|| default.map(str::to_owned))
        .ok_or_else(|| Fault {
            message: format!("the environment variable `{variable}` is not set"),
            help: format!("set it, or name a default: `${{{variable}:-…}}`"),
        })
}

/// The file's text without the line end that editors put there.
fn read_file(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        return Err(std::io::Error::other("larger than 64 KiB"));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
