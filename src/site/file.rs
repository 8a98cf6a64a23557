//! One file of the site as it was found: its bytes in every encoding that is there, and what is told of them.
//!
//! A small file is held in memory, and its ETag is made of its bytes: replicas agree on it, and a copy of a file with
//! another date is the same file. A large one is held open, and its ETag is made of its size and date.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use siphasher::sip128::{Hasher128, SipHasher13};
use tokio::sync::OnceCell;

use super::conditions::{Current, http_time};
use super::confined::{Confined, Stamp, is_absence};
use super::encodings::{Accepted, Encoding};
use super::kinds::Kind;

/// Files up to this size are held in memory.
pub(super) const SMALL: u64 = 256 * 1024;

/// What is compressed here. Less hardly saves a packet; more takes a processor for too long: a third of a second or so.
const WORTH: RangeInclusive<u64> = 1024..=8 * 1024 * 1024;

/// A file that changed within this many seconds before it was read may change again without its dates telling: the kernel
/// counts them in steps of some milliseconds.
const SETTLES: i64 = 2;

/// What an open file counts for in the cache: 16 MiB hold 64 of them, and some 200 descriptors are kept back for such things.
const DESCRIPTOR: usize = 256 * 1024;

/// How often a file that changes while it is read is begun again.
const ATTEMPTS: u32 = 3;

/// What is served for one path.
#[derive(Debug)]
pub(super) struct Entry {
    /// Below the root.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) cache_control: Option<HeaderValue>,
    pub(super) plain: Representation,
    /// What stands beside it, in the order of `Encoding::COMPRESSED`.
    beside: [Option<Representation>; 3],
    /// The plain one, compressed here; `None` inside where it is not worth it.
    pub(super) made: OnceCell<Option<Representation>>,
    /// Of all four files.
    stamps: [Option<Stamp>; 4],
    /// It may have changed again in a way that its stamps do not tell.
    unsettled: bool,
}

/// The bytes of one encoding.
#[derive(Debug)]
pub(super) struct Representation {
    pub(super) content: Content,
    pub(super) tag: Option<HeaderValue>,
    pub(super) modified: Option<(SystemTime, HeaderValue)>,
    stamp: Stamp,
}

#[derive(Debug)]
pub(super) enum Content {
    Memory(Bytes),
    Open(Arc<File>, u64),
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Open(_, size) => *size,
        }
    }

    /// What it counts for in the cache.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Open(..) => DESCRIPTOR,
        }
    }
}

impl Representation {
    fn read(confined: &Confined, path: &str, encoding: Encoding) -> io::Result<Self> {
        for _attempt in 0..ATTEMPTS {
            let (file, stamp) = confined.open(path)?;
            let content = match stamp.size <= SMALL {
                true => {
                    // One byte more than there should be tells that it grew.
                    let mut bytes =
                        Vec::with_capacity(usize::try_from(stamp.size).unwrap_or(0) + 1);
                    (&file).take(SMALL + 1).read_to_end(&mut bytes)?;
                    if bytes.len() as u64 != stamp.size || Stamp::of(&file.metadata()?) != stamp {
                        continue;
                    }
                    bytes.shrink_to_fit();
                    Content::Memory(bytes.into())
                }
                false => Content::Open(Arc::new(file), stamp.size),
            };
            return Ok(Self::new(content, stamp, encoding));
        }
        Err(io::Error::new(
            ErrorKind::ResourceBusy,
            "the file changes all the time",
        ))
    }

    fn new(content: Content, stamp: Stamp, encoding: Encoding) -> Self {
        let modified = http_time(stamp.modified.0);
        let text = match &content {
            Content::Memory(bytes) => Some(format!("\"{:032x}\"", hash(bytes))),
            Content::Open(..) => modified.map(|_| {
                let (seconds, nanos) = stamp.modified;
                format!(
                    "\"{seconds:x}.{nanos:x}-{:x}{}\"",
                    stamp.size,
                    encoding.suffix()
                )
            }),
        };
        let date = modified.and_then(|time| {
            let text = HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()?;
            Some((time, text))
        });
        Self {
            content,
            tag: text.and_then(|text| HeaderValue::try_from(text).ok()),
            modified: date,
            stamp,
        }
    }

