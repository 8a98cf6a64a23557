//! Where the programs are that the tests start. A missing one fails the test and says how to get it; nothing is skipped.

use std::env;
use std::path::{Path, PathBuf};

pub fn node() -> PathBuf {
    on_the_path("node")
}

pub fn chromium() -> PathBuf {
    on_the_path("chromium")
}

pub fn firefox() -> PathBuf {
    on_the_path("firefox-esr")
}

/// Of NSS, whose trust store Firefox has.
pub fn certutil() -> PathBuf {
    on_the_path("certutil")
}

pub fn mosquitto() -> PathBuf {
    on_the_path("mosquitto")
}

/// The first that knows the PROXY protocol.
pub fn mosquitto_2_1() -> PathBuf {
    there(project().join(".tools/mosquitto-2.1/mosquitto"))
}

pub fn mosquitto_passwd() -> PathBuf {
    on_the_path("mosquitto_passwd")
}

/// Of GnuTLS, which can be told to be as old as one likes.
pub fn gnutls_cli() -> PathBuf {
    on_the_path("gnutls-cli")
}

/// A CA for tests, by the makers of Let's Encrypt.
pub fn pebble() -> PathBuf {
    on_the_path("pebble")
}

/// The DNS that it asks.
pub fn pebble_challtestsrv() -> PathBuf {
    on_the_path("pebble-challtestsrv")
}

/// Of Prometheus.
pub fn promtool() -> PathBuf {
    on_the_path("promtool")
}

/// Of util-linux.
pub fn unshare() -> PathBuf {
    on_the_path("unshare")
}

/// Of iproute2.
pub fn ip() -> PathBuf {
    on_the_path("ip")
}

/// Of systemd; it needs none that runs.
pub fn systemd_analyze() -> PathBuf {
    on_the_path("systemd-analyze")
}

pub fn strace() -> PathBuf {
    on_the_path("strace")
}

pub fn umoci() -> PathBuf {
    on_the_path("umoci")
}

pub fn lintian() -> PathBuf {
    on_the_path("lintian")
}

pub fn kustomize() -> PathBuf {
    there(project().join(".tools/bin/kustomize"))
}

pub fn cargo_deb() -> PathBuf {
    there(project().join(".tools/bin/cargo-deb"))
}

pub fn hadolint() -> PathBuf {
    there(project().join(".tools/venv/bin/hadolint"))
}

pub fn shellcheck() -> PathBuf {
    there(project().join(".tools/venv/bin/shellcheck"))
}

pub fn sslyze() -> PathBuf {
    there(project().join(".tools/scanners/bin/sslyze"))
}

pub fn testssl() -> PathBuf {
    on_the_path("testssl")
}

pub fn epmd() -> PathBuf {
    on_the_path("epmd")
}

/// The server itself: Debian's wrapper in /usr/sbin insists on the user `rabbitmq`.
pub fn rabbitmq_server() -> PathBuf {
    there("/usr/lib/rabbitmq/bin/rabbitmq-server".into())
}

/// The interpreter that has the packages of `requirements.txt` in `tests/clients` and `tests/deploy`.
pub fn python() -> PathBuf {
    there(project().join(".tools/venv/bin/python"))
}

/// A program or file of `tests/clients`, whose npm packages must be installed.
pub fn client(name: &str) -> PathBuf {
    let folder = project().join("tests/clients");
    there(folder.join("node_modules/mqtt/package.json"));
    there(folder.join(name))
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn on_the_path(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    // A plain user's PATH on Debian has no sbin.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| missing(name))
}

fn there(file: PathBuf) -> PathBuf {
    if file.exists() {
        file
    } else {
        missing(&file.display().to_string())
    }
}

fn missing(what: &str) -> ! {
    panic!("{what} is missing; install what the tests need with: tests/install.sh")
}
