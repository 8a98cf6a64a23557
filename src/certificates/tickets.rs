//! Session tickets (RFC 5077, RFC 8446 4.6.1): a client that comes back resumes, here, after a reload, and with shared secrets
//! at every replica and after a restart.
//!
//! A secret is never a key itself. From it, the time and the scope of the listener a key is derived (HKDF, RFC 5869) that
//! lives for `PERIOD`; tickets of the period before are still understood. Replicas with one secret and one clock thus change
//! keys together without a word.
//!
//! SECURITY: the scope is a digest of whom the listener believes (its CAs and revocation lists). A ticket carries the
//! certificate that was verified, so it is worth nothing at a listener with another CA, nor after a new revocation list.
//! The process's own secrets are random and thrown away with their period; a file's are as secret as the file. What that
//! costs is TLS 1.2 alone: TLS 1.3 resumes with a new key exchange.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::server::ProducesTickets;

use crate::config::model::TicketKeysFile;
use crate::config::{Place, Problem};

/// How long a key protects new tickets.
const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);

/// For which the key of a ticket is known for certain: to the end of the next period.
const LIFETIME: u32 = 6 * 60 * 60;

/// Of a key's name in front of each ticket.
const NAME: usize = 16;
const NONCE: usize = 12;
const KEY: usize = 32;

/// Least bytes of a secret.
const SECRET: usize = 32;

/// A digest of whom a listener believes.
pub(super) type Scope = Vec<u8>;

/// What lives as long as the process: its own secrets.
#[derive(Debug, Clone, Default)]
pub struct Tickets {
    own: Arc<RwLock<Own>>,
}

/// The newest first, with the number of its period.
#[derive(Default)]
struct Own(Vec<(u64, Vec<u8>)>);

impl fmt::Debug for Own {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Own(***)")
    }
}

/// Where a configuration's secrets come from.
#[derive(Clone)]
pub(super) enum Source {
    Own(Tickets),
    /// The first one protects new tickets.
    File(Arc<[Vec<u8>]>),
}

impl Source {
    pub(super) fn of(file: Option<&TicketKeysFile>, own: &Tickets) -> Result<Self, Problem> {
        match file {
            None => Ok(Self::Own(own.clone())),
            Some(file) => Ok(Self::File(read(&file.path, &file.place)?.into())),
        }
    }

    /// The ticketer of a listener.
    pub(super) fn ticketer(&self, scope: Scope) -> Arc<dyn ProducesTickets> {
        Arc::new(Ticketer {
            source: self.clone(),
            scope,
            keys: RwLock::new((u64::MAX, Vec::new())),
            now: SystemTime::now,
        })
    }

    /// For a period, the one that protects first.
    fn secrets(&self, period: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        match self {
            Self::Own(tickets) => tickets.secrets(period),
            Self::File(secrets) => {
                // The clocks of replicas differ: the next one may have begun there.
                let periods = [period, period.saturating_sub(1), period + 1];
                let all = periods
                    .iter()
                    .flat_map(|period| secrets.iter().map(|secret| (*period, secret.clone())));
                Some(all.collect())
            }
        }
    }
}

impl Tickets {
    fn secrets(&self, period: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        if own.0.first().is_none_or(|(newest, _)| *newest != period) {
            let mut secret = vec![0; SECRET];
            aws_lc_rs::rand::fill(&mut secret).ok()?;
            own.0.insert(0, (period, secret));
            own.0.retain(|(of, _)| of.abs_diff(period) <= 1);
        }
        Some(own.0.clone())
    }
}

/// Of one listener and one configuration.
struct Ticketer {
    source: Source,
    scope: Scope,
    /// Those of a period.
    keys: RwLock<(u64, Vec<Key>)>,
    now: fn() -> SystemTime,
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Ticketer")
    }
}

struct Key {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

/// HKDF output of so many bytes.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    fn derive(secret: &[u8], period: u64, scope: &[u8]) -> Option<Self> {
        let salt = Salt::new(HKDF_SHA256, b"tidegate session tickets 1");
        let source = salt.extract(secret);
        let period = period.to_be_bytes();
        let mut bytes = [0; NAME + KEY];
        let info: [&[u8]; 2] = [&period, scope];
        let okm = source.expand(&info, Bytes(bytes.len())).ok()?;
        okm.fill(&mut bytes).ok()?;
        let (name, key) = bytes.split_at(NAME);
        Some(Self {
            name: name.try_into().ok()?,
            key: RandomizedNonceKey::new(&AES_256_GCM, key).ok()?,
        })
    }
}

