//! How the brokers of a pool are told who a client is, beside the headers of `Forwarded`.

/// Checked: nothing in the lists is a header that the gateway itself sends.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// A PROXY header in front of everything else on each connection; `None` sends none.
    pub proxy_protocol: Option<ProxyVersion>,
    pub path: AskedPath,
    /// Headers of the client's upgrade that go along, in lower case.
    pub headers: Vec<String>,
    /// Cookies of the client's upgrade that go along.
    pub cookies: Vec<String>,
    /// Bytes of the whole request head, beyond which what comes from the client is left out.
    pub request_head: usize,
    /// Header with the common name of the verified client certificate, in lower case.
    pub certificate_header: Option<String>,
}

/// Whose path ws and wss brokers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedPath {
    /// Each broker's own.
    Broker,
    /// The client's, with its query.
    Client,
    /// One for all; already in each `Broker::path`.
    Fixed(String),
}

/// Of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text with the addresses.
    V1,
    /// Binary, with TLVs.
    V2,
    /// The same with a checksum.
    V2Crc32c,
}

/// Headers that a client must never choose: who it is, what the handshake says, and where a message ends.
/// Written with `-`; readers that turn `-` into `_` make both the same.
const OURS: [&str; 16] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
    "x-ssl-client-cn",
    "x-client-ip",
    "true-client-ip",
];

/// The same, by how they begin.
const OURS_BEGIN: [&str; 3] = ["x-forwarded-", "sec-", "proxy-"];

/// SECURITY: true for a header that is never taken from a client, in any spelling.
pub fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    OURS.contains(&name.as_str()) || OURS_BEGIN.iter().any(|start| name.starts_with(start))
}
