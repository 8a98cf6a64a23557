//! Files that are never half there: a reader, and whoever comes after a crash, finds the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes beside the target, syncs and renames.
///
/// # Errors
/// The old file is untouched then.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = match write_new(&beside, bytes, mode) {
        // Left by one that died with the same number: in a container that is always 1.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&beside)?;
            write_new(&beside, bytes, mode)
        }
        written => written,
    };
    let written = written.and_then(|()| fs::rename(&beside, path));
    if written.is_err() && beside.exists() {
        drop(fs::remove_file(&beside));
    }
    written?;
    // The name is in the folder, which has to reach the disk too.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// SECURITY: `create_new` follows no link that someone has laid, and the mode holds from the first byte.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_with_the_same_number_has_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let left = folder.path().join(format!("a.{}.new", std::process::id()));
        fs::write(&left, "half").unwrap();
        replace(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert!(!left.exists());
    }
}
