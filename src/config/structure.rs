//! The file's tree against the JSON Schema of the raw types: unknown, missing and repeated keys, wrong types, bad values.
//!
//! Goes on behind every mistake. What can be saved is handed on as JSON, a stand-in in the place of each bad value,
//! so that `check` can report its own problems in the same run; `Structure::concerns` tells which of those to drop.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::leaf::{found, read_leaf};
use super::names::label;
use super::problem::{Place, Problem};
use super::schema::{Shape, Shapes};
use super::suggest::closest;
use super::tree::{Content, Key, Node};

/// `pools` and `brokers` → `pools.brokers`.
pub(super) fn below(key: &str, name: &str) -> String {
    if key.is_empty() {
        name.to_owned()
    } else {
        format!("{key}.{name}")
    }
}

/// `pools.brokers.brokers[1].url` → `pools.brokers.brokers[1]` → `pools.brokers.brokers`.
fn above(key: &str) -> &str {
    key.rfind(['.', '[']).map_or("", |at| &key[..at])
}

/// Where each value of the file stands.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, (usize, usize)>);

impl Places {
    /// The place of a key; where the file does not have it, of what it would stand in.
    pub(super) fn of(&self, key: &str) -> Place {
        let mut at = key;
        let (line, column) = loop {
            match self.0.get(at) {
                Some(found) => break *found,
                None if at.is_empty() => break (0, 0),
                None => at = above(at),
            }
        };
        Place {
            key: key.to_owned(),
            line,
            column,
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// What the walk found.
#[derive(Debug)]
pub(super) struct Structure {
    pub problems: Vec<Problem>,
    pub places: Places,
    /// `None` where so much is wrong that a further look would find consequences only.
    pub value: Option<Value>,
    /// Keys whose values are not the ones in the file.
    bad: Vec<String>,
}

/// Sections that others are checked against.
const REFERRED_TO: [&str; 5] = ["", "listeners", "certificates", "routes", "pools"];

impl Structure {
    /// True when a problem of a later check may be nothing but a consequence of one found here.
    pub(super) fn concerns(&self, problem: &Problem) -> bool {
        let key = &problem.place.key;
        self.bad
            .iter()
            .any(|bad| is_within(bad, key) || is_within(key, bad))
    }
}

/// True for `limits.packet` within `limits`, and for each within itself.
fn is_within(key: &str, whole: &str) -> bool {
    let rest = key.strip_prefix(whole);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Walks the whole tree.
pub(super) fn walk(root: &Node, schema: &Value) -> Structure {
    let mut walker = Walker {
        shapes: Shapes::new(schema),
        problems: Vec::new(),
        places: Places::default(),
        bad: Vec::new(),
    };
    let value = walker.value(root, schema, "");
    let lost = walker
        .bad
        .iter()
        .any(|bad| REFERRED_TO.contains(&bad.as_str()));
    Structure {
        problems: walker.problems,
        places: walker.places,
        value: (!lost).then_some(value),
        bad: walker.bad,
    }
}

struct Walker<'a> {
    shapes: Shapes<'a>,
    problems: Vec<Problem>,
    places: Places,
    bad: Vec<String>,
}

impl<'a> Walker<'a> {
    /// The node as JSON; a stand-in where it is not what the schema wants.
    fn value(&mut self, node: &Node, schema: &'a Value, key: &str) -> Value {
        if !key.is_empty() {
            self.places
                .0
                .insert(key.to_owned(), (node.line, node.column));
        }
        if matches!(node.content, Content::Broken) {
            self.bad.push(key.to_owned()); // reported by `expand`
            return self.shapes.stand_in(schema);
        }
        let shape = self.shapes.of(
            schema,
            matches!(node.content, Content::Map(_) | Content::List(_)),
        );
        match (shape, &node.content) {
            (Shape::Object(object), Content::Map(map)) => self.object(node, map, object, key),
            (Shape::Object(_), Content::Empty) if key.is_empty() => {
                self.object(node, &[], schema, key)
            }
            (Shape::Map(values), Content::Map(map)) => self.named(map, values, key),
            (Shape::List(list), Content::List(nodes)) => self.list(node, nodes, list, key),
            (shape @ (Shape::Object(_) | Shape::Map(_) | Shape::List(_)), content) => {
                let message = format!("expected {}, found {}", shape.expects(), found(content));
                self.refuse(node, schema, key, message, None)
            }
            (
                leaf @ (Shape::Words(_)
                | Shape::Boolean
                | Shape::Integer { .. }
                | Shape::Scalar { .. }),
                content,
            ) => match read_leaf(&leaf, content) {
                Ok(value) => value,
                Err(fault) => {
                    let mapping = matches!(leaf, Shape::Words(_))
                        && matches!(self.shapes.of(schema, true), Shape::Object(_));
                    let help = fault.help.map(|help| {
                        if mapping {
                            help + ", or a mapping"
                        } else {
                            help
                        }
                    });
                    self.refuse(node, schema, key, fault.message, help)
                }
            },
        }
    }

    fn object(&mut self, node: &Node, map: &[(Key, Node)], schema: &'a Value, key: &str) -> Value {
        let properties = self.shapes.properties(schema);
        let mut seen = BTreeMap::new();
        let mut object = Map::new();
        for (name, child) in map {
            let path = below(key, &name.name);
            let Some(schema) = properties.and_then(|known| known.get(&name.name)) else {
                self.unknown(name, properties, key);
                continue;
            };
            // `limits:` with every line below commented out means the defaults.
            if self.is_first(&mut seen, name, &path) && !matches!(child.content, Content::Empty) {
                let value = self.value(child, schema, &path);
                object.insert(name.name.clone(), value);
            }
        }
        for name in self.shapes.required(schema) {
            if !object.contains_key(name) {
                let value = self.missing(node, schema, key, name);
                object.insert(name.to_owned(), value);
            }
        }
        Value::Object(object)
    }

    fn missing(&mut self, node: &Node, schema: &'a Value, key: &str, name: &str) -> Value {
        let path = below(key, name);
        if !self.bad.contains(&path) {
            // Nothing is missing at the place where the whole file begins.
            let (line, column) = if key.is_empty() {
                (0, 0)
            } else {
                (node.line, node.column)
            };
            let place = Place {
                key: path.clone(),
                line,
                column,
            };
            self.problems
                .push(Problem::new(&place, "missing").help(self.shapes.describe(schema, name)));
            self.bad.push(path);
        }
        let property = self
            .shapes
            .properties(schema)
            .and_then(|known| known.get(name));
        property.map_or(Value::Null, |property| self.shapes.stand_in(property))
    }

    /// A mapping whose keys are the operator's own.
    fn named(&mut self, map: &[(Key, Node)], schema: &'a Value, key: &str) -> Value {
        let mut object = Map::new();
        let mut seen = BTreeMap::new();
        for (name, child) in map {
            let path = below(key, &name.name);
            if !self.is_first(&mut seen, name, &path) {
                continue;
            }
            if let Err(fault) = label(&name.name) {
                let mut problem = Problem::new(
                    &name.place(&path),
                    format!("`{}` {fault}", name.name.escape_debug()),
                );
                problem.help = fault.help;
                self.problems.push(problem);
                self.bad.push(path.clone());
            }
            object.insert(name.name.clone(), self.value(child, schema, &path));
        }
        Value::Object(object)
    }

    /// Reports a key that stands twice; the first one counts.
    fn is_first<'k>(
        &mut self,
        seen: &mut BTreeMap<&'k str, usize>,
        name: &'k Key,
        path: &str,
    ) -> bool {
        let Some(line) = seen.get(name.name.as_str()) else {
            seen.insert(&name.name, name.line);
            return true;
        };
        let message = format!("repeated: it already stands in line {line}");
        self.problems
            .push(Problem::new(&name.place(path), message).help("keep one of them"));
        self.bad.push(path.to_owned());
        false
    }

    fn list(&mut self, node: &Node, nodes: &[Node], schema: &'a Value, key: &str) -> Value {
        if nodes.is_empty() && schema["minItems"].as_u64() >= Some(1) {
            let help = Some("at least one is needed".to_owned());
            return self.refuse(node, schema, key, "empty".to_owned(), help);
        }
        let items = nodes.iter().enumerate();
        items
            .map(|(index, child)| self.value(child, &schema["items"], &format!("{key}[{index}]")))
            .collect()
    }

    fn refuse(
        &mut self,
        node: &Node,
        schema: &'a Value,
        key: &str,
        message: String,
        help: Option<String>,
    ) -> Value {
        let place = Place {
            key: key.to_owned(),
            line: node.line,
            column: node.column,
        };
        let problem = Problem::new(&place, message);
        self.problems.push(Problem { help, ..problem });
        self.bad.push(key.to_owned());
        self.shapes.stand_in(schema)
    }

    fn unknown(&mut self, name: &Key, known: Option<&Map<String, Value>>, key: &str) {
        let names: Vec<&str> = known
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .collect();
        let near = closest(&name.name, names.iter().copied());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("allowed: {}", names.join(", ")),
        };
        let path = below(key, &name.name);
        self.problems
            .push(Problem::new(&name.place(&path), "unknown key").help(help));
        self.bad.push(path);
        self.bad.extend(near.map(|near| below(key, near)));
    }
}
