//! Notices that files have changed: by watching their folders (inotify), by looking once a minute, and by what is in them.
//!
//! Folders, since a file that is watched itself is lost with the first one that takes its place: Kubernetes swaps a symbolic
//! link in the folder (`..data`), certbot one link after the other, editors and `mv` rename.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until, timeout};

/// For file systems that tell nothing (NFS), and folders that were themselves replaced.
const POLL: Duration = Duration::from_secs(60);

/// Files change together: after the last sign for so long nothing, but not longer than `AT_MOST`.
const QUIET: Duration = Duration::from_millis(300);
const AT_MOST: Duration = Duration::from_secs(1);

/// Symbolic links in a row, as the kernel allows (path_resolution(7)).
const LINKS: usize = 40;

/// A file and what is in it; an unreadable one is a content too.
pub(super) type Contents = Vec<(PathBuf, u64)>;

/// The same descriptor twice: one to say what is watched, one that the runtime waits at. What is read from it is thrown away: that
/// something came is all that there is to know.
#[derive(Debug)]
struct Signs {
    folders: Inotify,
    come: Receiver,
}

impl Signs {
    fn new() -> io::Result<Self> {
        let folders = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let come = Receiver::from_owned_fd_unchecked(folders.as_fd().try_clone_to_owned()?)?;
        Ok(Self { folders, come })
    }

    /// Ready when some came. May be dropped: they are taken in the poll that is ready.
    async fn some(&self) -> io::Result<()> {
        /// Room for a hundred of them; one that does not fit is an error (inotify(7)).
        const BUFFER: usize = 8 * 1024;
        loop {
            self.come.readable().await?;
            match self.come.try_read(&mut [0; BUFFER]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Watcher {
    signs: Option<Signs>,
    files: Vec<PathBuf>,
    seen: Contents,
    /// They are to be looked at: a sign came, or one may have been missed.
    dirty: bool,
}

impl Watcher {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        let signs = Signs::new().map_err(|error| {
            tracing::warn!(%error, "changed files are noticed once a minute only: inotify cannot be had");
        });
        Self {
            signs: signs.ok(),
            files: Vec::new(),
            seen: Contents::new(),
            dirty: false,
        }
    }

    /// From now on these files, which had these contents when they were read.
    pub(super) fn follow(&mut self, seen: Contents) {
        self.files = seen.iter().map(|(path, _)| path.clone()).collect();
        self.seen = seen;
        self.watch_folders();
        // What changed after it was read and before its folder was watched gave no sign.
        self.dirty = true;
    }

    /// Adding a folder a second time changes nothing; one that is gone needs no removal.
    fn watch_folders(&self) {
        let Some(signs) = &self.signs else { return };
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        for folder in folders(&self.files) {
            if let Err(error) = signs.folders.add_watch(&folder, changes) {
                tracing::debug!(folder = %folder.display(), %error, "a folder cannot be watched");
            }
        }
    }

    /// Ready when what is in the files has changed, and is quiet. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        loop {
            if !self.dirty {
                let poll = Instant::now() + POLL;
                // CANCEL: `sign` may be dropped, and a sleep only waits.
                tokio::select! {
                    () = sign(self.signs.as_ref()) => {}
                    () = sleep_until(poll) => {}
                }
                self.dirty = true;
            }
            self.settle().await;
            self.watch_folders();
            let files = self.files.clone();
            let Ok(contents) = tokio::task::spawn_blocking(move || contents(files)).await else {
                continue;
            };
            self.dirty = false;
            if contents != self.seen {
                self.seen = contents;
                return;
            }
        }
    }

    async fn settle(&self) {
        let end = Instant::now() + AT_MOST;
        loop {
            let quiet = QUIET.min(end.saturating_duration_since(Instant::now()));
            if timeout(quiet, sign(self.signs.as_ref())).await.is_err() {
                return;
            }
        }
    }
}

/// Ready when a sign came; never where there can be none.
async fn sign(signs: Option<&Signs>) {
    let come = match signs {
        Some(signs) => signs.some().await,
        None => Err(io::ErrorKind::Unsupported.into()),
    };
    if come.is_err() {
        std::future::pending().await
    }
}

/// Where a name of one of the files, or of a link on the way to it, stands.
fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for file in files {
        add_folders(file, LINKS, &mut folders);
    }
    folders
}

