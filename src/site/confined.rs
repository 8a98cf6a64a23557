//! The file system below one root, for `ServeDir`: nothing outside is ever opened.
//!
//! SECURITY: links are followed only while they stay below the root. What is opened is the resolved path, and the check
//! stands in `open` itself, so it also covers the precompressed neighbours that `ServeDir` tries. Only regular files are
//! opened: a FIFO would hold a thread for ever. Someone who can write to the root can still win a race; they can as well
//! put the content there.

use std::fs;
use std::io::{self, ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File};

/// Reads below `root`, which may be a link that is moved to another release at any time.
#[derive(Debug, Clone)]
pub(super) struct Confined {
    root: Arc<Path>,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Other,
}

impl Confined {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// What stands at `below`, a path relative to the root. Blocks.
    pub(super) fn kind(&self, below: &str) -> io::Result<Kind> {
        let (_, metadata) = self.resolve(&self.root.join(below))?;
        Ok(if metadata.is_file() {
            Kind::File
        } else if metadata.is_dir() {
            Kind::Folder
        } else {
            Kind::Other
        })
    }

    /// The path without links, and what it is; an error outside the root. Blocks.
    fn resolve(&self, path: &Path) -> io::Result<(PathBuf, fs::Metadata)> {
        let real = fs::canonicalize(path)?;
        if !real.starts_with(fs::canonicalize(&self.root)?) {
            tracing::debug!(path = %path.display(), "a link leads out of the site and is not followed");
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

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

type Wait<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Backend for Confined {
    type File = OpenFile;
    type Metadata = fs::Metadata;
    type OpenFuture = Wait<OpenFile>;
    type MetadataFuture = Wait<fs::Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let confined = self.clone();
        Box::pin(blocking(move || {
            let (real, metadata) = confined.resolve(&path)?;
            if !metadata.is_file() {
                return Err(ErrorKind::NotFound.into());
            }
            Ok(OpenFile(tokio::fs::File::from_std(fs::File::open(real)?)))
        }))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let confined = self.clone();
        Box::pin(blocking(move || Ok(confined.resolve(&path)?.1)))
    }
}

/// An open regular file below the root.
#[derive(Debug)]
pub(super) struct OpenFile(tokio::fs::File);

impl File for OpenFile {
    type Metadata = fs::Metadata;
    type MetadataFuture<'a> = Pin<Box<dyn Future<Output = io::Result<fs::Metadata>> + Send + 'a>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(self.0.metadata())
    }
}

impl AsyncRead for OpenFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(context)
    }
}
