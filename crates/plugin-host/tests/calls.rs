//! What crosses the boundary in a call, in both directions.

mod support;

use std::sync::Mutex;

use ndarray::array;
use skillweld_plugin_host::{BlockInputs, Bound, ExpertBlock, HostHooks, Level, PluginError, Scope};
use skillweld_tensor::LowRank;
use support::bound;

const A: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
const B: [f32; 4] = [3.0, 2.0, 1.0, 0.0];
const EXPERTS: [ExpertBlock<'_>; 2] = [ExpertBlock::Dense(&A), ExpertBlock::Dense(&B)];

fn block(key: &'static str) -> BlockInputs<'static> {
    BlockInputs {
        key,
        shape: &[2, 2],
        offset: 0,
        len: 4,
        experts: &EXPERTS,
        statistics: &[],
        base: None,
        merged: None,
        seed: 0,
        hooks: &HostHooks::SILENT,
    }
}

fn run(bound: &Bound, block: &BlockInputs<'_>) -> Result<[f32; 4], PluginError> {
    let mut out = [f32::NAN; 4];
    bound.run(block, &[0.0; 2], &mut out, &mut [0.0; 4])?;
    Ok(out)
}

#[test]
fn values_and_parameters_arrive() {
    let mean = bound(&[], 2);
    assert_eq!(run(&mean, &block("w")).unwrap(), [2.0; 4]);
    let scaled = mean.method().bind::<PluginError>(2, &HostHooks::SILENT, |_, _| Ok(Some(3.into()))).unwrap();
    assert_eq!(run(&scaled, &block("w")).unwrap(), [6.0; 4]);
}

#[test]
fn base_and_factors_arrive_where_declared() {
    let based = bound(&["FLAGS=(SKW_ELEMENTWISE|SKW_NEEDS_BASE|SKW_LOW_RANK)"], 2);
    let low = LowRank::new(array![[1.0], [2.0]], array![[3.0, 5.0]]).unwrap();
    let experts = [ExpertBlock::LowRank(&low), ExpertBlock::Dense(&B)];
    let inputs = BlockInputs { experts: &experts, base: Some(&[10.0; 4]), ..block("w") };
    assert_eq!(run(&based, &inputs).unwrap(), [13.0, 13.5, 13.5, 15.0]);
}

#[test]
fn statistics_of_experts_arrive_where_declared() {
    let (first, second, gram) = ([1.0; 4], [0.5; 4], [0.25; 9]);
    let both: [&[f32]; 2] = [&first, &second];
    let inputs = BlockInputs { statistics: &both, ..block("w") };
    let measured = bound(&["FLAGS=(SKW_ELEMENTWISE|SKW_NEEDS_STATISTICS)"], 2);
    // The mean of 4 and of 4 · 1.5.
    assert_eq!(run(&measured, &inputs).unwrap(), [2.0 + 3.0; 4]);
    assert_eq!(run(&bound(&[], 2), &inputs).unwrap(), [2.0; 4]);
    let matrix = bound(&["FLAGS=(SKW_MATRIX|SKW_NEEDS_STATISTICS)"], 2);
    let grams: [&[f32]; 2] = [&gram; 2];
    let experts = [ExpertBlock::Dense(&A[..3]), ExpertBlock::Dense(&[3.0, 2.0, 1.0])];
    let inputs = BlockInputs { shape: &[1, 3], len: 3, experts: &experts, statistics: &grams, ..block("w") };
    let mut out = [f32::NAN; 3];
    matrix.run(&inputs, &[0.0; 2], &mut out, &mut [0.0; 3]).unwrap();
    assert_eq!(out, [2.0 + 9.0 * 0.25; 3]);
    for (statistics, words) in [
        (&both[..1], "list of statistics has length 1, needed is 2"),
        (&[&first[..], &second[..3]][..], "statistics has length 3, needed is 4"),
    ] {
        let error = run(&measured, &BlockInputs { statistics, ..block("w") }).unwrap_err();
        assert!(matches!(error, PluginError::BadCall { .. }) && error.to_string().contains(words), "{error}");
    }
}

#[test]
fn statistics_are_added_up() {
    let probe = bound(&[], 2);
    assert_eq!((probe.plan().sums_len.as_slice(), probe.plan().scope), (&[2][..], Scope::Global));
    assert_eq!((probe.plan().passes(), probe.plan().totals_len(), probe.plan().totals_of(0)), (1, 2, 0..2));
    let mut sums = [100.0, 0.0];
    for _ in 0..2 {
        let more = probe.observe(&block("w"), 0, &[], &mut sums, &mut [0.0; 4]).unwrap();
        assert!(more.is_continue());
    }
    assert_eq!(sums, [120.0, 2.0]);
    let more = probe.observe(&block("settled"), 0, &[], &mut sums, &mut [0.0; 4]).unwrap();
    assert!(more.is_break());
}

#[test]
fn passes_see_everything_unless_a_sample_is_enough() {
    assert_eq!(bound(&[], 2).plan().sample, [1]);
    assert_eq!(bound(&["SAMPLE=32"], 2).plan().sample, [32]);
}

#[test]
fn masks_have_no_bits_past_the_end() {
    let mask = bound(&["KIND=SKW_KIND_MASK"], 2);
    let (mut first, mut second) = ([0xaa; 1], [0x55; 1]);
    let inputs = BlockInputs { merged: Some(&A), ..block("w") };
    mask.run_mask(&inputs, &[0.0; 2], &mut [&mut first, &mut second], &mut [0.0; 4]).unwrap();
    // The plugin sets all eight bits.
    assert_eq!((first, second), ([0b1111], [0b1111]));
}

#[test]
fn rescalers_must_be_finite() {
    let mask = bound(&["KIND=SKW_KIND_MASK", "FLAGS=(SKW_ELEMENTWISE|SKW_EMITS_MASKS)"], 2);
    assert_eq!(mask.rescale(&[3.0, 2.0], &HostHooks::SILENT).unwrap(), [1.5, 1.5]);
    let error = mask.rescale(&[0.0, 0.0], &HostHooks::SILENT).unwrap_err();
    assert!(error.to_string().contains("the rescaler of expert 0 is NaN"), "{error}");
}

#[test]
fn failures_arrive_with_their_words() {
    let probe = bound(&[], 2);
    let message = |key| run(&probe, &block(key)).unwrap_err().to_string();
    assert_eq!(message("fail"), "probe failed on tensor fail: the last words count");
    assert_eq!(message("speechless"), "probe failed on tensor speechless: the plugin gave no reason");
    assert_eq!(
        message("panic"),
        "probe panicked on tensor panic: index out of bounds; this is a bug of the plugin"
    );
    assert!(message("strange").contains("unknown status 42"));
}

#[test]
fn hooks_are_called() {
    let heard = Mutex::new(Vec::new());
    let done = Mutex::new(Vec::new());
    let hooks = HostHooks {
        log: &|level, line| heard.lock().unwrap().push((level, line.to_owned())),
        progress: &|fraction| done.lock().unwrap().push(fraction),
        ..HostHooks::SILENT
    };
    run(&bound(&[], 2), &BlockInputs { hooks: &hooks, ..block("chatty") }).unwrap();
    let expected =
        [(Level::Warning, "a warning".to_owned()), (Level::Debug, "not UTF-8: \u{fffd}".to_owned())];
    assert_eq!(*heard.lock().unwrap(), expected);
    assert_eq!(*done.lock().unwrap(), [0.25, 1.0]);

    let hooks = HostHooks { cancelled: &|| true, ..HostHooks::SILENT };
    let error = run(&bound(&[], 2), &BlockInputs { hooks: &hooks, ..block("w") }).unwrap_err();
    assert!(matches!(error, PluginError::Cancelled { .. }), "{error}");
}

#[test]
fn calls_that_do_not_fit_never_reach_the_plugin() {
    let probe = bound(&[], 2);
    let (matrix, whole) = (bound(&["FLAGS=SKW_MATRIX"], 2), bound(&["WHOLE=1"], 2));
    let rows = bound(&["FLAGS=SKW_ROWS"], 2);
    let based = bound(&["FLAGS=(SKW_ELEMENTWISE|SKW_NEEDS_BASE)"], 2);
    let low = LowRank::new(array![[1.0], [2.0]], array![[3.0, 5.0]]).unwrap();
    let factors = [ExpertBlock::LowRank(&low); 2];
    let short = [ExpertBlock::Dense(&A[..3]), ExpertBlock::Dense(&B)];
    let cases = [
        (&probe, BlockInputs { offset: 4, ..block("w") }, "multiple of 8"),
        (&probe, BlockInputs { offset: 8, ..block("w") }, "reaches past the tensor's 4"),
        (&probe, BlockInputs { offset: usize::MAX - 7, ..block("w") }, "reaches past"),
        (&probe, BlockInputs { shape: &[usize::MAX, 3], ..block("w") }, "more elements than fit"),
        (&probe, BlockInputs { experts: &EXPERTS[..1], ..block("w") }, "list of experts has length 1"),
        (&probe, BlockInputs { experts: &short, ..block("w") }, "expert has length 3, needed is 4"),
        (&probe, BlockInputs { experts: &factors, ..block("w") }, "multiply them out"),
        (&matrix, BlockInputs { shape: &[4, 2], ..block("w") }, "wants whole tensors"),
        (&rows, BlockInputs { shape: &[2, 3], ..block("w") }, "wants whole rows of 3"),
        (&rows, BlockInputs { shape: &[16], offset: 8, ..block("w") }, "wants whole rows of 16"),
        (&whole, BlockInputs { shape: &[4, 2], ..block("w") }, "wants whole tensors"),
        (&based, block("w"), "needs the base"),
        (&based, BlockInputs { base: Some(&A[..1]), ..block("w") }, "base has length 1"),
    ];
    for (bound, inputs, words) in cases {
        let error = run(bound, &inputs).unwrap_err();
        assert!(matches!(error, PluginError::BadCall { .. }) && error.to_string().contains(words), "{error}");
    }
    let (mut out, mut scratch) = ([0.0; 4], [0.0; 4]);
    for (error, words) in [
        (probe.run(&block("w"), &[0.0; 2], &mut out[..3], &mut scratch).map(drop), "output has length 3"),
        (probe.run(&block("w"), &[0.0; 1], &mut out, &mut scratch).map(drop), "totals has length 1"),
        (
            probe.run(&block("w"), &[0.0; 2], &mut out, &mut scratch[..3]).map(drop),
            "scratch of 4 floats, got 3",
        ),
        (probe.run_mask(&block("w"), &[0.0; 2], &mut [], &mut scratch), "gives values, not masks"),
        (probe.observe(&block("w"), 1, &[0.0; 2], &mut [], &mut scratch).map(drop), "no observe pass 1"),
        (probe.observe(&block("w"), 0, &[], &mut [0.0], &mut scratch).map(drop), "sums has length 1"),
        (probe.rescale(&[0.0; 2], &HostHooks::SILENT).map(|_| ()), "no rescalers"),
    ] {
        let error = error.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn plans_are_checked() {
    let plan_error = |macros: &[&str]| {
        support::method(macros).bind_defaults(2, &HostHooks::SILENT).unwrap_err().to_string()
    };
    assert!(plan_error(&["PASSES=9"]).contains("9 passes, allowed are 8"));
    assert!(plan_error(&["OBSERVE=NULL"]).contains("`observe` is null"));
    assert!(plan_error(&["SCRATCH=1000000"]).contains("1000000 floats of scratch"));
}

#[test]
fn two_threads_at_once_do_not_meet() {
    let probe = bound(&[], 2);
    std::thread::scope(|scope| {
        for number in 1..=2 {
            let probe = &probe;
            scope.spawn(move || {
                let value = [number as f32; 4];
                let experts = [ExpertBlock::Dense(&value); 2];
                for _ in 0..2000 {
                    assert_eq!(run(probe, &BlockInputs { experts: &experts, ..block("w") }).unwrap(), value);
                    assert!(run(probe, &block("fail")).unwrap_err().to_string().contains("the last words"));
                }
            });
        }
    });
}
