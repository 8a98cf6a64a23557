//! The package: what is in it, and what it does to a machine on the way in and out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::{project, said};
use crate::support::authority::Authority;
use crate::support::process::Process;
use crate::support::tools;

/// A copy of this machine that only its own processes see, and that is gone with them: this machine below, a file system in
/// memory on top. `$1` is a folder; what comes behind it is done in the copy, with that folder as /mnt.
const MACHINE: &str = r#"
copy=$(mktemp -d)
trap 'rmdir "$copy"' EXIT
(
  mount -t tmpfs tmpfs "$copy"
  mkdir "$copy/upper" "$copy/work" "$copy/root"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$copy/upper,workdir=$copy/work" "$copy/root"
  mount -t proc proc "$copy/root/proc"
  mount --rbind /dev "$copy/root/dev"
  mount -t tmpfs tmpfs "$copy/root/tmp"
  mount --bind "$1" "$copy/root/mnt"
  chroot "$copy/root" /bin/sh -euc "$2"
)
umount --lazy "$copy"
"#;

/// The package of the program under test, built once.
fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tidegate.deb");
        let mut build = Command::new(project().join("deploy/debian/build"));
        build
            .args(["dev", "--fast", "--quiet", "--output"])
            .arg(&file)
            .env("CARGO_DEB", tools::cargo_deb())
            .env("CARGO_TARGET_DIR", program.ancestors().nth(2).unwrap());
        said(&mut build);
        file
    })
}

/// Does it in a copy of this machine; what each part of it, begun by `== NAME`, has said.
async fn on_a_machine(folder: &Path, script: &str) -> BTreeMap<String, String> {
    assert!(
        nix::unistd::geteuid().is_root(),
        "it mounts and installs: run the tests as root"
    );
    let mut unshare = Command::new(tools::unshare());
    unshare
        .args(["--mount", "sh", "-ec", MACHINE, "sh"])
        .arg(folder)
        .arg(script);
    let finished = Process::start(&unshare)
        .finish(Duration::from_secs(120))
        .await;
    let told = format!("{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.status.success(), "{told}");
    let parts = finished.stdout.split("== ").skip(1);
    parts
        .map(|part| part.split_once('\n').unwrap_or((part, "")))
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect()
}

#[test]
fn lintian_finds_no_error_in_the_package() {
    let mut lintian = Command::new(tools::lintian());
    lintian.args(["--fail-on", "error", "--allow-root"]);
    said(lintian.arg(package()));
}

const LIFE: &str = r#"
echo "== install"; dpkg --install /mnt/tidegate.deb >/dev/null
echo "== user"; getent passwd tidegate
echo "== folder"; stat --format '%U %G %a' /etc/tidegate/tls
echo "== enabled"; ls /etc/systemd/system/*/tidegate* 2>/dev/null || echo none
echo "== manual"; man --where tidegate-run tidegate-cert-dev
echo "== completion"; bash -c '. /usr/share/bash-completion/completions/tidegate; complete -p tidegate'
echo "== check"
mkdir -p /etc/letsencrypt/live/example.com
cp /mnt/first/* /etc/letsencrypt/live/example.com
/usr/lib/tidegate/certbot-deploy-hook /etc/letsencrypt/live/example.com
# As the service does: its user, who is not root.
setpriv --reuid tidegate --regid tidegate --clear-groups tidegate check
echo "== changed"; echo '# mine' >>/etc/tidegate/tidegate.yaml; dpkg --install /mnt/tidegate.deb >/dev/null
tail -n 1 /etc/tidegate/tidegate.yaml
echo "== removed"; dpkg --remove tidegate >/dev/null
ls /usr/bin/tidegate /usr/lib/systemd/system/tidegate.service 2>/dev/null || ls /etc/tidegate
echo "== purged"; rm -r /etc/tidegate/tls; dpkg --purge tidegate >/dev/null
dpkg --listfiles tidegate 2>/dev/null || ls -d /etc/tidegate 2>/dev/null || echo nothing
"#;

#[tokio::test]
async fn the_package_installs_keeps_changes_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    fs::copy(package(), folder.path().join("tidegate.deb")).unwrap();
    lineage(folder.path(), "first");
    let told = on_a_machine(folder.path(), LIFE).await;
    assert!(told["user"].contains("/nologin"), "{told:?}");
    assert_eq!(told["folder"], "root tidegate 750\n");
    // There is no certificate yet, and 443 may be another's.
    assert_eq!(told["enabled"], "none\n");
    assert_eq!(told["manual"].lines().count(), 2, "{told:?}");
    assert!(told["completion"].contains("-F _tidegate"), "{told:?}");
    assert!(
        told["check"].contains("the configuration is good"),
        "{told:?}"
    );
    assert_eq!(told["changed"], "# mine\n");
    assert_eq!(told["removed"], "tidegate.yaml\ntls\n");
    assert_eq!(told["purged"], "nothing");
}

/// A certificate as certbot writes it.
fn lineage(folder: &Path, name: &str) {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    let made = Authority::make(&folder);
    fs::rename(made.chain, folder.join("fullchain.pem")).unwrap();
    fs::rename(made.key, folder.join("privkey.pem")).unwrap();
}

const RENEWAL: &str = r#"
dpkg --install /mnt/tidegate.deb >/dev/null
hook=/usr/lib/tidegate/certbot-deploy-hook
live=/etc/letsencrypt/live/example.com
file=/etc/tidegate/tls/example.com.pem
export RENEWED_LINEAGE=$live
mkdir -p /etc/letsencrypt/live; cp -r /mnt/first $live
echo "== not asked for"; $hook; ls /etc/tidegate/tls
echo "== first"; $hook $live; stat --format '%U %G %a' $file
cat /mnt/first/privkey.pem /mnt/first/fullchain.pem | cmp - $file
echo "== renewed"; cp /mnt/second/* $live; exec 3<$file; $hook
cat /mnt/second/privkey.pem /mnt/second/fullchain.pem | cmp - $file
# Who had opened the old file still reads it whole: the new one was renamed into place.
cat /mnt/first/privkey.pem /mnt/first/fullchain.pem | cmp - /dev/fd/3
echo "== refused"; cp /mnt/first/privkey.pem $live; $hook 2>&1 || echo "exit $?"
cat /mnt/second/privkey.pem /mnt/second/fullchain.pem | cmp - $file
ls -A /etc/tidegate/tls
"#;

#[tokio::test]
async fn a_renewed_certificate_is_handed_over_whole_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    fs::copy(package(), folder.path().join("tidegate.deb")).unwrap();
    for name in ["first", "second"] {
        lineage(folder.path(), name);
    }
    let told = on_a_machine(folder.path(), RENEWAL).await;
    assert_eq!(told["not asked for"], "");
    assert_eq!(told["first"], "root tidegate 640\n");
    assert_eq!(told["renewed"], "");
    let refused = &told["refused"];
    assert!(refused.contains("the old one is back"), "{refused}");
    assert!(refused.ends_with("exit 1\nexample.com.pem"), "{refused}");
}
