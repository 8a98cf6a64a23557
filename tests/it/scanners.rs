//! What scanners say of the default policy: nothing that is ours to mend. sslyze in each run of the tests; testssl.sh, which takes a
//! minute, by `make scan`.

use std::process::Command;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CrlDistributionPoint, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SignatureAlgorithm,
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::support::gateway::{Gateway, site};
use crate::support::process::{Finished, Process};
use crate::support::tools;

/// Of testssl.sh, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A gateway with certificates as a public CA issues them, ECDSA and RSA, and that CA's file.
struct Scanned {
    gateway: Gateway,
    folder: tempfile::TempDir,
    _site: tempfile::TempDir,
}

impl Scanned {
    async fn start(more: &str) -> Self {
        let (site, root) = site();
        let files = tempfile::tempdir().unwrap();
        let ca = authority();
        std::fs::write(files.path().join("ca.pem"), ca.pem()).unwrap();
        let kinds = [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256];
        let pairs = kinds.map(|kind| {
            let path = files.path().join(format!("{kind:?}.pem").replace(' ', ""));
            std::fs::write(&path, issued(&ca, kind)).unwrap();
            format!("{{ chain: {path:?}, key: {path:?} }}")
        });
        let yaml = format!(
            "routes: [{{ path: /, site: {{ root: {root:?} }} }}]\ncertificates: [{}]\n{more}\n",
            pairs.join(", ")
        );
        let gateway = Gateway::start(&yaml).await;
        Self {
            gateway,
            folder: files,
            _site: site,
        }
    }

    fn place(&self) -> String {
        format!("localhost:{}", self.gateway.port())
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Without the numbers that only certificates have: they are too long for JSON's readers.
    fn json(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.file(name)).unwrap();
        let is_long = |line: &&str| {
            let digits = line.chars().filter(char::is_ascii_digit).count();
            digits > 18 && line.ends_with(|last: char| last == ',' || last.is_ascii_digit())
        };
        let lines = text.lines().map(|line| match line.split_once(": ") {
            Some((name, number)) if is_long(&number) && !number.contains('"') => {
                format!(
                    "{name}: 0{}\n",
                    if number.ends_with(',') { "," } else { "" }
                )
            }
            _ => format!("{line}\n"),
        });
        serde_json::from_str(&lines.collect::<String>()).unwrap()
    }

    async fn sslyze(&self) -> Finished {
        let mut command = Command::new(tools::sslyze());
        command
            .args(["--mozilla_config=intermediate", "--early_data"])
            .args([
                "--certinfo_ca_file".as_ref(),
                self.file("ca.pem").as_os_str(),
            ])
            .args(["--json_out".as_ref(), self.file("sslyze.json").as_os_str()])
            .arg(self.place());
        Process::start(&command).finish(PATIENCE).await
    }
}

fn valid(names: &[&str], days: i64) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::HOUR;
    params.not_after = now + time::Duration::days(days);
    params
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = valid(&[], 365);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "A public CA");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The certificate and its key.
fn issued(ca: &CertifiedIssuer<'static, KeyPair>, kind: &'static SignatureAlgorithm) -> String {
    let mut params = valid(&["localhost"], 89);
    params
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec!["http://ca.example/list.crl".to_owned()],
    }];
    let key = KeyPair::generate_for(kind).unwrap();
    params.signed_by(&key, ca).unwrap().pem() + &key.serialize_pem()
}

/// sslyze's own client for older cipher suites has no Extended Master Secret: with the default policy it sees those of newer
/// clients alone.
#[tokio::test]
async fn sslyze_finds_nothing_to_say_in_either_policy() {
    for (yaml, suites) in [("", 2), ("tls: { policy: compatible }", 6)] {
        let scanned = Scanned::start(yaml).await;
        let finished = scanned.sslyze().await;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(said.contains("OK - Compliant"), "{said}");
        let found = &scanned.json("sslyze.json")["server_scan_results"][0]["scan_result"];
        let result = |name: &str| &found[name]["result"];
        let accepted = |name: &str| {
            let suites = result(name)["accepted_cipher_suites"].as_array().unwrap();
            suites.len()
        };
        for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
            assert_eq!(accepted(&format!("{old}_cipher_suites")), 0, "{old}");
        }
        assert_eq!(accepted("tls_1_2_cipher_suites"), suites, "{yaml}");
        assert_eq!(accepted("tls_1_3_cipher_suites"), 3);
        for (command, value, expected) in [
            (
                "session_renegotiation",
                "supports_secure_renegotiation",
                true,
            ),
            (
                "session_renegotiation",
                "is_vulnerable_to_client_renegotiation_dos",
                false,
            ),
            ("tls_compression", "supports_compression", false),
            ("tls_1_3_early_data", "supports_early_data", false),
            ("tls_fallback_scsv", "supports_fallback_scsv", true),
            ("tls_extended_master_secret", "supports_ems_extension", true),
            ("heartbleed", "is_vulnerable_to_heartbleed", false),
            (
                "openssl_ccs_injection",
                "is_vulnerable_to_ccs_injection",
                false,
            ),
        ] {
            let told = &result(command)[value];
            assert_eq!(
                told.as_bool(),
                Some(expected),
                "{command}: {value} {:#}",
                found[command]
            );
        }
        let chains = result("certificate_info")["certificate_deployments"].as_array();
        assert_eq!(chains.map(Vec::len), Some(2), "ECDSA and RSA");
    }
}

/// What is not ours: HSTS is the operator's to decide, and testssl.sh 3.0 asks for TLS 1.2 without Extended Master Secret.
#[tokio::test]
#[ignore = "takes a minute; run by name: `make scan`"]
#[expect(clippy::print_stdout, reason = "whoever asks wants to read it")]
async fn testssl_finds_nothing_to_say() {
    let scanned = Scanned::start("").await;
    let mut command = Command::new(tools::testssl());
    command
        .args([
            "--quiet",
            "--color",
            "0",
            "--warnings",
            "off",
            "--nodns",
            "none",
        ])
        .args(["--add-ca".as_ref(), scanned.file("ca.pem").as_os_str()])
        .args([
            "--jsonfile".as_ref(),
            scanned.file("testssl.json").as_os_str(),
        ])
        .arg(scanned.place());
    let finished = Process::start(&command).finish(PATIENCE).await;
    println!("{}", finished.stdout);
    let found = scanned.json("testssl.json");
    let found = found.as_array().unwrap();
    let bad = found.iter().filter(|finding| {
        let severity = finding["severity"].as_str().unwrap();
        !["OK", "INFO", "DEBUG"].contains(&severity)
    });
    let bad: Vec<String> = bad
        .map(|finding| {
            format!(
                "{} {}: {}",
                finding["severity"], finding["id"], finding["finding"]
            )
        })
        .collect();
    assert_eq!(bad, ["\"LOW\" \"HSTS\": \"not offered\""]);
    assert!(found.len() > 100, "{}", finished.stdout);
}
