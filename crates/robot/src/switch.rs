use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What people ask of a running loop, from any thread or signal handler. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct StopSwitch {
    stop: Arc<AtomicBool>,
    hold: Arc<AtomicBool>,
    intervene: Arc<AtomicBool>,
}

impl StopSwitch {
    /// Nothing is asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Emergency stop: the arm holds and torque goes off, within one control period. Cannot be taken back.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The flag behind [`stop`](Self::stop), for whoever sets flags from signal handlers (`signal_hook::flag::register`).
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// The arm stays where it is, with torque, until this is called with `false`.
    pub fn hold(&self, on: bool) {
        self.hold.store(on, Ordering::SeqCst);
    }

    /// Whether the arm is asked to hold.
    pub fn is_held(&self) -> bool {
        self.hold.load(Ordering::SeqCst)
    }

    /// The leader arm takes over, until this is called with `false`; see [`WithLeader`](crate::WithLeader).
    pub fn intervene(&self, on: bool) {
        self.intervene.store(on, Ordering::SeqCst);
    }

    /// Whether the leader arm is to be followed.
    pub fn is_intervening(&self) -> bool {
        self.intervene.load(Ordering::SeqCst)
    }
}