fn add_folders(path: &Path, links: usize, folders: &mut BTreeSet<PathBuf>) {
    let Ok(path) = std::path::absolute(path) else {
        return;
    };
    if let Some(folder) = path.parent() {
        folders.insert(folder.to_owned());
    }
    let mut ancestors: Vec<_> = path.ancestors().collect();
    ancestors.reverse();
    for part in ancestors {
        let (Ok(target), Some(folder)) = (std::fs::read_link(part), part.parent()) else {
            continue;
        };
        folders.insert(folder.to_owned());
        let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
        let next = match rest.as_os_str().is_empty() {
            true => folder.join(target),
            false => folder.join(target).join(rest),
        };
        if links > 0 {
            add_folders(&next, links - 1, folders);
        }
        return;
    }
}

/// Reads all of them. They are small, and a time of change would miss what is put back.
pub(super) fn contents(files: Vec<PathBuf>) -> Contents {
    let content = |path: &PathBuf| {
        let mut hasher = DefaultHasher::new();
        match std::fs::read(path) {
            Ok(bytes) => (true, bytes).hash(&mut hasher),
            Err(error) => (false, error.kind().to_string()).hash(&mut hasher),
        }
        hasher.finish()
    };
    files
        .into_iter()
        .map(|path| {
            let content = content(&path);
            (path, content)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn following(files: &[PathBuf]) -> Watcher {
        let mut watcher = Watcher::new();
        watcher.follow(contents(files.to_vec()));
        // It has looked; from here on signs must do.
        watcher.dirty = false;
        watcher
    }

    async fn notices(watcher: &mut Watcher) -> bool {
        timeout(Duration::from_secs(10), watcher.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn each_swap_of_a_kubernetes_volume_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let swap = |generation: u32| {
            let real = format!("..{generation}");
            fs::create_dir(at(&real)).unwrap();
            fs::write(at(&real).join("tls.crt"), real.as_bytes()).unwrap();
            let old = fs::read_link(at("..data"));
            symlink(&real, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
            if let Ok(old) = old {
                fs::remove_dir_all(at(old.to_str().unwrap())).unwrap();
            }
        };
        swap(1);
        symlink("..data/tls.crt", at("tls.crt")).unwrap();
        let mut watcher = following(&[at("tls.crt")]);
        for generation in 2..5 {
            swap(generation);
            assert!(notices(&mut watcher).await, "swap {generation}");
        }
    }

    #[tokio::test]
    async fn links_of_certbot_and_a_link_to_a_folder_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["archive", "live", "release-1", "release-2"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("archive/cert1.pem"), "1").unwrap();
        fs::write(at("archive/cert2.pem"), "2").unwrap();
        fs::write(at("release-1/ca.pem"), "1").unwrap();
        fs::write(at("release-2/ca.pem"), "2").unwrap();
        symlink("../archive/cert1.pem", at("live/cert.pem")).unwrap();
        symlink("release-1", at("current")).unwrap();
        let mut watcher = following(&[at("live/cert.pem"), at("current/ca.pem")]);
        fs::remove_file(at("live/cert.pem")).unwrap();
        symlink("../archive/cert2.pem", at("live/cert.pem")).unwrap();
        assert!(notices(&mut watcher).await, "certbot");
        symlink("release-2", at("next")).unwrap();
        fs::rename(at("next"), at("current")).unwrap();
        assert!(notices(&mut watcher).await, "a link to a folder");
        fs::write(at("archive/cert2.pem"), "2, written over").unwrap();
        assert!(notices(&mut watcher).await, "the file behind the link");
    }

    #[tokio::test]
    async fn what_changed_before_its_folder_was_watched_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let read = contents(vec![file.clone()]);
        fs::write(&file, "just now").unwrap();
        let mut watcher = Watcher::new();
        watcher.follow(read);
        assert!(notices(&mut watcher).await);
        assert!(timeout(AT_MOST * 2, watcher.changed()).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_written_again_with_the_same_bytes_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "same").unwrap();
        let mut watcher = following(std::slice::from_ref(&file));
        fs::write(&file, "same").unwrap();
        fs::write(folder.path().join("other"), "other").unwrap();
        assert!(timeout(AT_MOST * 2, watcher.changed()).await.is_err());
        fs::write(&file, "new").unwrap();
        assert!(notices(&mut watcher).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_inotify_files_are_looked_at_once_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "old").unwrap();
        let mut watcher = following(std::slice::from_ref(&file));
        watcher.signs = None;
        fs::write(&file, "new").unwrap();
        let begun = Instant::now();
        watcher.changed().await;
        assert_eq!(begun.elapsed().as_secs(), POLL.as_secs());
    }
}
