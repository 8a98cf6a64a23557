//! One value without parts: a word, a switch, a number, or text with a syntax of its own.
//!
//! SECURITY: what came out of a `${file:…}` is never quoted in a message.

use serde_json::Value;

use super::expand::is_secret;
use super::problem::redact;
use super::scalar;
use super::schema::Shape;
use super::suggest::closest;
use super::tree::{Content, Text};
use super::values::Fault;

/// The value as JSON, or what is wrong with it: here the message is a whole sentence.
pub(super) fn read_leaf(shape: &Shape<'_>, content: &Content) -> Result<Value, Fault> {
    let value = match shape {
        Shape::Words(words) => word(content, words),
        Shape::Integer { least, most } => integer(content, *least, *most),
        Shape::Scalar { format, integer } => text(content, format, *integer),
        Shape::Boolean => boolean(content),
        Shape::Object(_) | Shape::Map(_) | Shape::List(_) => {
            Err(Fault::new(format!("expected {}", shape.expects())))
        }
    };
    match content {
        // The remedy may quote what it read.
        Content::Text(text) if is_secret(text) => value.map_err(|fault| Fault::new(fault.message)),
        Content::Empty
        | Content::Bool(_)
        | Content::Number(_)
        | Content::Text(_)
        | Content::List(_)
        | Content::Map(_)
        | Content::Broken => value,
    }
}

/// The text of a scalar.
fn written(content: &Content) -> Option<String> {
    match content {
        Content::Text(text) => Some(text.text.clone()),
        Content::Number(number) => Some(number.to_string()),
        Content::Empty
        | Content::Bool(_)
        | Content::List(_)
        | Content::Map(_)
        | Content::Broken => None,
    }
}

fn is_expanded(content: &Content) -> bool {
    matches!(
        content,
        Content::Text(Text {
            written: Some(_),
            ..
        })
    )
}

fn word(content: &Content, words: &[&str]) -> Result<Value, Fault> {
    let text = written(content); // a number too: `minimum: 1.2` without quotes
    if let Some(text) = text.as_deref().filter(|text| words.contains(text)) {
        return Ok(Value::String(text.to_owned()));
    }
    let allowed = format!("allowed: {}", words.join(", "));
    let near = text
        .as_deref()
        .and_then(|text| closest(text, words.iter().copied()));
    let help = near.map_or(allowed.clone(), |near| {
        format!("did you mean `{near}`? {allowed}")
    });
    Err(Fault::new(format!("{} is not allowed here", shown(content))).help(help))
}

fn boolean(content: &Content) -> Result<Value, Fault> {
    if let Content::Bool(value) = content {
        return Ok(Value::Bool(*value));
    }
    match written(content).filter(|_| is_expanded(content)).as_deref() {
        Some("true") => Ok(Value::Bool(true)),
        Some("false") => Ok(Value::Bool(false)),
        Some(_) | None => {
            let message = format!("expected `true` or `false`, found {}", found(content));
            Err(Fault::new(message))
        }
    }
}

fn integer(content: &Content, least: u64, most: u64) -> Result<Value, Fault> {
    let number = match content {
        Content::Number(number) => number.as_u64(),
        Content::Text(text) if text.written.is_some() => text.text.parse().ok(),
        Content::Empty
        | Content::Bool(_)
        | Content::Text(_)
        | Content::List(_)
        | Content::Map(_)
        | Content::Broken => None,
    };
    let number = number.filter(|number| (least..=most).contains(number));
    number.map(Value::from).ok_or_else(|| {
        let found = found(content);
        Fault::new(format!(
            "expected a whole number from {least} to {most}, found {found}"
        ))
    })
}

/// `number`: a bare number is text too.
fn text(content: &Content, format: &str, number: bool) -> Result<Value, Fault> {
    // Their readers say what a bare number lacks.
    let number = number || matches!(format, "duration" | "address");
    let bare = matches!(content, Content::Number(_));
    let Some(text) = written(content).filter(|_| number || !bare) else {
        let expected = if number { "a number or text" } else { "text" };
        let fault = Fault::new(format!("expected {expected}, found {}", found(content)));
        return Err(match bare {
            true => fault.help("put it in quotes if it is meant"),
            false => fault,
        });
    };
    match scalar::reader(format).map(|read| read(&text)) {
        Some(Ok(())) | None => Ok(Value::String(text)),
        Some(Err(fault)) => Err(Fault {
            message: format!("{} {}", shown(content), fault.message),
            help: fault.help,
        }),
    }
}

/// The value in a message.
fn shown(content: &Content) -> String {
    match content {
        Content::Text(text) => match &text.written {
            Some(written) if is_secret(text) => format!("what `{written}` holds"),
            Some(_) | None => format!("`{}`", redact(&text.text).escape_debug()),
        },
        Content::Number(number) => format!("`{number}`"),
        Content::Empty
        | Content::Bool(_)
        | Content::List(_)
        | Content::Map(_)
        | Content::Broken => found(content),
    }
}

/// The value and its kind in a message.
pub(super) fn found(content: &Content) -> String {
    match content {
        Content::Empty => "nothing".to_owned(),
        Content::Bool(value) => format!("`{value}`"),
        Content::Number(number) => format!("the number `{number}`"),
        Content::Text(_) => format!("the text {}", shown(content)),
        Content::List(_) => "a list".to_owned(),
        Content::Map(_) => "a mapping".to_owned(),
        Content::Broken => "something unreadable".to_owned(),
    }
}
