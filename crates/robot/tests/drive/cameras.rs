use std::sync::{Arc, Mutex};
use std::time::Duration;

use skillweld_robot::{
    Camera, CameraStream, Clock, Frame, Reason, Robot, RobotError, StopSwitch, Tick, WithCameras,
    drive_by_clock,
};

use crate::arm::{Arm, Call, Exchange, Notes, for_steps, towards};
use crate::clock::VirtualClock;

/// What a camera gives at a time.
type Gives = Box<dyn FnMut(Duration) -> Result<Frame, RobotError> + Send>;

struct Scripted {
    stream: CameraStream,
    clock: VirtualClock,
    opens: Result<(), RobotError>,
    gives: Gives,
    state: Arc<Mutex<&'static str>>,
}

impl Camera for Scripted {
    fn stream(&self) -> &CameraStream {
        &self.stream
    }

    fn open(&mut self) -> Result<(), RobotError> {
        *self.state.lock().unwrap() = "open";
        self.opens.clone()
    }

    fn latest(&mut self) -> Result<Frame, RobotError> {
        assert_eq!(*self.state.lock().unwrap(), "open");
        (self.gives)(self.clock.passed())
    }

    fn close(&mut self) {
        *self.state.lock().unwrap() = "closed";
    }
}

fn frame(clock: &VirtualClock, age: Duration, width: usize) -> Frame {
    let rgb = vec![7_u8; 2 * width * 3].into();
    Frame { rgb, height: 2, width, captured: clock.now() - age }
}

fn camera(name: &str, clock: &VirtualClock, gives: Gives) -> Scripted {
    let stream = CameraStream { name: name.to_owned(), height: 2, width: 3 };
    Scripted { stream, clock: clock.clone(), opens: Ok(()), gives, state: Arc::default() }
}

fn problem(text: &str) -> RobotError {
    RobotError::Camera { camera: "wrist".to_owned(), problem: text.to_owned() }
}

/// A run of ten seconds with a camera that gives this: how it ended, its log, and how often the arm held.
fn run_with(
    gives: impl Fn(&VirtualClock, Duration) -> Result<Frame, RobotError> + Send + 'static,
) -> (Reason, Vec<String>, usize) {
    let arm = Arm::new();
    let (clock, camera_clock, log) = (arm.clock.clone(), arm.clock.clone(), Arc::clone(&arm.log));
    let wrist = camera("wrist", &clock, Box::new(move |at| gives(&camera_clock, at)));
    let state = Arc::clone(&wrist.state);
    let mut robot = WithCameras::new(arm, vec![Box::new(wrist)]).unwrap();
    let mut notes = Notes::new(|tick: &Tick<'_>| {
        assert!(tick.observation.is_none_or(|seen| seen.frames.len() == 1 && seen.frames[0].width == 3));
    });
    let (options, switch) = (for_steps(300), StopSwitch::new());
    let summary =
        drive_by_clock(&mut robot, &mut towards(1.0), &options, &mut notes, &switch, &clock).unwrap();
    assert_eq!(*state.lock().unwrap(), "closed");
    let calls = log.lock().unwrap().clone();
    assert!(matches!(calls.last(), Some(Call::Stop(_))));
    let holds = calls.iter().filter(|call| matches!(call, Call::Hold(_))).count();
    (summary.end, notes.lines(), holds)
}

#[test]
fn frames_follow_the_arms_own() {
    let mut arm = Arm::new();
    let clock = arm.clock.clone();
    arm.description.cameras.push(CameraStream { name: "own".to_owned(), height: 2, width: 5 });
    let (own, at) = (clock.clone(), clock.clone());
    arm.script = Box::new(move |exchange| {
        if let Exchange::Observe(seen) = exchange {
            seen.frames.push(frame(&own, Duration::ZERO, 5));
        }
        Ok(())
    });
    let wrist = camera("wrist", &clock, Box::new(move |_| Ok(frame(&at, Duration::ZERO, 3))));
    let mut robot = WithCameras::new(arm, vec![Box::new(wrist)]).unwrap();
    robot.connect().unwrap();
    let names: Vec<_> = robot.describe().cameras.iter().map(|stream| stream.name.clone()).collect();
    assert_eq!(names, ["own", "wrist"]);
    let widths: Vec<_> = robot.observe().unwrap().frames.iter().map(|frame| frame.width).collect();
    assert_eq!(widths, [5, 3]);
}

#[test]
fn a_camera_that_keeps_up_changes_nothing() {
    let (end, lines, _) = run_with(|clock, _| Ok(frame(clock, Duration::from_millis(20), 3)));
    assert_eq!(end, Reason::Over);
    assert_eq!(lines, ["torque is off: the run is over"]);
}

