//! The last ends of connections and sessions, with what the log says of them, for people to look at.
//!
//! INVARIANT: two rings of a fixed length and texts of a bounded one: a storm of ends costs no memory, and a storm of
//! ordinary ends does not push the others out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::metrics::Name;

/// Of each ring: a page or two.
const KEPT: usize = 50;

/// Characters of a client id or a user name; they may be 65,535 bytes long.
const NAME: usize = 100;

/// Characters of a sentence: one that lists what each broker did is longer than the others.
const SENTENCE: usize = 400;

/// Whether an operator would look twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Clients come and go.
    Ordinary,
    Unusual,
}

/// One end.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Counted from 1, in the order of the ends.
    pub number: u64,
    pub at: SystemTime,
    pub notice: Notice,
    pub who: &'static str,
    pub phase: &'static str,
    pub why: &'static str,
    pub text: String,
    pub client: SocketAddr,
    /// SECURITY: the client's own words, with whatever they contain; who shows them escapes them. Empty where the log has
    /// none either (`log.identities`).
    pub client_id: String,
    pub user_name: String,
    pub listener: Name,
    pub pool: Option<Name>,
    pub broker: Option<Name>,
    /// From the 101, of a session; from accept, of what was none.
    pub seconds: f64,
}

/// The rings of the process.
#[derive(Debug, Default)]
pub struct Endings {
    rings: Mutex<Rings>,
}

#[derive(Debug, Default)]
struct Rings {
    number: u64,
    ordinary: VecDeque<Ending>,
    unusual: VecDeque<Ending>,
}

impl Endings {
    /// Adds it; its number is given here.
    pub fn add(&self, mut ending: Ending) {
        shorten(&mut ending.text, SENTENCE);
        shorten(&mut ending.client_id, NAME);
        shorten(&mut ending.user_name, NAME);
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.number += 1;
        ending.number = rings.number;
        let ring = match ending.notice {
            Notice::Ordinary => &mut rings.ordinary,
            Notice::Unusual => &mut rings.unusual,
        };
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(ending);
    }

    /// The newest first.
    pub fn last(&self) -> Vec<Ending> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let both = rings.ordinary.iter().chain(&rings.unusual);
        let mut all: Vec<Ending> = both.cloned().collect();
        drop(rings);
        all.sort_by_key(|ending| std::cmp::Reverse(ending.number));
        all
    }
}

fn shorten(text: &mut String, longest: usize) {
    if let Some((end, _)) = text.char_indices().nth(longest) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(notice: Notice, client_id: &str) -> Ending {
        Ending {
            number: 0,
            at: SystemTime::now(),
            notice,
            who: "client",
            phase: "relay",
            why: "idle",
            text: String::new(),
            client: SocketAddr::from(([192, 0, 2, 1], 1)),
            client_id: client_id.to_owned(),
            user_name: String::new(),
            listener: "l".into(),
            pool: None,
            broker: None,
            seconds: 0.0,
        }
    }

    #[test]
    fn ordinary_ends_do_not_push_the_others_out() {
        let endings = Endings::default();
        endings.add(ending(Notice::Unusual, "odd"));
        for number in 0..1000 {
            endings.add(ending(Notice::Ordinary, &number.to_string()));
        }
        let last = endings.last();
        assert_eq!(last.len(), KEPT + 1);
        assert_eq!((last[0].client_id.as_str(), last[0].number), ("999", 1001));
        assert_eq!(last[KEPT].client_id, "odd");
    }

    #[test]
    fn a_long_client_id_is_cut_between_characters() {
        let endings = Endings::default();
        endings.add(ending(Notice::Unusual, &"é".repeat(65_535)));
        assert_eq!(endings.last()[0].client_id, "é".repeat(NAME) + "…");
    }
}
