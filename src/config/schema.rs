//! Reads the JSON Schema of the raw types: what a value must look like, which keys an object has.
//!
//! Understands what `schemars` writes for the types in `raw`, and no more; a test walks all of it.

use serde_json::{Map, Value};

use super::scalar;

/// What a value must look like.
#[derive(Debug, Clone)]
pub(super) enum Shape<'a> {
    /// An object with keys of ours: its schema.
    Object(&'a Value),
    /// An object with keys of the operator's: the schema of its values.
    Map(&'a Value),
    /// Its schema.
    List(&'a Value),
    /// One of these.
    Words(Vec<&'a str>),
    Boolean,
    Integer {
        least: u64,
        most: u64,
    },
    /// Text in the syntax of `format`; a bare number where `integer`.
    Scalar {
        format: &'a str,
        integer: bool,
    },
}

impl Shape<'_> {
    pub(super) fn expects(&self) -> &'static str {
        match self {
            Self::Object(_) | Self::Map(_) => "a mapping",
            Self::List(_) => "a list",
            Self::Words(_) => "a word",
            Self::Boolean => "`true` or `false`",
            Self::Integer { .. } => "a whole number",
            Self::Scalar { .. } => "text",
        }
    }
}

pub(super) struct Shapes<'a> {
    root: &'a Value,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self { root }
    }

    /// `mapping` chooses among alternatives (`admin: off` or a mapping, one URL or a list).
    pub(super) fn of(&self, schema: &'a Value, mapping: bool) -> Shape<'a> {
        let schema = self.resolve(schema, mapping);
        if let Some(words) = words(schema) {
            return Shape::Words(words);
        }
        let types = &schema["type"];
        let kind = |name| {
            types == name
                || types
                    .as_array()
                    .is_some_and(|types| types.iter().any(|kind| kind == name))
        };
        if kind("object") {
            return match schema["properties"].is_null() {
                true => Shape::Map(&schema["additionalProperties"]),
                false => Shape::Object(schema),
            };
        }
        if kind("array") {
            return Shape::List(schema);
        }
        if kind("boolean") {
            return Shape::Boolean;
        }
        if kind("string") {
            return Shape::Scalar {
                format: schema["format"].as_str().unwrap_or_default(),
                integer: kind("integer"),
            };
        }
        Shape::Integer {
            least: schema["minimum"].as_u64().unwrap_or(0),
            most: schema["maximum"].as_u64().unwrap_or(u32::MAX.into()),
        }
    }

    pub(super) fn properties(&self, schema: &'a Value) -> Option<&'a Map<String, Value>> {
        self.resolve(schema, true)["properties"].as_object()
    }

    pub(super) fn required(&self, schema: &'a Value) -> Vec<&'a str> {
        let required = self.resolve(schema, true)["required"].as_array();
        required
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// The first sentence about a key.
    pub(super) fn describe(&self, schema: &'a Value, name: &str) -> String {
        let property = &self.resolve(schema, true)["properties"][name];
        let text = property["description"]
            .as_str()
            .unwrap_or_default()
            .replace('\n', " ");
        let sentence = text
            .split_once(". ")
            .map_or(text.as_str(), |(first, _)| first);
        let sentence = sentence.trim_end_matches('.');
        match property["examples"][0].as_str() {
            Some(example) if property["format"] != "file" => {
                format!("{sentence}; for example `{name}: \"{example}\"`")
            }
            Some(_) | None => sentence.to_owned(),
        }
    }

    /// A value that no check finds anything wrong with, in the place of a missing or bad one.
    pub(super) fn stand_in(&self, schema: &'a Value) -> Value {
        match self.of(schema, true) {
            Shape::Object(object) => {
                let required = self.required(object).into_iter();
                let values = required
                    .map(|name| (name.to_owned(), self.stand_in(&object["properties"][name])));
                Value::Object(values.collect())
            }
            Shape::Map(_) => Value::Object(Map::new()),
            Shape::List(list) if list["minItems"].is_u64() => {
                Value::Array(vec![self.stand_in(&list["items"])])
            }
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::Words(words) => words.first().copied().into(),
            Shape::Boolean => true.into(),
            Shape::Integer { least, .. } => least.into(),
            Shape::Scalar { format, .. } => scalar::stand_in(format).into(),
        }
    }

    /// Follows references, and leaves `null` out of alternatives.
    pub(super) fn resolve(&self, schema: &'a Value, mapping: bool) -> &'a Value {
        if let Some(name) = schema["$ref"]
            .as_str()
            .and_then(|path| path.strip_prefix("#/$defs/"))
        {
            return self.resolve(&self.root["$defs"][name], mapping);
        }
        let Some(alternatives) = schema["anyOf"].as_array() else {
            return schema;
        };
        let mut some = alternatives
            .iter()
            .filter(|alternative| alternative["type"] != "null");
        let first = some.next().unwrap_or(&Value::Null);
        let chosen = if mapping {
            some.next_back().unwrap_or(first)
        } else {
            first
        };
        self.resolve(chosen, mapping)
    }
}

/// The words of an `enum`, of a `const`, or of alternatives that are all such.
pub(super) fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(word) = schema["const"].as_str() {
        return Some(vec![word]);
    }
    if let Some(list) = schema["enum"].as_array() {
        return list.iter().map(Value::as_str).collect();
    }
    let alternatives: Vec<Vec<&str>> = schema["oneOf"]
        .as_array()?
        .iter()
        .map(words)
        .collect::<Option<_>>()?;
    Some(alternatives.concat())
}
