use std::sync::Arc;

use super::*;
use crate::Frame;

struct Bench {
    start: Instant,
    watchdog: Watchdog,
}

impl Bench {
    fn new() -> Self {
        let start = Instant::now();
        Self { start, watchdog: Watchdog::new(vec!["wrist".to_owned()], start) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// The robot is observed: its joints at one time, its camera's frame at another.
    fn observe(&mut self, joints_ms: u64, frame_ms: u64) {
        let rgb: Arc<[u8]> = Arc::from([0, 0, 0].as_slice());
        let frame = Frame { rgb, height: 1, width: 1, captured: self.at(frame_ms) };
        let captured = self.at(joints_ms);
        let (positions, frames) = (vec![0.0], vec![frame]);
        self.watchdog.observed(&Observation { captured, positions, frames, problems: Vec::new() });
    }

    fn act(&mut self, ms: u64) {
        self.watchdog.acted(self.at(ms));
    }

    /// `running`, or why not and whether torque goes off.
    fn judge(&mut self, ms: u64) -> String {
        let now = self.at(ms);
        match self.watchdog.judge(now, false) {
            State::Running => "running".to_owned(),
            State::Holding { reason, .. } => format!("holding: {reason}"),
            State::TorqueOff(reason) => format!("off: {reason}"),
        }
    }
}

#[test]
fn stale_joints_hold_recover_and_end() {
    let mut bench = Bench::new();
    bench.observe(0, 0);
    bench.act(0);
    assert_eq!(bench.judge(300), "running");
    assert_eq!(bench.judge(301), "holding: the joints were last read 301 ms ago");
    bench.observe(400, 400);
    assert_eq!(bench.judge(400), "running");
    bench.observe(400, 5_700);
    assert_eq!(bench.judge(701), "holding: the joints were last read 301 ms ago");
    assert_eq!(bench.judge(5_700), "holding: the joints were last read 5300 ms ago");
    assert_eq!(bench.judge(5_701), "off: the joints were last read 5301 ms ago");
    bench.observe(5_702, 5_702);
    assert_eq!(bench.judge(5_702), "off: the joints were last read 5301 ms ago", "there is no way back");
}

#[test]
fn a_stale_image_names_its_camera() {
    let mut bench = Bench::new();
    bench.observe(1_000, 0);
    assert_eq!(bench.judge(1_000), "running");
    bench.observe(1_001, 0);
    assert_eq!(bench.judge(1_001), "holding: the image of camera wrist is 1001 ms old: check its cable");
    bench.observe(1_100, 1_090);
    assert_eq!(bench.judge(1_100), "running");
}

#[test]
fn no_action_is_waited_for_longer_at_the_start() {
    let mut bench = Bench::new();
    bench.observe(30_000, 30_000);
    assert_eq!(bench.judge(30_000), "running");
    bench.watchdog.problem("the server is gone".to_owned());
    assert_eq!(bench.judge(30_001), "holding: no action for 30.0 s; the last failure: the server is gone");
    bench.act(30_002);
    assert_eq!(bench.judge(30_002), "running");
    bench.observe(33_003, 33_003);
    assert_eq!(bench.judge(33_003), "holding: no action for 3.0 s");
    bench.observe(38_003, 38_003);
    assert_eq!(bench.judge(38_003), "off: no action for 8.0 s");
}

#[test]
fn other_reasons_to_hold_excuse_the_source() {
    let mut bench = Bench::new();
    bench.act(0);
    // The camera fails for 4 s: meanwhile the source is not asked.
    for ms in (0..4_000).step_by(100) {
        bench.observe(ms, 0);
        bench.judge(ms);
    }
    bench.observe(4_000, 4_000);
    assert_eq!(bench.judge(4_000), "running");
    bench.observe(6_901, 6_901);
    assert_eq!(bench.judge(6_901), "holding: no action for 3.0 s", "its time starts anew");
}

#[test]
fn failures_in_a_row_count() {
    let mut bench = Bench::new();
    bench.observe(0, 0);
    let failure = RobotError::Bus("no answer from elbow_flex".to_owned());
    for _ in 0..4 {
        bench.watchdog.failed(&failure);
    }
    assert_eq!(bench.judge(10), "running");
    bench.watchdog.succeeded();
    bench.watchdog.failed(&failure);
    assert_eq!(bench.judge(20), "running");
    for _ in 0..4 {
        bench.watchdog.failed(&failure);
    }
    assert_eq!(bench.judge(30), "holding: 5 failures in a row; the last: no answer from elbow_flex");
    bench.watchdog.succeeded();
    assert_eq!(bench.judge(40), "running");
}

#[test]
fn a_servo_that_protects_itself_holds_the_arm_at_once() {
    let mut bench = Bench::new();
    bench.observe(0, 0);
    let (joint, fault) = ("gripper".to_owned(), "overload: let go".to_owned());
    bench.watchdog.failed(&RobotError::Fault { joint, fault });
    assert_eq!(bench.judge(1), "holding: 1 failures in a row; the last: gripper: overload: let go");
    // Something less grave after it is no recovery, only a step without failures is.
    bench.watchdog.failed(&RobotError::Bus("no answer from elbow_flex".to_owned()));
    assert_eq!(bench.judge(2), "holding: 2 failures in a row; the last: gripper: overload: let go");
    bench.watchdog.succeeded();
    assert_eq!(bench.judge(3), "running");
}

#[test]
fn a_lost_connection_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.watchdog.failed(&RobotError::Disconnected("the cable is out".to_owned()));
    assert_eq!(bench.judge(1), "off: the cable is out");
}

#[test]
fn a_joint_that_let_go_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.observe(0, 0);
    let (joint, problem) = ("gripper".to_owned(), "torque went off by itself".to_owned());
    bench.watchdog.failed(&RobotError::LetGo { joint, problem });
    bench.watchdog.failed(&RobotError::Bus("no answer from elbow_flex".to_owned()));
    assert_eq!(bench.judge(1), "off: gripper: torque went off by itself");
}

#[test]
fn a_hold_that_was_asked_for_has_no_limit() {
    let mut bench = Bench::new();
    for seconds in 0..600 {
        bench.observe(seconds * 1000, seconds * 1000);
        let now = bench.at(seconds * 1000);
        let state = bench.watchdog.judge(now, true);
        assert!(matches!(state, State::Holding { reason: Reason::Asked, .. }), "{state:?}");
    }
    assert_eq!(bench.judge(599_100), "running");
}
