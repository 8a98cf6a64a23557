//! A web application behind `proxy:`. Real ones where they can show it, a scripted one for the rest.

mod bodies;
mod faults;
mod fields;
mod kept;
mod lives;
mod paths;
mod real;
mod servers;
mod web_sockets;

use crate::support::raw_http::{Answer, Request};
use crate::support::scripted::Scripted;

/// Asks over a connection of its own, while the application answers so. Gives the answer, and what the application read.
async fn ask(
    gateway: &crate::support::gateway::Gateway,
    application: &Scripted,
    request: &Request,
    answer: &str,
) -> (Answer, String) {
    let mut client = crate::support::client::tls(gateway).await;
    let (answer, (_connection, head)) =
        tokio::join!(request.ask(&mut client), application.answer(answer));
    (answer, head)
}

/// A field of a request's head that is there once at most.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values = head.lines().filter_map(|line| {
        let (other, value) = line.split_once(':')?;
        other.eq_ignore_ascii_case(name).then_some(value.trim())
    });
    let value = values.next();
    assert!(values.next().is_none(), "{name} twice in {head}");
    value
}
