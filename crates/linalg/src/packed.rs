use half::bf16;
use ndarray::{Array2, ArrayView2, s};
use skillweld_tensor::Dtype;

use crate::LinalgError;
use crate::aligned::Aligned;
use crate::kernels::{COLUMNS, Element, Kernel, PANELS_TOGETHER, Place, pack_panel, panel_index};

/// A weight W, `out_features` × `in_features` as PyTorch stores it, in the order in which products read it.
///
/// In memory it takes what the weight takes, with `out_features` rounded up to 32 and, in bf16, `in_features` too. It can be rewritten in place, blockwise and in parallel ([`PackedWeight::blocks_mut`]).
#[derive(Debug)]
pub struct PackedWeight {
    out_features: usize,
    in_features: usize,
    pub(crate) panels: Panels,
}

/// Panel after panel, each 16 rows of W by `in_features`, padded with zeros.
#[derive(Debug)]
pub(crate) enum Panels {
    F32(Aligned<f32>),
    Bf16(Aligned<bf16>),
}

/// Values of a panel.
pub(crate) fn panel_len<T: Element>(in_features: usize) -> usize {
    COLUMNS * in_features.next_multiple_of(T::STEPS)
}

fn empty<T: Element>(out_features: usize, in_features: usize) -> Aligned<T> {
    let panels = out_features.div_ceil(COLUMNS).next_multiple_of(PANELS_TOGETHER);
    Aligned::zeros(panels * panel_len::<T>(in_features))
}

impl PackedWeight {
    /// A weight of zeros, to be filled block by block.
    ///
    /// # Errors
    /// If the dtype is neither F32 nor BF16.
    pub fn zeros(dtype: Dtype, out_features: usize, in_features: usize) -> Result<Self, LinalgError> {
        let panels = match dtype {
            Dtype::F32 => Panels::F32(empty(out_features, in_features)),
            Dtype::BF16 => Panels::Bf16(empty(out_features, in_features)),
            dtype => return Err(LinalgError::Dtype { dtype }),
        };
        Ok(Self { out_features, in_features, panels })
    }

    /// Packs an f32 weight, `out_features` × `in_features`.
    pub fn from_f32(weight: &ArrayView2<'_, f32>) -> Self {
        let mut panels = empty(weight.nrows(), weight.ncols());
        pack(weight, &mut panels);
        Self { out_features: weight.nrows(), in_features: weight.ncols(), panels: Panels::F32(panels) }
    }

    /// Packs a bf16 weight, `out_features` × `in_features`.
    pub fn from_bf16(weight: &ArrayView2<'_, bf16>) -> Self {
        let mut panels = empty(weight.nrows(), weight.ncols());
        pack(weight, &mut panels);
        Self { out_features: weight.nrows(), in_features: weight.ncols(), panels: Panels::Bf16(panels) }
    }

    /// Rows of W: values a token has after the product.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns of W: values a token has before.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// F32 or BF16.
    pub fn dtype(&self) -> Dtype {
        match self.panels {
            Panels::F32(_) => Dtype::F32,
            Panels::Bf16(_) => Dtype::BF16,
        }
    }

