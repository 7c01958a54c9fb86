//! What crosses the boundary: text, parameters, errors, panics, structs of another version, totals, masks.

#![allow(unsafe_code, reason = "calls the exported C functions as a host does")]

use skillweld_plugin_sdk::export::Exported;
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_sdk::{
    Block, MaskMethod, Masks, MergeMethod, Param, Params, Plan, Result, Spec, Stop, abi, export_methods,
    laws, pack_bits,
};

/// Subtracts the mean of all experts, or fails in the way it is told to.
struct Centre;

impl MergeMethod for Centre {
    fn spec() -> Spec {
        Spec::new("centre", "subtracts the mean")
            .citation("none")
            .param(Param::number("weight").default(1.0).per_expert())
            .param(Param::choice("fail", &["no", "error", "panic", "cancel", "name", "kind"]).default("no"))
            .param(Param::boolean("global").default(false))
            .param(Param::integer("scratch").default(0))
            .param(Param::boolean("whole").default(false))
            .experts(1..=3)
            .task_vectors()
            .emits_masks("above")
            .laws(laws::PERMUTATION)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        let plan = if params.boolean("global") { Plan::global([2]) } else { Plan::per_tensor([2]) };
        let plan = plan.scratch_per_element(params.integer("scratch") as usize);
        Ok(if params.boolean("whole") { plan.whole() } else { plan })
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        for k in 0..block.experts() {
            sums[0] += block.expert(k).iter().map(|&x| f64::from(x)).sum::<f64>();
            sums[1] += block.len() as f64;
        }
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        match block.choice("fail") {
            "error" => return Err(format!("tensor `{}` is odd", block.key()).into()),
            "panic" => panic!("broken at {}", block.offset()),
            "cancel" => return Err(Stop::Cancelled),
            "name" => drop(block.number("wieght")),
            "kind" => drop(block.number("weight")),
            _ => {}
        }
        assert!(!block.boolean("whole") || block.len() as u64 == block.numel());
        assert_eq!(block.take_scratch().len(), block.integer("scratch") as usize * block.len());
        let mean = block.totals()[0] / block.totals()[1];
        out.fill(-(mean as f32));
        for (k, &weight) in block.expert_numbers("weight").iter().enumerate() {
            out.iter_mut().zip(block.expert(k)).for_each(|(out, x)| *out += weight as f32 * x);
        }
        Ok(())
    }
}

/// Keeps what is above the merged value; the rescaler is the expert's number.
struct Above;

impl MaskMethod for Above {
    fn spec() -> Spec {
        Spec::new("above", "keeps larger values").task_vectors().rescales()
    }

    fn run(block: &Block<'_>, masks: &mut Masks<'_>) -> Result {
        for k in 0..block.experts() {
            let above: Vec<bool> = block.expert(k).iter().zip(block.merged()).map(|(x, m)| x > m).collect();
            pack_bits(&above, masks.expert(k));
        }
        Ok(())
    }

    fn rescale(block: &Block<'_>, rescalers: &mut [f32]) -> Result {
        assert!(block.expert(0).is_empty(), "no tensor data in `rescale`");
        (0..).zip(rescalers).for_each(|(k, rescaler)| *rescaler = k as f32);
        Ok(())
    }
}

export_methods!(merge: [Centre], mask: [Above]);

fn text(text: abi::Str) -> &'static str {
    // SAFETY: the entries live in statics, and so does their text.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr, text.len) };
    std::str::from_utf8(bytes).unwrap_or("not UTF-8")
}

