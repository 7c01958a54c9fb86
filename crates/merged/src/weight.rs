use half::bf16;
use skillweld_simd::vectorize;
use skillweld_tensor::{
    Dtype, TensorError, TensorView, apply_mask, apply_mask_bf16, apply_mask_bf16_narrow, convert, rounding,
};

use crate::Mask;

/// One tensor of the model, for all tasks.
#[derive(Debug, Clone, Copy)]
pub enum Weight<'a> {
    /// The same for every task: untouched, averaged, or merged without masks.
    Shared(TensorView<'a>),
    /// Θ₀ + rescaler · M ⊙ τ, another for each task.
    Masked {
        /// Θ₀.
        base: TensorView<'a>,
        /// τ, of the same shape.
        vector: TaskVector<'a>,
    },
}

/// The merged task vector τ of one tensor.
#[derive(Debug, Clone, Copy)]
pub enum TaskVector<'a> {
    /// τ itself.
    Stored(TensorView<'a>),
    /// Θ₀ + τ: τ is what remains when Θ₀ is subtracted.
    Difference(TensorView<'a>),
}

/// One tensor of one task's model.
#[derive(Debug, Clone, Copy)]
pub struct TaskWeight<'a> {
    /// What all tasks have in common.
    pub weight: Weight<'a>,
    /// The task's mask; `None` keeps every element.
    pub mask: Option<Mask<'a>>,
    /// What the masked task vector is multiplied with.
    pub rescaler: f32,
}

/// Buffers of one worker; they grow to the longest block.
#[derive(Debug, Default)]
pub struct Scratch {
    base: Vec<f32>,
    vector: Vec<f32>,
    values: Vec<f32>,
    bits: Vec<u8>,
}

impl<'a> Weight<'a> {
    /// The view that has the dtype and shape of every task's tensor.
    pub fn stored(&self) -> TensorView<'a> {
        match self {
            Weight::Shared(view) | Weight::Masked { base: view, .. } => *view,
        }
    }
}

impl TaskVector<'_> {
    /// Elements `offset .. offset + out.len()` of τ; `base` holds the same elements of Θ₀.
    ///
    /// # Errors
    /// [`TensorError::NotComputable`] for dtypes without arithmetic.
    ///
    /// # Panics
    /// When the range reaches past the end.
    pub fn decode_block(&self, offset: usize, base: &[f32], out: &mut [f32]) -> Result<(), TensorError> {
        match self {
            TaskVector::Stored(view) => view.decode_block(offset, out)?,
            TaskVector::Difference(view) => view.decode_difference(offset, base, out)?,
        };
        Ok(())
    }
}

