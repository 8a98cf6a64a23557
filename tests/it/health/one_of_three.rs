//! One of three real brokers goes, in each way in which brokers go, under a load of clients that come and go: none of them
//! may notice, nor may sessions at the other two; the operator must.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::probes::availability_check;
use super::{Load, answers, pool, residents, state_becomes};
use crate::support::gateway::Gateway;
use crate::support::journal::Journal;
use crate::support::mosquitto::{Mosquitto, Options};

/// As clients' libraries wait for a CONNACK at the least: by then the broker must be out.
const SOON: f64 = 5.0;

struct Three {
    brokers: [Mosquitto; 3],
    urls: [String; 3],
    gateway: Arc<Gateway>,
    journal: &'static Journal,
}

impl Three {
    async fn start(lines: &str) -> Self {
        let journal = Journal::open();
        let brokers = [
            Mosquitto::start(Options::default()).await,
            Mosquitto::start(Options::default()).await,
            Mosquitto::start(Options::default()).await,
        ];
        let urls = [
            brokers[0].ws_url(),
            brokers[1].ws_url(),
            brokers[2].mqtt_url(),
        ];
        let gateway = Gateway::start(&pool(lines, &urls)).await;
        Self {
            brokers,
            urls,
            gateway: Arc::new(gateway),
            journal,
        }
    }

    /// Lets the first broker go.
    async fn goes(mut self, go: impl FnOnce(&mut Mosquitto), state: &str, line: &str) {
        let mut residents = residents(&self.gateway, &self.urls[0]).await;
        let load = Load::start(&self.gateway);
        load.goes_on(20).await;
        go(&mut self.brokers[0]);
        state_becomes(&self.gateway, &self.urls[0], state).await;
        load.goes_on(30).await;
        let (joined, refused) = load.end().await;
        assert_eq!(refused, 0, "of {joined}");
        for resident in &mut residents {
            assert!(answers(resident).await);
        }
        let told = self.journal.line(&[line, &self.urls[0]]).await;
        assert!(told.contains("noticed after "), "{told}");
        let metric = "tidegate_broker_notice_seconds";
        let noticed = async |part: &str| {
            let name = format!("{metric}_{part}");
            self.gateway.metric(&name, &["pool=\"p\""]).await
        };
        let (count, sum) = (noticed("count").await, noticed("sum").await);
        assert!(count >= 1.0 && sum < SOON, "{count} times, {sum} s");
    }
}

#[tokio::test]
async fn killed() {
    let three = Three::start("").await;
    three
        .goes(Mosquitto::kill, "ejected", "broker ejected for")
        .await;
}

#[tokio::test]
async fn stopped_where_it_stands() {
    let three = Three::start("").await;
    three
        .goes(|broker| broker.hang(), "ejected", "broker ejected for")
        .await;
}

/// It ends its sessions in good order; then nobody listens on its port.
#[tokio::test]
async fn refusing() {
    let three = Three::start("").await;
    three
        .goes(|broker| broker.stop(), "ejected", "broker ejected for")
        .await;
}

/// The two that are well are asked as well, each at an address of its own.
#[tokio::test]
async fn evacuated() {
    let (leaving, well) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
    let (check, _leaving) = availability_check(&leaving, None).await;
    let (others, _well) = availability_check(&well, None).await;
    let mut three = Three::start("").await;
    let url = |broker: usize, check: &str| {
        format!(
            "{{ url: \"{}\", probe_url: \"{check}\" }}",
            three.urls[broker]
        )
    };
    let text = format!(
        "routes: [{{ path: /mqtt, pool: p }}]\n\
         pools: {{ p: {{ probe: {{ kind: http, interval: 100ms }}, brokers: [{}, {}, {}] }} }}\n",
        url(0, &check),
        url(1, &others),
        url(2, &others)
    );
    three.gateway = Arc::new(Gateway::start(&text).await);
    let evacuate = |_: &mut Mosquitto| leaving.store(503, Ordering::Relaxed);
    three.goes(evacuate, "draining", "broker drains").await;
}
