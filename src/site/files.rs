//! From a path to what is served for it: out of the cache, or from the file system within bounds.
//!
//! The file system may hang, or be slow under many visitors: so many look-ups run at once, on blocking threads, and none
//! is waited for for ever. What is in the cache and was looked at within the second is answered without any of that.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::cache::{Cache, Known};
use super::confined::{Confined, Kind, is_absence};
use super::encodings::{Accepted, Encoding};
use super::file::{Choice, Entry, Representation};
use super::path::Wanted;
use super::policy::CacheControl;

/// Look-ups at once: what they read is at most so many small files, compressed and not.
const LOOK_UPS: usize = 64;

/// Files that are compressed at once. It takes a processor each.
const COMPRESSIONS: usize = 2;

/// For a look-up, its turn included.
const PATIENCE: Duration = Duration::from_secs(10);

/// For the turn to compress. Then the file is sent as it is.
const TURN: Duration = Duration::from_secs(1);

/// The files of a site.
#[derive(Debug)]
pub(super) struct Files {
    confined: Confined,
    index: String,
    cache_control: Arc<CacheControl>,
    compress: bool,
    cache: Cache,
    look_ups: Arc<Semaphore>,
    compressions: Arc<Semaphore>,
}

/// What the file system has for a path.
pub(super) enum Found {
    File(Arc<Entry>),
    /// A folder asked for without its trailing slash.
    Folder,
    Nothing,
}

impl Files {
    pub(super) fn new(
        confined: Confined,
        index: &str,
        cache_control: CacheControl,
        memory: usize,
        compress: bool,
    ) -> Self {
        Self {
            confined,
            index: index.to_owned(),
            cache_control: Arc::new(cache_control),
            compress,
            cache: Cache::new(memory),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
            compressions: Arc::new(Semaphore::new(COMPRESSIONS)),
        }
    }

    pub(super) async fn find(&self, wanted: &Wanted) -> io::Result<Found> {
        let due = match self.cache.find(&wanted.path) {
            Known::Fresh(entry) => return Ok(Found::File(entry)),
            Known::Due(entry) => Some(entry),
            Known::Nothing => None,
        };
        let was_known = due.is_some();
        let confined = self.confined.clone();
        let cache_control = Arc::clone(&self.cache_control);
        let (path, index) = (wanted.path.clone(), self.index.clone());
        let looking = self.blocking(move || {
            if let Some(entry) = due
                && entry.is_current(&confined)?
            {
                return Ok((Found::File(entry), false));
            }
            match look_up(&confined, &path, &index) {
                Ok(Place::File(file)) => {
                    let value = cache_control.of(&file);
                    let entry = Entry::read(&confined, &file, value)?;
                    Ok((Found::File(Arc::new(entry)), true))
                }
                Ok(Place::Folder) => Ok((Found::Folder, true)),
                Ok(Place::Nothing) => Ok((Found::Nothing, true)),
                Err(error) if is_absence(&error) => Ok((Found::Nothing, true)),
                Err(error) => Err(error),
            }
        });
        match looking.await {
            Ok((found, false)) => Ok(found),
            Ok((Found::File(entry), true)) => {
                self.cache.keep(&wanted.path, &entry);
                Ok(Found::File(entry))
            }
            other => {
                if was_known {
                    self.cache.forget(&wanted.path);
                }
                other.map(|(found, _)| found).or_else(|error| {
                    // It may have gone between two steps.
                    match is_absence(&error) {
                        true => Ok(Found::Nothing),
                        false => Err(error),
                    }
                })
            }
        }
    }

