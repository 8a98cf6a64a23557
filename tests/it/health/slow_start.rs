//! A broker that came back is not trampled.

use std::time::Duration;

use tokio::time::Instant;

use super::{gateway, state_becomes};
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::Gateway;
use crate::support::{eventually, packets};

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

/// From a tenth to the whole: with a broker that is empty beside a full one, its share is what the slow start lets it have.
#[tokio::test]
async fn the_share_grows_along_the_slow_start() {
    const SLOW_START: Duration = Duration::from_secs(6);
    let (old, new) = (
        Crowd::start(Manners::Welcome).await,
        Crowd::start(Manners::Close).await,
    );
    let lines = "balance: least_sessions, slow_start: 6s, eject: { failures: 1, time: 100ms, longest: 100ms },";
    let gateway = gateway(lines, &[&old, &new]).await;
    let mut residents = Vec::new();
    for number in 0..20 {
        residents.push(Client::connected(&gateway, &format!("resident-{number}")).await);
    }
    state_becomes(&gateway, &new.url(), "ejected").await;
    new.change(Manners::Welcome);
    let back = async || {
        drop(Client::connected(&gateway, "tries").await);
        new.welcomed() > 0
    };
    assert!(eventually(back).await);
    let begun = Instant::now();
    // How many came in each third, and how many of them to the new one.
    let mut thirds = [(0_u32, 0_u32); 3];
    loop {
        let part = begun.elapsed().as_secs_f64() / SLOW_START.as_secs_f64();
        let third = match part {
            ..0.333 => 0,
            ..0.667 => 1,
            ..1.0 => 2,
            _ => break,
        };
        let before = new.welcomed();
        let mut client = Client::connected(&gateway, "comes-and-goes").await;
        client.send(&packets::DISCONNECT).await;
        client.closed().await;
        let (all, of_new) = &mut thirds[third];
        *all += 1;
        *of_new += u32::from(new.welcomed() > before);
    }
    let shares = thirds.map(|(all, of_new)| f64::from(of_new) / f64::from(all));
    // On average a quarter, a half and more than four fifths.
    assert!(shares[0] < 0.45 && shares[2] > 0.65, "{thirds:?}");
    assert!(shares[0] < shares[1] && shares[1] < shares[2], "{thirds:?}");
    let before = new.welcomed();
    for number in 0..20 {
        residents.push(Client::connected(&gateway, &format!("late-{number}")).await);
    }
    assert_eq!(new.welcomed() - before, 20, "the whole share");
}
