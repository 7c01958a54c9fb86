//! Many clients at once: no error, no growth.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Running, libero};
use skillweld_serve::{Options, ZeroCost, encode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

const CLIENTS: usize = 64;

/// Copies of a message that can be alive for one client at once, its own side included because it runs in this process:
/// masked in its output buffer, whose growth may have doubled it; received; and the buffer for the next one, made ready
/// before the last is dropped.
const COPIES: usize = 4;

/// 64 clients send LIBERO observations for `time`, every tenth over a new connection.
///
/// Memory is looked at with all clients gone, after the first half and at the end. The allocator may keep, of the second
/// half, no more than what can have been alive in it; whatever goes beyond that has not been given back. What one request
/// must not leave behind is then that bound over the number of requests.
fn soak(time: Duration) {
    let server = Running::start(ZeroCost::libero(), Options::default());
    let request: Bytes = encode(&libero()).into();
    let bound = (CLIENTS * COPIES * request.len()) as f64;
    let answers = AtomicU64::new(0);
    let half = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut client = server.connect();
                    while start.elapsed() < time / 2 {
                        if answers.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                            client = server.connect();
                        }
                        client.socket.send(Message::Binary(request.clone())).unwrap();
                        client.receive().unwrap();
                    }
                });
            }
        });
        harness::wait_until("the end of all clients", || server.metric("skillweld_clients") == 0.0);
        server.metric("process_resident_memory_bytes")
    };
    let before = half();
    let first = answers.load(Ordering::Relaxed);
    let after = half();
    let answers = answers.into_inner();
    let each = (after - before) / (answers - first) as f64;
    println!(
        "{answers} answers; {before:.0} then {after:.0} bytes resident: {each:.1} a request (bound {bound:.0})"
    );
    assert!(answers > 10 * CLIENTS as u64);
    assert!(after - before < bound, "from {before} to {after} bytes, more than {bound}");
    for kind in ["malformed", "oversized", "observation", "abstained", "busy", "policy", "stopping"] {
        assert_eq!(server.metric(&format!("skillweld_errors_total{{kind=\"{kind}\"}}")), 0.0);
    }
    assert_eq!(server.metric("skillweld_timeouts_total"), 0.0);
}

#[test]
fn sixty_four_clients_for_five_seconds() {
    soak(Duration::from_secs(5));
}

#[test]
#[ignore = "takes a minute"]
fn sixty_four_clients_for_a_minute() {
    soak(Duration::from_secs(60));
}
