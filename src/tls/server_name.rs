//! The name that a client asks for (SNI, RFC 6066 3). rustls tells it to the resolver of certificates alone when the
//! unbuffered interface is used, so it is noted there and taken when the poll that read it is over. Likewise that there is no
//! certificate for it, which deserves another alert than the one that rustls has.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A DNS name as rustls has checked it, in lower case.
pub type ServerName = String;

thread_local! {
    static NOTED: RefCell<Option<ServerName>> = const { RefCell::new(None) };
    static REFUSED: Cell<bool> = const { Cell::new(false) };
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
        let key = self.0.resolve(hello);
        REFUSED.set(key.is_none());
        key
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// There is no certificate for the name that the client asks for.
#[derive(Debug, thiserror::Error)]
#[error("there is no certificate yet for the name that the client asks for")]
pub struct NoCertificate;

/// The fatal alert unrecognized_name in a record of its own (RFC 6066 3, RFC 8446 6.2). A hello is answered before anything is
/// encrypted.
pub(super) const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Whether this thread's last hello found no certificate; it is asked once.
pub(super) fn was_refused() -> bool {
    REFUSED.take()
}

/// What this thread's last hello asked for; it is asked once.
pub(super) fn noted() -> Option<ServerName> {
    NOTED.with_borrow_mut(Option::take)
}