    /// Bytes it holds, padding included.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(panels) => size_of_val::<[f32]>(panels),
            Panels::Bf16(panels) => size_of_val::<[bf16]>(panels),
        }
    }

    /// The weight in blocks of `rows` rows (rounded up to 16; the last may have fewer), each to be rewritten by itself.
    /// A weight without columns has none.
    pub fn blocks_mut(&mut self, rows: usize) -> impl Iterator<Item = WeightBlock<'_>> {
        let panels = rows.max(1).div_ceil(COLUMNS);
        let rows = panels * COLUMNS;
        let (out_features, in_features) = (self.out_features, self.in_features);
        let starts = (0..out_features).step_by(rows);
        let blocks: Vec<BlockPanels<'_>> = match &mut self.panels {
            // `max`: without columns there is nothing to cut, and nothing to write.
            Panels::F32(values) => {
                let len = panels * panel_len::<f32>(in_features).max(1);
                values.chunks_mut(len).map(BlockPanels::F32).collect()
            }
            Panels::Bf16(values) => {
                let len = panels * panel_len::<bf16>(in_features).max(1);
                values.chunks_mut(len).map(BlockPanels::Bf16).collect()
            }
        };
        starts.zip(blocks).map(move |(first_row, panels)| WeightBlock {
            first_row,
            rows: rows.min(out_features - first_row),
            in_features,
            panels,
        })
    }

    /// The weight as f32, `out_features` × `in_features`: what products compute with.
    pub fn to_f32(&self) -> Array2<f32> {
        match &self.panels {
            Panels::F32(panels) => self.unpack(panels, |x| x),
            Panels::Bf16(panels) => self.unpack(panels, bf16::to_f32),
        }
    }

    fn unpack<T: Element>(&self, panels: &[T], value: impl Fn(T) -> f32) -> Array2<f32> {
        let panel_len = panel_len::<T>(self.in_features);
        Array2::from_shape_fn((self.out_features, self.in_features), |(row, k)| {
            let (panel, column) = (row / COLUMNS, row % COLUMNS);
            value(panels[panel * panel_len + panel_index::<T>(k, column)])
        })
    }
}

/// Some rows of a [`PackedWeight`], to be rewritten.
#[derive(Debug)]
pub struct WeightBlock<'a> {
    first_row: usize,
    rows: usize,
    in_features: usize,
    panels: BlockPanels<'a>,
}

#[derive(Debug)]
enum BlockPanels<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl WeightBlock<'_> {
    /// The first of its rows.
    pub fn first_row(&self) -> usize {
        self.first_row
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// F32 or BF16.
    pub fn dtype(&self) -> Dtype {
        match self.panels {
            BlockPanels::F32(_) => Dtype::F32,
            BlockPanels::Bf16(_) => Dtype::BF16,
        }
    }

    /// Writes its rows, `rows` × `in_features`, into an f32 weight.
    ///
    /// # Errors
    /// If the shape is another, or the weight is BF16.
    pub fn write_f32(&mut self, rows: &ArrayView2<'_, f32>) -> Result<(), LinalgError> {
        self.check(rows.dim())?;
        match &mut self.panels {
            BlockPanels::F32(panels) => pack(rows, panels),
            BlockPanels::Bf16(_) => return Err(other_dtype(Dtype::BF16, Dtype::F32)),
        }
        Ok(())
    }

    /// Writes its rows, `rows` × `in_features`, into a bf16 weight.
    ///
    /// # Errors
    /// If the shape is another, or the weight is F32.
    pub fn write_bf16(&mut self, rows: &ArrayView2<'_, bf16>) -> Result<(), LinalgError> {
        self.check(rows.dim())?;
        match &mut self.panels {
            BlockPanels::F32(_) => return Err(other_dtype(Dtype::F32, Dtype::BF16)),
            BlockPanels::Bf16(panels) => pack(rows, panels),
        }
        Ok(())
    }

    fn check(&self, given: (usize, usize)) -> Result<(), LinalgError> {
        let own = (self.rows, self.in_features);
        if given == own {
            return Ok(());
        }
        Err(LinalgError::Shapes { operation: "rewriting a block of a weight", left: own, right: given })
    }
}

fn other_dtype(weight: Dtype, given: Dtype) -> LinalgError {
    LinalgError::OtherDtype { weight, given }
}

/// Writes rows into panels, from the first on.
fn pack<T: Element>(rows: &ArrayView2<'_, T>, panels: &mut [T]) {
    let (count, columns) = rows.dim();
    if columns == 0 {
        return;
    }
    // Nobody reads a weight again before all of the model is written.
    let place = Place::Memory;
    let kernel = Kernel::fastest_f32();
    let starts = (0..count).step_by(COLUMNS);
    for (first, panel) in starts.zip(panels.chunks_exact_mut(panel_len::<T>(columns))) {
        pack_panel(kernel, &rows.slice(s![first..(first + COLUMNS).min(count), ..]), panel, place);
    }
}
