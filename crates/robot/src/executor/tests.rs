use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::{ActionSpace, Chunk, Frame};

const PERIOD: Duration = Duration::from_nanos(33_333_333);

/// A clock that stands still until it is advanced. Clones show the same time.
#[derive(Clone)]
struct Time(Arc<Mutex<Instant>>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

type Requests = Arc<Mutex<Vec<ChunkRequest>>>;
type Policy = Box<dyn FnMut(&ChunkRequest, usize) -> (Result<Chunk, ChunkError>, Duration) + Send>;

/// A policy in virtual time.
struct Scripted {
    clock: Time,
    policy: Policy,
    requests: Requests,
    pending: Option<(Instant, Answer)>,
}

impl Inference for Scripted {
    fn start_episode(&mut self) {}

    fn submit(&mut self, request: ChunkRequest) {
        assert!(self.pending.is_none(), "one request at a time");
        let mut requests = self.requests.lock().unwrap();
        let (chunk, took) = (self.policy)(&request, requests.len());
        requests.push(request);
        self.pending = Some((self.clock.now() + took, Answer { chunk, took }));
    }

    fn poll(&mut self) -> Option<Answer> {
        let now = self.clock.now();
        self.pending.take_if(|(at, _)| *at <= now).map(|(_, answer)| answer)
    }
}

/// The arm goes where it is told at once, and the policy wants it to go on by 1 a step: whatever the latency, a plan that is
/// kept to is 1, 2, 3 …
struct Bench {
    clock: Time,
    executor: ChunkExecutor,
    requests: Requests,
    position: f64,
    events: Vec<Event>,
    robot: Description,
}

fn onwards(request: &ChunkRequest, actions: usize) -> Chunk {
    let here = request.observation.positions[0];
    let actions = (1..=actions).map(|step| vec![here + step as f64]).collect();
    Chunk { actions, routing: None }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Bench {
    fn new(horizon: usize, overlap: Overlap, policy: Policy) -> Self {
        let (clock, requests) = (Time::new(), Requests::default());
        let scripted =
            Scripted { clock: clock.clone(), policy, requests: Arc::clone(&requests), pending: None };
        let expectation = Expectation {
            action_dim: 1,
            space: ActionSpace::Positions,
            names: Some(vec!["pan".to_owned()]),
            units: None,
            state_dim: None,
            images: 1,
            horizon,
            needs_instruction: false,
        };
        let executor =
            ChunkExecutor::with_inference(Box::new(scripted), expectation, Prompt::default(), overlap);
        let robot = Description { kind: "scripted".to_owned(), joints: Vec::new(), cameras: Vec::new() };
        Self { clock, executor, requests, position: 0.0, events: Vec::new(), robot }
    }

    /// A policy of chunks of `horizon` that always goes on, and takes as long as `latency` says.
    fn onwards(
        horizon: usize,
        overlap: Overlap,
        latency: impl Fn(usize) -> Duration + Send + 'static,
    ) -> Self {
        let policy = move |request: &ChunkRequest, number| (Ok(onwards(request, horizon)), latency(number));
        Self::new(horizon, overlap, Box::new(policy))
    }

    fn tick(&mut self) -> Next {
        let now = self.clock.now();
        let rgb: Arc<[u8]> = Arc::from([0_u8; 3].as_slice());
        let frames = vec![Frame { rgb, height: 1, width: 1, captured: now }; 2];
        let positions = vec![self.position];
        let observation = Observation { captured: now, positions, frames, problems: Vec::new() };
        let moment = Moment { now, period: PERIOD, robot: &self.robot, observation: &observation };
        let next = self.executor.next(&moment, &mut self.events);
        if let Next::Act(action, origin) = &next {
            assert_eq!(*origin, Origin::Policy);
            self.position = action[0];
        }
        self.clock.advance(PERIOD);
        next
    }

    /// The moves of so many steps after the first action, and how many of the steps had no action.
    fn moves(&mut self, steps: usize) -> (Vec<f64>, usize) {
        while self.tick() == Next::Waiting {}
        let (mut moves, mut starved) = (Vec::new(), 0);
        for _ in 0..steps {
            let before = self.position;
            match self.tick() {
                Next::Act(..) => moves.push(self.position - before),
                Next::Starved => starved += 1,
                other => panic!("{other:?}"),
            }
        }
        (moves, starved)
    }
}

fn any_overlap() -> impl Strategy<Value = Overlap> {
    prop_oneof![Just(Overlap::Replace), Just(Overlap::Blend), Just(Overlap::Ensemble)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_policy_that_keeps_up_is_carried_out_step_by_step(latency in 0_u64..730, overlap in any_overlap()) {
        let mut bench = Bench::onwards(50, overlap, move |_| ms(latency));
        let (moves, starved) = bench.moves(400);
        prop_assert_eq!(starved, 0);
        prop_assert!(moves.iter().all(|moved| (moved - 1.0).abs() < 1e-9), "{:?}", moves);
    }

    #[test]
    fn up_to_a_second_never_starves_fifty_actions(latency in 0_u64..=1000, overlap in any_overlap()) {
        let mut bench = Bench::onwards(50, overlap, move |_| ms(latency));
        let (moves, starved) = bench.moves(600);
        prop_assert_eq!(starved, 0);
        // Each chunk begins with a whole step from where the arm is, although a slow arm does less: at most one too many.
        prop_assert!(moves.iter().all(|moved| *moved > -0.5 && *moved < 2.0), "{:?}", moves);
    }

    #[test]
    fn nor_do_latencies_that_differ(latencies in prop::collection::vec(0_u64..=1000, 1..60), overlap in any_overlap()) {
        // One of the last 32 was as slow as any: no latency is a surprise.
        let latency = move |number| ms(if number % 30 == 1 { 1000 } else { latencies[number % latencies.len()] });
        prop_assert_eq!(Bench::onwards(50, overlap, latency).moves(900).1, 0);
    }

    #[test]
    fn nor_do_slow_inferences_among_fast_ones(fast in 0_u64..150, first in 2_usize..20, slow in 1_usize..5) {
        let latency = move |number| ms(if (first..first + slow).contains(&number) { 1000 } else { fast });
        prop_assert_eq!(Bench::onwards(50, Overlap::default(), latency).moves(900).1, 0);
    }

    #[test]
    fn chunks_of_any_length_are_slowed_down_not_starved(horizon in 1_usize..60, latency in 0_u64..1900) {
        let mut bench = Bench::onwards(horizon, Overlap::default(), move |_| ms(latency));
        prop_assert_eq!(bench.moves(600).1, 0);
        let requests = bench.requests.lock().unwrap();
        prop_assert!(requests.iter().all(|request| request.left_over.len() <= horizon));
    }
}

#[test]
fn a_first_inference_that_loads_and_compiles_slows_nothing_down() {
    let latency = |number| ms(if number == 0 { 20_000 } else { 100 });
    let mut bench = Bench::onwards(50, Overlap::default(), latency);
    let (moves, starved) = bench.moves(300);
    assert_eq!(starved, 0);
    let late = bench.events[0].to_string();
    assert_eq!(late, "no chunk: the policy's answer is to what was seen 20.0 s ago: it is not used");
    assert!(moves.iter().filter(|moved| **moved < 0.999).count() < 10, "{moves:?}");
}

#[test]
fn an_answer_to_what_was_seen_too_long_ago_is_asked_for_again() {
    // In the middle of a run the policy hangs once, for as long as the arm may be left without an action.
    let latency = |number| ms(if number == 3 { 7_900 } else { 100 });
    let mut bench = Bench::onwards(50, Overlap::default(), latency);
    let (moves, starved) = bench.moves(400);
    assert!(starved > 100, "{starved}");
    assert!(moves.iter().all(|moved| *moved > 0.0 && *moved < 2.0), "{moves:?}");
    let lines: Vec<_> = bench.events.iter().map(ToString::to_string).collect();
    let late: Vec<_> = lines.iter().filter(|line| line.starts_with("no chunk")).collect();
    assert_eq!(late, ["no chunk: the policy's answer is to what was seen 7.9 s ago: it is not used"]);
    let requests = bench.requests.lock().unwrap();
    assert!(requests.len() > 5 && requests[4].left_over.is_empty());
}

#[test]
fn a_policy_that_always_takes_too_long_is_never_followed() {
    let mut bench = Bench::onwards(50, Overlap::default(), |_| ms(2_500));
    for _ in 0..900 {
        assert_eq!(bench.tick(), Next::Waiting);
    }
    let asked = bench.requests.lock().unwrap().len();
    assert_eq!(asked, 12, "30 s, one request after the other");
    assert_eq!(bench.events.len(), asked - 1);
    assert_eq!(bench.executor.latencies().unwrap().count(), 11);
}

#[test]
fn requests_say_what_will_have_passed_and_what_is_left() {
    let mut bench = Bench::onwards(50, Overlap::default(), |_| ms(500));
    bench.moves(200);
    let requests = bench.requests.lock().unwrap();
    assert_eq!((requests[0].inference_delay, requests[0].left_over.len()), (0, 0));
    for request in &requests[1..] {
        // 500 ms are 15.0 periods, and the next whole number of them.
        assert_eq!(request.inference_delay, 16);
        let here = request.observation.positions[0];
        for (ahead, action) in request.left_over.iter().enumerate() {
            assert!((action[0] - here - (ahead + 1) as f64).abs() < 1e-9);
        }
    }
    assert_eq!(requests[1].left_over.len(), 34, "two thirds of a chunk");
    assert!(
        requests.iter().all(|request| request.observation.frames.len() == 1),
        "of two cameras, as many as wanted"
    );
}

#[test]
fn actions_whose_time_has_passed_are_dropped() {
    let mut bench = Bench::onwards(50, Overlap::default(), |_| ms(310));
    bench.moves(100);
    let dropped = bench.events.iter().filter_map(|event| match event {
        Event::Chunk { actions, dropped, .. } => Some((*actions, *dropped)),
        _ => None,
    });
    let dropped: Vec<_> = dropped.collect();
    assert_eq!(dropped[0], (50, 0), "the arm has waited for the first");
    // 310 ms are 9.3 periods: the answer is seen 10 steps after the request.
    assert!(dropped.len() > 3 && dropped[1..].iter().all(|chunk| *chunk == (50, 10)), "{dropped:?}");
}

#[test]
fn failures_are_told_and_not_repeated_at_once() {
    let policy = |request: &ChunkRequest, number: usize| match number {
        0 => (Err(ChunkError::Failed("no route to host".to_owned())), ms(0)),
        1 => (Ok(Chunk { actions: vec![vec![1.0], vec![f64::NAN]], ..onwards(request, 1) }), ms(0)),
        2 => (Ok(Chunk { actions: Vec::new(), ..onwards(request, 1) }), ms(0)),
        _ => (Ok(onwards(request, 50)), ms(0)),
    };
    let mut bench = Bench::new(50, Overlap::default(), Box::new(policy));
    let mut waited = 0;
    while bench.tick() == Next::Waiting {
        waited += 1;
        assert!(waited < 100);
    }
    // Three times: a request, its answer in the next step, 250 ms (7.5 periods) after that the next request.
    assert_eq!(waited, 3 * 9 + 1);
    let failures = bench.events.iter().filter(|event| matches!(event, Event::ChunkFailed(_)));
    let failures: Vec<_> = failures.map(ToString::to_string).collect();
    assert_eq!(
        failures,
        [
            "no chunk: no route to host",
            "no chunk: action 1 of the policy's chunk is NaN for pan: the chunk is not used",
            "no chunk: the policy answered with a chunk of no actions",
        ]
    );
}

#[test]
fn after_an_interruption_only_new_chunks_count() {
    let mut bench = Bench::onwards(50, Overlap::default(), |_| ms(300));
    bench.moves(20);
    let before = bench.requests.lock().unwrap().len();
    bench.executor.interrupt();
    // A person moves the arm.
    bench.position = 1000.0;
    let mut waited = 0;
    while bench.tick() == Next::Waiting {
        waited += 1;
        assert!(waited < 100);
    }
    assert_eq!(bench.position, 1001.0);
    assert!((10..=20).contains(&waited), "{waited}: an answer that is void, and one that is not");
    assert!(bench.requests.lock().unwrap()[before..].iter().all(|request| request.left_over.is_empty()));
}

#[test]
fn a_task_is_told_when_it_changes() {
    let policy = |request: &ChunkRequest, number: usize| {
        let task = if number < 3 { "stack" } else { "sort" }.to_owned();
        let routing = Some(Routing { task, reason: "routed".to_owned(), margin: Some(0.5) });
        (Ok(Chunk { routing, ..onwards(request, 10) }), ms(40))
    };
    let mut bench = Bench::new(10, Overlap::default(), Box::new(policy));
    bench.moves(60);
    let told = bench.events.iter().filter_map(|event| match event {
        Event::Chunk { routing, .. } => routing.clone(),
        _ => None,
    });
    let told: Vec<_> = told.map(|routing| routing.task).collect();
    assert_eq!(told, ["stack", "sort"]);
}

fn nothing_seen() -> Observation {
    let captured = Instant::now();
    Observation { captured, positions: vec![0.0], frames: Vec::new(), problems: Vec::new() }
}

/// A policy in real time that counts its episodes in its first action.
struct Counts {
    expectation: Expectation,
    episodes: f64,
}

impl ChunkSource for Counts {
    fn expects(&self) -> Expectation {
        self.expectation.clone()
    }

    fn start_episode(&mut self) {
        self.episodes += 1.0;
    }

    fn infer(&mut self, _request: &ChunkRequest) -> Result<Chunk, ChunkError> {
        Ok(Chunk { actions: vec![vec![self.episodes]], routing: None })
    }
}

#[test]
fn a_run_is_an_episode() {
    let Bench { executor, robot, .. } = Bench::onwards(1, Overlap::default(), |_| ms(0));
    let source = Counts { expectation: executor.expectation, episodes: 0.0 };
    let mut executor = ChunkExecutor::new(source, Prompt::default(), Overlap::default()).unwrap();
    let observation = nothing_seen();
    for episode in 1..4 {
        executor.start().unwrap();
        let begun = Instant::now();
        let action = loop {
            assert!(begun.elapsed() < Duration::from_secs(20));
            let moment =
                Moment { now: Instant::now(), period: PERIOD, robot: &robot, observation: &observation };
            match executor.next(&moment, &mut Vec::new()) {
                Next::Act(action, _) => break action,
                _ => std::thread::sleep(ms(1)),
            }
        };
        assert_eq!(action, [f64::from(episode)]);
    }
}

struct Panics(Expectation);

impl ChunkSource for Panics {
    fn expects(&self) -> Expectation {
        self.0.clone()
    }

    fn start_episode(&mut self) {}

    fn infer(&mut self, _request: &ChunkRequest) -> Result<Chunk, ChunkError> {
        panic!("as tests of panics do")
    }
}

#[test]
fn a_policy_that_panics_ends_the_run() {
    let Bench { executor, robot, .. } = Bench::onwards(1, Overlap::default(), |_| ms(0));
    let source = Panics(executor.expectation);
    let mut executor = ChunkExecutor::new(source, Prompt::default(), Overlap::default()).unwrap();
    let observation = nothing_seen();
    let mut events = Vec::new();
    let begun = Instant::now();
    let last = loop {
        assert!(begun.elapsed() < Duration::from_secs(20));
        let moment = Moment { now: Instant::now(), period: PERIOD, robot: &robot, observation: &observation };
        match executor.next(&moment, &mut events) {
            Next::Waiting => std::thread::sleep(ms(1)),
            other => break other,
        }
    };
    let why = "the policy's thread has ended by a panic: restart, and report what it printed";
    assert_eq!(last, Next::Broken(why.to_owned()));
    assert_eq!(events, [Event::ChunkFailed(ChunkError::Ended)]);
}
