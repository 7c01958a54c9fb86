//! A small host for the tests of a plugin: tensors in memory, through the same C functions that the real host calls.
//!
//! Every function here panics when the method fails: a failed trial is a failed test.

mod session;

use skillweld_plugin_abi as abi;

use crate::Value;
use crate::export::{Entry, Exported};
use session::Session;

type RescaleFn = unsafe extern "C" fn(*const abi::Call, *mut f32) -> i32;

/// One run of a method on tensors given as slices. Parameters that are not set have their defaults.
pub struct Trial {
    entry: &'static Entry,
    tensors: Vec<TrialTensor>,
    settings: Vec<(&'static str, Vec<f64>)>,
    seed: u64,
    block_len: usize,
    key: &'static str,
}

/// B, A and their rank.
type TrialFactors = (Vec<f32>, Vec<f32>, usize);

#[derive(Default)]
struct TrialTensor {
    /// Empty: as many elements in one dimension.
    shape: Vec<u64>,
    experts: Vec<Vec<f32>>,
    /// Of experts that come as factors.
    factors: Vec<Option<TrialFactors>>,
    /// One an expert, or none.
    statistics: Vec<Vec<f32>>,
    base: Option<Vec<f32>>,
    merged: Option<Vec<f32>>,
}

impl Trial {
    /// A trial of one method.
    pub fn of<M: Exported>() -> Self {
        Self {
            entry: M::entry(),
            tensors: Vec::new(),
            settings: Vec::new(),
            seed: 0,
            block_len: 1 << 14,
            key: "trial",
        }
    }

    /// Adds a tensor: one slice an expert, all of one length.
    pub fn experts(mut self, experts: &[&[f32]]) -> Self {
        let experts: Vec<Vec<f32>> = experts.iter().map(|expert| expert.to_vec()).collect();
        assert!(
            experts.windows(2).all(|pair| pair[0].len() == pair[1].len()),
            "experts of different lengths"
        );
        self.tensors.push(TrialTensor { experts, ..TrialTensor::default() });
        self
    }

    /// Gives the tensor added last its shape; without it, it has one dimension.
    pub fn shape(mut self, shape: &[usize]) -> Self {
        let tensor = self.last();
        assert_eq!(shape.iter().product::<usize>(), tensor.len(), "the shape has another number of elements");
        tensor.shape = shape.iter().map(|&n| n as u64).collect();
        self
    }

    /// Hands expert `k` of the tensor added last, a matrix, over as factors: B, m × rank, and A, rank × n. Its values
    /// are not.
    pub fn factors(mut self, k: usize, b: &[f32], a: &[f32], rank: usize) -> Self {
        let tensor = self.last();
        tensor.factors.resize(tensor.experts.len(), None);
        tensor.factors[k] = Some((b.to_vec(), a.to_vec(), rank));
        self
    }

    /// Name of all tensors; `trial` unless told otherwise.
    pub fn key(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    /// Gives the tensor added last its statistics, one slice an expert: of its length, or for a matrix method the square
    /// of its last dimension.
    pub fn statistics(mut self, statistics: &[&[f32]]) -> Self {
        self.last().statistics = statistics.iter().map(|values| values.to_vec()).collect();
        self
    }

    /// Gives the tensor added last its Θ₀.
    pub fn base(mut self, base: &[f32]) -> Self {
        self.last().base = Some(base.to_vec());
        self
    }

    /// Gives the tensor added last its merged task vector, for a mask method.
    pub fn merged(mut self, merged: &[f32]) -> Self {
        self.last().merged = Some(merged.to_vec());
        self
    }

    /// Sets a parameter, for all experts.
    pub fn set(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let param = self.entry.spec.params.iter().find(|param| param.name == name);
        let param = param.unwrap_or_else(|| panic!("no parameter `{name}`")).clone();
        self.settings.push((name, param.default(value).default.into_iter().collect()));
        self
    }

    /// Sets a parameter, one value an expert.
    pub fn per_expert(mut self, name: &'static str, values: &[f64]) -> Self {
        self.settings.push((name, values.to_vec()));
        self
    }

    /// Seed of the first tensor; each following one gets the next number.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Largest block, rounded up to a multiple of 8. Default 16384.
    pub fn block_len(mut self, len: usize) -> Self {
        self.block_len = len.next_multiple_of(8).max(8);
        self
    }

    /// The merged tensor, when there is one.
    pub fn merge(&self) -> Vec<f32> {
        assert_eq!(self.tensors.len(), 1, "`merge` is for one tensor; `merge_all` for several");
        self.merge_all().remove(0)
    }

    /// The merged tensors.
    pub fn merge_all(&self) -> Vec<Vec<f32>> {
        self.try_merge_all().unwrap_or_else(|message| panic!("{message}"))
    }

    /// The merged tensor, when there is one, and the way by which the method says that it computed it last.
    pub fn merge_with_path(&self) -> (Vec<f32>, Option<String>) {
        assert_eq!(self.tensors.len(), 1, "`merge_with_path` is for one tensor");
        let session = Session::new(self);
        let merged = session.merge_all().unwrap_or_else(|message| panic!("{message}")).remove(0);
        (merged, session.heard.path.take())
    }

    /// The merged tensors, or the message of the failure.
    pub fn try_merge_all(&self) -> Result<Vec<Vec<f32>>, String> {
        Session::new(self).merge_all()
    }

    /// The masks of the first tensor: one vector of flags an expert.
    pub fn masks(&self) -> Vec<Vec<bool>> {
        let session = Session::new(self);
        let len = self.tensors[0].len();
        let run = || {
            let plan = session.plan()?;
            let totals = session.totals(&plan)?;
            let mut bytes = vec![vec![0u8; len.div_ceil(8)]; session.experts];
            session.for_each_block(0, &plan, &totals[0], |call| {
                let start = call.offset as usize / 8;
                let masks: Vec<*mut u8> = bytes.iter_mut().map(|mask| mask[start..].as_mut_ptr()).collect();
                call.masks = masks.as_ptr();
                // SAFETY: every pointer of the call is valid; each mask has room from the offset on.
                session.method.run.map(|run| unsafe { run(call) })
            })?;
            Ok(bytes)
        };
        let bytes: Result<Vec<Vec<u8>>, String> = run();
        let bytes = bytes.unwrap_or_else(|message| panic!("{message}"));
        bytes.iter().map(|mask| (0..len).map(|i| mask[i / 8] >> (i % 8) & 1 == 1).collect()).collect()
    }

    /// The rescalers of a mask method, one an expert.
    pub fn rescalers(&self) -> Vec<f32> {
        let session = Session::new(self);
        let run = || {
            let totals = session.totals(&session.plan()?)?;
            let mut rescalers = vec![f32::NAN; session.experts];
            let call = session.call(0, &totals[0]);
            let fill = |rescale: RescaleFn| {
                // SAFETY: every pointer of the call is valid or null; there is one rescaler an expert.
                unsafe { rescale(&call, rescalers.as_mut_ptr()) }
            };
            session.check(session.method.rescale.map(fill))?;
            Ok(rescalers)
        };
        let rescalers: Result<Vec<f32>, String> = run();
        rescalers.unwrap_or_else(|message| panic!("{message}"))
    }

    fn last(&mut self) -> &mut TrialTensor {
        self.tensors.last_mut().unwrap_or_else(|| panic!("add a tensor with `experts` first"))
    }
}

impl TrialTensor {
    fn len(&self) -> usize {
        self.experts.first().map_or(0, Vec::len)
    }
}
