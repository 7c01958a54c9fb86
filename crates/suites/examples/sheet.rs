//! The first and the last front picture of a scripted episode of each task, as a contact sheet in a PNG file: a row a suite.
//!
//! `cargo run --release -p skillweld-suites --example sheet -- sheet.png [wrist]`

use std::error::Error;

use skillweld_robot_sim::Image;
use skillweld_suites::{Env, EnvOptions, Expert, Suite};

/// Pixels of a picture, and how large each is on the sheet.
const SIZE: usize = 96;
const ZOOM: usize = 2;
const GAP: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "sheet.png".into());
    let camera = usize::from(std::env::args().nth(2).is_some_and(|which| which == "wrist"));
    let mut rows = Vec::new();
    for suite in Suite::ALL {
        let mut row = Vec::new();
        for (column, task) in suite.tasks().iter().enumerate() {
            // Each task in another layout: all of them are of one distribution.
            let options = EnvOptions { index: column as u32, image_size: SIZE, ..EnvOptions::default() };
            let mut env = Env::new(task, &options)?;
            row.extend(env.observe()?.images.into_iter().nth(camera));
            let mut expert = Expert::new(&env);
            while !env.status().success && env.status().steps < task.step_limit {
                env.step(&expert.act(&env))?;
            }
            row.extend(env.observe()?.images.into_iter().nth(camera));
        }
        rows.push(row);
    }
    let sheet = contact_sheet(&rows);
    let file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    let mut encoder = png::Encoder::new(file, sheet.width as u32, sheet.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&sheet.rgb)?;
    Ok(())
}

/// Pictures in rows, every pixel of them a square.
fn contact_sheet(rows: &[Vec<Image>]) -> Image {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = SIZE * ZOOM + GAP;
    let mut sheet = Image { width: columns * cell, height: rows.len() * cell, rgb: Vec::new() };
    sheet.rgb.resize(sheet.width * sheet.height * 3, 255);
    for (row, pictures) in rows.iter().enumerate() {
        for (column, picture) in pictures.iter().enumerate() {
            for y in 0..SIZE * ZOOM {
                for x in 0..SIZE * ZOOM {
                    let from = (y / ZOOM * SIZE + x / ZOOM) * 3;
                    let to = ((row * cell + y) * sheet.width + column * cell + x) * 3;
                    sheet.rgb[to..to + 3].copy_from_slice(&picture.rgb[from..from + 3]);
                }
            }
        }
    }
    sheet
}