impl Ticketer {
    /// Does something with the keys of this time.
    fn with_keys<T>(&self, act: impl FnOnce(&[Key]) -> Option<T>) -> Option<T> {
        let now = (self.now)().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let period = now.as_secs() / PERIOD.as_secs();
        {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            if keys.0 == period {
                return act(&keys.1);
            }
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.0 != period {
            let secrets = self.source.secrets(period)?;
            let derived = secrets
                .iter()
                .map(|(period, secret)| Key::derive(secret, *period, &self.scope));
            *keys = (period, derived.collect::<Option<_>>()?);
        }
        act(&keys.1)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    /// The name of the key, the nonce, and the sealed state. The name is sealed with it.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.with_keys(|keys| {
            let key = keys.first()?;
            let mut sealed = plain.to_vec();
            let aad = Aad::from(key.name);
            let nonce = key.key.seal_in_place_append_tag(aad, &mut sealed).ok()?;
            let mut ticket = Vec::with_capacity(NAME + NONCE + sealed.len());
            ticket.extend(key.name);
            ticket.extend(nonce.as_ref());
            ticket.append(&mut sealed);
            Some(ticket)
        })
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        self.with_keys(|keys| {
            let key = keys.iter().find(|key| key.name == *name)?;
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::from(nonce);
            let plain = key.key.open_in_place(nonce, Aad::from(*name), &mut sealed);
            let length = plain.ok()?.len();
            sealed.truncate(length);
            Some(sealed)
        })
    }
}

/// One secret a line, in base64. Never quoted in a message.
fn read(path: &Path, place: &Place) -> Result<Vec<Vec<u8>>, Problem> {
    const MAKE: &str = "make one with `openssl rand -base64 48`, readable by this user alone";
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::new(place, format!("cannot read {shown}: {error}")).help(MAKE))?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let secrets = lines.map(|(at, line)| {
        let secret = BASE64_STANDARD.decode(line).ok();
        let secret = secret.filter(|secret| secret.len() >= SECRET);
        secret.ok_or_else(|| {
            let message = format!(
                "line {} of {shown} is not {SECRET} bytes or more in base64",
                at + 1
            );
            Problem::new(place, message).help(MAKE)
        })
    });
    let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
    match secrets.is_empty() {
        true => Err(Problem::new(place, format!("{shown} has no secret")).help(MAKE)),
        false => Ok(secrets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60;

    fn at(source: &Source, scope: &[u8], now: fn() -> SystemTime) -> Ticketer {
        Ticketer {
            source: source.clone(),
            scope: scope.to_vec(),
            keys: RwLock::new((u64::MAX, Vec::new())),
            now,
        }
    }

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * 12 * HOUR)
    }

    fn after(hours: u64) -> SystemTime {
        noon() + Duration::from_secs(hours * HOUR)
    }

    fn file(secrets: &[u8]) -> Source {
        Source::File(secrets.iter().map(|byte| vec![*byte; SECRET]).collect())
    }

    #[test]
    fn a_ticket_is_understood_to_the_end_of_the_next_period() {
        for source in [Source::Own(Tickets::default()), file(&[1])] {
            let ticket = at(&source, b"", noon).encrypt(b"state").unwrap();
            let open = |now| at(&source, b"", now).decrypt(&ticket);
            assert_eq!(open(noon).as_deref(), Some(&b"state"[..]));
            assert_eq!(open(|| after(11)).as_deref(), Some(&b"state"[..]));
            assert_eq!(open(|| after(13)), None);
        }
    }

    #[test]
    fn a_new_configuration_understands_the_tickets_of_the_old_one_where_it_believes_the_same() {
        let own = Tickets::default();
        let first = Source::Own(own.clone()).ticketer(b"ca".to_vec());
        let second = Source::Own(own.clone()).ticketer(b"ca".to_vec());
        let stricter = Source::Own(own).ticketer(b"ca and a list".to_vec());
        let ticket = first.encrypt(b"state").unwrap();
        assert_eq!(second.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        assert_eq!(stricter.decrypt(&ticket), None);
    }

    #[test]
    fn processes_with_one_secret_understand_each_other_and_a_second_one_is_for_old_tickets() {
        let (old, both, new) = (file(&[1]), file(&[2, 1]), file(&[2]));
        let ticket = at(&old, b"", noon).encrypt(b"state").unwrap();
        assert!(at(&both, b"", noon).decrypt(&ticket).is_some());
        assert!(at(&new, b"", noon).decrypt(&ticket).is_none());
        let ticket = at(&both, b"", noon).encrypt(b"state").unwrap();
        assert!(at(&new, b"", noon).decrypt(&ticket).is_some());
        // A replica whose clock is ahead.
        let ticket = at(&old, b"", || after(6)).encrypt(b"state").unwrap();
        assert!(at(&old, b"", || after(5)).decrypt(&ticket).is_some());
    }

    #[test]
    fn a_ticket_that_was_changed_or_is_not_ours_is_not_understood() {
        let ticketer = Source::Own(Tickets::default()).ticketer(Vec::new());
        let ticket = ticketer.encrypt(b"state").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "byte {at}");
            assert_eq!(ticketer.decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn a_file_of_secrets_says_what_is_wrong_with_it_and_never_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let good = BASE64_STANDARD.encode([7; SECRET]);
        let place = Place::default();
        std::fs::write(&path, format!("# new\n{good}\n\n{good}\n")).unwrap();
        assert_eq!(read(&path, &place).unwrap().len(), 2);
        for bad in [
            "",
            "# nothing\n",
            "c2hvcnQ=\n",
            "not base64 at all, but long enough\n",
        ] {
            std::fs::write(&path, bad).unwrap();
            let problem = read(&path, &place).unwrap_err();
            assert!(
                problem
                    .help
                    .is_some_and(|help| help.contains("openssl rand"))
            );
            assert!(!problem.message.contains("c2hv") && !problem.message.contains("long"));
        }
    }
}
