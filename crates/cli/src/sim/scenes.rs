//! Random scenes and where their things are, to pretrain vision and language on.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::json;
use skillweld_store::Checkpoint;
use skillweld_suites::{ACTIONS, CHUNK, RandomScene, STATES, Suite};
use skillweld_tensor::Dtype;

use crate::arguments::ThreadCount;
use crate::console::{Console, Page, print_json};
use crate::progress::Progress;
use crate::tensor_file::{self, Tensor};
use crate::{Outcome, interrupt, output_file};

const EXAMPLES: &str = "\
Examples:
  skillweld sim scenes data/scenes --count 40000

Each scene has the things of one suite on a table of any look, and the arm somewhere on its way to lifting one. OUT/scenes-SEED.safetensors
hold up to 512 scenes each:
  images     u8    scenes × 2 × size × size × 3    front, wrist
  state      f32   scenes × 8                      as in demonstrations
  things     i64   scenes × 8                      which of OUT/things.json, or −1
  positions  f32   scenes × 8 × 3                  x, y, z in metres
  pixels     f32   scenes × 8 × 2 × 2              column and row in either picture, or −1
  lifted     i64   scenes                          which of the eight is being lifted
  actions    f32   scenes × 8 × 7                  what the expert means to do next
The same command goes on where it was interrupted.";

/// Scenes of a file.
const SCENES: u32 = 512;
/// Room for the things of a scene.
const THINGS: usize = 8;
/// Pictures of a scene.
const CAMERAS: usize = 2;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScenesArgs {
    /// A folder; what it has already stays.
    out: PathBuf,
    /// How many scenes.
    #[arg(long, value_name = "N", default_value = "512")]
    count: NonZeroU32,
    /// The first scene's seed; the others follow.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u32,
    /// Rows and columns of both pictures.
    #[arg(long, value_name = "PIXELS", default_value_t = 96)]
    image_size: usize,
    #[command(flatten)]
    threads: ThreadCount,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ScenesArgs, console: Console) -> Result<Outcome> {
    let count = args.count.get();
    ensure!(
        args.seed.checked_add(count).is_some_and(|end| end <= 1 << 30),
        "--seed and --count go beyond seed 2^30; take smaller ones"
    );
    interrupt::install()?;
    let names = names();
    output_file::write(
        &args.out.join("things.json"),
        format!("{}\n", serde_json::to_string_pretty(&names)?),
    )?;
    let progress = Progress::new(args.json);
    progress.count(count as usize, 0);
    let work = |_: &mut (), file: usize| -> Result<()> {
        let begin = file as u32 * SCENES;
        let seeds = args.seed + begin..args.seed + count.min(begin + SCENES);
        let path = args.out.join(format!("scenes-{:010}.safetensors", seeds.start));
        if path.exists() {
            let wanted = [seeds.len(), CAMERAS, args.image_size, args.image_size, 3];
            let is_it = Checkpoint::open(&path)?.get("images").is_some_and(|images| images.shape() == wanted);
            ensure!(is_it, "{} has other scenes; name another folder, or remove it", path.display());
            progress.advance(seeds.len() as u64);
            return Ok(());
        }
        let mut batch = Batch::default();
        for seed in seeds {
            if interrupt::requested() {
                return Ok(());
            }
            batch.add(&RandomScene::new(seed, args.image_size)?, &names)?;
            progress.advance(1);
        }
        batch.write(&path, args.image_size)
    };
    args.threads.get().for_each(count.div_ceil(SCENES) as usize, || (), work)?;
    ensure!(!interrupt::requested(), "interrupted: the same command goes on in {}", args.out.display());
    progress.finish();
    if args.json {
        print_json(&json!({"scenes": count, "out": args.out, "things": names}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Scenes", args.out.display());
    page.facts([("scenes", count.to_string()), ("kinds of things", names.len().to_string())]);
    page.print()?;
    Ok(Outcome::Done)
}

/// What all suites' things are called, each once.
fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Suite::ALL.into_iter().flat_map(RandomScene::names).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The scenes of a file, in the order of the help text's table.
#[derive(Default)]
struct Batch {
    count: usize,
    images: Vec<u8>,
    state: Vec<u8>,
    things: Vec<u8>,
    positions: Vec<u8>,
    pixels: Vec<u8>,
    lifted: Vec<u8>,
    actions: Vec<u8>,
}

impl Batch {
    fn add(&mut self, scene: &RandomScene, names: &[&str]) -> Result<()> {
        ensure!(
            scene.things.len() <= THINGS,
            "a scene has {} things, more than {THINGS}",
            scene.things.len()
        );
        self.count += 1;
        scene.observation.images.iter().for_each(|image| self.images.extend(&image.rgb));
        floats(&mut self.state, &scene.observation.state);
        self.lifted.extend((scene.lifted as i64).to_le_bytes());
        scene.actions.iter().for_each(|action| floats(&mut self.actions, &action.map(|x| x as f32)));
        for slot in 0..THINGS {
            let thing = scene.things.get(slot);
            let id = thing.and_then(|thing| names.iter().position(|name| *name == thing.name));
            self.things.extend(id.map_or(-1, |id| id as i64).to_le_bytes());
            floats(&mut self.positions, &thing.map_or([0.0; 3], |thing| thing.position_m));
            for camera in 0..CAMERAS {
                let pixel = thing.and_then(|thing| *thing.pixels.get(camera)?);
                floats(&mut self.pixels, &pixel.unwrap_or([-1.0; 2]));
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, size: usize) -> Result<()> {
        let count = self.count;
        let shapes = [
            &[count, CAMERAS, size, size, 3][..],
            &[count, STATES],
            &[count, THINGS],
            &[count, THINGS, 3],
            &[count, THINGS, CAMERAS, 2],
            &[count],
            &[count, CHUNK, ACTIONS],
        ];
        let values = [
            ("images", Dtype::U8, &self.images),
            ("state", Dtype::F32, &self.state),
            ("things", Dtype::I64, &self.things),
            ("positions", Dtype::F32, &self.positions),
            ("pixels", Dtype::F32, &self.pixels),
            ("lifted", Dtype::I64, &self.lifted),
            ("actions", Dtype::F32, &self.actions),
        ];
        let tensors = shapes.into_iter().zip(values);
        let tensors = tensors.map(|(shape, (name, dtype, bytes))| Tensor { name, dtype, shape, bytes });
        let tensors: Vec<_> = tensors.collect();
        tensor_file::write(path, &tensors, false)
    }
}

fn floats(out: &mut Vec<u8>, values: &[f32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
