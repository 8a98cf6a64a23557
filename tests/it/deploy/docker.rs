//! The image: its tree and settings, built from the Dockerfile's last stage without a Docker engine, and the program run in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::config;

use super::kubernetes::{array, validated};
use super::{RESERVE, check, deploy, documents, drain_of, outcome, project, read, said};
use crate::support::admin::Admin;
use crate::support::authority::Authority;
use crate::support::process::Process;
use crate::support::program::admin_address;
use crate::support::{eventually, tools};

const NOBODY: u32 = 65532;

/// The instructions of the last stage, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = read(&deploy("docker/Dockerfile")).replace("\\\n", " ");
    let mut stage = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, rest) = line.split_once(' ').unwrap();
        if name == "FROM" {
            stage.clear();
        }
        stage.push((name.to_owned(), rest.trim().to_owned()));
    }
    stage
}

fn instruction(name: &str) -> String {
    let mut found = instructions();
    found.retain(|(instruction, _)| instruction == name);
    assert_eq!(found.len(), 1, "{name}");
    found.remove(0).1
}

fn list(instruction: &str) -> Vec<String> {
    serde_json::from_str(instruction).unwrap_or_else(|error| panic!("{instruction}: {error}"))
}

/// The files of the context that `Dockerfile.dockerignore` lets through, where the build below sees nothing else.
fn context() -> PathBuf {
    let context = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-context");
    // Nothing of another time; the copies keep their times, so that nothing is built again that has not changed.
    drop(fs::remove_dir_all(&context));
    fs::create_dir_all(&context).unwrap();
    let ignored = read(&deploy("docker/Dockerfile.dockerignore"));
    for kept in ignored.lines().filter_map(|line| line.strip_prefix('!')) {
        let to = context.join(kept).parent().unwrap().to_owned();
        fs::create_dir_all(&to).unwrap();
        let mut copy = Command::new("cp");
        said(copy.arg("-a").arg(project().join(kept)).arg(&to));
    }
    context
}

/// The static program: what the Dockerfile's build makes, without its optimisation. Beside the others in the target folder, so
/// that only what differs is built.
fn built(context: &Path) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static/tidegate");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let recipe = read(&deploy("docker/Dockerfile"));
    let flags = "--locked --bin tidegate -- -C target-feature=+crt-static";
    assert!(
        recipe.contains(&format!("cargo rustc --release {flags}")),
        "{recipe}"
    );
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .arg("rustc")
        .args(flags.split(' '))
        .args(["-C", "strip=debuginfo"])
        .arg(format!("--emit=link={}", file.display()))
        .env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap(),
        )
        .current_dir(context);
    let told = said(&mut cargo);
    // The linker warns of what a static glibc cannot do: getaddrinfo and its like.
    assert!(!told.contains("warning"), "{told}");
    file
}

/// Modes and owners of a tree, by path.
fn tree(folder: &Path) -> Vec<(String, u32, u32)> {
    let mut found: Vec<_> = super::files(folder)
        .iter()
        .map(|file| {
            let metadata = fs::symlink_metadata(file).unwrap();
            let name = file
                .strip_prefix(folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, metadata.permissions().mode() & 0o7777, metadata.uid())
        })
        .collect();
    found.sort();
    found
}