#[test]
fn a_camera_that_freezes_holds_the_arm_until_it_recovers() {
    let (end, lines, _) = run_with(|clock, at| {
        let frozen = Duration::from_secs(2)..Duration::from_secs(4);
        let age = if frozen.contains(&at) { at - frozen.start } else { Duration::ZERO };
        Ok(frame(clock, age, 3))
    });
    assert_eq!(end, Reason::Over);
    assert!(lines[0].starts_with("the arm holds: the image of camera wrist is 10"), "{lines:?}");
    assert_eq!(lines[1..], ["the arm goes on after 1.0 s", "torque is off: the run is over"]);
}

#[test]
fn a_camera_that_fails_for_good_ends_the_run() {
    let (end, lines, holds) = run_with(|clock, at| match at.as_secs() {
        0..2 => Ok(frame(clock, Duration::ZERO, 3)),
        _ => Err(problem("no images: check its cable")),
    });
    assert_eq!(holds, 1, "an arm needs no camera to hold");
    assert_eq!(
        end.to_string().rsplit("; ").next(),
        Some("the last: camera wrist: no images: check its cable")
    );
    assert!(lines.iter().any(|line| line.starts_with("the arm holds: 5 failures")), "{lines:?}");
}

#[test]
fn a_camera_that_fails_takes_nothing_from_the_joints() {
    let arm = Arm { positions: vec![3.0, 4.0], ..Arm::new() };
    let (clock, at) = (arm.clock.clone(), arm.clock.clone());
    let gives: Gives = Box::new(move |passed| match passed.as_millis() {
        100..200 => Ok(frame(&at, Duration::ZERO, 3)),
        _ => Err(problem("no images: check its cable")),
    });
    let mut robot = WithCameras::new(arm, vec![Box::new(camera("wrist", &clock, gives))]).unwrap();
    robot.connect().unwrap();
    assert_eq!(robot.observe(), Err(problem("no images: check its cable")), "there is no image yet");
    clock.advance(Duration::from_millis(100));
    let whole = robot.observe().unwrap();
    assert_eq!(whole.problems, []);
    clock.advance(Duration::from_millis(100));
    let seen = robot.observe().unwrap();
    assert_eq!((seen.positions, &seen.frames), (vec![3.0, 4.0], &whole.frames));
    assert_eq!(seen.problems, [problem("no images: check its cable")]);
    assert!(seen.captured > whole.captured);
}

#[test]
fn images_of_another_size_are_refused() {
    let (end, _, _) =
        run_with(|clock, at| Ok(frame(clock, Duration::ZERO, if at.is_zero() { 3 } else { 4 })));
    assert!(end.to_string().ends_with("camera wrist: an image of 2 × 4 instead of 2 × 3"), "{end}");
}

#[test]
fn torque_comes_on_last_and_names_are_used_once() {
    let arm = Arm::new();
    let (clock, log) = (arm.clock.clone(), Arc::clone(&arm.log));
    let never = || -> Gives { Box::new(|_| Err(RobotError::NotConnected)) };
    let front = camera("front", &clock, never());
    let mut wrist = camera("wrist", &clock, never());
    wrist.opens = Err(problem("/dev/video0 is in use: close the other program"));
    let states = [Arc::clone(&front.state), Arc::clone(&wrist.state)];
    let mut robot = WithCameras::new(arm, vec![Box::new(front), Box::new(wrist)]).unwrap();
    let names: Vec<_> = robot.describe().cameras.iter().map(|stream| stream.name.clone()).collect();
    assert_eq!(names, ["front", "wrist"]);
    assert_eq!(robot.connect(), Err(problem("/dev/video0 is in use: close the other program")));
    assert!(log.lock().unwrap().is_empty(), "the arm was not connected");
    assert!(states.iter().all(|state| *state.lock().unwrap() == "closed"));

    let twice = vec![camera("wrist", &clock, never()), camera("wrist", &clock, never())];
    let twice = twice.into_iter().map(|camera| Box::new(camera) as Box<dyn Camera>).collect();
    let error = WithCameras::new(Arm::new(), twice).err().unwrap();
    assert_eq!(error, problem("there are two of this name: give each its own"));
}

#[test]
fn cameras_are_closed_when_the_arm_does_not_connect() {
    let arm = Arm::with(|exchange| match exchange {
        Exchange::Connect => Err(RobotError::Connect("no arm".to_owned())),
        _ => Ok(()),
    });
    let wrist = camera("wrist", &arm.clock.clone(), Box::new(|_| Err(RobotError::NotConnected)));
    let state = Arc::clone(&wrist.state);
    let mut robot: Box<dyn Robot> = Box::new(WithCameras::new(arm, vec![Box::new(wrist)]).unwrap());
    assert!(robot.connect().is_err());
    assert_eq!(*state.lock().unwrap(), "closed");
}
