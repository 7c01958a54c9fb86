//! Many clients at once: no error, no growth.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Running, libero};
use skillweld_serve::{Options, ZeroCost};

const CLIENTS: usize = 64;

/// What the process may grow after the first third of the time: allocators keep some of what they had.
const GROWTH_BYTES: f64 = 24e6;

/// 64 clients send LIBERO observations for `time`, every tenth time over a new connection.
fn soak(time: Duration) {
    let server = Running::start(ZeroCost::libero(), Options::default());
    let request = libero();
    let answers = AtomicU64::new(0);
    let start = Instant::now();
    let early = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = server.connect();
                while start.elapsed() < time {
                    if answers.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                        client = server.connect();
                    }
                    client.infer(&request).unwrap();
                }
            });
        }
        std::thread::sleep(time / 3);
        server.metric("process_resident_memory_bytes")
    });
    let late = server.metric("process_resident_memory_bytes");
    let answers = answers.into_inner();
    println!(
        "{answers} answers in {:.1} s; {early:.0} then {late:.0} bytes resident",
        start.elapsed().as_secs_f64()
    );
    assert!(answers > 10 * CLIENTS as u64);
    assert!(late - early < GROWTH_BYTES, "from {early} to {late} bytes");
    for kind in ["malformed", "oversized", "observation", "busy", "policy", "stopping"] {
        assert_eq!(server.metric(&format!("skillweld_errors_total{{kind=\"{kind}\"}}")), 0.0);
    }
    assert_eq!(server.metric("skillweld_timeouts_total"), 0.0);
}

#[test]
fn sixty_four_clients_for_three_seconds() {
    soak(Duration::from_secs(3));
}

#[test]
#[ignore = "takes a minute"]
fn sixty_four_clients_for_a_minute() {
    soak(Duration::from_secs(60));
}
