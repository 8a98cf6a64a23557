//! Which TLS clients are answered with (`tls.policy`, `tls.minimum`): versions, cipher suites and their order, key exchange.
//!
//! Nothing here is without forward secrecy and an AEAD: rustls has nothing else. What a policy decides is TLS 1.2 without
//! Extended Master Secret (RFC 7627), whose keys are not bound to the handshake: a server in between can make two
//! connections with the same keys, and pass a client's certificate from one to the other.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::config::model::{Strictness, TlsVersion};
use crate::tls::Hello;

/// Both versions, newest first.
pub(super) const FROM_TLS12: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const FROM_TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// TLS towards clients. They differ in the order of cipher suites and the number of tickets alone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// AES first, where this machine has instructions for it.
    pub usual: Arc<ServerConfig>,
    /// For clients that name ChaCha20 first, since they have none: without, AES costs them several times as much.
    chacha: Arc<ServerConfig>,
    /// The same two with one ticket.
    usual_one_ticket: Arc<ServerConfig>,
    chacha_one_ticket: Arc<ServerConfig>,
}

impl ClientTls {
    pub(super) fn new(usual: ServerConfig, chacha: ServerConfig) -> Self {
        let one_ticket = |config: &ServerConfig| {
            let mut config = config.clone();
            config.send_tls13_tickets = 1;
            Arc::new(config)
        };
        Self {
            usual_one_ticket: one_ticket(&usual),
            chacha_one_ticket: one_ticket(&chacha),
            usual: Arc::new(usual),
            chacha: Arc::new(chacha),
        }
    }

    /// The one for a client.
    pub fn for_one_that_says(&self, hello: &Hello) -> &Arc<ServerConfig> {
        match (hello.prefers_chacha(), hello.needs_one_ticket()) {
            (false, false) => &self.usual,
            (false, true) => &self.usual_one_ticket,
            (true, false) => &self.chacha,
            (true, true) => &self.chacha_one_ticket,
        }
    }

    /// All, changed alike.
    pub(super) fn with(&self, change: impl Fn(&mut ServerConfig)) -> Self {
        let changed = |config: &Arc<ServerConfig>| {
            let mut config = (**config).clone();
            change(&mut config);
            Arc::new(config)
        };
        Self {
            usual: changed(&self.usual),
            chacha: changed(&self.chacha),
            usual_one_ticket: changed(&self.usual_one_ticket),
            chacha_one_ticket: changed(&self.chacha_one_ticket),
        }
    }
}

/// What goes before what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Usual,
    ChaCha,
}

pub(super) fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match minimum {
        TlsVersion::Tls12 => FROM_TLS12,
        TlsVersion::Tls13 => FROM_TLS13,
    }
}

/// Tells the configuration what the policy asks for.
pub(super) fn apply(strictness: Strictness, tls: &mut ServerConfig) {
    tls.require_ems = match strictness {
        Strictness::Modern => true,
        Strictness::Compatible => false,
    };
    // Ours: clients may prefer what costs both more.
    tls.ignore_client_order = true;
}

/// aws-lc-rs, with the post-quantum group first.
pub(super) fn provider(order: Order) -> Arc<CryptoProvider> {
    let is_chacha_first = order == Order::ChaCha || !computes_aes();
    // AES-128 before AES-256, as Mozilla has it: both are out of reach, one is faster.
    let aes = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ];
    let chacha = [
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let cipher_suites: Vec<SupportedCipherSuite> = match is_chacha_first {
        true => chacha.into_iter().chain(aes).collect(),
        false => aes.into_iter().chain(chacha).collect(),
    };
    // Android 7.0 knows P-256 alone.
    let kx_groups: Vec<&dyn SupportedKxGroup> = vec![
        kx_group::X25519MLKEM768,
        kx_group::X25519,
        kx_group::SECP256R1,
        kx_group::SECP384R1,
    ];
    Arc::new(CryptoProvider {
        cipher_suites,
        kx_groups,
        ..aws_lc_rs::default_provider()
    })
}

/// Without instructions for AES and its authentication ChaCha20 is several times as fast.
fn computes_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let computes = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let computes = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let computes = false;
    computes
}
