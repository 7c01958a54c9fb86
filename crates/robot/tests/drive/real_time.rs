use std::thread;
use std::time::{Duration, Instant};

use skillweld_robot::{
    ActionSpace, CameraStream, Chunk, ChunkError, ChunkExecutor, ChunkRequest, ChunkSource, Description,
    DriveOptions, Expectation, Joint, Observation, Overlap, Prompt, Robot, RobotError, StopSwitch, Unit,
    drive,
};

/// An arm that is where it was told to be, now.
struct Now {
    description: Description,
    position: f64,
}

impl Now {
    fn new() -> Self {
        let (name, unit) = ("shoulder_pan".to_owned(), Unit::Degrees);
        let joints = vec![Joint { name, unit, min: -900.0, max: 900.0, max_velocity: 600.0 }];
        let cameras: Vec<CameraStream> = Vec::new();
        Self { description: Description { kind: "scripted".to_owned(), joints, cameras }, position: 0.0 }
    }
}

impl Robot for Now {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        let (captured, positions) = (Instant::now(), vec![self.position]);
        Ok(Observation { captured, positions, frames: Vec::new(), problems: Vec::new() })
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        self.position = positions[0];
        Ok(())
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        Ok(())
    }
}

/// Takes a while, and goes on by 1° a step.
struct Slow {
    latency: Duration,
    horizon: usize,
}

impl ChunkSource for Slow {
    fn expects(&self) -> Expectation {
        Expectation {
            action_dim: 1,
            space: ActionSpace::Positions,
            names: None,
            units: Some(vec![Unit::Degrees]),
            state_dim: Some(1),
            images: 0,
            horizon: self.horizon,
            needs_instruction: false,
        }
    }

    fn start_episode(&mut self) {}

    fn infer(&mut self, request: &ChunkRequest) -> Result<Chunk, ChunkError> {
        thread::sleep(self.latency);
        let here = request.observation.positions[0];
        let actions = (1..=self.horizon).map(|step| vec![here + step as f64]).collect();
        Ok(Chunk { actions, routing: None })
    }
}

#[test]
fn a_policy_that_takes_a_second_does_not_starve_fifty_actions() {
    let mut arm = Now::new();
    let policy = Slow { latency: Duration::from_secs(1), horizon: 50 };
    let mut executor = ChunkExecutor::new(policy, Prompt::default(), Overlap::default()).unwrap();
    let options = DriveOptions { steps: Some(210), ..DriveOptions::default() };
    let summary = drive(&mut arm, &mut executor, &options, &mut (), &StopSwitch::new()).unwrap();
    assert!(summary.is_success());
    assert_eq!(summary.starved, 0, "{summary:?}");
    assert!((20..60).contains(&summary.waited), "{}", summary.waited);
    let inference = summary.inference.unwrap();
    assert!(inference.count() >= 4 && inference.percentile(0.5) >= Duration::from_secs(1), "{inference:?}");
    assert!(arm.position > 90.0, "it went on: {}", arm.position);
}

#[test]
fn steps_keep_their_deadlines() {
    for hz in [30.0, 50.0] {
        let options = DriveOptions { hz, steps: Some((2.0 * hz) as u64), ..DriveOptions::default() };
        let policy = Slow { latency: Duration::from_millis(50), horizon: 20 };
        let mut executor = ChunkExecutor::new(policy, Prompt::default(), Overlap::default()).unwrap();
        let begun = Instant::now();
        let summary = drive(&mut Now::new(), &mut executor, &options, &mut (), &StopSwitch::new()).unwrap();
        let took = begun.elapsed();
        assert_eq!(summary.steps + summary.skipped, (2.0 * hz) as u64);
        // On a machine that does other things as well: half of the steps in time, and no drift.
        assert!(summary.lateness.percentile(0.5) < Duration::from_millis(5), "{:?}", summary.lateness);
        assert!(took >= Duration::from_secs_f64(2.0 - 1.0 / hz) && took < Duration::from_secs(3), "{took:?}");
    }
}
