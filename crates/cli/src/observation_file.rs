//! One observation in a safetensors file, as `predict` and `route` take it.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array3, Ix3};
use skillweld_policy::Observation;
use skillweld_store::Checkpoint;
use skillweld_tensor::{Dtype, TensorView};

/// What IN may hold, for help texts.
pub(crate) const FORMS: &str = "\
IN holds either what a robot gives: image_0, image_1, … (U8, height × width × 3), state, and in the file's metadata
`prompt`; or what the model takes: pixel_values, input_ids, proprio (normalised).";

/// Reads either form.
pub(crate) fn read(path: &Path) -> Result<Observation> {
    let file = Checkpoint::open(path)?;
    let observation = if file.get("pixel_values").is_some() { prepared(&file) } else { raw(&file) };
    observation.with_context(|| path.display().to_string())
}

fn prepared(file: &Checkpoint) -> Result<Observation> {
    let pixel_values = tensor(file, "pixel_values")?.to_f32().context("pixel_values")?;
    // A batch of one, as PyTorch has it.
    let shape: Vec<usize> = match pixel_values.shape() {
        [1, rest @ ..] if rest.len() == 3 => rest.to_vec(),
        shape => shape.to_vec(),
    };
    let expected = || format!("pixel_values: shape {shape:?}, expected channels × height × width");
    let pixel_values = pixel_values.into_shape_with_order(shape.clone()).with_context(expected)?;
    let pixel_values = pixel_values.into_dimensionality::<Ix3>().with_context(expected)?;
    let input_ids = integers("input_ids", &tensor(file, "input_ids")?)?;
    Ok(Observation::Prepared { pixel_values, input_ids, proprio: numbers(file, "proprio")? })
}

fn raw(file: &Checkpoint) -> Result<Observation> {
    let mut images = Vec::new();
    for name in image_names(file)? {
        let view = tensor(file, &name)?;
        let &[height, width, 3] = view.shape() else {
            bail!("{name}: shape {:?}, expected height × width × 3", view.shape());
        };
        ensure!(view.dtype() == Dtype::U8, "{name}: {}, expected U8", view.dtype());
        images.push(Array3::from_shape_vec((height, width, 3), view.bytes().to_vec())?);
    }
    ensure!(!images.is_empty(), "holds neither `image_0` nor `pixel_values`; {}", FORMS.replace('\n', " "));
    let state = numbers(file, "state")?.into_iter().map(f64::from).collect();
    let instruction =
        file.metadata().get("prompt").context("its metadata lacks `prompt`, the instruction")?;
    Ok(Observation::Raw { images, state, instruction: instruction.clone() })
}

/// `image_0`, `image_1`, … as many as there are, without a gap.
fn image_names(file: &Checkpoint) -> Result<Vec<String>> {
    let count = file.keys().filter(|key| key.starts_with("image_")).count();
    let names: Vec<String> = (0..count).map(|index| format!("image_{index}")).collect();
    if let Some(missing) = names.iter().find(|name| file.get(name).is_none()) {
        let there = file.keys().filter(|key| key.starts_with("image_")).collect::<Vec<_>>().join(", ");
        bail!("lacks `{missing}`: images are numbered from 0 without a gap, there are {there}");
    }
    Ok(names)
}

fn tensor<'a>(file: &'a Checkpoint, name: &str) -> Result<TensorView<'a>> {
    file.get(name).with_context(|| format!("lacks `{name}`"))
}

fn numbers(file: &Checkpoint, name: &str) -> Result<Vec<f32>> {
    let values = tensor(file, name)?.to_f32().with_context(|| name.to_owned())?;
    Ok(values.into_iter().collect())
}

fn integers(name: &str, view: &TensorView<'_>) -> Result<Vec<u32>> {
    let size = view.dtype().bits() / 8;
    ensure!(
        matches!(view.dtype(), Dtype::I64 | Dtype::I32 | Dtype::U32),
        "{name}: {}, expected integers (I64, I32 or U32)",
        view.dtype()
    );
    let number = |(index, bytes): (usize, &[u8])| {
        let value = match (view.dtype(), bytes) {
            (Dtype::I64, &[a, b, c, d, e, f, g, h]) => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
            (Dtype::I32, &[a, b, c, d]) => i64::from(i32::from_le_bytes([a, b, c, d])),
            (_, &[a, b, c, d]) => i64::from(u32::from_le_bytes([a, b, c, d])),
            _ => -1,
        };
        u32::try_from(value).with_context(|| format!("{name}: {value} at {index} is no token"))
    };
    view.bytes().chunks_exact(size).enumerate().map(number).collect()
}
