//! The seam between the model and the processor that runs it: the operations a forward is made of, and nothing else.
//!
//! The model's code is written once over [`Backend`]; [`Cpu`](crate::Cpu) is one. Activations are matrices, one token a
//! row. Shapes are fixed by plans that were checked against the checkpoint when it was opened, and inputs are checked
//! when they arrive, so operations may panic on shapes that do not fit: that is a defect of the model's code.

use std::ops::Range;

use half::bf16;
use ndarray::Array2;
use skillweld_linalg::Threads;

use crate::PolicyError;

/// What an operation returns.
pub type Result<T> = std::result::Result<T, PolicyError>;

/// What a weight is used for, which decides how a backend keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightKind {
    /// Multiplied with: `rows` output by `columns` input features, as PyTorch stores a linear layer.
    Matrix,
    /// The same, for layers that only [`Backend::trunk_block`] reads.
    TrunkMatrix,
    /// Rows that are looked up: embeddings, positions, learnt tokens.
    Table,
    /// A bias, a norm's gain, a LayerScale: one row, always kept in f32.
    Vector,
}

/// A matrix of activations on the backend's device.
pub trait Matrix: Sized + Send + Sync {
    /// Number of tokens.
    fn rows(&self) -> usize;
    /// Width.
    fn columns(&self) -> usize;
    /// A copy in f32.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn to_host(&self) -> Result<Array2<f32>>;
}

/// Some rows of a matrix.
#[derive(Debug)]
pub struct Rows<'a, M> {
    /// Of this matrix.
    pub matrix: &'a M,
    /// These rows.
    pub rows: Range<usize>,
}

/// Columns of a matrix from `start` on, as many as the operation needs: one of q, k and v that lie side by side.
#[derive(Debug)]
pub struct Columns<'a, M> {
    /// Of this matrix.
    pub matrix: &'a M,
    /// The first column.
    pub start: usize,
}

/// Frequencies of a rotary position embedding (arXiv 2104.09864): cos and sin, `positions` × half a head's width each.
#[derive(Debug)]
pub struct RopeTable<M> {
    /// cos(position · frequency).
    pub cos: M,
    /// sin(position · frequency).
    pub sin: M,
}

/// Which two elements of a head a rotary embedding turns together. Both read the table half-split: element j is turned
/// by the angle of column j mod half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Elements j and j + half (Qwen2, Llama).
    Halves,
    /// Elements 2i and 2i + 1 (the published action experts): each with its own column's angle, so this is not a rotation
    /// but what the weights were trained with.
    Neighbours,
}

/// What a linear layer does with its result while it is in the cache.
pub enum Then<'a, B: Backend> {
    /// Nothing.
    Keep,
    /// ½ y (1 + erf(y / √2)), exactly.
    Gelu,
    /// residual + scale ⊙ y, scale one value a column (LayerScale) or 1.
    AddTo {
        /// The residual stream, shaped as the result.
        residual: &'a B::Matrix,
        /// LayerScale.
        scale: Option<&'a B::Weight>,
    },
    /// silu(gate) ⊙ y, silu(g) = g / (1 + exp(−g)).
    SiluGate(&'a B::Matrix),
}

/// Shape of a softmax attention within sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences of equal length that lie one after the other in the rows.
    pub sequences: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; each serves heads / kv_heads neighbouring heads of queries.
    pub kv_heads: usize,
    /// Width of a head; scores are divided by its square root.
    pub head_dim: usize,
    /// A token sees itself and what stands before it.
    pub causal: bool,
}

/// Keys and values of one kind, with the queries that look for them, in a [`Backend::gated_attention`].
#[derive(Debug)]
pub struct KeyGroup<'a, M> {
    /// Queries, tokens × width.
    pub queries: &'a M,
    /// Keys, any number × width.
    pub keys: &'a M,
    /// Values, as many as keys.
    pub values: &'a M,
    /// What scores are multiplied with before the softmax over all groups: gate / √head_dim.
    pub scale: f32,
}

/// Square patches of images whose channels are the rows of a matrix, pixels row by row in the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGrid {
    /// Number of images.
    pub images: usize,
    /// Rows that an image takes.
    pub channels_per_image: usize,
    /// Which of them are read.
    pub first_channel: usize,
    /// How many are read.
    pub channels: usize,
    /// Side of an image in pixels.
    pub image_side: usize,
    /// Side of a patch in pixels.
    pub patch_side: usize,
}

impl PatchGrid {
    /// Patches of one image.
    pub fn patches(&self) -> usize {
        (self.image_side / self.patch_side).pow(2)
    }

    /// Values of one patch.
    pub fn patch_len(&self) -> usize {
        self.channels * self.patch_side.pow(2)
    }
}

/// The layers of an action expert's block that come after its attention, each a weight and a bias.
#[derive(Debug)]
pub struct TrunkBlock<'a, W> {
    /// Linear layer that brings the attention's result back to the trunk.
    pub out: (&'a W, &'a W),
    /// Gain and bias of the norm before the feed-forward layer.
    pub norm: (&'a W, &'a W),
    /// Its ε.
    pub epsilon: f32,
    /// The feed-forward layer.
    pub feed_forward: (&'a W, &'a W),
}

/// Room for values of a weight, in the precision that it is kept in.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// In f32.
    F32(&'a mut [f32]),
    /// In bf16; what is wider is rounded once, to nearest, ties to even.
    Bf16(&'a mut [bf16]),
}

/// Fills the room with the elements of weight number `index` from element `offset` on, flattened row by row.
pub type ReadBlock<'a> = dyn Fn(usize, usize, ValuesMut<'_>) -> Result<()> + Sync + 'a;

