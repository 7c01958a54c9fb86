//! Tasks, layouts, and what the front picture shows of them.

use std::collections::HashSet;

use skillweld_robot_sim::{Pose, Renderer, TABLE, TOLERANCE_M};
use skillweld_suites::{Embodiment, Env, EnvOptions, Expert, Goal, HOLD_STEPS, Split, Suite, Task};

fn options(split: Split, index: u32) -> EnvOptions {
    EnvOptions { split, index, ..EnvOptions::default() }
}

fn env(task: &'static Task, index: u32) -> Env {
    Env::new(task, &options(Split::Training, index)).expect("a layout")
}

#[test]
fn tasks_are_told_apart_by_their_words() {
    let mut ids = HashSet::new();
    for suite in Suite::ALL {
        assert!(suite.tasks().len() >= 5);
        let mut words = HashSet::new();
        let mut goals = Vec::new();
        for task in suite.tasks() {
            assert_eq!(task.suite, suite);
            assert!(task.id.starts_with(suite.name()) && ids.insert(task.id), "{}", task.id);
            assert!(!goals.contains(&task.goals) && !task.goals.is_empty(), "{}", task.id);
            goals.push(task.goals);
            for text in std::iter::once(task.instruction).chain(task.rephrased) {
                assert_eq!(text, text.to_lowercase());
                assert!(words.insert(text), "{text}");
            }
        }
    }
}

#[test]
fn a_suites_layout_serves_all_its_tasks_and_no_other_split() {
    for suite in Suite::ALL {
        let tasks = suite.tasks();
        for index in 0..20 {
            let first = env(&tasks[0], index);
            for task in &tasks[1..] {
                assert!(env(task, index).world() == first.world(), "{}", task.id);
            }
            for split in [Split::Selection, Split::Final] {
                let other = Env::new(&tasks[0], &options(split, index)).unwrap();
                assert!(other.world() != first.world());
            }
        }
    }
}

#[test]
fn layouts_lie_still_overlap_nothing_and_solve_nothing() {
    for suite in Suite::ALL {
        for embodiment in Embodiment::ALL {
            for (split, index) in
                Split::ALL.into_iter().flat_map(|split| (0..40).map(move |index| (split, index)))
            {
                let task = &suite.tasks()[index as usize % 5];
                let options = EnvOptions { embodiment, ..options(split, index) };
                let mut env = Env::new(task, &options).unwrap();
                assert!(env.world().penetration_m() <= TOLERANCE_M, "{} {split:?} {index}", suite.name());
                let before: Vec<Pose> = env.world().bodies().iter().map(|b| b.pose()).collect();
                for _ in 0..8 {
                    assert!(!env.step(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]).unwrap().success);
                }
                for (body, before) in env.world().bodies().iter().zip(before) {
                    let moved_m = (body.pose().position - before.position).length();
                    assert!(moved_m < 1e-6, "{} of {} {split:?} {index}: {moved_m}", body.name, suite.name());
                }
            }
        }
    }
}

/// What solves one task solves no other of its suite, in the same scene: the words are needed.
#[test]
fn a_task_is_solved_by_its_own_expert_alone() {
    for suite in Suite::ALL {
        for (own, task) in suite.tasks().iter().enumerate() {
            let index = 200 + own as u32;
            let mut all: Vec<Env> = suite.tasks().iter().map(|task| env(task, index)).collect();
            let mut expert = Expert::new(&all[own]);
            let mut solved = vec![false; all.len()];
            // A little longer than it takes: others must not be solved by what happens last.
            let mut after = 0;
            while after < 10 && all[own].status().steps < task.step_limit {
                let action = expert.act(&all[own]);
                for (env, solved) in all.iter_mut().zip(&mut solved) {
                    *solved |= env.step(&action).unwrap().success;
                }
                after += usize::from(solved[own]);
            }
            let expected: Vec<bool> = (0..all.len()).map(|other| other == own).collect();
            assert_eq!(solved, expected, "{}", task.id);
        }
    }
}