/// An unpacked image: `rootfs`, and `config.json` as a container runtime gets it.
fn unpacked(folder: &Path) -> PathBuf {
    let context = context();
    let program = built(&context);
    let layers = folder.join("layers");
    let mut copies = 0;
    for (_, copy) in instructions().iter().filter(|(name, _)| name == "COPY") {
        let mut words: Vec<&str> = copy.split_whitespace().collect();
        let mode = words
            .iter()
            .find_map(|word| word.strip_prefix("--chmod="))
            .map(str::to_owned);
        let built = words.contains(&"--from=build");
        words.retain(|word| !word.starts_with("--"));
        let [from, to] = words[..] else {
            panic!("{copy}")
        };
        let from = match from {
            "/usr/local/bin/tidegate" => program.clone(),
            _ if built => PathBuf::from(from),
            _ => context.join(from),
        };
        let to = layers.join(to.trim_start_matches('/'));
        let folder = if from.is_dir() {
            &to
        } else {
            to.parent().unwrap()
        };
        fs::create_dir_all(folder).unwrap();
        if from.is_dir() {
            said(Command::new("cp").arg("-r").arg(from.join(".")).arg(&to));
        } else {
            fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        if let Some(mode) = mode {
            let mode = u32::from_str_radix(&mode, 8).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
        }
        copies += 1;
    }
    assert!(copies >= 3);
    let umoci = |arguments: &[&str]| {
        said(
            Command::new(tools::umoci())
                .args(arguments)
                .current_dir(folder),
        )
    };
    umoci(&["init", "--layout", "image"]);
    umoci(&["new", "--image", "image:own"]);
    for top in fs::read_dir(&layers).unwrap() {
        let name = top.unwrap().file_name().into_string().unwrap();
        let (from, to) = (format!("layers/{name}"), format!("/{name}"));
        umoci(&["insert", "--image", "image:own", &from, &to]);
    }
    let mut settings = vec!["config".to_owned(), "--image=image:own".to_owned()];
    settings.push(format!("--config.user={}", instruction("USER")));
    settings.push(format!("--config.stopsignal={}", instruction("STOPSIGNAL")));
    for word in list(&instruction("ENTRYPOINT")) {
        settings.push(format!("--config.entrypoint={word}"));
    }
    for word in list(&instruction("CMD")) {
        settings.push(format!("--config.cmd={word}"));
    }
    umoci(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    umoci(&["unpack", "--image", "image:own", "bundle"]);
    folder.join("bundle")
}

#[test]
fn the_dockerfile_is_clean_and_says_how_the_image_is_run() {
    assert_eq!(
        said(Command::new(tools::hadolint()).arg(deploy("docker/Dockerfile"))),
        ""
    );
    assert_eq!(instruction("FROM"), "scratch");
    assert_eq!(list(&instruction("ENTRYPOINT")), ["/usr/bin/tidegate"]);
    assert_eq!(instruction("STOPSIGNAL"), "SIGTERM");
    let (_, health) = instruction("HEALTHCHECK")
        .split_once("CMD ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(list(&health), ["/usr/bin/tidegate", "healthcheck"]);
    let version = format!(
        "org.opencontainers.image.version=\"{}\"",
        env!("CARGO_PKG_VERSION")
    );
    assert!(instruction("LABEL").contains(&version));
    // The image's Rust is the one that the package asks for.
    let from = format!(
        "FROM rust:{}-bookworm AS build",
        env!("CARGO_PKG_RUST_VERSION")
    );
    assert!(read(&deploy("docker/Dockerfile")).contains(&from), "{from}");
}

#[tokio::test]
async fn the_image_holds_one_program_that_runs_as_nobody_from_a_tree_that_it_cannot_write() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "it becomes another user: run the tests as root"
    );
    let folder = TempDir::new().unwrap();
    let bundle = unpacked(folder.path());
    let rootfs = bundle.join("rootfs");
    let expected = [
        ("etc/group", 0o644),
        ("etc/passwd", 0o644),
        ("etc/ssl/certs/ca-certificates.crt", 0o644),
        ("usr/bin/tidegate", 0o755),
    ];
    // No shell, no library, nothing that belongs to the user it runs as.
    let expected: Vec<_> = expected
        .map(|(name, mode)| (name.to_owned(), mode, 0))
        .into();
    assert_eq!(tree(&rootfs), expected);
    let users = read(&rootfs.join("etc/passwd"));
    assert!(users.contains(&format!(":x:{NOBODY}:{NOBODY}:")), "{users}");
    let settings: Value = serde_json::from_str(&read(&bundle.join("config.json"))).unwrap();
    let user = &settings["process"]["user"];
    assert_eq!(
        (&user["uid"], &user["gid"]),
        (&json!(NOBODY), &json!(NOBODY))
    );
    let arguments: Vec<&str> = array(&settings["process"]["args"])
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(
        arguments,
        [
            "/usr/bin/tidegate",
            "run",
            "--config",
            "/etc/tidegate/tidegate.yaml"
        ]
    );

    let mounted = folder.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    configure(&mounted);
    let rootfs = rootfs.to_str().unwrap();
    let script = format!(
        "mkdir -p {rootfs}/etc/tidegate; mount --bind {rootfs} {rootfs}; mount --bind {} {rootfs}/etc/tidegate; \
         mount -o remount,bind,ro {rootfs}/etc/tidegate; mount -o remount,bind,ro {rootfs}; \
         exec chroot --userspec={NOBODY}:{NOBODY} {rootfs} \"$@\"",
        mounted.display()
    );
    let mut run = Command::new(tools::unshare());
    run.args(["--mount", "sh", "-ec", &script, "sh"])
        .args(&arguments);
    let process = Process::start(&run);
    let mut address = None;
    let ready = eventually(async || {
        address = process.stderr().lines().find_map(admin_address);
        match address {
            Some(address) => Admin(address).get("/readyz").await.0 == 200,
            None => false,
        }
    })
    .await;
    assert!(ready, "{}", process.last_words());
    process.signal("TERM");
    let finished = process.finish(Duration::from_secs(20)).await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);

    // And the tree is read-only for it: there is no shell to try with, so the program itself tries.
    let (code, told) = outcome(
        Command::new(tools::unshare())
            .args(["--mount", "sh", "-ec", &script, "sh"])
            .args(["/usr/bin/tidegate", "man", "/usr/share/man"]),
    );
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("Read-only file system"), "{told}");
}