/// A part of a forward that is done over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// The vision towers.
    Vision,
    /// The projector.
    Projector,
    /// The language model.
    Language,
    /// The action expert of this number.
    Expert(usize),
}

/// A processor that runs models.
///
/// Every operation returns a new matrix; backends keep the memory of dropped ones for the next.
pub trait Backend: Send + Sync + Sized {
    /// A weight on the device.
    type Weight: Send + Sync;
    /// Activations on the device.
    type Matrix: Matrix;
    /// The few rows that run through all blocks of an action expert. A norm in every block and no residual around it
    /// amplify a rounding error a hundredfold from the first block to the last, so they may be kept more precisely.
    type Trunk: Send;

    /// Room for a weight, its values not yet said.
    ///
    /// # Errors
    /// When the device has none.
    fn allocate(&self, kind: WeightKind, rows: usize, columns: usize) -> Result<Self::Weight>;

    /// Overwrites `weights` in place, in blocks and in parallel, with what `read` gives; each value is rounded once.
    ///
    /// # Errors
    /// Whatever `read` fails with; weights are then partly written.
    fn write(&self, weights: &mut [&mut Self::Weight], read: &ReadBlock<'_>) -> Result<()>;

    /// Host values, row by row, as a matrix.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn upload(&self, rows: usize, columns: usize, values: &[f32]) -> Result<Self::Matrix>;

    /// Waits until everything asked for so far is computed: for clocks.
    ///
    /// # Errors
    /// Whatever the device reports.
    fn synchronize(&self) -> Result<()>;

    /// What `work` gives. It may be recorded the first times, and asked for again with one call afterwards: so `work` must
    /// ask for the same operations whenever `what` is the same and the inputs are of the same shapes, must read no other
    /// matrices than the inputs and weights, and may ask for no [`Backend::upload`] and read nothing back.
    ///
    /// # Errors
    /// Whatever `work` fails with, and whatever the device refuses.
    fn repeated(
        &self,
        what: Repeated,
        inputs: &[&Self::Matrix],
        work: &dyn Fn() -> Result<Vec<Self::Matrix>>,
    ) -> Result<Vec<Self::Matrix>> {
        let _ = (what, inputs);
        work()
    }

    /// How many forwards are best under way side by side: a batch of observations is cut into so many.
    fn side_by_side(&self) -> Threads {
        Threads::ONE
    }

    /// x · Wᵀ + bias, then what `then` says.
    ///
    /// # Errors
    /// Whatever the device refuses, as of every operation below.
    fn linear(
        &self,
        x: &Self::Matrix,
        weight: &Self::Weight,
        bias: Option<&Self::Weight>,
        then: Then<'_, Self>,
    ) -> Result<Self::Matrix>;

    /// (x − mean) / √(variance + ε) ⊙ gain + bias over each row.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn layer_norm(
        &self,
        x: &Self::Matrix,
        gain: &Self::Weight,
        bias: &Self::Weight,
        epsilon: f32,
    ) -> Result<Self::Matrix>;

    /// x / √(mean(x²) + ε) ⊙ gain over each row.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn rms_norm(&self, x: &Self::Matrix, gain: &Self::Weight, epsilon: f32) -> Result<Self::Matrix>;

    /// Turns every head of every row in place, row r by position r.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn rope(&self, x: &mut Self::Matrix, table: &RopeTable<Self::Matrix>, pairing: Pairing) -> Result<()>;

    /// softmax(q kᵀ / √head_dim) v for each head of each sequence: rows × (heads · head_dim).
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn attention(
        &self,
        queries: Columns<'_, Self::Matrix>,
        keys: Columns<'_, Self::Matrix>,
        values: Columns<'_, Self::Matrix>,
        shape: AttentionShape,
    ) -> Result<Self::Matrix>;

    /// One softmax over the keys of all groups, each with its own queries and scale: MergeVLA's cross-attention to action
    /// and task tokens. Rows of the queries × width.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn gated_attention(&self, groups: &[KeyGroup<'_, Self::Matrix>], heads: usize) -> Result<Self::Matrix>;

    /// `rows` rows, all with these values.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn trunk_start(&self, rows: usize, values: &[f32]) -> Result<Self::Trunk>;

    /// The rows, rounded to a matrix.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn trunk_read(&self, trunk: &Self::Trunk) -> Result<Self::Matrix>;

    /// ReLU(feed_forward(norm(x + out(attended)))): what an action expert's block does after its attention.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn trunk_block(
        &self,
        x: &mut Self::Trunk,
        attended: &Self::Matrix,
        block: TrunkBlock<'_, Self::Weight>,
    ) -> Result<()>;

    /// One row a patch, images one after the other, patches row by row; in a row channel, then row, then column, as a
    /// convolution's weight flattens.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn patches(&self, pixels: &Self::Matrix, grid: PatchGrid) -> Result<Self::Matrix>;

    /// Row `indices[i]` of a table in row i.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn gather(&self, table: &Self::Weight, indices: &[u32]) -> Result<Self::Matrix>;

    /// Rows one below the other.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn concat_rows(&self, parts: &[Rows<'_, Self::Matrix>]) -> Result<Self::Matrix>;

    /// Matrices side by side.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn concat_columns(&self, parts: &[&Self::Matrix]) -> Result<Self::Matrix>;
}
