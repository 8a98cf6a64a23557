//! A server of a web application for one request: chosen, reached and judged as brokers are, without anything of MQTT.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::choose::Rule;
use super::connect::connect;
use super::select::{Busy, address_key};
use super::{Broker, Failure, Pool, Seat};
use crate::config::model::Balance;
use crate::stream::Stream;
use crate::telemetry::Metrics;

impl Pool {
    /// A place at a server that is none of `tried`. `Err(None)`: none is left.
    pub async fn server(
        &self,
        client: IpAddr,
        tried: &[Arc<Broker>],
        metrics: &Metrics,
    ) -> Result<Seat, Option<Busy>> {
        let key = address_key(client);
        let rule = match self.balance {
            Balance::LeastSessions => Rule::LeastSessions,
            Balance::RandomOfTwo => Rule::RandomOfTwo,
            Balance::ClientAddress => Rule::Key(&key),
            // The last two are not for applications.
            Balance::RoundRobin | Balance::ClientId | Balance::UserName => Rule::RoundRobin,
        };
        self.seat(rule, tried, Instant::now(), metrics).await
    }

    /// No name of it has an address yet.
    pub fn is_unresolved(&self) -> bool {
        self.members().brokers.is_empty()
    }

    /// A server failed a request, and it was the server's fault.
    pub fn failed(&self, server: &Broker, begun: Instant, why: &dyn Display) {
        self.blame(server, begun, why);
    }
}

impl Seat {
    /// A new connection to it, under the caller's deadline.
    pub async fn dial(&self) -> Result<Stream, Failure> {
        connect(&self.broker, None).await
    }

    pub fn server(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The server has answered a request.
    pub fn answered(&mut self) {
        self.broker.state.succeeded();
        self.end_try();
    }
}