#[test]
fn success_wants_an_open_hand_and_things_at_rest_for_a_while() {
    for task in Suite::ALL.iter().flat_map(|suite| suite.tasks()) {
        let mut env = env(task, 300);
        let mut expert = Expert::new(&env);
        let object = env.world().index(task.goals[0].object()).unwrap();
        let mut places = Vec::new();
        while !env.status().success {
            let action = expert.act(&env);
            env.step(&action).unwrap();
            let held = env.world().held().is_some();
            places.push((held, env.world().bodies()[object].pose().position));
            assert!(env.status().steps < task.step_limit, "{}", task.id);
        }
        let last = &places[places.len() - HOLD_STEPS as usize..];
        // At rest is half a millimetre a step.
        let rest = last.windows(2).all(|pair| (pair[0].1 - pair[1].1).length() < 5e-4);
        assert!(rest && last.iter().all(|(held, _)| !held), "{}: {last:?}", task.id);
    }
}

/// Columns and rows that a body covers in the front picture: those that change when it goes, without shadows.
fn seen(env: &Env, name: &str) -> (usize, usize) {
    let mut world = env.world().clone();
    world.scene.light.intensity = [0.0; 3];
    let mut renderer = Renderer::new();
    let with = renderer.render(&world).expect("a scene");
    let body = world.index(name).expect("a body of the layout");
    world.set_pose(body, Pose::at(0.0, 0.0, -9.0)).expect("a pose");
    let without = renderer.render(&world).expect("a scene");
    let width = with[0].width;
    let pixels = with[0].rgb.chunks(3).zip(without[0].rgb.chunks(3)).enumerate();
    let changed: Vec<usize> = pixels.filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
    let span = |of: &dyn Fn(usize) -> usize| changed.iter().map(|&at| of(at)).collect::<HashSet<_>>().len();
    (span(&|at| at % width), span(&|at| at / width))
}

/// What is to be moved, and what it is put on, can be seen at 96 × 96: eight columns and eight rows of it, but where the arm
/// or another thing stands before it, which one layout in twenty may.
#[test]
fn the_front_picture_shows_what_the_words_speak_of() {
    for suite in Suite::ALL {
        let (mut few, mut all) = (Vec::new(), 0);
        for index in 0..30 {
            let env = env(&suite.tasks()[0], index);
            let names: HashSet<&str> = suite
                .tasks()
                .iter()
                .flat_map(|task| task.goals)
                .flat_map(|goal| match goal {
                    Goal::On { object, support } => vec![*object, *support],
                    _ => vec![goal.object()],
                })
                .collect();
            for name in names {
                let (columns, rows) = seen(&env, name);
                all += 1;
                if columns < 8 || rows < 8 {
                    few.push((name.to_owned(), index, columns, rows));
                }
            }
        }
        println!("{}: {} of {all} things are smaller than 8 pixels: {few:?}", suite.name(), few.len());
        assert!(few.len() * 20 <= all, "{}: {few:?}", suite.name());
    }
}

/// The mean picture of each suite over twenty layouts is nearer to each of twenty other layouts than that of any other.
#[test]
fn suites_are_told_apart_by_their_first_picture() {
    let pictures = |suite: Suite, split| -> Vec<Vec<f64>> {
        let picture = |index| {
            let mut env = Env::new(&suite.tasks()[0], &options(split, index)).unwrap();
            env.observe().unwrap().images[0].rgb.iter().map(|&x| f64::from(x)).collect()
        };
        (0..20).map(picture).collect()
    };
    let mean = |pictures: &[Vec<f64>]| -> Vec<f64> {
        (0..pictures[0].len()).map(|k| pictures.iter().map(|p| p[k]).sum::<f64>() / 20.0).collect()
    };
    let means = Suite::ALL.map(|suite| mean(&pictures(suite, Split::Training)));
    for (own, suite) in Suite::ALL.into_iter().enumerate() {
        for picture in pictures(suite, Split::Final) {
            let distance =
                |mean: &[f64]| mean.iter().zip(&picture).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            let distances: Vec<f64> = means.iter().map(|mean| distance(mean)).collect();
            for (other, far) in distances.iter().enumerate().filter(|(other, _)| *other != own) {
                assert!(2.0 * distances[own] < *far, "{} and {}", suite.name(), Suite::ALL[other].name());
            }
        }
    }
}

#[test]
fn every_body_but_the_table_is_within_reach() {
    for suite in Suite::ALL {
        for index in 0..50 {
            let env = env(&suite.tasks()[0], index);
            for (number, body) in
                env.world().bodies().iter().enumerate().filter(|(number, _)| *number != TABLE)
            {
                let place = body.pose().position;
                let radius_m = (place.x - 0.0388).hypot(place.y);
                assert!((0.12..0.26).contains(&radius_m), "{number} {} {radius_m}", body.name);
            }
        }
    }
}
