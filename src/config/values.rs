//! Values with a syntax of their own: durations, sizes, counts. Each reads what a person writes and shows what it read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a value was not understood. The message continues a sentence that begins with the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `is not a duration`
    pub message: String,
    pub help: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// A duration with its unit: `500ms`, `10s`, `5m`, `24h`, `7d`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Longest first where one unit begins with another.
const SPAN_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
];

/// Keeps every sum of a clock and a duration far from overflow.
const MAX_SPAN: Duration = Duration::from_secs(365 * 86_400);

impl FromStr for Span {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = || {
            Fault::new("is not a duration")
                .help("write a number with a unit: `500ms`, `10s`, `5m`, `24h`, `1h30m`")
        };
        let mut millis: u64 = 0;
        let mut rest = text;
        let mut last = u64::MAX;
        while !rest.is_empty() {
            let end = rest.find(|letter: char| !letter.is_ascii_digit());
            let (digits, behind) = rest.split_at(end.ok_or_else(|| {
                Fault::new("has no unit").help(format!(
                    "write `{text}s` for seconds; units are ms, s, m, h and d"
                ))
            })?);
            let count: u64 = digits.parse().map_err(|_error| fault())?;
            let unit = SPAN_UNITS.iter().find(|(unit, _)| behind.starts_with(unit));
            let &(unit, scale) = unit.ok_or_else(fault)?;
            if scale >= last {
                return Err(fault()); // `5s1h`, `1s1s`: large units come first, each once
            }
            last = scale;
            let part = count.checked_mul(scale);
            millis = part
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(too_long)?;
            rest = &behind[unit.len()..];
        }
        let span = Duration::from_millis(millis);
        match text {
            "" => Err(fault()),
            _ if span > MAX_SPAN => Err(too_long()),
            _ => Ok(Self(span)),
        }
    }
}

fn too_long() -> Fault {
    Fault::new("is too long").help("at most `365d`")
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        // As people write them: `60s`, not `1m`.
        if millis <= 120_000 && millis.is_multiple_of(1_000) {
            return write!(out, "{}s", millis / 1_000);
        }
        let by_size = [
            SPAN_UNITS[1],
            SPAN_UNITS[2],
            SPAN_UNITS[3],
            SPAN_UNITS[4],
            SPAN_UNITS[0],
        ];
        for (unit, scale) in by_size {
            let count = millis / u128::from(scale);
            millis %= u128::from(scale);
            if count > 0 {
                write!(out, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

/// A number of bytes: `65535`, `16KiB`, `1MiB`, `1GiB`, `64kB`, `1MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

const SIZE_UNITS: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let end = text
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let scale = match unit {
            "" => Some(1),
            _ => SIZE_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, scale)| *scale),
        };
        let (Some(scale), false) = (scale, digits.is_empty()) else {
            return Err(Fault::new("is not a size")
                .help("write bytes with a unit: `64KiB`, `16MiB`, `1GiB`, `64kB`, `1MB`, `512B`"));
        };
        let count: Option<usize> = digits.parse().ok();
        count
            .and_then(|count| count.checked_mul(scale))
            .map(Self)
            .ok_or_else(|| Fault::new("is too large"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS[..3]
            .iter()
            .find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale));
        match binary {
            Some((unit, scale)) => write!(out, "{}{unit}", self.0 / scale),
            None => write!(out, "{}", self.0),
        }
    }
}

/// A number, or `auto` for what this machine allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Auto,
    Exactly(usize),
}

impl FromStr for Count {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(0) => Err(Fault::new("is too small").help("at least 1, or `auto`")),
            Ok(count) => Ok(Self::Exactly(count)),
            Err(_error) => {
                Err(Fault::new("is not a number").help("write a number of at least 1, or `auto`"))
            }
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("auto"),
            Self::Exactly(count) => write!(out, "{count}"),
        }
    }
}
