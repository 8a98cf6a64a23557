//! One session from the 101 to its end, with a scripted broker.

use super::Client;
use crate::support::broker::Broker;
use crate::support::gateway::Gateway;
use crate::support::packets;

#[tokio::test]
async fn a_session_is_joined_and_packets_pass_both_ways() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    assert_eq!(session.connect, packets::connect("c1", 60));
    let up = packets::publish("up", b"hello");
    client.send(&up).await;
    assert_eq!(session.receive().await, up);
    let down = packets::publish("down", &[0, 255, 10]);
    session.send(&down).await;
    assert_eq!(client.receive().await, down);
}
