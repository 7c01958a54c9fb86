//! `skillweld preprocess`.

use std::path::PathBuf;

use anyhow::Result;
use skillweld_policy::image::{Normalization, Preprocessor, read_image};
use skillweld_tensor::{Dtype, convert};

use crate::Outcome;
use crate::console::{Console, Page};
use crate::tensor_file::{self, Tensor};

const EXAMPLES: &str = "\
Examples:
  skillweld preprocess camera.png --output camera.safetensors

Python reads it with safetensors.numpy.load_file(\"camera.safetensors\")[\"pixel_values\"].
A LIBERO camera is upside down: rotate its image by 180 degrees before.";

/// Prepare one camera image as the published DINOv2 + SigLIP models see it.
///
/// JPEG round trip and Lanczos-3 to 224 × 224 (unless the image has that size), centre crop of 0.9 of the area, then
/// DINOv2's and SigLIP's normalisation: `pixel_values`, F32, 6 × 224 × 224. The same as TensorFlow gives, so that a
/// robot's own preparation can be compared with it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A PNG or JPEG image of any size.
    image: PathBuf,
    /// The safetensors file to write.
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
}

/// Pixels along each side of the published models' images.
const PUBLISHED_SIZE: usize = 224;

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    tensor_file::check(&args.output, args.force)?;
    let image = read_image(&args.image)?;
    let preprocessor = Preprocessor::new(PUBLISHED_SIZE, vec![Normalization::IMAGENET, Normalization::HALF]);
    let pixel_values = preprocessor.pixel_values(&[image.view()])?;
    let values: Vec<f32> = pixel_values.iter().copied().collect();
    let mut bytes = vec![0; values.len() * size_of::<f32>()];
    convert::encode(Dtype::F32, &values, &mut bytes)?;
    let shape = pixel_values.shape();
    let tensor = Tensor { name: "pixel_values", dtype: Dtype::F32, shape, bytes: &bytes };
    tensor_file::write(&args.output, &[tensor], args.force)?;

    let (height, width, _) = image.dim();
    let mut page = Page::new(console);
    page.facts([
        ("image", format!("{width} × {height} pixels")),
        ("pixel_values", format!("F32 {} × {} × {}", shape[0], shape[1], shape[2])),
        ("written", format!("into {}", args.output.display())),
    ]);
    page.print()?;
    Ok(Outcome::Done)
}
