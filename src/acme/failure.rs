//! Why there is no certificate: in words, with what to do about it, and how long to leave the CA alone.

use std::fmt;
use std::time::SystemTime;

use instant_acme::{Error, Problem};

use super::http::HttpFailure;

/// What RFC 8555 6.7 puts in front of its words.
const PREFIX: &str = "urn:ietf:params:acme:error:";

const REACH: &str = "port 443 of the name must lead to a TLS listener of this gateway, from everywhere: check its A and AAAA records, firewalls, and that nothing in between ends TLS";

/// Who has to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The CA, or the way to it.
    Unavailable,
    /// Nobody but time.
    RateLimited,
    /// The CA does not want to.
    Refused,
    /// The CA did not find the name here.
    Unproven,
    /// This machine.
    Local,
}

impl Kind {
    /// The label in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::RateLimited => "rate_limited",
            Self::Refused => "refused",
            Self::Unproven => "unproven",
            Self::Local => "local",
        }
    }
}

/// One failure.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// SECURITY: a CA's words, with nothing in them that a terminal would obey.
    pub(super) text: String,
    pub(super) advice: Option<&'static str>,
    /// The CA's own word.
    pub(super) not_before: Option<SystemTime>,
    /// The CA does not know the account.
    pub(super) no_account: bool,
}

impl Failure {
    pub(super) fn new(kind: Kind, text: impl fmt::Display) -> Self {
        Self {
            kind,
            text: printable(&text.to_string()),
            advice: None,
            not_before: None,
            no_account: false,
        }
    }

    pub(super) fn local(error: impl fmt::Display) -> Self {
        Self::new(Kind::Local, error)
    }

    /// Of the proofs of these names: what the CA says of each.
    pub(super) fn unproven(found: &[(String, Problem)]) -> Self {
        let texts: Vec<_> = found
            .iter()
            .map(|(name, problem)| format!("{name}: {}", words(problem)))
            .collect();
        let advice = found.iter().find_map(|(_, problem)| advice(problem));
        Self {
            advice: advice.or(Some(REACH)),
            ..Self::new(Kind::Unproven, texts.join("; "))
        }
    }

    pub(super) fn of(problem: &Problem) -> Self {
        let kind = match (word(problem), problem.status) {
            ("rateLimited", _) | (_, Some(429)) => Kind::RateLimited,
            ("serverInternal", _) | (_, Some(500..)) => Kind::Unavailable,
            ("connection" | "tls" | "dns" | "incorrectResponse", _) => Kind::Unproven,
            (_, _) => Kind::Refused,
        };
        Self {
            advice: advice(problem),
            no_account: word(problem) == "accountDoesNotExist",
            ..Self::new(kind, words(problem))
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of(&problem),
            Error::Timeout(_) => {
                Self::new(Kind::Unavailable, "the CA did not finish the order in time")
            }
            Error::Json(error) => Self::new(
                Kind::Unavailable,
                format!("the CA's answer cannot be read: {error}"),
            ),
            Error::Other(error) if error.is::<HttpFailure>() => Self::new(Kind::Unavailable, error),
            Error::Unsupported(what) => Self {
                advice: Some("check `acme.directory` and `acme.profile`"),
                ..Self::new(Kind::Refused, format!("the CA does not know {what}"))
            },
            // The enum grows; what is new there is told as it is.
            error => Self::new(Kind::Refused, error),
        }
    }
}

fn word(problem: &Problem) -> &str {
    let word = problem.r#type.as_deref().unwrap_or_default();
    word.strip_prefix(PREFIX).unwrap_or(word)
}

/// `rateLimited: too many certificates; example.com: …`
fn words(problem: &Problem) -> String {
    let mut text = match (word(problem), &problem.detail) {
        ("", None) => "no reason given".to_owned(),
        ("", Some(detail)) => detail.clone(),
        (word, None) => word.to_owned(),
        (word, Some(detail)) => format!("{word}: {detail}"),
    };
    for part in &problem.subproblems {
        text.push_str("; ");
        text.push_str(&part.to_string());
    }
    text
}

fn advice(problem: &Problem) -> Option<&'static str> {
    Some(match word(problem) {
        "connection" | "tls" | "unauthorized" | "incorrectResponse" => REACH,
        "dns" => "the CA finds no address: check the name's A and AAAA records, and DNSSEC",
        "caa" => {
            "a CAA record of the name, or of a name above it, keeps this CA from issuing: add the CA there"
        }
        "rateLimited" => {
            "it is tried again when the CA allows; rehearse with `directory: letsencrypt-staging`, and keep `acme.state`"
        }
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "the CA certifies no such name: take it out of `certificates`"
        }
        "userActionRequired" => "the CA's terms have changed: read and accept them where it says",
        "externalAccountRequired" => "the CA wants to know its customers: set `acme.eab`",
        "invalidContact" | "unsupportedContact" => "check `acme.email`",
        "invalidProfile" => "check `acme.profile`",
        "accountDoesNotExist" => "the account is set aside and a new one is made",
        _ => return None,
    })
}

/// One line of printable text, not without end.
fn printable(text: &str) -> String {
    const MOST: usize = 1000;
    let visible = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter });
    visible.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Failure {
        Failure::of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_problem_document_is_told_in_words_with_a_remedy() {
        let limited = problem(
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates","status":429}"#,
        );
        assert_eq!(limited.kind, Kind::RateLimited);
        assert_eq!(limited.text, "rateLimited: too many certificates");
        assert!(limited.advice.is_some());
        let caa = problem(
            r#"{"type":"urn:ietf:params:acme:error:caa","detail":"x\u001b[2J\ny","subproblems":[{"type":"a","detail":"b","identifier":{"type":"dns","value":"c.example.com"}}]}"#,
        );
        assert_eq!(caa.kind, Kind::Refused);
        assert_eq!(caa.text, "caa: x [2J y; for \"c.example.com\": b (a)");
        assert!(caa.advice.unwrap().contains("CAA"));
        assert_eq!(problem(r#"{"status":503}"#).kind, Kind::Unavailable);
        assert!(problem(r#"{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}"#).no_account);
    }
}