    /// The bytes for a client that accepts these encodings.
    pub(super) async fn choose<'a>(
        &self,
        wanted: &Wanted,
        entry: &'a Arc<Entry>,
        accepted: Accepted,
    ) -> (Encoding, &'a Representation) {
        let plain = (Encoding::Identity, &entry.plain);
        match entry.choose(accepted) {
            Choice::There(encoding, representation) => (encoding, representation),
            Choice::ToMake if self.compress => {
                let made = self.made(wanted, entry).await;
                made.map_or(plain, |made| (Encoding::Gzip, made))
            }
            Choice::ToMake => plain,
        }
    }

    /// The file as gzip: made once for each version of it, and never for one that is not kept.
    async fn made<'a>(&self, wanted: &Wanted, entry: &'a Arc<Entry>) -> Option<&'a Representation> {
        if let Some(made) = entry.made.get() {
            return made.as_ref();
        }
        if !self.cache.holds(&wanted.path, entry) {
            return None;
        }
        let turn = Arc::clone(&self.compressions).acquire_owned();
        let permit = timeout(TURN, turn).await.ok()?.ok()?;
        let making = entry.made.get_or_init(async || {
            let of = Arc::clone(entry);
            let compressing = spawn_blocking(move || {
                let _permit = permit;
                of.compress()
            });
            let made = match compressing.await.map_err(io::Error::other).flatten() {
                Ok(made) => made?,
                Err(error) => {
                    tracing::warn!(%error, path = entry.path, "a file of the site cannot be compressed");
                    return None;
                }
            };
            let memory = made.content.memory();
            self.cache.grow(&wanted.path, entry, memory).then_some(made)
        });
        making.await.as_ref()
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let look_ups = Arc::clone(&self.look_ups);
        let working = async {
            // The work holds it, which goes on when nobody waits any more.
            let permit = look_ups.acquire_owned().await.map_err(io::Error::other)?;
            let working = spawn_blocking(move || {
                let _permit = permit;
                work()
            });
            working.await.map_err(io::Error::other)?
        };
        timeout(PATIENCE, working)
            .await
            .map_err(|_elapsed| ErrorKind::TimedOut)?
    }
}

enum Place {
    File(String),
    Folder,
    Nothing,
}

/// Blocks.
fn look_up(confined: &Confined, path: &str, index: &str) -> io::Result<Place> {
    let below = path.trim_end_matches('/');
    let is_folder = path.ends_with('/');
    Ok(match (confined.kind(below)?, is_folder) {
        (Kind::File, false) => Place::File(below.to_owned()),
        (Kind::Folder, false) => Place::Folder,
        (Kind::Folder, true) => {
            let index = match below {
                "" => index.to_owned(),
                below => format!("{below}/{index}"),
            };
            match confined.kind(&index)? {
                Kind::File => Place::File(index),
                Kind::Folder | Kind::Other => Place::Nothing,
            }
        }
        (Kind::File, true) | (Kind::Other, _) => Place::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::config::model::Symlinks;

    /// Whoever waits is told in time; those that hang have their places until they are done, and nobody else starts.
    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_hangs_holds_nobody_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let confined = Confined::new(folder.path(), Symlinks::Inside);
        let files = Arc::new(Files::new(
            confined,
            "index.html",
            CacheControl::new(Vec::new(), None),
            0,
            false,
        ));
        let (release, hanging) = mpsc::channel::<()>();
        let hanging = Arc::new(std::sync::Mutex::new(hanging));
        let (started, begun) = mpsc::channel();
        let mut waiting = JoinSet::new();
        for _ in 0..LOOK_UPS {
            let (files, hanging, started) =
                (Arc::clone(&files), Arc::clone(&hanging), started.clone());
            waiting.spawn(async move {
                let work = move || {
                    started.send(()).unwrap();
                    // An error is the end of it.
                    Ok(hanging.lock().unwrap().recv().is_err())
                };
                files.blocking(work).await
            });
        }
        spawn_blocking(move || {
            for _ in 0..LOOK_UPS {
                begun.recv().unwrap();
            }
        })
        .await
        .unwrap();
        let mut late = JoinSet::new();
        let of_late = Arc::clone(&files);
        late.spawn(async move { of_late.blocking(|| Ok("ran")).await });
        tokio::task::yield_now().await;
        tokio::time::advance(PATIENCE).await;
        while let Some(told) = waiting.join_next().await {
            assert_eq!(told.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        }
        let told = late.join_next().await.unwrap().unwrap();
        assert_eq!(told.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(release);
        assert_eq!(files.blocking(|| Ok("ran")).await.unwrap(), "ran");
    }
}
