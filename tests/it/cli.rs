//! The command line of the real binary: what it prints, where, and its exit code.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::broker::Broker;
use crate::support::client::{tls_as, tls_config};
use crate::support::devices::Devices;
use crate::support::gateway::pool_of;
use crate::support::process::Finished;
use crate::support::program::{Program, command, tidegate};
use crate::support::raw_http::Request;
use crate::support::{PATIENCE, packets};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn code(finished: &Finished) -> i32 {
    let (stdout, stderr) = (&finished.stdout, &finished.stderr);
    finished
        .status
        .code()
        .unwrap_or_else(|| panic!("{}\n{stdout}\n{stderr}", finished.status))
}

/// Runs it, asserts the exit code and that one of the outputs is silent, answers the other.
async fn said(folder: &Path, arguments: &[&str], expected: i32) -> String {
    let finished = tidegate(folder, arguments).await;
    let (stdout, stderr) = (&finished.stdout, &finished.stderr);
    assert_eq!(
        code(&finished),
        expected,
        "{arguments:?}\n{stdout}\n{stderr}"
    );
    if expected == 0 {
        assert_eq!(stderr, "", "{arguments:?}");
        finished.stdout
    } else {
        assert_eq!(stdout, "", "{arguments:?}");
        finished.stderr
    }
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every configuration that ships, as `config/…`.
fn shipped() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["config", "config/examples"] {
        for entry in fs::read_dir(project().join(folder)).unwrap() {
            let path = Path::new(folder).join(entry.unwrap().file_name());
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    files
}

/// A folder as an operator's: the shipped configurations, their site, and certificates where they look for them.
async fn installed() -> TempDir {
    let folder = folder();
    let root = folder.path();
    fs::create_dir_all(root.join("config/examples")).unwrap();
    fs::create_dir_all(root.join("config/www")).unwrap();
    for file in shipped() {
        fs::copy(project().join(&file), root.join(&file)).unwrap();
    }
    for entry in fs::read_dir(project().join("config/www")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(
            entry.path(),
            root.join("config/www").join(entry.file_name()),
        )
        .unwrap();
    }
    said(root, &["cert", "dev", "--name", "example.com"], 0).await;
    let certs = root.join("certs");
    let made: Vec<String> = fs::read_dir(&certs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for (from, to) in [
        ("tidegate-dev.pem", "example.com.pem"),
        ("tidegate-dev.key", "example.com.key"),
        ("tidegate-dev.pem", "gateway.pem"),
        ("tidegate-dev.key", "gateway.key"),
        ("ca.pem", "brokers-ca.pem"),
        ("ca.pem", "acme-ca.pem"),
    ] {
        let copied = fs::copy(certs.join(from), certs.join(to));
        copied.unwrap_or_else(|error| panic!("{from}: {error}, there is {made:?}"));
    }
    let secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTIzNA==";
    fs::write(certs.join("tickets.keys"), secret).unwrap();
    for whose in ["clients", "devices"] {
        let authority = Devices::new(whose);
        authority.ca(&certs, &format!("{whose}-ca.pem"));
        authority.crl(&certs, &format!("{whose}.crl"), &[]);
    }
    folder
}

#[tokio::test]
async fn check_says_what_each_shipped_configuration_would_do() {
    let folder = installed().await;
    for file in shipped() {
        let name = file.to_str().unwrap();
        let told = said(folder.path(), &["check", "-c", name], 0).await;
        let first = format!("{name}: the configuration is good\n");
        assert!(told.starts_with(&first), "{told}");
        for part in [
            "\nlisteners\n",
            "\nroutes, the most specific first\n",
            "\npool ",
            "% of new sessions",
            "\nlimits\n",
        ] {
            assert!(told.contains(part), "{name} lacks {part:?}\n{told}");
        }
    }
    let brokers = "pools: { p: { balance: least_sessions, brokers: [{ url: mqtt://a:1 }, { url: mqtt://b:1, backup: true }, { url: mqtt://c:1, down: true }] } }";
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:0', plain: routes }}]\nroutes: [{{ path: /mqtt, pool: p }}]\n{brokers}\n"
    );
    fs::write(folder.path().join("backup.yaml"), yaml).unwrap();
    let told = said(folder.path(), &["check", "-c", "backup.yaml"], 0).await;
    for part in [
        "pool p: least_sessions\n",
        "100.0 % of new sessions\n",
        "backup: 100.0 % when no other is left\n",
        "down: takes none\n",
    ] {
        assert!(told.contains(part), "no {part:?}\n{told}");
    }
    let told = said(
        folder.path(),
        &["check", "-c", "config/examples/emqx-cluster.yaml"],
        0,
    )
    .await;
    for part in [
        "[::]:8084                https and wss",
        "[::]:80                  redirects to https",
        "days left, example.com",
        "*/mqtt                   pool emqx",
        "*/                       files in config/www",
        "ws://10.10.1.1:8083/mqtt                 weight 2     50.0 % of new sessions",
    ] {
        assert!(told.contains(part), "no {part:?}\n{told}");
    }
}

#[tokio::test]
async fn check_names_every_problem_with_its_place_and_exits_78() {
    let folder = folder();
    let yaml = "\
listeners:
  - addres: \"127.0.0.1:0\"
    plain: routes
routes:
  - { path: mqtt, pool: nobody }
pools:
  brokers: { brokers: [{ url: \"http://x\" }] }
timeouts: { tls: 10 }
";
    fs::write(folder.path().join("bad.yaml"), yaml).unwrap();
    for verb in ["check", "run"] {
        let told = said(folder.path(), &[verb, "-c", "bad.yaml"], 78).await;
        for place in [
            "bad.yaml:2:5: listeners[0].addres: ",
            "bad.yaml:5:13: routes[0].path: ",
            "bad.yaml:5:25: routes[0].pool: ",
            "bad.yaml:7:31: pools.brokers.brokers[0].url: ",
            "bad.yaml:8:18: timeouts.tls: ",
        ] {
            assert!(told.contains(place), "no {place}\n{told}");
        }
        assert!(told.contains("help: "), "{told}");
        assert!(told.ends_with(" problems in bad.yaml"), "{told}");
    }
    let told = said(folder.path(), &["config", "print", "-c", "bad.yaml"], 78).await;
    assert!(told.contains("bad.yaml:2:5: "), "{told}");
}

fn certificate(folder: &Path, name: &str, hosts: &[&str]) {
    let key = KeyPair::generate().unwrap();
    let hosts: Vec<String> = hosts.iter().map(|&host| host.into()).collect();
    let certificate = CertificateParams::new(hosts).unwrap().self_signed(&key);
    let pem = certificate.unwrap().pem();
    fs::write(folder.join(format!("{name}.pem")), pem).unwrap();
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn check_lists_everything_that_is_wrong_with_the_files_at_once() {
    let folder = folder();
    certificate(folder.path(), "a", &["a.example"]);
    certificate(folder.path(), "b", &["b.example"]);
    let yaml = "\
listeners: [{ address: \"127.0.0.1:0\" }]
certificates:
  - { chain: a.pem, key: b.key }
  - { chain: nowhere.pem, key: b.key }
routes:
  - { path: /mqtt, pool: brokers }
  - { path: /, site: { root: nosuchfolder } }
pools:
  brokers:
    tls: { ca: no-ca.pem }
    brokers: [{ url: \"wss://127.0.0.1:1\" }]
";
    fs::write(folder.path().join("t.yaml"), yaml).unwrap();
    for verb in ["check", "run"] {
        let told = said_by_log(folder.path(), verb).await;
        for place in [
            "t.yaml:3:26: certificates[0].key: ",
            "t.yaml:4:14: certificates[1].chain: ",
            "t.yaml:7:30: routes[1].site.root: ",
            "t.yaml:10:16: pools.brokers.tls.ca: ",
        ] {
            assert!(told.contains(place), "no {place}\n{told}");
        }
        assert!(told.contains("4 problems in t.yaml"), "{told}");
    }
}

/// `run` may have logged before it looked at the files.
async fn said_by_log(folder: &Path, verb: &str) -> String {
    let finished = tidegate(folder, &[verb, "-c", "t.yaml"]).await;
    assert_eq!(code(&finished), 78);
    finished.stderr
}

#[tokio::test]
async fn check_finds_a_route_that_no_certificate_covers() {
    let folder = folder();
    certificate(folder.path(), "a", &["a.example", "*.a.example"]);
    let yaml = "\
listeners: [{ address: \"127.0.0.1:0\" }]
certificates: [{ chain: a.pem, key: a.key }]
routes:
  - { host: a.example, path: /mqtt, pool: brokers }
  - { host: mqtt.a.example, path: /mqtt, pool: brokers }
  - { host: b.example, path: /mqtt, pool: brokers }
pools: { brokers: { brokers: [{ url: \"ws://127.0.0.1:1\" }] } }
";
    fs::write(folder.path().join("t.yaml"), yaml).unwrap();
    let told = said_by_log(folder.path(), "check").await;
    assert!(told.contains("t.yaml:6:5: routes[2]: "), "{told}");
    assert!(told.contains("b.example"), "{told}");
    assert!(told.ends_with("1 problem in t.yaml"), "{told}");
}

#[tokio::test]
async fn a_missing_configuration_is_a_bad_one() {
    let folder = folder();
    for verb in ["run", "check"] {
        let told = said(folder.path(), &[verb, "-c", "none.yaml"], 78).await;
        assert!(told.starts_with("none.yaml: cannot be read: "), "{told}");
    }
}

#[tokio::test]
async fn wrong_usage_exits_2_and_shows_the_right_one() {
    let folder = folder();
    for arguments in [
        &[][..],
        &["serve"],
        &["run", "--port", "1"],
        &["check", "--all"],
    ] {
        let told = said(folder.path(), arguments, 2).await;
        assert!(told.contains("Usage: tidegate"), "{arguments:?}\n{told}");
    }
}

#[tokio::test]
async fn a_port_in_use_exits_1_with_its_place_and_the_remedy() {
    let folder = folder();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let pool = pool_of(&["ws://127.0.0.1:1".to_owned()]);
    let yaml = format!(
        "listeners:\n  - address: \"127.0.0.1:{port}\"\n    plain: routes\nadmin: {{ address: \"127.0.0.1:{port}\" }}\n{pool}"
    );
    fs::write(folder.path().join("t.yaml"), yaml.replace("admin:", "#")).unwrap();
    let told = said_by_run(folder.path()).await;
    let place = format!(
        "t.yaml:2:14: listeners[0].address: cannot listen on 127.0.0.1:{port}: Address already in use"
    );
    assert!(told.contains(&place), "{told}");
    assert!(
        told.contains(&format!("ss -ltnp 'sport = :{port}'")),
        "{told}"
    );
    // `check` binds nothing, so it has nothing to say against the port.
    said(folder.path(), &["check", "-c", "t.yaml"], 0).await;
}

async fn said_by_run(folder: &Path) -> String {
    let finished = tidegate(folder, &["run", "-c", "t.yaml"]).await;
    assert_eq!(code(&finished), 1, "{}", finished.stderr);
    finished.stderr
}

#[tokio::test]
async fn help_has_examples_and_the_exit_codes() {
    let folder = folder();
    let told = said(folder.path(), &["--help"], 0).await;
    for part in [
        "Examples:",
        "tidegate run -c ",
        "78 wrong configuration",
        "completions",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn cert_dev_makes_a_certificate_that_is_served_and_trusted_by_its_ca() {
    let folder = folder();
    let told = said(
        folder.path(),
        &["cert", "dev", "--out", "made", "--name", "phone.example"],
        0,
    )
    .await;
    assert!(told.contains("names        phone.example"), "{told}");
    assert!(told.contains("made/ca.pem (new)"), "{told}");
    let again = said(
        folder.path(),
        &["cert", "dev", "--out", "made", "--name", "phone.example"],
        0,
    )
    .await;
    assert!(!again.contains("(new)"), "{again}");
    let made = folder.path().join("made");
    let program = Program::run(&format!(
        "certificates: [{{ chain: {:?}, key: {:?} }}]\n{}",
        made.join("tidegate-dev.pem"),
        made.join("tidegate-dev.key"),
        pool_of(&["ws://127.0.0.1:1".to_owned()])
    ))
    .await;
    let config = tls_config(&made.join("ca.pem"), rustls::DEFAULT_VERSIONS);
    tls_as(program.address(0), "phone.example", config)
        .await
        .unwrap();
}

#[tokio::test]
async fn cert_dev_that_cannot_write_exits_1_and_says_where() {
    let folder = folder();
    fs::write(folder.path().join("file"), "").unwrap();
    let told = said(folder.path(), &["cert", "dev", "--out", "file/certs"], 1).await;
    assert!(
        told.starts_with("tidegate: ") && told.contains("file/certs"),
        "{told}"
    );
}

#[tokio::test]
async fn config_schema_is_json_that_names_every_section() {
    let folder = folder();
    let printed = printed(folder.path(), &["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&printed).unwrap();
    for section in [
        "listeners",
        "certificates",
        "routes",
        "pools",
        "limits",
        "timeouts",
        "drain",
        "log",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[tokio::test]
async fn config_print_prints_a_configuration_that_means_the_same() {
    let folder = installed().await;
    for file in shipped() {
        let name = file.to_str().unwrap();
        let printed = said(folder.path(), &["config", "print", "-c", name], 0).await;
        fs::write(folder.path().join("printed.yaml"), &printed).unwrap();
        let again = said(folder.path(), &["config", "print", "-c", "printed.yaml"], 0).await;
        assert_eq!(printed, again, "{name}");
        assert!(printed.contains("broker_connect: 2s"), "{printed}");
    }
}

#[tokio::test]
async fn version_says_what_it_is_built_of() {
    let folder = folder();
    let version = concat!("tidegate ", env!("CARGO_PKG_VERSION"));
    let told = said(folder.path(), &["version"], 0).await;
    assert!(
        told.starts_with(&format!("{version}\n")) && told.contains("aws-lc-rs"),
        "{told}"
    );
    assert_eq!(said(folder.path(), &["--version"], 0).await, version);
}

#[tokio::test]
async fn completions_are_a_script_that_the_shell_reads() {
    let folder = folder();
    let script = printed(folder.path(), &["completions", "bash"]);
    let text = String::from_utf8_lossy(&script);
    assert!(text.contains("complete -F _tidegate"), "{text}");
    let file = folder.path().join("tidegate.bash");
    fs::write(&file, &script).unwrap();
    let read = Command::new("bash").arg("-n").arg(&file).status().unwrap();
    assert!(read.success());
}

/// All of its standard output, however long.
fn printed(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = command(folder, arguments).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

const DRAINING: &str = "drain: { max: 60s }\n";

async fn session(
    program: &Program,
    broker: &Broker,
) -> (TcpStream, crate::support::broker::Session) {
    let mut stream = TcpStream::connect(program.address(1)).await.unwrap();
    let answer = Request::upgrade("/mqtt").ask(&mut stream).await;
    assert_eq!(answer.status, 101);
    let mut bytes = vec![0x82, 0x80 | 14, 0, 0, 0, 0];
    bytes.extend_from_slice(&packets::connect("", 60));
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes)
        .await
        .unwrap();
    let session = broker.welcome().await;
    let connack = [0x82, 4, 0x20, 2, 0, 0];
    let mut read = [0; 6];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut read)
        .await
        .unwrap();
    assert_eq!(read, connack);
    (stream, session)
}

/// TLS and plain in front of the broker.
async fn running(broker: &Broker, more: &str) -> Program {
    let pool = pool_of(&[broker.mqtt_url()]);
    Program::run(&format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\", name: plain, plain: routes }}]\n{pool}{more}"
    ))
    .await
}

#[tokio::test]
async fn run_serves_and_drains_on_sigterm_and_sigint() {
    for signal in ["TERM", "INT"] {
        let broker = Broker::start().await;
        let program = running(&broker, DRAINING).await;
        let (mut client, mut session) = session(&program, &broker).await;
        program.process.signal(signal);
        // Close 1001, and the end; the broker is not told DISCONNECT.
        let farewell = crate::support::raw_http::rest(&mut client).await;
        assert_eq!(&farewell[..4], [0x88, 30, 0x03, 0xe9], "{farewell:02x?}");
        drop(client);
        assert_eq!(session.rest().await, b"");
        let finished = program.process.finish(PATIENCE).await;
        assert_eq!(code(&finished), 0);
        let log = &finished.stderr;
        assert!(
            log.contains(&format!("stopping why=\"SIG{signal}\"")),
            "{log}"
        );
        assert!(log.contains("drained asked=1 cut=0"), "{log}");
        assert!(
            log.contains("tidegate::session: the gateway is shutting down"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_program_at_once() {
    let broker = Broker::start().await;
    // Without the second signal it would go on for a minute.
    let program = running(&broker, "drain: { announce: 60s }\n").await;
    let (_client, _session) = session(&program, &broker).await;
    program.process.signal("TERM");
    program.tells(&["stopping", "sessions=1"]).await;
    program.process.signal("TERM");
    let finished = program.process.finish(PATIENCE).await;
    assert_eq!(finished.status.signal(), None);
    assert_eq!(code(&finished), 0);
    assert!(
        finished.stderr.contains("stopping at once"),
        "{}",
        finished.stderr
    );
    assert!(finished.stderr.contains("cut="), "{}", finished.stderr);
}

#[tokio::test]
async fn every_line_of_a_json_log_is_json_warnings_too() {
    let broker = Broker::start().await;
    // The test's chain lacks its authority, and the pool has no use for `tls`.
    let pool =
        pool_of(&[broker.mqtt_url()]).replace("brokers: {", "brokers: {tls: {verify: false}, ");
    let program = Program::run(&format!("{pool}log: {{ format: json }}\n")).await;
    let log = program.process.stderr();
    let mut warnings = Vec::new();
    for line in log.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if value["level"] == "WARN" {
            warnings.push(value["key"].as_str().unwrap().to_owned());
            assert!(
                value["place"]
                    .as_str()
                    .unwrap()
                    .starts_with("tidegate.yaml:"),
                "{line}"
            );
        }
    }
    for key in ["pools.brokers.tls", "certificates[0].chain"] {
        assert!(warnings.iter().any(|warning| warning == key), "{log}");
    }
}
