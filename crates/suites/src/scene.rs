//! Scenes to learn seeing from: things of all suites before tables of any look, and where each thing is.

use skillweld_robot_sim::{Body, Random, Renderer, Vec3};

use crate::controller::ACTIONS;
use crate::env::{Env, EnvOptions, Observation};
use crate::error::SuiteError;
use crate::expert::Expert;
use crate::expert::motion::wait;
use crate::goal::Goal;
use crate::perturbation::repaint;
use crate::setup::Setup;
use crate::split::Split;
use crate::suite::Suite;

/// Layouts from here on are for these scenes alone; demonstrations and evaluations take the first of their split.
const FIRST_LAYOUT: u32 = 1 << 30;
/// Of the hand, so that moments off the straight way are among them.
const NOISE: f64 = 0.2;
/// What is not lifted after so many control steps is let be.
const MOST_STEPS: u32 = 90;
/// A thing that is up so far is lifted, in metres, and held still from then on.
const LIFTED_M: f64 = 0.02;
/// So many control steps of holding may be over.
const HELD: u32 = 5;

/// Actions that a scene says.
pub const CHUNK: usize = 8;

/// One moment of a random scene: the things of a suite, on a table that looks like any suite's or like none, while the arm
/// lifts one of them. Lifting is no task of a suite, only what many of them begin with.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomScene {
    /// Whose things they are.
    pub suite: Suite,
    /// What both cameras and the arm tell.
    pub observation: Observation,
    /// All that instructions speak of.
    pub things: Vec<Thing>,
    /// Which of them is being lifted.
    pub lifted: usize,
    /// What the scripted expert means to do in the next control steps, as in demonstrations.
    pub actions: [[f64; ACTIONS]; CHUNK],
}

/// A thing that can be pointed at.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    /// What instructions call it, without an article.
    pub name: &'static str,
    /// Its middle, or that of a drawer's handle, in the arm's frame in metres.
    pub position_m: [f32; 3],
    /// Column and row in each picture, from 0 to `image_size`; none where it is out of the picture.
    pub pixels: Vec<Option<[f32; 2]>>,
}

impl RandomScene {
    /// What a suite's things are called.
    pub fn names(suite: Suite) -> impl Iterator<Item = &'static str> {
        suite.names().iter().map(|&(_, name)| name)
    }

    /// The scene of a seed, below 2³⁰, in pictures of `image_size` × `image_size`.
    ///
    /// # Errors
    /// [`SuiteError::Sim`] for impossible picture sizes.
    pub fn new(seed: u32, image_size: usize) -> Result<Self, SuiteError> {
        let mut random = Random::new(u64::from(seed).wrapping_add(1 << 60));
        let mut pick = |count: usize| (random.bits() % count as u64) as usize;
        let suite = Suite::ALL[pick(Suite::ALL.len())];
        let look = Suite::ALL[pick(Suite::ALL.len())].look(image_size);
        let (liftable, support) = liftable(suite);
        let object = liftable[pick(liftable.len())];
        let index = FIRST_LAYOUT.saturating_add(seed);
        let options = EnvOptions { split: Split::Training, index, image_size, ..EnvOptions::default() };
        let task = &suite.tasks()[0];
        let mut setup = Setup::new(task, &options)?;
        setup.scene.table.surface = look.table.surface;
        (setup.scene.light, setup.scene.background) = (look.light, look.background);
        repaint(&mut random, &mut setup);
        let goal = Goal::On { object, support };
        let hand = random.bits();
        // Once to see how long it takes, once more to a moment before that.
        let mut whole = Lifting::begin(Env::begin(task, setup.clone())?, goal, hand)?;
        while whole.env.status().steps < MOST_STEPS && !whole.is_up {
            whole.step()?;
        }
        let steps = random.uniform(0.0, f64::from(whole.env.status().steps + HELD)) as u32;
        let mut lifting = Lifting::begin(Env::begin(task, setup)?, goal, hand)?;
        for _ in 0..steps {
            lifting.step()?;
        }
        let names = || suite.names().iter();
        let things = names().filter_map(|&(body, name)| thing(&lifting.env, body, name)).collect();
        let lifted = names().position(|(body, _)| *body == object).unwrap_or_default();
        let observation = lifting.env.observe()?;
        let mut actions = [[0.0; ACTIONS]; CHUNK];
        for intended in &mut actions {
            *intended = lifting.step()?;
        }
        Ok(Self { suite, observation, things, lifted, actions })
    }
}

/// The beginning of putting a thing somewhere: until it is up.
struct Lifting {
    env: Env,
    expert: Expert,
    object: usize,
    up_m: f64,
    is_up: bool,
}

impl Lifting {
    fn begin(env: Env, goal: Goal, hand: u64) -> Result<Self, SuiteError> {
        let object = env.world().index(goal.object())?;
        let up_m = env.world().bodies()[object].bottom_m() + LIFTED_M;
        Ok(Self { env, expert: Expert::towards(&[goal], NOISE, hand), object, up_m, is_up: false })
    }

