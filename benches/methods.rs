//! Every elementwise merge method and every mask method over four experts, called through the plugin boundary.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]
#![allow(missing_docs, reason = "criterion's macro makes the items")]

use std::hint::black_box;
use std::ops::Range;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use skillweld_benches::{BLOCK, LEN, memcpy_row, plugins, random};
use skillweld_plugin_host::{BlockInputs, Bound, ExpertBlock, HostHooks, Kind, Method, PluginError, flags};

/// The same bytes for everyone: what a method reads.
struct Inputs {
    base: Vec<f32>,
    merged: Vec<f32>,
    experts: Vec<Vec<f32>>,
}

fn methods(criterion: &mut Criterion) {
    let registry = plugins();
    let experts = (0..4).map(|k| random(&format!("expert{k}"), LEN)).collect();
    let inputs = Inputs { base: random("base", LEN), merged: random("merged", LEN), experts };
    let mut methods: Vec<&Method> = registry.iter().filter(|method| method.has(flags::ELEMENTWISE)).collect();
    methods.sort_by_key(|method| (method.kind() == Kind::Mask, method.id()));

    for method in methods {
        let count = method.max_experts().unwrap_or(4).clamp(method.min_experts(), 4);
        // Parameters without a default are weights and the like.
        let half =
            |spec: &skillweld_plugin_host::ParamSpec, _| Ok(spec.default.is_none().then(|| json!(0.5)));
        let bound = method.bind::<PluginError>(count, &HostHooks::SILENT, half);
        let bound = bound.expect("0.5 is in the range of every parameter without a default");
        if bound.plan().whole {
            continue; // It would see a buffer larger than any tensor in one piece.
        }

        let mut group = criterion.benchmark_group(format!("{}/{}", method.kind(), method.id()));
        group.sample_size(10);
        let mut read: Vec<&[f32]> = inputs.experts[..count].iter().map(Vec::as_slice).collect();
        if method.has(flags::NEEDS_BASE) {
            read.push(&inputs.base);
        }
        if method.kind() == Kind::Mask {
            read.push(&inputs.merged);
        }
        memcpy_row(&mut group, &read, BLOCK);
        let mut stream = Stream::new(&bound, &inputs);
        group.bench_function("all passes", |bencher| bencher.iter(|| stream.whole_tensor()));
        group.finish();
    }
}

/// One method run over a whole tensor, block by block.
struct Stream<'a> {
    bound: &'a Bound,
    inputs: &'a Inputs,
    out: Vec<f32>,
    masks: Vec<Vec<u8>>,
    scratch: Vec<f32>,
}

impl<'a> Stream<'a> {
    fn new(bound: &'a Bound, inputs: &'a Inputs) -> Self {
        Self {
            bound,
            inputs,
            out: vec![0.0; BLOCK],
            masks: vec![vec![0; BLOCK / 8]; bound.expert_count()],
            scratch: vec![0.0; bound.plan().scratch_per_element * BLOCK],
        }
    }

    /// Every observe pass over all blocks, then all blocks.
    fn whole_tensor(&mut self) {
        let plan = self.bound.plan();
        let mut totals = Vec::with_capacity(plan.totals_len());
        for pass in 0..plan.passes() {
            let mut sums = vec![0.0; plan.totals_of(pass).len()];
            // As a merge does: of each block the first elements, where a sample is enough.
            let len = BLOCK / plan.sample[pass];
            for offset in (0..LEN).step_by(BLOCK) {
                let experts = self.experts(offset..offset + len);
                let block = self.block(offset..offset + len, &experts);
                let observed = self.bound.observe(&block, pass, &totals, &mut sums, &mut self.scratch);
                if observed.expect("finite values can be observed").is_break() {
                    sums.fill(0.0);
                    break;
                }
            }
            totals.extend(sums);
        }
        for offset in (0..LEN).step_by(BLOCK) {
            let experts = self.experts(offset..offset + BLOCK);
            let block = self.block(offset..offset + BLOCK, &experts);
            let run = match self.bound.method().kind() {
                Kind::Merge => self.bound.run(&block, &totals, &mut self.out, &mut self.scratch).map(drop),
                _ => {
                    let mut masks: Vec<&mut [u8]> = self.masks.iter_mut().map(Vec::as_mut_slice).collect();
                    self.bound.run_mask(&block, &totals, &mut masks, &mut self.scratch)
                }
            };
            run.expect("finite values can be merged");
            black_box((&mut self.out, &mut self.masks));
        }
    }

    fn experts(&self, elements: Range<usize>) -> Vec<ExpertBlock<'a>> {
        let experts = self.inputs.experts[..self.bound.expert_count()].iter();
        experts.map(|expert| ExpertBlock::Dense(&expert[elements.clone()])).collect()
    }

    fn block<'b>(&self, elements: Range<usize>, experts: &'b [ExpertBlock<'b>]) -> BlockInputs<'b>
    where
        'a: 'b,
    {
        BlockInputs {
            key: "model.layers.0.mlp.up_proj.weight",
            shape: &[LEN / 1024, 1024],
            offset: elements.start,
            len: elements.len(),
            experts,
            statistics: &[],
            base: Some(&self.inputs.base[elements.clone()]),
            merged: Some(&self.inputs.merged[elements]),
            seed: 0,
            hooks: &HostHooks::SILENT,
        }
    }
}

criterion_group!(benches, methods);
criterion_main!(benches);
