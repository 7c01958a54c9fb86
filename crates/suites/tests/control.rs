//! What actions do, and that nothing that comes in breaks anything.

use proptest::prelude::*;
use skillweld_suites::{
    Embodiment, Env, EnvOptions, Expert, Observation, POSITION_SCALE_M, ROTATION_SCALE_RAD, Suite, SuiteError,
};

fn env(options: &EnvOptions) -> Env {
    Env::new(&Suite::Goal.tasks()[0], options).expect("a layout")
}

#[test]
fn shifts_and_turns_are_in_the_world() {
    for axis in 0..3 {
        let mut env = env(&EnvOptions::default());
        // Down first: high up the arm cannot point straight down.
        for _ in 0..4 {
            env.step(&[0.0, 0.0, -0.5, 0.0, 0.0, 0.0, -1.0]).unwrap();
        }
        env.step(&[0.0; 7]).unwrap();
        let before = env.state();
        let mut action = [0.0; 7];
        action[axis] = if axis == 2 { 0.3 } else { 0.5 };
        for _ in 0..4 {
            env.step(&action).unwrap();
        }
        env.step(&[0.0; 7]).unwrap();
        for (k, (now, before)) in env.state()[..3].iter().zip(before).enumerate() {
            let (made, wanted) = (f64::from(now - before), 4.0 * action[k] * POSITION_SCALE_M);
            // Servos lag, each as it does: of four steps from rest, about five sixths have been made when the fifth
            // says stop, and the way is a little bent.
            let sound =
                if wanted > 0.0 { (0.75..1.02).contains(&(made / wanted)) } else { made.abs() < 0.005 };
            assert!(sound, "axis {axis}: {k} by {made} for {wanted}");
        }
    }
}

#[test]
fn a_turn_about_the_vertical_is_a_turn_of_the_wrist() {
    let mut env = env(&EnvOptions::default());
    for _ in 0..4 {
        env.step(&[0.0, 0.0, -0.5, 0.0, 0.0, 0.0, -1.0]).unwrap();
    }
    // Upright first, as an expert would.
    for _ in 0..6 {
        let lean = env.state();
        let back = |k: usize| (-f64::from(lean[k]) / ROTATION_SCALE_RAD).clamp(-1.0, 1.0);
        env.step(&[0.0, 0.0, 0.0, back(3), back(4), 0.0, -1.0]).unwrap();
    }
    let before = env.state();
    for _ in 0..5 {
        env.step(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.5, -1.0]).unwrap();
    }
    env.step(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]).unwrap();
    let after = env.state();
    let share = f64::from(after[5] - before[5]) / (2.5 * ROTATION_SCALE_RAD);
    assert!((0.70..1.02).contains(&share), "{before:?} {after:?}");
    for k in [0, 1, 2, 3, 4] {
        assert!((after[k] - before[k]).abs() < 0.01, "{k}: {before:?} {after:?}");
    }
}

#[test]
fn the_gripper_opens_and_closes() {
    for embodiment in Embodiment::ALL {
        let mut env = env(&EnvOptions { embodiment, ..EnvOptions::default() });
        for (command, finger_m) in [(-1.0, 0.031), (1.0, 0.0), (0.0, 0.0155)] {
            for _ in 0..20 {
                env.step(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, command]).unwrap();
            }
            let state = env.state();
            assert!((state[6] - finger_m).abs() < 5e-4 && state[7] == -state[6], "{embodiment:?} {state:?}");
        }
    }
}

#[test]
fn what_is_no_number_is_refused_by_name() {
    let mut env = env(&EnvOptions::default());
    let before = env.world().clone();
    for (index, value) in [(0, f64::NAN), (4, f64::INFINITY), (6, f64::NEG_INFINITY)] {
        let mut action = [0.0; 7];
        action[index] = value;
        match env.step(&action) {
            Err(SuiteError::Action { index: found, .. }) => assert_eq!(found, index),
            other => panic!("{other:?}"),
        }
    }
    assert!(*env.world() == before && env.status().steps == 0);
    assert!(matches!(
        Env::new(&Suite::Goal.tasks()[0], &EnvOptions { image_size: 0, ..EnvOptions::default() }),
        Err(SuiteError::Sim(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any finite numbers, for four seconds, on any arm: the state stays finite and the tool in reach.
    #[test]
    fn no_action_breaks_anything(
        actions in prop::collection::vec(prop::array::uniform7(-2.0..2.0f64), 8),
        extreme in prop::sample::select(vec![1.0, 1e300, -1e300]),
        which in 0..3usize, suite in 0..4usize, index in 0..50u32,
    ) {
        let options = EnvOptions { index, embodiment: Embodiment::ALL[which], ..EnvOptions::default() };
        let mut env = Env::new(&Suite::ALL[suite].tasks()[index as usize % 5], &options).unwrap();
        for mut action in actions {
            action[index as usize % 7] *= extreme;
            for _ in 0..10 {
                env.step(&action).unwrap();
                let state = env.state();
                prop_assert!(state.iter().all(|x| x.is_finite()), "{:?}", state);
                prop_assert!(state[..3].iter().all(|x| x.abs() < 0.7));
            }
        }
    }
}

/// All that an episode gives: pictures, states, and how it ended.
fn episode(options: &EnvOptions) -> (Vec<Observation>, u32) {
    let task = &Suite::Long.tasks()[0];
    let mut env = Env::new(task, options).expect("a layout");
    let mut expert = Expert::noisy(&env, 0.2, 7);
    let mut all = Vec::new();
    while !env.status().success && env.status().steps < 60 {
        all.push(env.observe().expect("pictures"));
        let action = expert.act(&env);
        env.step(&action).expect("finite numbers");
    }
    (all, env.status().steps)
}

#[test]
fn the_same_options_give_the_same_bytes_on_any_thread() {
    let options = EnvOptions { index: 5, image_size: 48, ..EnvOptions::default() };
    let here = episode(&options);
    let there: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| episode(&options))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(there.iter().all(|other| *other == here));
}
