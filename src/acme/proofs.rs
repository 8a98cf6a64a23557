//! What a CA is about to be shown, by this process and by those that share the folder: the CA connects to a name, and may reach
//! any of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::disk::{self, Disk, off_thread};
use super::failure::Failure;
use crate::certificates::Challenges;
use crate::certificates::challenge::{Pending, Proof};

/// How often the processes that do not order look for proofs.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Until they have looked, and read.
const SEEN: Duration = Duration::from_millis(1500);

/// Proofs that are shown; not any more when it is dropped.
#[derive(Debug)]
pub(super) struct Exhibition {
    challenges: Arc<Challenges>,
    folder: PathBuf,
}

impl Exhibition {
    /// Ready when every process shows them.
    pub(super) async fn open(
        disk: &Disk,
        challenges: &Arc<Challenges>,
        proofs: Vec<Proof>,
    ) -> Result<Self, Failure> {
        challenges.show(&proofs).map_err(Failure::local)?;
        let exhibition = Self {
            challenges: Arc::clone(challenges),
            folder: disk.challenges(),
        };
        let folder = disk.challenges();
        let written = off_thread(move || {
            // What a process that died has left.
            clear(&folder);
            proofs.iter().try_for_each(|proof| {
                let path = folder.join(format!("{}.pem", proof.name));
                disk::write(&path, proof.pem.as_bytes())
            })
        });
        written.await.flatten().map_err(Failure::local)?;
        sleep(SEEN).await;
        Ok(exhibition)
    }

    pub(super) fn pending(&self) -> Option<Arc<Pending>> {
        self.challenges.pending()
    }
}

impl Drop for Exhibition {
    fn drop(&mut self) {
        hide(&self.challenges);
        clear(&self.folder);
    }
}

/// Shows what another process is about to have looked at.
pub(super) fn show(challenges: &Challenges, proofs: &[Proof]) {
    if let Err(error) = challenges.show(proofs) {
        tracing::warn!(%error, "the proof of another process cannot be shown");
    }
}

fn hide(challenges: &Challenges) {
    show(challenges, &[]);
}

/// Blocks.
pub(super) fn others(disk: &Disk) -> io::Result<Vec<Proof>> {
    let mut proofs = Vec::new();
    for path in files(&disk.challenges()) {
        let name = path.file_stem().and_then(|name| name.to_str());
        let Some(name) = name.map(str::to_owned) else {
            continue;
        };
        match fs::read_to_string(&path) {
            Ok(pem) => proofs.push(Proof { name, pem }),
            // It was over.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(proofs)
}

fn clear(folder: &Path) {
    for path in files(folder) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(file = %path.display(), %error, "a proof that is over cannot be removed");
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "pem"))
        .collect()
}
