//! Device code of every plugin at hand against its own function on the CPU, bit for bit.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use serde_json::{Value, json};
use skillweld_gpu::Target;
use skillweld_gpu::ops::{PluginBlock, PluginKernel, PluginOutput, Table, run_plugin};
use skillweld_plugin_host::{
    BlockInputs, Bound, CudaCode, ExpertBlock, HostHooks, Kind, Method, ParamKind, ParamSpec, Registry,
};
use skillweld_tensor::{BitMask, Dtype};

use super::random::{bytes_of, floats_of, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "plugins: device code equals the CPU's bit for bit", check: equals_cpu }]
}

fn equals_cpu<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let registry = Registry::discover(&[]).map_err(|error| error.to_string())?;
    let methods = registry.iter().filter_map(|method| Some((method, method.cuda()?)));
    let methods: Vec<(&Method, &CudaCode)> = methods.collect();
    if methods.is_empty() {
        return Err("no plugin with device code lies beside this program".to_owned());
    }
    let cases = (prop_oneof![0..20usize, 1..3000usize, 6200..9000usize], 1..=5usize, any::<u64>());
    // One run for all methods: a runner counts its cases over all that it runs.
    let every_method = |(len, experts, seed): Case| {
        methods.iter().try_for_each(|&(method, code)| {
            let most = method.max_experts().unwrap_or(usize::MAX);
            let case = (len, experts.clamp(method.min_experts(), most), seed);
            let named = |error| match error {
                TestCaseError::Fail(reason) => {
                    TestCaseError::fail(format!("{} method {}: {reason}", method.kind(), method.id()))
                }
                reject => reject,
            };
            one_case(target, (method, code), case).map_err(named)
        })
    };
    runner.run(&cases, every_method).map_err(|error| error.to_string())
}

/// A value that the schema allows, drawn with `word`; zeros, ones and negative ones come often.
fn parameter(spec: &ParamSpec, word: u64) -> Option<Value> {
    let drawn = word as f64 / u64::MAX as f64 * 4.0 - 2.0;
    let candidates = match &spec.kind {
        ParamKind::Number(_) => vec![json!(drawn), json!(0.0), json!(1.0), json!(-drawn)],
        ParamKind::Integer(_) => vec![json!(drawn.round()), json!(0), json!(1)],
        ParamKind::Boolean => vec![json!(true), json!(false)],
        ParamKind::Choice(words) => words.iter().map(|word| json!(word)).collect(),
    };
    let value = candidates[(word >> 7) as usize % candidates.len()].clone();
    spec.kind.encode(&value).map(|_| value)
}

/// Elements of the block, experts, seed.
type Case = (usize, usize, u64);

fn one_case<T: Target>(
    target: &T,
    (method, code): (&Method, &CudaCode),
    (len, experts, seed): Case,
) -> Result<(), TestCaseError> {
    let mut word = seed;
    let bound = method.bind(experts, &HostHooks::SILENT, |spec, _| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok::<_, skillweld_plugin_host::PluginError>(parameter(spec, word))
    });
    // What a method refuses, it refuses before it runs.
    let Ok(bound) = bound else { return Ok(()) };
    let offset = (seed % 1000) as usize * 8;
    let host = HostBlock {
        offset,
        shape: [offset + len + (seed % 3) as usize],
        experts: (0..experts as u64).map(|k| values(len, seed ^ (k + 1))).collect(),
        base: values(len, seed ^ 99),
        // Near the experts' sum now and then, so that comparisons have ties.
        merged: if seed.is_multiple_of(2) { values(len, seed ^ 1) } else { values(len, seed ^ 101) },
        totals: values(bound.plan().totals_len(), seed).iter().map(|&value| f64::from(value)).collect(),
        seed,
    };
    let (expected, is) = (host.on_cpu(&bound)?, host.on_target(target, &bound, code).map_err(failed)?);
    prop_assert_eq!(expected.len(), is.len());
    for (k, (expected, is)) in expected.iter().zip(&is).enumerate() {
        let first = expected.iter().zip(is).position(|(expected, is)| expected != is);
        prop_assert!(first.is_none(), "byte {:?} of output {} differs", first, k);
    }
    Ok(())
}

struct HostBlock {
    offset: usize,
    shape: [usize; 1],
    experts: Vec<Vec<f32>>,
    base: Vec<f32>,
    merged: Vec<f32>,
    totals: Vec<f64>,
    seed: u64,
}

