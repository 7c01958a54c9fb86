//! Whole merges on the emulated GPU: the same bytes as the CPU's, and the same errors.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;

use skillweld_gpu::{Device, Fork, GpuError};
use skillweld_kernels::{Emulator, Emulators};
use skillweld_store::{SafetensorsWriter, TensorSpec};
use skillweld_synth::{ExpertForm, PrismaticSpec};
use skillweld_tensor::{Dtype, convert};

use super::super::tests::{SMALL, files, merge_on};
use super::DeviceReport;
use crate::MergeError;

/// Elements of the tensors `x`, `y` and `z`: several slabs and no whole byte of a mask, a handful, whole slabs.
const LENGTHS: [(&str, usize); 3] = [("x", 20_003), ("y", 7), ("z", 2 * 8 * 1024)];

/// A value that shifts with the model; exact in none of the dtypes.
fn value(model: usize, i: usize) -> f32 {
    (i as f32 * 0.37 + model as f32).sin() + 0.1 * model as f32
}

/// Writes a model of one dtype; `spoil` may change its values.
fn model(root: &Path, number: usize, dtype: Dtype, spoil: impl Fn(&str, &mut [f32])) {
    let dir = root.join(format!("m{number}"));
    std::fs::create_dir(&dir).unwrap();
    let spec = |(name, len): (&str, usize)| TensorSpec { name: name.to_owned(), dtype, shape: vec![len] };
    let specs = LENGTHS.map(spec).into();
    let writer = SafetensorsWriter::create(&dir, "model", specs, &BTreeMap::new(), None).unwrap();
    for (index, (name, len)) in LENGTHS.into_iter().enumerate() {
        let mut values: Vec<f32> = (0..len).map(|i| value(number, i)).collect();
        spoil(name, &mut values);
        let mut bytes = vec![0; dtype.byte_len(len).unwrap()];
        convert::encode(dtype, &values, &mut bytes).unwrap();
        writer.write_at(index, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// Merges on the CPU and on the emulation, and gives what the latter says of itself, or the error of both.
fn on_both(root: &Path, recipe: &str) -> Result<DeviceReport, String> {
    let file = root.join("recipe.yaml");
    std::fs::write(&file, recipe).unwrap();
    let [cpu, gpu] = ["cpu", "gpu"].map(|name| root.join(name));
    let on_cpu = merge_on::<Device>(&file, &cpu, SMALL, 1, None).map_err(|error| error.to_string());
    let on_gpu = merge_on(&file, &gpu, SMALL, 3, Some(&Emulators::default())).map_err(|e| e.to_string());
    let report = match (on_cpu, on_gpu) {
        (Ok((cpu, None)), Ok((gpu, Some(report)))) => {
            assert_eq!(cpu, gpu);
            Ok(report)
        }
        (Err(cpu), Err(gpu)) => {
            assert_eq!(cpu, gpu);
            Err(cpu)
        }
        other => panic!("{other:?}"),
    };
    if report.is_ok() {
        let (cpu, gpu) = (files(&cpu), files(&gpu));
        assert!(cpu.keys().eq(gpu.keys()));
        cpu.iter().for_each(|(path, bytes)| assert!(gpu[path] == *bytes, "{} differs", path.display()));
    }
    for out in [cpu, gpu] {
        std::fs::remove_dir_all(out).unwrap();
    }
    report
}

const BASE: &str = "base_model: m0\nmodels: [{model: m1}, {model: m2}, {model: m3}]\n";

#[test]
fn masked_merges_of_full_models_and_adapters() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = PrismaticSpec::tiny();
    spec.language.vocab = 300;
    let forms = [ExpertForm::Adapter, ExpertForm::Full, ExpertForm::Adapter];
    let written = spec.write_all(dir.path(), &forms).unwrap();
    let models: String =
        written.experts.iter().map(|(_, path)| format!("  - {{model: {}}}\n", path.display())).collect();
    let models = format!("base_model: {}\nmodels:\n{models}", written.base.display());
    let masked = "merge_method: task_arithmetic\nmask: {method: tall, lambda: 0.6}\n";
    let report = on_both(dir.path(), &format!("{masked}{models}")).unwrap();
    assert!(report.on_device > 10, "{report:?}");
    assert_eq!((report.on_cpu, report.again), (0, 0));
    // No kernel for one of the two methods: the CPU's.
    let report = on_both(dir.path(), &format!("merge_method: emr\nmask: emr\n{models}")).unwrap();
    assert_eq!((report.on_device, report.on_cpu > 10), (0, true));
}

#[test]
fn every_stored_dtype_and_output() {
    let dtypes = [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::F8E4M3];
    for base in 0..dtypes.len() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..4 {
            model(dir.path(), number, dtypes[(base + number) % dtypes.len()], |_, _| ());
        }
        for (out, on_device) in [("bfloat16", 3), ("float16", 3), ("float32", 3), ("float64", 0)] {
            let recipe = format!(
                "merge_method: task_arithmetic\n{BASE}out_dtype: {out}\nparameters: {{normalize: true, lambda: 0.7}}\n"
            );
            let report = on_both(dir.path(), &recipe).unwrap();
            assert_eq!(
                (report.on_device, report.on_cpu, report.again),
                (on_device, 3 - on_device, 0),
                "{out}"
            );
        }
    }
}

#[test]
fn merges_of_weights() {
    let dir = tempfile::tempdir().unwrap();
    for (number, dtype) in [Dtype::BF16, Dtype::BF16, Dtype::F32, Dtype::F64].into_iter().enumerate() {
        model(dir.path(), number, dtype, |_, _| ());
    }
    let weights = "parameters: {weight: [{filter: x, value: 0.3}, {value: 2}], normalize: false}\n";
    for recipe in [
        format!("merge_method: linear\n{BASE}"),
        format!("merge_method: linear\n{BASE}{weights}out_dtype: float32\n"),
        "merge_method: linear\nmodels: [{model: m1}, {model: m2}]\nout_dtype: bfloat16\n".to_owned(),
        "merge_method: passthrough\nmodels: [{model: m2}]\nparameters: {scale: 0.1}\n".to_owned(),
    ] {
        let report = on_both(dir.path(), &recipe).unwrap();
        assert_eq!((report.on_cpu, report.again), (0, 0), "{recipe}");
        assert!(report.on_device > 0, "{recipe}");
    }
}

#[test]
fn what_is_not_finite_is_named_or_kept_as_on_the_cpu() {
    for (spoilt, at) in [(0, 9_000), (2, 20_002), (3, 5)] {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..4 {
            model(dir.path(), number, Dtype::F16, |name, values| {
                if name == "x" && number == spoilt {
                    values[at] = if at % 2 == 0 { f32::INFINITY } else { f32::NAN };
                }
            });
        }
        let recipe = format!("merge_method: task_arithmetic\nmask: tall\n{BASE}");
        let error = on_both(dir.path(), &recipe).unwrap_err();
        assert!(error.contains(&at.to_string()), "{error}");
        let report = on_both(dir.path(), &format!("{recipe}allow_non_finite: true\n")).unwrap();
        assert_eq!((report.on_device, report.again), (3, 1));
    }
}

#[test]
fn a_sum_that_the_output_cannot_hold_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..4 {
        model(dir.path(), number, Dtype::F32, |name, values| {
            if name == "z" && number > 0 {
                values[12_345] = 30_000.0;
            }
        });
    }
    let error = on_both(dir.path(), &format!("merge_method: task_arithmetic\n{BASE}out_dtype: float16\n"));
    assert!(error.unwrap_err().contains("12345"));
}

/// A GPU that is full.
struct Full;

impl Fork for Full {
    type Target = Emulator;

    fn fork_target(&self) -> Result<Emulator, GpuError> {
        Err(GpuError::Unavailable { reason: "it is full".to_owned() })
    }
}

#[test]
fn a_gpu_that_fails_fails_the_merge() {
    let dir = tempfile::tempdir().unwrap();
    (0..4).for_each(|number| model(dir.path(), number, Dtype::BF16, |_, _| ()));
    let recipe = dir.path().join("recipe.yaml");
    std::fs::write(&recipe, format!("merge_method: task_arithmetic\n{BASE}")).unwrap();
    let error = merge_on(&recipe, &dir.path().join("out"), SMALL, 2, Some(&Full)).unwrap_err();
    assert!(matches!(error, MergeError::Gpu(_)), "{error}");
}
