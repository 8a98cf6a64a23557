//! The admin listener from its first answer to its last.

use std::net::TcpListener;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::admin::{self, Commands, Status};

/// Whether somebody may still come to it, and whether somebody is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Desk {
    /// Nobody is to come any more.
    closing: CancellationToken,
    /// The last one has gone.
    closed: CancellationToken,
}

impl Desk {
    pub(super) async fn serve(
        &self,
        admin: Option<TcpListener>,
        status: Arc<Status>,
        commands: Commands,
    ) {
        if let Some(admin) = admin {
            admin::serve(admin, status, commands, self.closing.clone()).await;
        }
        self.closed.cancel();
        std::future::pending().await
    }

    /// Lets those who asked have their answers.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }
}
