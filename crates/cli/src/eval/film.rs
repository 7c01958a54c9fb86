//! Rollouts to look at: a GIF of all trials side by side, or a contact sheet.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use skillweld_eval::Trial;
use skillweld_suites::{Env, Image};

use super::arguments::Subject;
use super::policies;
use crate::console::Console;
use crate::progress::Progress;
use crate::{Outcome, interrupt, output_file};

const EXAMPLES: &str = "\
Examples:
  skillweld eval film merged --episodes 1 --out rollouts.gif          a layout of every task, side by side
  skillweld eval film merged --suite goal --episodes 2 --out goal.png a contact sheet: a row a trial

A green frame is a task that was done, a red one a task that was not.";

/// Every so many control steps a picture: ten a second.
const EVERY: u32 = 2;
/// Hundredths of a second that a picture stays.
const DELAY_CS: u16 = 10;
/// Pictures that the end stays for.
const LAST: usize = 12;
/// Moments of a trial on a contact sheet.
const MOMENTS: usize = 8;
/// How often a pixel is repeated along both sides, and the width of frames around pictures in pixels.
const ZOOM: usize = 2;
const BORDER: usize = 3;
/// Trials in a row of a GIF.
const COLUMNS: usize = 5;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FilmArgs {
    #[command(flatten)]
    subject: Subject,
    /// What to write: OUT.gif or OUT.png.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
}

/// The front pictures of a trial.
struct Film {
    pictures: Vec<Image>,
    success: bool,
}

pub(super) fn run(args: &FilmArgs, console: Console) -> Result<Outcome> {
    let ending = args.out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ensure!(matches!(ending, "gif" | "png"), "{} must be named OUT.gif or OUT.png", args.out.display());
    output_file::check(&args.out, ending, args.force)?;
    let trials = args.subject.trials()?;
    policies::open(&args.subject, console, |policies::Policies { mut sources, rollout }| {
        interrupt::install()?;
        let progress = Progress::new(false);
        progress.count(trials.len(), 0);
        let pictures = Mutex::new(HashMap::<Trial, Vec<Image>>::new());
        let watch = |trial: &Trial, env: &mut Env| {
            if env.status().steps.is_multiple_of(EVERY) || env.status().success {
                let picture = env.observe()?.images.into_iter().next();
                let mut pictures = pictures.lock().unwrap_or_else(PoisonError::into_inner);
                pictures.entry(trial.clone()).or_default().extend(picture);
            }
            Ok(())
        };
        let mut done = HashSet::new();
        rollout.run_all(&trials, &mut sources, args.subject.skill.as_deref(), watch, |result| {
            progress.message(result.trial.to_string());
            if result.success {
                done.insert(result.trial);
            }
            progress.advance(1);
            Ok(if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        ensure!(!interrupt::requested(), "interrupted: nothing is written");
        progress.finish();
        let mut pictures = pictures.into_inner().unwrap_or_else(PoisonError::into_inner);
        let film = |trial: &Trial| Film {
            pictures: pictures.remove(trial).unwrap_or_default(),
            success: done.contains(trial),
        };
        let films: Vec<Film> = trials.iter().map(film).collect();
        let bytes = if ending == "gif" { gif(&films)? } else { png(&contact_sheet(&films))? };
        output_file::write(&args.out, bytes)?;
        let (succeed, all) = (done.len(), films.len());
        console.note(&format!("{succeed} of {all} trials succeed; {}", args.out.display()));
        Ok(Outcome::Done)
    })
}

impl Film {
    /// The picture of a moment; the last one, in a frame of the result's colour, from the end on.
    fn draw(&self, moment: usize, on: &mut Image, column: usize, row: usize) {
        let Some(picture) = self.pictures.get(moment).or(self.pictures.last()) else { return };
        let over = moment + 1 >= self.pictures.len();
        let frame = match (over, self.success) {
            (false, _) => [255, 255, 255],
            (true, true) => [46, 160, 67],
            (true, false) => [207, 34, 46],
        };
        let (wide, high) = cell(picture);
        for y in 0..high {
            for x in 0..wide {
                let inside = |at: usize, size: usize| at.checked_sub(BORDER).filter(|at| *at < ZOOM * size);
                let color = match (inside(x, picture.width), inside(y, picture.height)) {
                    (Some(x), Some(y)) => {
                        let from = 3 * (y / ZOOM * picture.width + x / ZOOM);
                        [picture.rgb[from], picture.rgb[from + 1], picture.rgb[from + 2]]
                    }
                    _ => frame,
                };
                let to = 3 * ((row * high + y) * on.width + column * wide + x);
                on.rgb[to..to + 3].copy_from_slice(&color);
            }
        }
    }
}

/// Pixels of a picture with its frame.
fn cell(picture: &Image) -> (usize, usize) {
    (ZOOM * picture.width + 2 * BORDER, ZOOM * picture.height + 2 * BORDER)
}

/// White, with room for so many pictures.
fn canvas(films: &[Film], columns: usize, rows: usize) -> Image {
    let (wide, high) = films.iter().find_map(|film| film.pictures.first()).map_or((1, 1), cell);
    let (width, height) = (columns * wide, rows * high);
    Image { width, height, rgb: vec![255; 3 * width * height] }
}

fn contact_sheet(films: &[Film]) -> Image {
    let mut sheet = canvas(films, MOMENTS, films.len());
    for (row, film) in films.iter().enumerate() {
        let last = film.pictures.len().saturating_sub(1);
        for column in 0..MOMENTS {
            film.draw(column * last / (MOMENTS - 1), &mut sheet, column, row);
        }
    }
    sheet
}

fn png(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width as u32, image.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&image.rgb)?;
    Ok(bytes)
}

fn gif(films: &[Film]) -> Result<Vec<u8>> {
    let columns = films.len().clamp(1, COLUMNS);
    let mut picture = canvas(films, columns, films.len().div_ceil(columns));
    let side = |size: usize| u16::try_from(size).context("too many trials for a GIF; film fewer");
    let (width, height) = (side(picture.width)?, side(picture.height)?);
    let moments = films.iter().map(|film| film.pictures.len()).max().unwrap_or(0) + LAST;
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, &[])?;
    encoder.set_repeat(gif::Repeat::Infinite)?;
    for moment in 0..moments {
        for (index, film) in films.iter().enumerate() {
            film.draw(moment, &mut picture, index % columns, index / columns);
        }
        let mut frame = gif::Frame::from_rgb_speed(width, height, &picture.rgb, 20);
        frame.delay = DELAY_CS;
        encoder.write_frame(&frame)?;
    }
    drop(encoder);
    Ok(bytes)
}
