//! Certificates that are ordered from a CA: the checked values, and what their files are called.

use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

use super::model::Trust;
use super::probe_values::Secret;
use super::problem::Place;

/// Who issues, and where it is kept.
#[derive(Debug, Clone)]
pub struct Acme {
    /// URL.
    pub directory: String,
    pub email: Option<String>,
    /// Holds a folder for each directory: what one CA has issued must not stand in for another's, a rehearsal's least.
    pub state: PathBuf,
    pub state_place: Place,
    /// Whom the directory's own certificate must come from.
    pub trust: Trust,
    pub place: Place,
    pub eab: Option<Eab>,
    pub profile: Option<String>,
}

/// External account binding.
#[derive(Debug, Clone)]
pub struct Eab {
    pub key_id: Secret,
    /// In base64url.
    pub mac_key: Secret,
    pub place: Place,
}

/// One certificate that is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// At least one, lower case, none twice; in the order of the file.
    pub names: Vec<String>,
    /// Key and chain, once they are there. In `Acme::folder`.
    pub file: PathBuf,
    pub place: Place,
}

impl Acme {
    /// What belongs to this directory.
    pub fn folder(&self) -> PathBuf {
        folder(&self.state, &self.directory)
    }

    /// Nothing differs but where it stands in the file.
    pub fn is_same(&self, other: &Self) -> bool {
        let Self {
            directory,
            email,
            state,
            state_place: _,
            trust,
            place: _,
            eab,
            profile,
        } = self;
        let keys = |eab: &Option<Eab>| {
            let keys = eab.as_ref();
            keys.map(|eab| (eab.key_id.clone(), eab.mac_key.clone()))
        };
        (directory, email, state) == (&other.directory, &other.email, &other.state)
            && (trust, profile) == (&other.trust, &other.profile)
            && keys(eab) == keys(&other.eab)
    }
}

/// `acme-v02.api.letsencrypt.org-directory`, as other programs call it too.
pub(super) fn folder(state: &Path, directory: &str) -> PathBuf {
    let known = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
    let name = directory.trim_start_matches("https://");
    let name: String = name
        .chars()
        .map(|letter| if known(letter) { letter } else { '-' })
        .collect();
    // None that leads elsewhere.
    match name.trim_matches(['.', '-']) {
        "" => state.join("ca"),
        name => state.join(name),
    }
}

/// The same for the same names in any order, in every build: the file says which certificate is there.
pub(super) fn file(folder: &Path, names: &[String]) -> PathBuf {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let first = sorted.first().copied().unwrap_or_default();
    let hash = SipHasher13::new().hash(sorted.join(" ").as_bytes());
    folder.join(format!("{first}-{:08x}.pem", hash >> 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_set_of_names_never_changes() {
        let names = ["www.example.com".to_owned(), "example.com".to_owned()];
        let state = Path::new("/s");
        let folder = folder(state, "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(
            folder,
            Path::new("/s/acme-v02.api.letsencrypt.org-directory")
        );
        let path = file(&folder, &names);
        let [b, a] = names;
        assert_eq!(path, file(&folder, &[a.clone(), b]));
        assert_ne!(path, file(&folder, &[a]));
        assert_eq!(path.file_name().unwrap(), "example.com-290f3df8.pem");
    }

    #[test]
    fn a_directory_stays_below_the_state() {
        for directory in ["https://..", "https://../../etc", "https://[::1]:14000/dir"] {
            let folder = folder(Path::new("/s"), directory);
            assert_eq!(
                folder.parent(),
                Some(Path::new("/s")),
                "{}",
                folder.display()
            );
            let name = folder.file_name();
            assert!(
                name.is_none_or(|name| !name.to_string_lossy().starts_with('.')),
                "{}",
                folder.display()
            );
        }
    }
}
