//! What a method says about itself.

use core::ops::{Bound, RangeBounds};

use skillweld_plugin_abi::flags;

use crate::Param;

/// Describes a method: who it is, its parameters, what the host must hand over, which laws it keeps.
///
/// Unless told otherwise a method sees the experts' weights in blocks, dense, and does not use random numbers.
#[derive(Debug, Clone)]
pub struct Spec {
    pub(crate) id: &'static str,
    pub(crate) version: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) citation: &'static str,
    pub(crate) mask: &'static str,
    pub(crate) params: Vec<Param>,
    pub(crate) min_experts: u32,
    /// 0 = no limit.
    pub(crate) max_experts: u32,
    pub(crate) flags: u64,
    pub(crate) laws: u64,
}

impl Spec {
    /// `id` is the name in recipes: `[a-z0-9_]+`; `summary` one line.
    pub const fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            version: "1.0.0",
            summary,
            citation: "",
            mask: "",
            params: Vec::new(),
            min_experts: 1,
            max_experts: 0,
            flags: flags::ELEMENTWISE | flags::DETERMINISTIC,
            laws: 0,
        }
    }

    /// Version of the method (default `1.0.0`).
    pub const fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    /// Paper or source to cite.
    pub const fn citation(mut self, citation: &'static str) -> Self {
        self.citation = citation;
        self
    }

    /// Adds a parameter.
    pub fn param(mut self, param: Param) -> Self {
        self.params.push(param);
        self
    }

    /// How many experts it takes: `2..=2`, `1..` (the default).
    pub fn experts(mut self, range: impl RangeBounds<u32>) -> Self {
        self.min_experts = match range.start_bound() {
            Bound::Included(n) => *n,
            Bound::Excluded(n) => n + 1,
            Bound::Unbounded => 1,
        };
        self.max_experts = match range.end_bound() {
            Bound::Included(n) => *n,
            Bound::Excluded(n) => n.saturating_sub(1),
            Bound::Unbounded => 0,
        };
        self
    }

    /// Works on task vectors τ_k = Θ_k − Θ₀ and gives one, instead of weights.
    pub const fn task_vectors(self) -> Self {
        self.flag(flags::TASK_VECTORS)
    }

    /// As [`task_vectors`](Self::task_vectors), but without a base model the method sees weights, and gives weights.
    pub const fn optional_base(self) -> Self {
        self.task_vectors().flag(flags::OPTIONAL_BASE)
    }

    /// Reads [`Block::base`](crate::Block::base).
    pub const fn needs_base(self) -> Self {
        self.flag(flags::NEEDS_BASE)
    }

    /// Wants whole rows: each depends on the same row of the inputs. A row is what lies under one index of the first axis
    /// ([`Block::row_len`](crate::Block::row_len)); a vector is one row.
    pub const fn rows(mut self) -> Self {
        self.flags &= !flags::ELEMENTWISE;
        self.flag(flags::ROWS)
    }

    /// Wants statistics of every expert, which the user measured: [`Block::statistics`](crate::Block::statistics).
    pub const fn needs_statistics(self) -> Self {
        self.flag(flags::NEEDS_STATISTICS)
    }

    /// Wants whole tensors instead of blocks, and matrices: the host averages tensors of other than two dimensions.
    pub const fn matrix(mut self) -> Self {
        self.flags &= !flags::ELEMENTWISE;
        self.flag(flags::MATRIX)
    }

    /// With [`matrix`](Self::matrix): takes tensors of other than two dimensions as well, instead of their mean.
    pub const fn any_shape(self) -> Self {
        self.flag(flags::ANY_SHAPE)
    }

    /// Accepts experts as factors: [`Block::low_rank`](crate::Block::low_rank).
    pub const fn low_rank(self) -> Self {
        self.flag(flags::LOW_RANK)
    }

    /// Uses [`Block::random`](crate::Block::random) or [`Block::seed`](crate::Block::seed).
    pub const fn random(mut self) -> Self {
        self.flags &= !flags::DETERMINISTIC;
        self
    }

    /// A merge method that makes sense only with the masks of mask method `id`.
    pub const fn emits_masks(mut self, id: &'static str) -> Self {
        self.mask = id;
        self.flag(flags::EMITS_MASKS)
    }

    /// A mask method that gives a rescaler: [`MaskMethod::rescale`](crate::MaskMethod::rescale).
    pub const fn rescales(self) -> Self {
        self.flag(flags::EMITS_MASKS)
    }

    /// NaN and infinity in an input come out as NaN or infinity, never as a plausible number.
    pub const fn propagates_non_finite(self) -> Self {
        self.flag(flags::PROPAGATES_NON_FINITE)
    }

    /// Laws the method keeps, bits of [`laws`](crate::laws).
    pub const fn laws(mut self, laws: u64) -> Self {
        self.laws |= laws;
        self
    }

    const fn flag(mut self, flag: u64) -> Self {
        self.flags |= flag;
        self
    }
}