/// `/etc/tidegate` as an operator mounts it.
fn configure(folder: &Path) {
    let authority = Authority::make(folder);
    for file in [&authority.chain, &authority.key] {
        std::os::unix::fs::chown(file, Some(0), Some(NOBODY)).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let yaml = "\
listeners: [{ address: \"127.0.0.1:0\" }]
admin: { address: \"127.0.0.1:0\" }
certificates: [{ chain: /etc/tidegate/broker.pem, key: /etc/tidegate/broker.key }]
routes: [{ path: /mqtt, pool: brokers }]
pools: { brokers: { brokers: [{ url: \"mqtt://broker.example:1883\" }] } }
";
    fs::write(folder.join("tidegate.yaml"), yaml).unwrap();
}

#[test]
fn compose_files_are_valid_and_name_files_that_are_there() {
    for file in ["compose.yaml", "compose.mosquitto.yaml"] {
        let path = deploy("docker").join(file);
        let text = read(&path);
        validated(&text, &["--schema", "compose"]);
        let compose = documents(&text).remove(0);
        let service = &compose["services"]["tidegate"];
        assert_eq!(
            service["image"],
            format!("tidegate:{}", env!("CARGO_PKG_VERSION"))
        );
        let folder = path.parent().unwrap();
        let context = folder.join(service["build"]["context"].as_str().unwrap());
        assert!(
            context
                .join(service["build"]["dockerfile"].as_str().unwrap())
                .exists()
        );
        let mut configuration = None;
        for service in compose["services"].as_object().unwrap().values() {
            for volume in array(&service["volumes"]) {
                let (from, to) = volume.as_str().unwrap().split_once(':').unwrap();
                let from = folder.join(from);
                if to == "/etc/tidegate:ro" {
                    configuration = Some(read(&from.join("tidegate.yaml")));
                }
                let named =
                    compose["volumes"].get(volume.as_str().unwrap().split(':').next().unwrap());
                // Whose chain and key it is, nobody can ship.
                assert!(
                    named.is_some() || from.is_dir() || from.ends_with("tls"),
                    "{volume}"
                );
            }
        }
        let configuration = configuration.unwrap();
        check(&configuration);
        let grace = service["stop_grace_period"]
            .as_str()
            .unwrap()
            .strip_suffix('s')
            .unwrap();
        let grace = Duration::from_secs(grace.parse().unwrap());
        assert!(
            drain_of(&configuration) + RESERVE <= grace,
            "{file}: {grace:?}"
        );
        // A broker of the pool is a service of the file.
        let loaded = config::parse(Path::new("tidegate.yaml"), &configuration).unwrap();
        for broker in loaded.config.pools.iter().flat_map(|pool| &pool.brokers) {
            let url = broker.url.to_string();
            let host = url
                .split("//")
                .nth(1)
                .unwrap()
                .split([':', '/'])
                .next()
                .unwrap();
            assert!(compose["services"][host].is_object(), "{host}");
        }
    }
}
