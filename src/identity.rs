//! Who a client is and how it came: what the gateway knows, and a broker may be told. No I/O.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use http::HeaderMap;
use siphasher::sip128::SipHasher13;

/// One client. Held until a broker has taken its session.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The client: the TCP peer, or who a trusted proxy says it is; then with port 0 where that does not tell one.
    pub address: SocketAddr,
    /// What it connected to.
    pub local: SocketAddr,
    /// What `X-Forwarded-For` is to say where trusted proxies are in between: the client, then each of them, the last one as
    /// we saw it ourselves. `None` where the client's bare address is all.
    pub forwarded_for: Option<String>,
    /// `None` when it came without TLS.
    pub tls: Option<Tls>,
    /// It came over TLS as far as the gateway or a trusted proxy, whoever stands nearer to it, knows.
    pub secure: bool,
    /// The host that the upgrade was for, with its port.
    pub host: Option<String>,
    /// Path and query of the upgrade.
    pub path: String,
    /// The headers of the upgrade request.
    pub headers: HeaderMap,
    pub unique_id: UniqueId,
}

impl Identity {
    /// Of the verified certificate.
    pub fn common_name(&self) -> Option<&str> {
        let certificate = self.tls.as_ref()?.certificate.as_ref()?;
        certificate.common_name.as_deref()
    }

    /// The gateway itself, when it asks a broker how it is: `address` is its end of the connection, `broker` the other.
    pub fn of_gateway(address: SocketAddr, broker: SocketAddr) -> Self {
        Self {
            address,
            local: broker,
            forwarded_for: None,
            tls: None,
            secure: false,
            host: None,
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            unique_id: UniqueId::random(),
        }
    }
}

/// Names one session here and at its broker. Not a secret, and nothing is derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueId(Name);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Own(u128),
    Told(Box<[u8]>),
}

impl UniqueId {
    /// proxy-protocol.txt 2.2.5: an opaque byte sequence of up to 128 bytes.
    const LONGEST: usize = 128;

    /// A new one.
    pub fn random() -> Self {
        Self(Name::Own(fastrand::u128(..)))
    }

    /// What a trusted proxy calls the connection; `None` for what can be no id.
    pub fn told(name: &[u8]) -> Option<Self> {
        let fits = (1..=Self::LONGEST).contains(&name.len());
        fits.then(|| Self(Name::Told(name.into())))
    }

    /// As brokers are told: the proxy's own bytes, or 32 hexadecimal digits.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Name::Own(_) => Cow::Owned(self.to_string().into_bytes()),
            Name::Told(name) => Cow::Borrowed(name),
        }
    }

    /// As an OpenTelemetry trace is called: the same for the same name.
    pub fn number(&self) -> u128 {
        match &self.0 {
            Name::Own(id) => *id,
            Name::Told(name) => SipHasher13::new().hash(name).as_u128(),
        }
    }
}

/// For the log: the proxy's own where all of it can be read in one word, hexadecimal digits else.
impl fmt::Display for UniqueId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Own(id) => write!(out, "{id:032x}"),
            Name::Told(name) => match std::str::from_utf8(name) {
                Ok(text) if name.iter().all(u8::is_ascii_graphic) => out.write_str(text),
                Ok(_) | Err(_) => name.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
            },
        }
    }
}

/// How a client came over TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// `TLSv1.3`, as OpenSSL and so the PROXY protocol name it.
    pub version: &'static str,
    /// `TLS13_AES_128_GCM_SHA256`
    pub cipher: &'static str,
    /// The name that it asked for (SNI).
    pub server_name: Option<String>,
    pub alpn: Option<Vec<u8>>,
    /// Verified; `None` when it showed none.
    pub certificate: Option<Certificate>,
}

/// Whom a verified certificate names. No text here holds a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `None` where there is not exactly one that can be printed.
    pub common_name: Option<String>,
    /// As RFC 4514 writes it: `CN=device-1,O=Example`.
    pub subject: String,
    /// Subject alternative names.
    pub names: Vec<String>,
    /// Hexadecimal, as OpenSSL shows it: `01:a2`.
    pub serial: String,
    /// Empty where a trusted proxy has verified it and tells no more than the names.
    pub der: Vec<u8>,
}

impl Tls {
    /// The facts of a finished handshake, and the certificate that it verified.
    pub fn of(
        agreed: &rustls::CommonState,
        server_name: Option<String>,
        certificate: Option<Certificate>,
    ) -> Self {
        Self {
            version: match agreed.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: agreed
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown"),
            server_name,
            alpn: agreed.alpn_protocol().map(<[u8]>::to_vec),
            certificate,
        }
    }
}
