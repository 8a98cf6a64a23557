//! What we write is read back by proxy-header, and by a reader of our own with the brokers' rules.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proxy_header::ParseConfig;

use super::*;

/// TLVs as mosquitto 2.1 (`src/proxy_v2.c`) and EMQX read them: everything that they would close for is an error.
fn read_strictly(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, &'static str> {
    if bytes.get(..12) != Some(b"\r\n\r\n\0\r\nQUIT\n") {
        return Err("no signature");
    }
    if bytes[12] != 0x21 {
        return Err("not the PROXY command of version 2");
    }
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > 500 {
        return Err("over 500 bytes");
    }
    if bytes.len() != 16 + length {
        return Err("the length is wrong");
    }
    let addresses = match bytes[13] {
        0x11 => 12,
        0x21 => 36,
        _ => return Err("neither TCP over IPv4 nor over IPv6"),
    };
    tlvs(bytes.get(16 + addresses..).ok_or("no addresses")?)
}

fn tlvs(mut bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, &'static str> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let [kind, high, low, rest @ ..] = bytes else {
            return Err("a TLV is cut");
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = rest.get(..length).ok_or("a TLV is longer than the rest")?;
        bytes = &rest[length..];
        match kind {
            0x20 => {
                if value.len() < 5 || value[1..5] != [0; 4] {
                    return Err("SSL without verify = 0");
                }
                found.push((0x20, vec![value[0]]));
                found.extend(tlvs(&value[5..])?);
            }
            0x02 | 0x21 | 0x22 | 0x23 => {
                let text = std::str::from_utf8(value).map_err(|_error| "not UTF-8")?;
                if text.chars().any(char::is_control) {
                    return Err("a control character");
                }
                found.push((*kind, value.to_vec()));
            }
            _ => found.push((*kind, value.to_vec())),
        }
    }
    Ok(found)
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        any::<[u8; 16]>().prop_map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
        any::<[u8; 4]>().prop_map(|bytes| IpAddr::V6(Ipv4Addr::from(bytes).to_ipv6_mapped())),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// Short, long, and with characters that nobody wants.
fn anything() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop_oneof![
        "[a-z.]{0,40}",
        "[a-z.]{100,400}",
        "\\PC{0,90}",
        ".{0,30}"
    ])
}

proptest! {
    #[test]
    fn whatever_a_client_is_brokers_can_read_it(
        source in address(),
        destination in address(),
        authority in anything(),
        common_name in anything(),
        alpn in prop::option::of(prop::collection::vec(any::<u8>(), 0..255)),
        over_tls: bool,
        certificate: bool,
    ) {
        let header = Header {
            source,
            destination,
            alpn: alpn.as_deref(),
            authority: authority.as_deref(),
            unique_id: Some(b"0123456789abcdef0123456789abcdef"),
            tls: over_tls.then_some(Tls {
                version: "TLSv1.3",
                cipher: "TLS_AES_128_GCM_SHA256",
                certificate,
                common_name: common_name.as_deref(),
            }),
        };
        for version in [ProxyVersion::V1, ProxyVersion::V2, ProxyVersion::V2Crc32c] {
            let bytes = header.encode(version, &mut Vec::new());
            prop_assert!(bytes.len() <= LONGEST);
            let (read, length) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
            prop_assert_eq!(length, bytes.len());
            let told = read.proxied_address().unwrap();
            prop_assert_eq!(canonical(told.source), canonical(source));
            prop_assert_eq!(canonical(told.destination), canonical(destination));
        }
        let bytes = header.encode(ProxyVersion::V2, &mut Vec::new());
        let tlvs = read_strictly(&bytes).unwrap();
        let value = |kind| tlvs.iter().find(|tlv| tlv.0 == kind).map(|tlv| tlv.1.clone());
        let bits = over_tls.then(|| vec![if certificate { 7 } else { 1 }]);
        prop_assert_eq!(value(0x20), bits);
        // Whole or not at all.
        if let Some(name) = value(0x22) {
            prop_assert_eq!(Some(name), common_name.map(String::into_bytes));
            prop_assert!(certificate);
        }
        if let Some(name) = value(0x02) {
            prop_assert_eq!(Some(name), authority.map(String::into_bytes));
        }
    }
}

fn header<'a>() -> Header<'a> {
    Header {
        source: "192.0.2.7:40000".parse().unwrap(),
        destination: "198.51.100.1:443".parse().unwrap(),
        alpn: Some(b"http/1.1"),
        authority: Some("example.com"),
        unique_id: Some(b"0123456789abcdef"),
        tls: Some(Tls {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            certificate: true,
            common_name: Some("device-7"),
        }),
    }
}

#[test]
fn version_1_is_one_line() {
    let line = |header: &Header<'_>| {
        String::from_utf8(header.encode(ProxyVersion::V1, &mut Vec::new())).unwrap()
    };
    assert_eq!(
        line(&header()),
        "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
    );
    let mixed = Header {
        destination: "[2001:db8::1]:443".parse().unwrap(),
        ..header()
    };
    assert_eq!(
        line(&mixed),
        "PROXY TCP6 ::ffff:c000:207 2001:db8::1 40000 443\r\n"
    );
    let dual_stack = Header {
        source: "[::ffff:192.0.2.7]:40000".parse().unwrap(),
        destination: "[::ffff:198.51.100.1]:443".parse().unwrap(),
        ..header()
    };
    assert_eq!(line(&dual_stack), line(&header()));
}

#[test]
fn version_2_carries_every_tlv() {
    let mut left_out = Vec::new();
    let bytes = header().encode(ProxyVersion::V2, &mut left_out);
    assert_eq!(left_out, []);
    let kinds: Vec<u8> = read_strictly(&bytes)
        .unwrap()
        .iter()
        .map(|tlv| tlv.0)
        .collect();
    assert_eq!(kinds, [0x20, 0x21, 0x23, 0x22, 0x02, 0x05, 0x01]);
}

#[test]
fn what_is_left_out_is_said() {
    let name = "a".repeat(253);
    let common_name = "b".repeat(128);
    let mut full = header();
    full.source = "[2001:db8::7]:40000".parse().unwrap();
    full.authority = Some(&name);
    let tls = full.tls.as_mut().unwrap();
    tls.common_name = Some(&common_name);
    tls.cipher = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256";
    let mut left_out = Vec::new();
    assert!(full.encode(ProxyVersion::V2, &mut left_out).len() <= LONGEST);
    assert_eq!(left_out, [LeftOut::NoRoom("the server name")]);

    let mut odd = header();
    odd.authority = Some("a\nb");
    odd.tls.as_mut().unwrap().common_name = Some("admin\u{85}");
    let mut left_out = Vec::new();
    odd.encode(ProxyVersion::V2, &mut left_out);
    assert_eq!(
        left_out,
        [
            LeftOut::Characters("the certificate's common name"),
            LeftOut::Characters("the server name")
        ]
    );
}

#[test]
fn the_checksum_is_that_of_rfc_3720() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
}

#[test]
fn a_checksum_covers_the_whole_header() {
    let plain = header().encode(ProxyVersion::V2, &mut Vec::new());
    let mut summed = header().encode(ProxyVersion::V2Crc32c, &mut Vec::new());
    assert_eq!(summed.len(), plain.len() + 7);
    let (read, length) = ProxyHeader::parse(&summed, ParseConfig::default()).unwrap();
    assert_eq!(length, summed.len());
    let told = read.crc32c().unwrap();
    let at = summed.len() - 4;
    summed[at..].fill(0);
    assert_eq!(crc32c(&summed), told);
}
