//! HTTP/2: the tests of sessions once more, each session on a stream of a connection, and what is HTTP/2's own.

use crate::support::client::Http2Client as Client;

#[path = "../connect.rs"]
mod connect;
#[path = "../drain.rs"]
mod drain;
#[path = "../relay.rs"]
mod relay;
#[path = "../retry.rs"]
mod retry;
#[path = "../sessions.rs"]
mod sessions;
#[path = "../sizes.rs"]
mod sizes;
#[path = "../websocket.rs"]
mod websocket;

pub(crate) mod floods;
mod requests;
mod siblings;
