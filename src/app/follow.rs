//! What goes on beside the data path and follows each reload: probes, look-ups, orders of certificates.

use std::sync::Arc;

use tokio::sync::watch;

use super::reload::InForce;
use crate::acme::{self, Plan};
use crate::admin::commands::Phase;
use crate::gateway::Gateway;
use crate::pool::{discovery, probe};

/// Probes and resolves what is in force.
pub(super) async fn pools(mut in_force: watch::Receiver<InForce>, gateway: &Gateway) {
    loop {
        let InForce { pools, dns } = in_force.borrow_and_update().clone();
        let (metrics, drain) = (&gateway.metrics, gateway.drain.clone());
        let (names, metrics_too) = (gateway.brokers.clone(), Arc::clone(metrics));
        // CANCEL: what is lost is asked again, of the brokers that are in force then.
        tokio::select! {
            () = probe::run(pools.clone(), Arc::clone(metrics)) => {}
            () = discovery::run(pools, dns, names, metrics_too, drain) => {}
            changed = in_force.changed() => if changed.is_err() {
                // Nobody reloads any more: the last ones stay.
                std::future::pending().await
            },
        }
    }
}

/// Orders certificates until this process is to go: whoever takes over orders then, and clients are no longer its own to prove.
pub(super) async fn certificates(
    plans: watch::Receiver<Plan>,
    shared: acme::Shared,
    mut phase: watch::Receiver<Phase>,
) {
    // CANCEL: an order that is dropped lets go of its lock, its proofs and its traces.
    tokio::select! {
        never = acme::run(plans, shared) => match never {},
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    std::future::pending().await
}
