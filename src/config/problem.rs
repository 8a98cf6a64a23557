//! What is wrong with a configuration, and where.
//!
//! A `Problem` always names a key path; line and column are known for everything that stands in the file.
//! `Problems` carries the text of the file, so that its `Display` can show the line with a caret under the place.

use std::fmt;
use std::path::PathBuf;

/// A key of the configuration and where its value stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `pools.brokers.brokers[1].url`
    pub key: String,
    /// From 1; 0 when the key does not stand in the file.
    pub line: usize,
    /// From 1; 0 when the key does not stand in the file.
    pub column: usize,
}

/// One mistake: what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub message: String,
    /// The remedy, where there is one to name.
    pub help: Option<String>,
}

impl Problem {
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        Self {
            place: place.clone(),
            message: message.into(),
            help: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Every mistake of one file, in the order of the file.
#[derive(Debug, Clone)]
pub struct Problems {
    pub file: PathBuf,
    /// The file's text as read; empty when it could not be read.
    pub text: String,
    /// Never empty.
    pub list: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            self.show(out, problem)?;
        }
        Ok(())
    }
}

impl Problems {
    /// `file:line:column: key: message`, the line with a caret, and the remedy.
    fn show(&self, out: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        let Place { key, line, column } = &problem.place;
        write!(out, "{}", self.file.display())?;
        if *line > 0 {
            write!(out, ":{line}:{column}")?;
        }
        if !key.is_empty() {
            write!(out, ": {key}")?;
        }
        writeln!(out, ": {}", problem.message)?;
        let source = line.checked_sub(1).and_then(|at| self.text.lines().nth(at));
        if let Some(source) = source {
            let gutter = line.to_string().len();
            writeln!(out, "{:gutter$} |", "")?;
            writeln!(out, "{line} | {}", redact(&source.replace('\t', " ")))?;
            writeln!(out, "{:gutter$} | {:>column$}", "", "^")?;
        }
        if let Some(help) = &problem.help {
            writeln!(out, "  help: {help}")?;
        }
        Ok(())
    }
}

/// SECURITY: hides the user name and password of every URL, character by character, so that a caret stays in place.
/// Searches past `/`: a password may hold one.
pub(super) fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, from) = rest.split_at(at + 3);
        let end = from.find(|letter: char| letter.is_whitespace() || "\"'`".contains(letter));
        let authority = &from[..end.unwrap_or(from.len())];
        let credentials = authority.rfind('@').unwrap_or(0);
        shown.push_str(before);
        shown.extend(from[..credentials].chars().map(|_letter| '*'));
        rest = &from[credentials..];
    }
    shown.push_str(rest);
    shown
}
