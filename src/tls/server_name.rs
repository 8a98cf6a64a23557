//! The name that a client asks for (SNI, RFC 6066 3). rustls tells it to the resolver of certificates alone when the
//! unbuffered interface is used, so it is noted there and taken when the poll that read it is over.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A DNS name as rustls has checked it, in lower case.
pub type ServerName = String;

thread_local! {
    static NOTED: RefCell<Option<ServerName>> = const { RefCell::new(None) };
}

/// A resolver whose questions are noted.
#[derive(Debug)]
pub struct Noting(Arc<dyn ResolvesServerCert>);

impl Noting {
    pub fn new(resolver: Arc<dyn ResolvesServerCert>) -> Arc<Self> {
        Arc::new(Self(resolver))
    }
}

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_owned);
        NOTED.with_borrow_mut(|noted| *noted = name);
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// What this thread's last hello asked for; it is asked once.
pub(super) fn noted() -> Option<ServerName> {
    NOTED.with_borrow_mut(Option::take)
}
