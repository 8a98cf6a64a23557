//! The file system below one root: nothing outside is ever opened.
//!
//! SECURITY: links are followed only as far as `symlinks` allows. What is opened is the resolved path, and only if it is a
//! regular file: a FIFO would hold a thread for ever. Someone who can write to the root can still win a race; they can as
//! well put the content there.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::model::Symlinks;

/// Reads below `root`, which may be a link that is moved to another release at any time. Everything here blocks.
#[derive(Debug, Clone)]
pub(super) struct Confined {
    root: Arc<Path>,
    symlinks: Symlinks,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Other,
}

/// Tells one version of one file from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// Of content or attributes: no program can set it.
    pub(super) changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Confined {
    pub(super) fn new(root: &Path, symlinks: Symlinks) -> Self {
        Self {
            root: root.into(),
            symlinks,
        }
    }

    /// What stands at `below`, a path relative to the root.
    pub(super) fn kind(&self, below: &str) -> io::Result<Kind> {
        let (_, metadata) = self.resolve(below)?;
        Ok(if metadata.is_file() {
            Kind::File
        } else if metadata.is_dir() {
            Kind::Folder
        } else {
            Kind::Other
        })
    }

    /// Opens the regular file at `below`.
    pub(super) fn open(&self, below: &str) -> io::Result<(File, Stamp)> {
        let (real, _) = self.resolve(below)?;
        let file = OpenOptions::new()
            .read(true)
            // It may have become a FIFO or a link since.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(real)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ErrorKind::NotFound.into());
        }
        Ok((file, Stamp::of(&metadata)))
    }

    /// The version of what is at `below` now; `None` where nothing is.
    pub(super) fn stamp(&self, below: &str) -> io::Result<Option<Stamp>> {
        match fs::metadata(self.root.join(below)) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The path without links, and what it is; an error where it may not be served.
    fn resolve(&self, below: &str) -> io::Result<(PathBuf, Metadata)> {
        let path = self.root.join(below);
        let real = fs::canonicalize(&path)?;
        let is_allowed = match self.symlinks {
            Symlinks::Follow => true,
            Symlinks::Inside => real.starts_with(fs::canonicalize(&self.root)?),
            Symlinks::None => real == fs::canonicalize(&self.root)?.join(below),
        };
        if !is_allowed {
            tracing::debug!(path = %path.display(), "a link that `symlinks` of the site forbids");
            return Err(ErrorKind::NotFound.into());
        }
        let metadata = fs::metadata(&real)?;
        Ok((real, metadata))
    }
}

/// Errors that mean "there is no such file" to a visitor.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
    ) || error.raw_os_error() == Some(libc::ELOOP)
}
