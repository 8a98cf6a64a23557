//! Everybody comes back at once: three times as many clients a second as can be greeted. What counts is how many are in
//! time, and how soon the others find an open door.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::lab::{Attack, PATIENT, Target};

const MEASURE: Duration = Duration::from_secs(4);
const HERD_LASTS: Duration = Duration::from_secs(10);
const TIMES: f64 = 3.0;

pub(super) const HERD: Attack = Attack {
    name: "herd of reconnects",
    size: "three times as many a second as can be greeted, for 10 s",
    lasts: Duration::from_secs(60),
    // A signature that is dear to the gateway and cheap to its clients: the herd is not its own bottleneck.
    yaml: "certificates: [{ chain: RSA, key: RSA }]",
    run: |target| Box::pin(herd(target)),
};

/// Greeted in a second when as many come as can be greeted.
async fn capacity(target: &Target) -> f64 {
    let done = AtomicUsize::new(0);
    let coming = (0..16).map(|_| async {
        loop {
            if target.newcomer().await.is_ok() {
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let all = futures_util::future::join_all(coming);
    let _never: Result<Vec<()>, _> = tokio::time::timeout(MEASURE, all).await;
    done.into_inner() as f64 / MEASURE.as_secs_f64()
}

#[expect(clippy::print_stdout, reason = "it is what the run is for")]
async fn herd(target: Target) {
    let capacity = capacity(&target).await;
    let began = Instant::now();
    let in_time: Arc<[AtomicUsize; 16]> = Arc::default();
    let mut coming = JoinSet::new();
    let mut tick = interval(Duration::from_millis(10));
    let mut sent = 0.0;
    while began.elapsed() < HERD_LASTS {
        tick.tick().await;
        while sent < began.elapsed().as_secs_f64() * capacity * TIMES {
            sent += 1.0;
            let (target, in_time) = (target.clone(), Arc::clone(&in_time));
            coming.spawn(async move {
                if target.newcomer().await.is_ok() {
                    let second = usize::try_from(began.elapsed().as_secs()).unwrap();
                    in_time[second.min(15)].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let ended = Instant::now();
    while ended.elapsed() < PATIENT && coming.join_next().await.is_some() {}
    let by_second: Vec<usize> = in_time
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect();
    // How soon a client that comes now is greeted as if nothing had been.
    let mut recovered = None;
    while recovered.is_none() && ended.elapsed() < Duration::from_secs(30) {
        let greeted = target.newcomer().await;
        recovered = greeted
            .is_ok_and(|took| took < Duration::from_millis(100))
            .then(|| ended.elapsed());
    }
    let all: usize = by_second.iter().sum();
    println!(
        "herd: {capacity:.0} a second can be greeted; of {sent:.0} that came {all} had their CONNACK within 5 s, by second {by_second:?}; recovered {recovered:?} after the end"
    );
}