    /// One control step, and what was meant by it.
    fn step(&mut self) -> Result<[f64; ACTIONS], SuiteError> {
        let (action, intended) = match self.is_up {
            true => (wait(true), wait(true)),
            false => (self.expert.act(&self.env), self.expert.intended()),
        };
        self.env.step(&action)?;
        self.is_up |= self.env.world().bodies()[self.object].bottom_m() >= self.up_m;
        Ok(intended)
    }
}

/// Bodies that tasks of a suite move and that are not fixed to anything, and one on which such a body could be put.
fn liftable(suite: Suite) -> (Vec<&'static str>, &'static str) {
    let goals = || suite.tasks().iter().flat_map(|task| task.goals);
    let moved = goals().filter(|goal| !matches!(goal, Goal::Open { .. }));
    let mut bodies: Vec<&str> = moved.map(Goal::object).collect();
    bodies.sort_unstable();
    bodies.dedup();
    let support = goals().find_map(|goal| match goal {
        Goal::On { support, .. } => Some(*support),
        _ => None,
    });
    (bodies, support.unwrap_or_default())
}

fn thing(env: &Env, body: &str, name: &'static str) -> Option<Thing> {
    let world = env.world();
    let position = match (world.index(body), env.zone(body)) {
        (Ok(index), _) => middle(&world.bodies()[index], name),
        (_, Some(zone)) => Vec3 { x: zone.mark.centre_m[0], y: zone.mark.centre_m[1], z: 0.0 },
        _ => return None,
    };
    let pixel = |camera| {
        let [column, row, _] = Renderer::locate(world, camera, position)?;
        Some([column as f32, row as f32])
    };
    let pixels = (0..world.scene.cameras.len()).map(pixel).collect();
    let position_m = [position.x, position.y, position.z].map(|x| x as f32);
    Some(Thing { name, position_m, pixels })
}

/// What one points at: of a drawer its handle.
fn middle(body: &Body, name: &str) -> Vec3 {
    let handle = (name == "drawer").then(|| body.parts.last()).flatten();
    handle.map_or(body.pose().position, |handle| (body.pose() * handle.pose).position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// A seed is a scene; its things are named once, stand on the table, and are seen from the front unless the arm has
        /// carried them off.
        #[test]
        fn scenes_are_of_their_seed(seed in 0u32..1 << 30) {
            let scene = RandomScene::new(seed, 32).unwrap();
            prop_assert_eq!(&scene, &RandomScene::new(seed, 32).unwrap());
            prop_assert_eq!(scene.things.len(), scene.suite.names().len());
            for thing in &scene.things {
                prop_assert!(thing.position_m[2] > -0.001 && thing.position_m[2] < 0.4, "{:?}", thing);
                prop_assert_eq!(thing.pixels.len(), 2);
            }
            let seen = scene.things.iter().filter(|thing| thing.pixels[0].is_some()).count();
            prop_assert!(seen + 1 >= scene.things.len(), "{:?}", scene.things);
            prop_assert!(scene.lifted < scene.things.len());
            prop_assert!(scene.actions.iter().flatten().all(|x| (-1.0..=1.0).contains(x)));
        }
    }

    /// All parts of lifting are there: on the way, with the fingers closing, and holding.
    #[test]
    fn things_are_lifted() {
        let scenes: Vec<RandomScene> = (0..60).map(|seed| RandomScene::new(seed, 8).unwrap()).collect();
        let up = scenes.iter().filter(|s| s.things[s.lifted].position_m[2] > 0.04).count();
        let closed = scenes.iter().filter(|s| s.actions[0][6] > 0.0).count();
        let moving = scenes.iter().filter(|s| s.actions[0][..6].iter().any(|x| x.abs() > 0.1)).count();
        assert!(up >= 5 && (10..50).contains(&closed) && moving >= 30, "{up} {closed} {moving}");
    }

    /// The pixel of a red thing is red, but where the arm hides it.
    #[test]
    fn pixels_are_where_the_thing_is_drawn() {
        let (mut all, mut red) = (0, 0);
        for seed in 0..60 {
            let scene = RandomScene::new(seed, 96).unwrap();
            let Some(can) = scene.things.iter().find(|thing| thing.name == "red can") else { continue };
            let Some([column, row]) = can.pixels[0] else { continue };
            let image = &scene.observation.images[0];
            let at = 3 * (row as usize * image.width + column as usize);
            let [r, g, b] = [0, 1, 2].map(|channel| i32::from(image.rgb[at + channel]));
            all += 1;
            red += i32::from(r > g + 40 && r > b + 40);
        }
        assert!(all >= 20 && 4 * red >= 3 * all, "{red} of {all}");
    }
}
