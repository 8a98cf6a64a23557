//! A certificate authority for clients: it issues certificates to devices and takes them back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const DAY: Duration = Duration::from_secs(86_400);

pub struct Devices {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Device {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    serial: SerialNumber,
}

impl Devices {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// Of the organisation `Example`.
    pub fn device(&self, common_name: &str) -> Device {
        self.device_of(common_name, CertificateParams::new(Vec::new()).unwrap())
    }

    /// Whose certificate ends then.
    pub fn device_until(&self, common_name: &str, end: SystemTime) -> Device {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = end.into();
        self.device_of(common_name, params)
    }

    fn device_of(&self, common_name: &str, mut params: CertificateParams) -> Device {
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let serial = SerialNumber::from(fastrand::u64(1 << 32..1 << 62));
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Device {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
            serial,
        }
    }

    /// Its own certificate, as a file in `folder`.
    pub fn ca(&self, folder: &Path, name: &str) -> PathBuf {
        written(folder, name, self.issuer.pem())
    }

    /// A revocation list that is good for a day.
    pub fn crl(&self, folder: &Path, name: &str, revoked: &[&Device]) -> PathBuf {
        self.crl_until(folder, name, revoked, SystemTime::now() + DAY)
    }

    pub fn crl_until(
        &self,
        folder: &Path,
        name: &str,
        revoked: &[&Device],
        end: SystemTime,
    ) -> PathBuf {
        let revoked = revoked.iter().map(|device| RevokedCertParams {
            serial_number: device.serial.clone(),
            revocation_time: (SystemTime::now() - 3 * DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (SystemTime::now() - 3 * DAY).into(),
            next_update: end.into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        written(
            folder,
            name,
            list.signed_by(&self.issuer).unwrap().pem().unwrap(),
        )
    }
}

impl Device {
    /// `config` with this certificate.
    pub fn client(
        &self,
        roots: rustls::RootCertStore,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![self.certificate.clone()], key)
            .unwrap();
        Arc::new(config)
    }

    /// The certificate as a file in `folder`.
    pub fn pem(&self, folder: &Path, name: &str) -> PathBuf {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        written(folder, name, pem)
    }
}

fn written(folder: &Path, name: &str, text: impl AsRef<str>) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text.as_ref()).unwrap();
    file
}