#[test]
fn entries_say_what_the_specs_say() {
    let centre = Centre::entry().method();
    assert_eq!((text(centre.id), text(centre.version), text(centre.mask)), ("centre", "1.0.0", "above"));
    assert_eq!((centre.kind, centre.min_experts, centre.max_experts), (abi::KIND_MERGE, 1, 3));
    use abi::flags::{DETERMINISTIC, ELEMENTWISE, EMITS_MASKS, TASK_VECTORS};
    assert_eq!(centre.flags, TASK_VECTORS | ELEMENTWISE | DETERMINISTIC | EMITS_MASKS);
    assert!(
        text(centre.schema)
            .contains(r#""enum":["no","error","panic","cancel","name","kind"],"default":"no""#)
    );
    assert!(centre.rescale.is_none());
    let above = Above::entry().method();
    assert_eq!((text(above.id), above.kind, above.max_experts), ("above", abi::KIND_MASK, 0));
    assert!(above.rescale.is_some());
}

#[test]
fn the_exported_symbol_lists_the_methods() {
    unsafe extern "C" {
        static skillweld_plugin_v1: abi::Plugin;
    }
    // SAFETY: defined by `export_methods!` above.
    let plugin = unsafe { skillweld_plugin_v1 };
    assert_eq!((plugin.magic, plugin.layout_hash, plugin.method_count), (abi::MAGIC, abi::LAYOUT_HASH, 2));
    assert_eq!(abi::SYMBOL, "skillweld_plugin_v1");
    let method = plugin.method.unwrap();
    // SAFETY: the getter takes any index; what it returns lives in a static.
    unsafe {
        assert_eq!(text((*method(1)).id), "above");
        assert!(method(2).is_null());
    }
}

#[test]
fn totals_cover_a_tensor_or_all_of_them() {
    let first: Vec<f32> = (0..20).map(|i| i as f32).collect();
    let trial = || Trial::of::<Centre>().experts(&[&first]).experts(&[&[1.0]]).block_len(8).set("scratch", 3);
    assert_eq!(trial().merge_all()[0][..2], [-9.5, -8.5]);
    assert_eq!(trial().merge_all()[1], [0.0]);
    let mean = 191.0 / 21.0;
    assert_eq!(trial().set("global", true).merge_all()[1], [1.0 - mean]);
    assert_eq!(trial().per_expert("weight", &[2.0]).merge_all()[1], [1.0]);
    assert_eq!(trial().set("whole", true).merge_all(), trial().merge_all());
}

#[test]
fn failures_arrive_with_their_text() {
    let failure =
        |how| Trial::of::<Centre>().experts(&[&[1.0]]).set("fail", how).try_merge_all().unwrap_err();
    assert_eq!(failure("error"), "status 1: tensor `trial` is odd");
    assert_eq!(failure("panic"), "status 2: broken at 0");
    assert_eq!(failure("cancel"), "status 3: ");
    assert_eq!(failure("name"), "status 2: the method's spec has no parameter `wieght`");
    assert_eq!(
        failure("kind"),
        "status 2: parameter `weight` is declared as Number per expert, but read as Number"
    );
}

#[test]
fn masks_are_packed_for_any_block() {
    let values: Vec<f32> = (0..203).map(|i| (i * 37 % 100) as f32).collect();
    for block_len in [8, 64, 72, 128, 1000] {
        let trial =
            Trial::of::<Above>().experts(&[&values, &values]).merged(&[40.0; 203]).block_len(block_len);
        let expected: Vec<bool> = values.iter().map(|&x| x > 40.0).collect();
        assert_eq!(trial.masks(), [expected.clone(), expected], "blocks of {block_len}");
        assert_eq!(trial.rescalers(), [0.0, 1.0]);
    }
}

/// A newer host's structs are longer, an older one's shorter: what we know of them counts, the rest is zero.
#[test]
fn structs_of_another_size_are_read() {
    #[repr(C)]
    struct NewerHost(abi::Host, [u64; 4]);
    #[repr(C)]
    struct NewerTensor(abi::Tensor, u64);
    let host = abi::Host {
        size: size_of::<NewerHost>() as u64,
        context: std::ptr::null_mut(),
        error: None,
        log: None,
        progress: None,
        cancelled: None,
        settled: None,
        path: None,
    };
    let host = NewerHost(host, [u64::MAX; 4]);
    let (weights, choice_global_scratch_whole, totals) = ([1.0, 10.0], [0.0; 4], [0.0, 1.0]);
    let params = abi::Params {
        size: size_of::<abi::Params>() as u64,
        global: choice_global_scratch_whole.as_ptr(),
        global_count: 4,
        per_expert: weights.as_ptr(),
        per_expert_count: 1,
        expert_count: 2,
    };
    let (values, mut out) = ([[1f32, 2.0], [3.0, 4.0]], [0f32; 2]);
    let tensor = |v: &[f32]| abi::Tensor {
        dense: v.as_ptr(),
        b: std::ptr::null(),
        a: std::ptr::null(),
        rank: 0,
        statistics: std::ptr::null(),
        statistics_len: 0,
    };
    let experts = [NewerTensor(tensor(&values[0]), 7), NewerTensor(tensor(&values[1]), 7)];
    let call = abi::Call {
        // An older host knows nothing of scratch.
        size: std::mem::offset_of!(abi::Call, scratch) as u64,
        host: &host.0,
        params: &params,
        key: abi::Str { ptr: std::ptr::null(), len: 0 },
        shape: std::ptr::null(),
        ndim: 0,
        numel: 2,
        offset: 0,
        len: 2,
        seed: 0,
        expert_count: 2,
        experts: experts.as_ptr().cast(),
        expert_stride: size_of::<NewerTensor>() as u64,
        base: std::ptr::null(),
        merged: std::ptr::null(),
        totals: totals.as_ptr(),
        totals_len: 2,
        out: out.as_mut_ptr(),
        masks: std::ptr::null(),
        scratch: std::ptr::dangling_mut(),
        scratch_len: 99,
    };
    // SAFETY: every pointer that lies within `call.size` is valid.
    let status = unsafe { Centre::entry().method().run.unwrap()(&call) };
    assert_eq!((status, out), (abi::status::OK, [31.0, 42.0]));
}

/// A host of version 1.0 has no room for what 1.1 added to the plan.
#[test]
fn a_plan_of_an_older_host_is_not_written_past_its_end() {
    let (weights, mut choice_global_scratch_whole) = ([1.0], [0.0; 4]);
    let mut plan_of = |size: usize, whole: f64| {
        choice_global_scratch_whole[3] = whole;
        let params = abi::Params {
            size: size_of::<abi::Params>() as u64,
            global: choice_global_scratch_whole.as_ptr(),
            global_count: 4,
            per_expert: weights.as_ptr(),
            per_expert_count: 1,
            expert_count: 1,
        };
        let mut plan = abi::Plan {
            size: size as u64,
            passes: 0,
            scope: 0,
            sums_len: [0; abi::MAX_PASSES],
            scratch_per_element: 0,
            sample: [7; abi::MAX_PASSES],
            whole: 7,
        };
        let host = abi::Host {
            size: size_of::<abi::Host>() as u64,
            context: std::ptr::null_mut(),
            error: None,
            log: None,
            progress: None,
            cancelled: None,
            settled: None,
            path: None,
        };
        // SAFETY: the structs are valid, and `plan` is this call's to write.
        let status = unsafe { Centre::entry().method().plan.unwrap()(&host, &params, &mut plan) };
        assert_eq!(plan.passes, 1);
        (status, plan.sample[0], plan.whole)
    };
    let (sample, whole) = (std::mem::offset_of!(abi::Plan, sample), std::mem::offset_of!(abi::Plan, whole));
    assert_eq!(plan_of(sample, 0.0), (abi::status::OK, 7, 7));
    assert_eq!(plan_of(whole, 0.0), (abi::status::OK, 0, 7));
    assert_eq!(plan_of(size_of::<abi::Plan>(), 0.0), (abi::status::OK, 0, 0));
    assert_eq!(plan_of(size_of::<abi::Plan>(), 1.0), (abi::status::OK, 0, 1));
    // It would cut tensors that must not be cut.
    assert_eq!(plan_of(whole, 1.0).0, abi::status::ERROR);
}
