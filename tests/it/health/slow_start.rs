//! A broker that came back is not trampled.

use super::{gateway, state_becomes};
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::eventually;
use crate::support::gateway::Gateway;

/// How many of the next 60 sessions come to the broker; all stay.
async fn share(gateway: &Gateway, broker: &Crowd, sessions: &mut Vec<Client>) -> usize {
    let before = broker.welcomed();
    for _ in 0..60 {
        let id = format!("c{}", sessions.len());
        sessions.push(Client::connected(gateway, &id).await);
    }
    broker.welcomed() - before
}

#[tokio::test]
async fn the_share_of_a_broker_that_came_back_grows() {
    let (old, new) = (
        Crowd::start(Manners::Welcome).await,
        Crowd::start(Manners::Close).await,
    );
    let mut shares = Vec::new();
    for slow_start in ["1h", "0s"] {
        new.change(Manners::Close);
        let lines = format!(
            "balance: least_sessions, slow_start: {slow_start}, eject: {{ failures: 1, time: 100ms, longest: 100ms }},"
        );
        let gateway = gateway(&lines, &[&old, &new]).await;
        let mut sessions = Vec::new();
        // 80 more than the new one has, so that it is the emptier one throughout.
        for number in 0..80 {
            sessions.push(Client::connected(&gateway, &format!("s{number}")).await);
        }
        state_becomes(&gateway, &new.url(), "ejected").await;
        new.change(Manners::Welcome);
        let back = async || {
            Client::connected(&gateway, "tries").await;
            let labels = ["state=\"ejected\""];
            gateway.metric("tidegate_broker_state", &labels).await == 0.0
        };
        assert!(eventually(back).await);
        shares.push(share(&gateway, &new, &mut sessions).await);
    }
    assert!((1..30).contains(&shares[0]), "{shares:?}");
    assert_eq!(shares[1], 60, "all go to the one that has none");
}