impl TaskWeight<'_> {
    /// Element type, also of Θ₀.
    pub fn dtype(&self) -> Dtype {
        self.weight.stored().dtype()
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.weight.stored().shape()
    }

    /// Elements `offset .. offset + out.len()` in f32.
    ///
    /// # Errors
    /// [`TensorError::NotComputable`] for dtypes without arithmetic.
    ///
    /// # Panics
    /// When the range reaches past the end, or `offset` is no multiple of 8.
    pub fn decode_block(
        &self,
        offset: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), TensorError> {
        let (base, vector) = match &self.weight {
            Weight::Shared(view) => return view.decode_block(offset, out).map(|_| ()),
            Weight::Masked { base, vector } => (base, vector),
        };
        let Scratch { base: base_values, vector: vector_values, bits, .. } = scratch;
        if let Some((base, vector, mask)) = self.all_bf16(offset, out.len()) {
            let bits = mask.bits(offset..offset + out.len(), bits);
            apply_mask_bf16(base, vector, bits, self.rescaler, out);
            return Ok(());
        }
        let base_values = sized(base_values, out.len());
        let vector_values = sized(vector_values, out.len());
        base.decode_block(offset, base_values)?;
        vector.decode_block(offset, base_values, vector_values)?;
        match &self.mask {
            Some(mask) => {
                let bits = mask.bits(offset..offset + out.len(), bits);
                apply_mask(base_values, vector_values, bits, self.rescaler, out);
            }
            None => add_scaled(base_values, vector_values, self.rescaler, out),
        }
        Ok(())
    }

    /// The same elements rounded once to bf16, to nearest, ties to even.
    ///
    /// # Errors
    /// As [`TaskWeight::decode_block`].
    ///
    /// # Panics
    /// As [`TaskWeight::decode_block`].
    pub fn decode_block_bf16(
        &self,
        offset: usize,
        out: &mut [bf16],
        scratch: &mut Scratch,
    ) -> Result<(), TensorError> {
        if let Weight::Shared(view) = &self.weight {
            return view.decode_block_bf16(offset, out);
        }
        if let Some((base, vector, mask)) = self.all_bf16(offset, out.len()) {
            let bits = mask.bits(offset..offset + out.len(), &mut scratch.bits);
            apply_mask_bf16_narrow(base, vector, bits, self.rescaler, out);
            return Ok(());
        }
        let mut values = std::mem::take(&mut scratch.values);
        let result = self.decode_block(offset, sized(&mut values, out.len()), scratch);
        rounding::to_bf16(&values, out);
        scratch.values = values;
        result
    }

    /// A block's bytes of Θ₀ and of τ, and the mask, where all of it is bf16 and masked: the form that is decoded fastest.
    fn all_bf16(&self, offset: usize, len: usize) -> Option<(&[u8], &[u8], &Mask<'_>)> {
        let Weight::Masked { base, vector: TaskVector::Stored(vector) } = &self.weight else { return None };
        let place = 2 * offset..2 * (offset + len);
        let bf16 = [base.dtype(), vector.dtype()] == [Dtype::BF16; 2];
        let mask = self.mask.as_ref().filter(|_| bf16)?;
        Some((&base.bytes()[place.clone()], &vector.bytes()[place], mask))
    }

    /// The same elements as bytes of [`TaskWeight::dtype`], rounded once. What the task vector does not touch keeps its
    /// bits. Gives the number of elements that are NaN or infinite.
    ///
    /// # Errors
    /// As [`TaskWeight::decode_block`].
    ///
    /// # Panics
    /// As [`TaskWeight::decode_block`], and when `out` does not hold `len` elements.
    pub fn encode_block(
        &self,
        offset: usize,
        len: usize,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<u64, TensorError> {
        let mut values = std::mem::take(&mut scratch.values);
        let result = self.encode_through(offset, sized(&mut values, len), out, scratch);
        scratch.values = values;
        result
    }

    fn encode_through(
        &self,
        offset: usize,
        values: &mut [f32],
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<u64, TensorError> {
        let dtype = self.dtype();
        self.decode_block(offset, values, scratch)?;
        convert::encode(dtype, values, out)?;
        if let (Dtype::F64, Some(mask)) = (dtype, &self.mask) {
            // f32 does not hold every f64: what the mask drops is taken from Θ₀ itself.
            let base = &self.weight.stored().bytes()[offset * 8..];
            let bits = mask.bits(offset..offset + values.len(), &mut scratch.bits);
            for (i, element) in out.chunks_exact_mut(8).enumerate() {
                if bits[i / 8] >> (i % 8) & 1 == 0 {
                    element.copy_from_slice(&base[8 * i..][..8]);
                }
            }
        }
        // Rounding may overflow, so what is counted is what was written.
        if convert::decode(dtype, out, values)? {
            return Ok(0);
        }
        Ok(values.iter().filter(|value| !value.is_finite()).count() as u64)
    }
}

/// Makes room for `len` values and gives exactly those.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

vectorize! {
    /// out\[i\] = base\[i\] + scale · τ\[i\].
    fn add_scaled(base: &[f32], vector: &[f32], scale: f32, out: &mut [f32]) {
        for ((o, b), v) in out.iter_mut().zip(base).zip(vector) {
            *o = b + scale * v;
        }
    }
}
