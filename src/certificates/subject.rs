//! Whom a client's certificate names. SECURITY: what stands here goes into headers, PROXY TLVs, CONNECT and logs, so it
//! never holds a control character, and no two certificates that differ in it look alike.

use std::fmt::Write as _;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::identity::Certificate;

use super::facts::address;

/// The attributes with a short name (RFC 4514 3), and e-mail as everyone writes it.
const SHORT: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// What a certificate that was verified says of its holder. `None` when the bytes are not a certificate.
pub fn holder(der: &[u8]) -> Option<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Certificate {
        common_name: common_name(certificate.subject()),
        subject: subject(certificate.subject()),
        names: names(&certificate),
        serial: certificate.raw_serial_as_string(),
        der: der.to_vec(),
    })
}

/// True for a certificate that was good until a while ago, and for bytes that are none.
pub fn has_ended(der: &[u8]) -> bool {
    X509Certificate::from_der(der).map_or(true, |(_, certificate)| {
        certificate.validity().not_after < ASN1Time::now()
    })
}

/// The only common name; of several nobody knows which one the broker's operator means.
///
/// SECURITY: one with a control character is none at all. Taking the character out would make `ad\0min` an `admin`.
fn common_name(name: &X509Name<'_>) -> Option<String> {
    let mut all = name.iter_common_name();
    let (Some(only), None) = (all.next(), all.next()) else {
        return None;
    };
    let text = only.as_str().ok()?;
    is_plain(text).then(|| text.to_owned())
}

/// The subject that has nothing but this common name.
pub fn subject_of(common_name: &str) -> String {
    format!("CN={}", escaped(common_name))
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// As RFC 4514 writes it: the last attribute first, and what has a meaning of its own escaped. Unlike the rendering of
/// most libraries it cannot be forged by an organisation called `x, CN=admin`.
fn subject(name: &X509Name<'_>) -> String {
    let sets: Vec<_> = name.iter_rdn().collect();
    let sets = sets.into_iter().rev().map(|set| {
        let attributes: Vec<String> = set.iter().map(attribute).collect();
        attributes.join("+")
    });
    sets.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(known, _)| *known == oid);
    let value = match attribute.as_str() {
        Ok(text) => escaped(text),
        Err(_) => {
            let mut hex = String::from("#");
            for byte in attribute.attr_value().data {
                write_hex(&mut hex, *byte);
            }
            hex
        }
    };
    format!("{}={value}", short.map_or(oid.as_str(), |(_, name)| name))
}

/// RFC 4514 2.4.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, letter) in text.chars().enumerate() {
        let special = match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            ' ' => at == 0 || at == last,
            '#' => at == 0,
            _ => false,
        };
        if special {
            out.push('\\');
            out.push(letter);
        } else if letter.is_control() {
            for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                out.push('\\');
                write_hex(&mut out, byte);
            }
        } else {
            out.push(letter);
        }
    }
    out
}

fn write_hex(out: &mut String, byte: u8) {
    let written = write!(out, "{byte:02X}");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

/// Subject alternative names: DNS, e-mail, URI (SPIFFE), IP address.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for name in &extension.value.general_names {
        if let GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) =
            name
        {
            names.push((*text).to_owned());
        } else if let GeneralName::IPAddress(bytes) = name {
            names.extend(address(bytes).map(|address| address.to_string()));
        }
    }
    names.retain(|name| is_plain(name));
    names
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn holder_of(attributes: &[(DnType, &str)]) -> Certificate {
        let mut params = CertificateParams::new(vec!["device.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        holder(certificate.der()).unwrap()
    }

    #[test]
    fn a_holder_is_told_as_rfc_4514_writes_it() {
        let holder = holder_of(&[
            (DnType::OrganizationName, "Example, Inc."),
            (DnType::CommonName, "device-1"),
        ]);
        assert_eq!(holder.common_name.as_deref(), Some("device-1"));
        assert_eq!(holder.subject, "CN=device-1,O=Example\\, Inc.");
        assert_eq!(holder.names, ["device.example"]);
    }

    #[test]
    fn an_organisation_cannot_pose_as_a_common_name() {
        let holder = holder_of(&[(DnType::OrganizationName, "x,CN=admin")]);
        assert_eq!(holder.common_name, None);
        assert_eq!(holder.subject, "O=x\\,CN=admin");
    }

    #[test]
    fn control_characters_make_no_name() {
        for name in ["ad\0min", "a\r\nX-Admin: 1", "\u{85}", "\u{1b}[31m"] {
            let holder = holder_of(&[(DnType::CommonName, name)]);
            assert_eq!(holder.common_name, None, "{name:?}");
            assert!(
                !holder.subject.contains(char::is_control),
                "{}",
                holder.subject
            );
        }
        assert_eq!(
            holder_of(&[(DnType::CommonName, "a\nb")]).subject,
            "CN=a\\0Ab"
        );
    }

    #[test]
    fn what_is_not_a_certificate_has_no_holder() {
        assert_eq!(holder(b""), None);
        assert_eq!(holder(b"\x30\x03\x02\x01\x00"), None);
    }
}
