//! Processes that share the state: one orders, all show.

use super::*;
use crate::support::ca::{Deed, Issues, Rule};
use crate::support::process::free_addresses;

#[tokio::test]
async fn of_two_processes_one_orders_both_prove_and_both_show() {
    let mut setting = Setting::new().await;
    let yaml = setting.yaml(&[&["a.example"]]);
    let first = Program::run(&yaml).await;
    first.tells(&["this process orders certificates"]).await;
    let second = Program::run(&yaml).await;
    second.tells(&["another process orders certificates"]).await;
    // The CA comes to the one that did not order: it must know the proof.
    setting
        .ca
        .begin(second.address(0).port(), Issues::default())
        .await;
    second
        .tells(&["a CA was shown that the name leads here"])
        .await;
    let shown_first = issued(first.address(0), "a.example").await;
    assert_eq!(issued(second.address(0), "a.example").await, shown_first);
    assert_eq!(setting.ca.asked("/order-plz"), 1);
    // A kill lets go of the lock.
    let mut first = first;
    first.process.kill();
    second.tells(&["this process orders certificates"]).await;
    assert_eq!(
        shown(second.address(0), "a.example").await.unwrap(),
        shown_first
    );
    assert_eq!(setting.ca.asked("/order-plz"), 1);
}

#[tokio::test]
async fn an_upgrade_in_the_middle_of_an_order_hands_it_on() {
    let mut setting = Setting::new().await;
    setting.ca.script(vec![Rule {
        path: "/authZ/",
        times: usize::MAX,
        deed: Deed::Hold,
    }]);
    let [listener, admin] = free_addresses();
    let yaml = format!(
        "listeners: [{{ address: \"{listener}\", name: public }}]\nadmin: {{ address: \"{admin}\" }}\n{}",
        setting.yaml(&[&["a.example"]])
    );
    let program = Program::run(&yaml).await;
    setting.ca.begin(listener.port(), Issues::default()).await;
    setting.ca.ordered(1).await;
    let finished = program.ask(&["upgrade"]).await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    setting.ca.ordered(2).await;
    setting.ca.release();
    issued(listener, "a.example").await;
    // An order that was left to another process has not failed.
    metric_is(
        &program,
        "tidegate_acme_failures",
        &["name=\"a.example\""],
        0.0,
    )
    .await;
    assert_eq!(
        program
            .admin
            .metric("tidegate_acme_orders_total", &[])
            .await,
        1.0
    );
}
