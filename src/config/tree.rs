//! YAML text → a tree that knows where every key and value stands. The only file that names the YAML crate.
//!
//! Duplicate keys are kept, so that the caller can report each of them. Depth and aliases are bounded.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::{DuplicateKeyPolicy, Error, Spanned};

use super::problem::{Place, Problem};

/// Deeper than any key of ours; a bound for recursion.
const MAX_DEPTH: usize = 32;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub line: usize,
    pub column: usize,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// `key:` with nothing behind it, or `null`.
    Empty,
    Bool(bool),
    Number(Number),
    Text(Text),
    List(Vec<Node>),
    /// In file order, duplicates included.
    Map(Vec<(Key, Node)>),
    /// Already reported.
    Broken,
}

#[derive(Debug)]
pub(super) struct Text {
    pub text: String,
    /// What stood in the file, where `text` came out of a `${…}`.
    pub written: Option<String>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub name: String,
    pub line: usize,
    pub column: usize,
}

impl Node {
    pub(super) fn below(&self, name: &str) -> Option<&Self> {
        let Content::Map(map) = &self.content else {
            return None;
        };
        let found = map.iter().find(|(key, _)| key.name == name);
        found.map(|(_, node)| node)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(&text.text),
            Content::Empty
            | Content::Bool(_)
            | Content::Number(_)
            | Content::List(_)
            | Content::Map(_)
            | Content::Broken => None,
        }
    }
}

impl Key {
    pub(super) fn place(&self, path: &str) -> Place {
        Place {
            key: path.to_owned(),
            line: self.line,
            column: self.column,
        }
    }
}

/// Reads one document. Broken YAML is one problem: behind it nothing can be placed.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| unreadable(&error, text))
}

fn unreadable(error: &Error, text: &str) -> Problem {
    let location = error.location();
    let place = Place {
        key: String::new(),
        line: location.map_or(0, |at| size(at.line())),
        column: location.map_or(0, |at| size(at.column())),
    };
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let message = message.split(';').next().unwrap_or_default(); // behind it: advice to programmers
    let problem = Problem::new(&place, format!("not valid YAML: {message}"));
    let line = place
        .line
        .checked_sub(1)
        .and_then(|at| text.lines().nth(at));
    match line {
        Some(line) if line.contains('\t') => {
            problem.help("indent with spaces; YAML allows no tabs")
        }
        Some(line) if line.contains(": [::") => {
            problem.help("a value that begins with `[` needs quotes: `\"[::]:443\"`")
        }
        _ if message.contains("multiple YAML documents") => {
            problem.help("remove the line `---` and what stands below it")
        }
        Some(line) if has_bare_variable(line) => problem
            .help("between `{` and `}`, or `[` and `]`, a value with a variable needs quotes: `\"${NAME}\"`"),
        _ => problem,
    }
}

/// A variable without quotes inside of braces or brackets, which end at its own.
fn has_bare_variable(line: &str) -> bool {
    line.split_once("${").is_some_and(|(before, _)| {
        before.contains(['{', '[']) && before.trim_end().ends_with([':', ',', '{', '['])
    })
}

fn size(position: u64) -> usize {
    usize::try_from(position).unwrap_or_default()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            line: size(spanned.referenced.line()),
            column: size(spanned.referenced.column()),
            content: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Empty)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Empty)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Number::from_f64(value).map_or_else(|| text(value.to_string()), Content::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut map = Vec::new();
        while let Some((key, node)) = access.next_entry::<Node, Node>()? {
            let name = match key.content {
                Content::Text(text) => text.text,
                Content::Bool(value) => value.to_string(),
                Content::Number(value) => value.to_string(),
                Content::Empty | Content::List(_) | Content::Map(_) | Content::Broken => {
                    return Err(serde::de::Error::custom("a key must be text"));
                }
            };
            let key = Key {
                name,
                line: key.line,
                column: key.column,
            };
            map.push((key, node));
        }
        Ok(Content::Map(map))
    }
}

fn text(text: String) -> Content {
    Content::Text(Text {
        text,
        written: None,
    })
}