    /// For conditions.
    pub(super) fn current(&self) -> Current<'_> {
        Current {
            tag: self.tag.as_ref().and_then(|tag| tag.to_str().ok()),
            modified: self.modified.as_ref().map(|(time, _)| *time),
            length: self.content.length(),
        }
    }
}

fn hash(bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

impl Entry {
    /// Opens the file at `path` and those beside it that hold it compressed. Blocks.
    pub(super) fn read(
        confined: &Confined,
        path: &str,
        cache_control: Option<HeaderValue>,
    ) -> io::Result<Self> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let plain = Representation::read(confined, path, Encoding::Identity)?;
        let mut stamps = [Some(plain.stamp), None, None, None];
        let mut beside = [None, None, None];
        for (at, encoding) in Encoding::COMPRESSED.into_iter().enumerate() {
            let name = beside_of(path, encoding);
            stamps[at + 1] = confined.stamp(&name)?;
            if stamps[at + 1].is_none() {
                continue;
            }
            match Representation::read(confined, &name, encoding) {
                Ok(read) => {
                    stamps[at + 1] = Some(read.stamp);
                    beside[at] = Some(read);
                }
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX - SETTLES);
        // What is to come is another machine's clock, and tells nothing.
        let lately = now - SETTLES..=now + SETTLES;
        let mut changed = stamps.iter().flatten().map(|stamp| stamp.changed.0);
        Ok(Self {
            path: path.to_owned(),
            kind: Kind::of(path),
            cache_control,
            unsettled: changed.any(|seconds| lately.contains(&seconds)),
            plain,
            beside,
            made: OnceCell::new(),
            stamps,
        })
    }

    /// Nothing of it has changed since. Blocks.
    pub(super) fn is_current(&self, confined: &Confined) -> io::Result<bool> {
        if self.unsettled {
            return Ok(false);
        }
        for (encoding, stamp) in Encoding::ALL.into_iter().zip(self.stamps) {
            if confined.stamp(&beside_of(&self.path, encoding))? != stamp {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a client gets that accepts these. What was compressed beforehand wins over what could be compressed here.
    pub(super) fn choose(&self, accepted: Accepted) -> Choice<'_> {
        let beside = |encoding: Encoding| {
            let at = Encoding::COMPRESSED.iter().position(|it| *it == encoding)?;
            self.beside[at].as_ref()
        };
        let best =
            accepted.best(|encoding| encoding == Encoding::Identity || beside(encoding).is_some());
        if let Some(found) = beside(best) {
            return Choice::There(best, found);
        }
        let gzip = accepted.best(|it| it <= Encoding::Gzip) == Encoding::Gzip;
        match gzip && self.is_worth_compressing() {
            true => Choice::ToMake,
            false => Choice::There(Encoding::Identity, &self.plain),
        }
    }

    fn is_worth_compressing(&self) -> bool {
        self.kind.is_compressible && WORTH.contains(&self.plain.content.length())
    }

    /// The plain one as gzip; `None` where it would hardly be shorter. Blocks.
    pub(super) fn compress(&self) -> io::Result<Option<Representation>> {
        let compressed = gzip(&self.plain.content)?;
        let most = self.plain.content.length() / 10 * 9;
        Ok((compressed.len() as u64 <= most).then(|| {
            let content = Content::Memory(compressed.into());
            Representation::new(content, self.plain.stamp, Encoding::Gzip)
        }))
    }

    /// Bytes of memory that its files take.
    pub(super) fn memory(&self) -> usize {
        let there = self.beside.iter().flatten().chain([&self.plain]);
        there.map(|found| found.content.memory()).sum()
    }
}

/// What `Entry::choose` found.
pub(super) enum Choice<'a> {
    There(Encoding, &'a Representation),
    /// gzip, if `Entry::made` has it or can have it.
    ToMake,
}

fn beside_of(path: &str, encoding: Encoding) -> String {
    format!("{path}{}", encoding.suffix())
}

fn gzip(content: &Content) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    match content {
        Content::Memory(bytes) => encoder.write_all(bytes)?,
        Content::Open(file, size) => {
            let mut buffer = vec![0; 64 * 1024];
            let mut at = 0;
            while at < *size {
                let count = file.read_at(&mut buffer, at)?;
                if count == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                encoder.write_all(&buffer[..count])?;
                at += count as u64;
            }
        }
    }
    let mut compressed = encoder.finish()?;
    compressed.shrink_to_fit();
    Ok(compressed)
}
