//! The folder of one CA below `acme.state`: `account.json`; for each certificate `NAME-HASH.pem`, key and chain in one file so that
//! they always belong together, and `NAME-HASH.json`, how its orders went; `challenges/`, what a CA is about to be shown; `lock`.
//!
//! SECURITY: folders are made with mode 0700 and files with 0600. What cannot be read is set aside and told, never deleted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::certificates::replace;
use crate::config::acme::{Acme, AcmeCertificate};
use crate::config::{Config, Problem};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The permission bits of everybody else.
const OTHERS: u32 = 0o007;

/// What is in each certificate's file; `None` for no file.
pub(super) type Contents = Vec<Option<u64>>;

/// Held by the process that orders. The system lets go of it when the process ends, however it ends.
pub(super) type Lock = Flock<File>;

/// Whether folders may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Make,
    Look,
}

/// Makes the folder, and says what is wrong with it: a warning where certificates are there that can be shown all the same.
///
/// # Errors
/// No certificate is stored, and none could be.
pub fn prepare(config: &Config, access: Access) -> Result<Vec<Problem>, Problem> {
    let Some(acme) = &config.acme else {
        return Ok(Vec::new());
    };
    // Not by the configuration: where secrets are hidden in it, it is one all the same.
    if let Some(eab) = &acme.eab {
        let key = BASE64_URL_SAFE_NO_PAD.decode(eab.mac_key.reveal());
        key.map_err(|_secret| {
            Problem::new(&eab.place, "is not base64url")
                .help("copy it as the CA shows it: letters, digits, `-` and `_`, without `=`")
        })?;
    }
    let mut warnings = Vec::new();
    if let Err(error) = usable(acme, access) {
        let path = acme.state.display();
        let problem = Problem::new(&acme.state_place, format!("{path} cannot be written: {error}"))
            .help("give it to the user that tidegate runs as, mode 0700: StateDirectory= of systemd does, in Kubernetes a volume");
        let is_stored = config
            .acme_certificates()
            .any(|ordered| ordered.file.exists());
        // Whoever looks may be another user than the one that runs it.
        let is_others = access == Access::Look && error.kind() == io::ErrorKind::PermissionDenied;
        match is_stored || is_others {
            true => warnings.push(problem),
            false => return Err(problem),
        }
    }
    warnings.extend(open_to_others(acme));
    Ok(warnings)
}

fn usable(acme: &Acme, may: Access) -> io::Result<()> {
    let folder = acme.folder();
    if may == Access::Make {
        make(&folder)?;
    }
    // What is there of it.
    let there = folder.ancestors().find(|folder| folder.exists());
    let there = there.filter(|there| !there.as_os_str().is_empty());
    if there.is_some_and(|there| !there.is_dir()) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    access(
        there.unwrap_or(Path::new(".")),
        AccessFlags::W_OK | AccessFlags::X_OK,
    )?;
    Ok(())
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
}

/// SECURITY: whoever reads the keys can be this server.
fn open_to_others(acme: &Acme) -> Option<Problem> {
    let mode = fs::metadata(&acme.state).ok()?.permissions().mode();
    let path = acme.state.display();
    (mode & OTHERS != 0).then(|| {
        let message = format!("everyone on this machine can look into {path} (mode {:04o}), which is for private keys", mode & 0o7777);
        Problem::new(&acme.state_place, message).help(format!("chmod 700 {path}"))
    })
}

pub(super) fn contents(certificates: &[AcmeCertificate]) -> Contents {
    let content = |ordered: &AcmeCertificate| {
        let bytes = fs::read(&ordered.file).ok()?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Some(hasher.finish())
    };
    certificates.iter().map(content).collect()
}

/// One CA's folder.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(super) fn new(acme: &Acme) -> Self {
        Self {
            folder: acme.folder(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn account(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    pub(super) fn challenges(&self) -> PathBuf {
        self.folder.join("challenges")
    }

    /// `None` while another process has it.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        make(&self.folder)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(self.folder.join("lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        make(folder)?;
    }
    replace(path, bytes, FILE_MODE)
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec_pretty(value)?)
}

/// `None` where there is no file. One that cannot be understood is an error of the kind `InvalidData`.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        // By itself serde_json calls half a file an early end.
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A damaged file makes way, and can still be looked at.
pub(super) fn set_aside(path: &Path, why: &dyn std::fmt::Display) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".damaged-{}", now.map_or(0, |now| now.as_secs())));
    let (file, aside) = (path.display(), PathBuf::from(aside));
    match fs::rename(path, &aside) {
        Ok(()) => {
            tracing::error!(%file, aside = %aside.display(), %why, "a damaged file of acme.state was set aside")
        }
        Err(error) => {
            tracing::error!(%file, %why, %error, "a damaged file of acme.state cannot be set aside")
        }
    }
}

/// Does what may wait for a disk on a thread that may wait.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
}