impl HostBlock {
    fn len(&self) -> usize {
        self.base.len()
    }

    /// The output's bytes: one list of values, or one mask an expert.
    fn on_cpu(&self, bound: &Bound) -> Result<Vec<Vec<u8>>, TestCaseError> {
        let experts: Vec<_> = self.experts.iter().map(|expert| ExpertBlock::Dense(expert)).collect();
        let block = BlockInputs {
            key: "a",
            shape: &self.shape,
            offset: self.offset,
            len: self.len(),
            experts: &experts,
            statistics: &[],
            base: Some(&self.base),
            merged: Some(&self.merged),
            seed: self.seed,
            hooks: &HostHooks::SILENT,
        };
        let mut scratch = vec![0.0; bound.plan().scratch_per_element * self.len()];
        if bound.method().kind() == Kind::Merge {
            let mut out = vec![0.0; self.len()];
            bound.run(&block, &self.totals, &mut out, &mut scratch).map_err(failed)?;
            return Ok(vec![bytes_of(Dtype::F32, &out)]);
        }
        let mut masks = vec![vec![0; BitMask::byte_len(self.len())]; experts.len()];
        let mut places: Vec<&mut [u8]> = masks.iter_mut().map(Vec::as_mut_slice).collect();
        bound.run_mask(&block, &self.totals, &mut places, &mut scratch).map_err(failed)?;
        Ok(masks)
    }

    fn on_target<T: Target>(
        &self,
        target: &T,
        bound: &Bound,
        code: &CudaCode,
    ) -> skillweld_gpu::Result<Vec<Vec<u8>>> {
        // What stands in the room behind the values is not to matter.
        let padded = |values: &[f32]| {
            let mut values = values.to_vec();
            values.resize(values.len().next_multiple_of(8), f32::NAN);
            target.array_of(Dtype::F32, &bytes_of(Dtype::F32, &values))
        };
        let experts =
            self.experts.iter().map(|expert| padded(expert)).collect::<skillweld_gpu::Result<Vec<_>>>()?;
        let (base, merged) = (padded(&self.base)?, padded(&self.merged)?);
        let totals: Vec<u8> = self.totals.iter().flat_map(|total| total.to_le_bytes()).collect();
        let totals = target.array_of(Dtype::F64, &totals)?;
        let is_mask = bound.method().kind() == Kind::Mask;
        let needs_base = bound.method().has(skillweld_plugin_host::flags::NEEDS_BASE);
        let block = PluginBlock {
            len: self.len(),
            offset: self.offset,
            numel: self.shape[0],
            seed: self.seed,
            experts: experts.iter().map(skillweld_gpu::Array::view).collect(),
            base: needs_base.then(|| base.view()),
            merged: is_mask.then(|| merged.view()),
            totals: (!self.totals.is_empty()).then(|| totals.view()),
            global: bound.global(),
            per_expert: bound.per_expert(),
        };
        let mut call = Table::new(target, 64)?;
        let kernel = PluginKernel { image: code.image, name: &code.run, threads: code.threads };
        if !is_mask {
            let mut out = target.array(Dtype::F32, self.len().next_multiple_of(8))?;
            run_plugin(target, &mut call, kernel, &block, &PluginOutput::Values(out.view_mut()))?;
            let values = floats_of(Dtype::F32, &target.read(&out)?);
            return Ok(vec![bytes_of(Dtype::F32, &values[..self.len()])]);
        }
        let zeros = vec![0; BitMask::byte_len(self.len())];
        let mut masks = experts
            .iter()
            .map(|_| target.array_of(Dtype::U8, &zeros))
            .collect::<skillweld_gpu::Result<Vec<_>>>()?;
        let output = PluginOutput::Masks(masks.iter_mut().map(skillweld_gpu::Array::view_mut).collect());
        run_plugin(target, &mut call, kernel, &block, &output)?;
        let tail = self.len() % 8;
        let mut read =
            masks.iter().map(|mask| target.read(mask)).collect::<skillweld_gpu::Result<Vec<_>>>()?;
        for last in read.iter_mut().filter(|_| tail > 0).filter_map(|mask| mask.last_mut()) {
            *last &= (1 << tail) - 1;
        }
        Ok(read)
    }
}
