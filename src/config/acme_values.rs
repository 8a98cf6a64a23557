//! What the `acme` section is told: names to be certified, an address for the CA, where the CA is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::names::{is_dns_name, text};
use super::values::Fault;

text!(
    /// A DNS name that a certificate is ordered for, lower case.
    DomainName, domain_name
);
text!(
    /// An e-mail address.
    Email, email
);
text!(
    /// Where a CA's ACME directory is: a name that is known here, or an https URL.
    Directory, directory
);

/// Let's Encrypt, as everybody means it.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Its rehearsal: the same rules, generous limits, certificates that nobody trusts.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

impl Directory {
    pub(super) fn url(&self) -> String {
        match self.0.as_str() {
            "letsencrypt" => LETS_ENCRYPT.to_owned(),
            "letsencrypt-staging" => LETS_ENCRYPT_STAGING.to_owned(),
            url => url.to_owned(),
        }
    }

    /// Where its terms can be read.
    pub(super) fn terms(&self) -> String {
        match self.url().as_str() {
            LETS_ENCRYPT | LETS_ENCRYPT_STAGING => "https://letsencrypt.org/repository/".to_owned(),
            url => format!("`termsOfService` in {url}"),
        }
    }
}

fn domain_name(text: &str) -> Result<String, Fault> {
    let name = text.to_ascii_lowercase();
    let fault = Fault::new("is not a name that a CA certifies");
    if let Some(parent) = name.strip_prefix("*.") {
        return Err(Fault::new("is a wildcard, which a CA gives for a DNS record only").help(format!(
            "write the names: `www.{parent}`; or let certbot or lego order it by DNS-01, and name its files: {{ chain, key }}"
        )));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(fault.help("write a DNS name; for an address name files: { chain, key }"));
    }
    if !name.is_ascii() {
        return Err(fault.help("write its ASCII form, which begins with `xn--`"));
    }
    if !name.contains('.') || name.contains('_') || !is_dns_name(&name) {
        return Err(fault.help("write a whole DNS name without scheme and port: `example.com`"));
    }
    Ok(name)
}

fn email(text: &str) -> Result<String, Fault> {
    let fault = Fault::new("is not an e-mail address");
    let Some((before, host)) = text.split_once('@') else {
        return Err(fault.help("write `ops@example.com`"));
    };
    let visible = |byte: u8| byte.is_ascii_graphic() && !b"<>,;?:".contains(&byte);
    if before.is_empty() || !text.bytes().all(visible) || !is_dns_name(host) {
        return Err(fault.help("write one address, without `mailto:`: `ops@example.com`"));
    }
    Ok(text.to_owned())
}

fn directory(text: &str) -> Result<String, Fault> {
    if matches!(text, "letsencrypt" | "letsencrypt-staging") {
        return Ok(text.to_owned());
    }
    let help = "write `letsencrypt`, `letsencrypt-staging`, or the URL of a directory: `https://ca.example.com/acme/directory`";
    let Some(rest) = text.strip_prefix("https://") else {
        return Err(Fault::new("is neither a known CA nor an https:// URL").help(help));
    };
    let host = rest.split('/').next().unwrap_or_default();
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if host.contains('@') {
        return Err(Fault::new("carries credentials")
            .help("a CA knows its customers by `eab`: remove them"));
    }
    if host.is_empty() || host.starts_with(':') || !text.bytes().all(visible) {
        return Err(Fault::new("is not the URL of a directory").help(help));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_ca_certifies_over_443_are_refused_with_a_remedy() {
        assert_eq!(
            "Www.Example.com".parse::<DomainName>().unwrap().0,
            "www.example.com"
        );
        for (name, help) in [
            ("*.example.com", "DNS-01"),
            ("192.0.2.1", "chain"),
            ("2001:db8::1", "chain"),
            ("localhost", "whole DNS name"),
            ("https://example.com", "without scheme"),
            ("example.com:443", "port"),
            ("a_b.example.com", "whole DNS name"),
            ("bücher.example", "xn--"),
        ] {
            let fault = name.parse::<DomainName>().unwrap_err();
            assert!(
                fault
                    .help
                    .as_deref()
                    .is_some_and(|said| said.contains(help)),
                "{name}: {fault:?}"
            );
        }
    }

    #[test]
    fn a_directory_is_a_name_or_an_https_url() {
        let url = |text: &str| text.parse::<Directory>().map(|directory| directory.url());
        assert!(
            url("letsencrypt")
                .unwrap()
                .ends_with("acme-v02.api.letsencrypt.org/directory")
        );
        assert_eq!(url("https://ca:14000/dir").unwrap(), "https://ca:14000/dir");
        for text in [
            "LetsEncrypt",
            "http://ca/dir",
            "https://",
            "https:///dir",
            "https://u:p@ca/",
            "https://:1/",
            "https://a/ b",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_address_for_the_ca() {
        assert!("ops@example.com".parse::<Email>().is_ok());
        for text in [
            "ops",
            "mailto:ops@example.com",
            "a@b, c@d",
            "@example.com",
            "a b@example.com",
            "a@",
        ] {
            assert!(text.parse::<Email>().is_err(), "{text}");
        }
    }
}
