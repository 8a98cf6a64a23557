//! Attacks at full size, each beside clients that behave: what they notice, and what the gateway holds.
//!
//! ```sh
//! cargo test --profile demo --test it -- --ignored --exact --nocapture attacks::table
//! ```
//!
//! prints the table of docs/resilience.md; `ATTACK=slow` runs those whose name holds that word.

mod floods;
mod herd;
mod idle;
mod lab;
mod slow;

use std::time::Duration;

use self::lab::{Attack, Lab, Row};

/// Each in its own gateway.
const ATTACKS: [Attack; 18] = [
    floods::RAPID_RESET,
    floods::MISTAKES,
    floods::CONTINUATION,
    floods::EMPTY_DATA,
    floods::SETTINGS,
    floods::PING,
    floods::HEADER_BOMB,
    floods::KEY_UPDATES,
    floods::HELLOS,
    slow::HEADS,
    slow::BODIES,
    slow::READERS,
    slow::STREAMS,
    idle::TCP,
    idle::TLS,
    idle::HTTP2,
    idle::MQTT,
    herd::HERD,
];

#[tokio::test]
#[ignore = "takes minutes; run by name: attacks::table"]
#[expect(clippy::print_stdout, reason = "it is what the run is for")]
async fn table() {
    let wished = std::env::var("ATTACK").unwrap_or_default();
    println!("{}", Row::HEAD);
    for attack in ATTACKS {
        if !attack.name.contains(&wished) {
            continue;
        }
        let row = Lab::start(&attack).await.run(&attack).await;
        println!("{row}");
        // What other clients may notice of anything: generous, since attackers and victims share the machine.
        assert!(row.during.p50() < Duration::from_millis(50), "{row}");
        assert!(row.peak < row.before_bytes + f64::from(1 << 30), "{row}");
    }
}
