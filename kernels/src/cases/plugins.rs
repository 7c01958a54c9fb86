use skillweld_gpu::ops::{PluginBlock, PluginKernel, PluginOutput, Table, run_plugin};
use skillweld_gpu::{Array, Device, GpuError, Result, Target};
use skillweld_plugin_host::{HostHooks, PluginError, Registry};
use skillweld_tensor::Dtype;

use super::random_memory::f32_values;
use super::{Case, Work};

/// Elements of a block; a merge hands over fewer at once.
const NUMEL: usize = 1 << 26;
const EXPERTS: usize = 4;

pub(super) fn cases() -> Vec<Case> {
    let (numel, experts) = (NUMEL as f64, EXPERTS as f64);
    vec![
        Case {
            name: "plugins/task_arithmetic of 4",
            bytes: numel * 4.0 * (experts + 1.0),
            matrix_flop: 0.0,
            prepare: task_arithmetic,
        },
        Case {
            name: "plugins/tall of 4",
            bytes: numel * (4.0 * (experts + 1.0) + experts / 8.0),
            matrix_flop: 0.0,
            prepare: tall,
        },
    ]
}

fn task_arithmetic(device: &Device) -> Result<Work> {
    let mut out = device.array(Dtype::F32, NUMEL)?;
    prepare(device, false, move |run| run(&PluginOutput::Values(out.view_mut())))
}

fn tall(device: &Device) -> Result<Work> {
    let masks = (0..EXPERTS).map(|_| device.array(Dtype::U8, NUMEL / 8)).collect::<Result<Vec<_>>>();
    let mut masks = masks?;
    prepare(device, true, move |run| {
        run(&PluginOutput::Masks(masks.iter_mut().map(Array::view_mut).collect()))
    })
}

/// What launches a method over the operands, with this output.
type Run<'a> = dyn FnMut(&PluginOutput<'_>) -> Result<()> + 'a;

fn prepare(
    device: &Device,
    mask: bool,
    mut with_output: impl FnMut(&mut Run<'_>) -> Result<()> + 'static,
) -> Result<Work> {
    let absent = |error: PluginError| GpuError::DeviceCode {
        kernel: if mask { "tall_run" } else { "task_arithmetic_run" }.to_owned(),
        problem: error.to_string(),
    };
    let registry = Registry::discover(&[]).map_err(absent)?;
    let method = if mask { registry.mask("tall") } else { registry.merge("task_arithmetic") };
    let bound =
        method.and_then(|method| method.bind_defaults(EXPERTS, &HostHooks::SILENT)).map_err(absent)?;
    if bound.method().cuda().is_none() {
        let kernel = if mask { "tall_run" } else { "task_arithmetic_run" }.to_owned();
        return Err(GpuError::DeviceCode { kernel, problem: "the plugin brings no device code".to_owned() });
    }
    let values =
        (0..=EXPERTS as u64).map(|i| f32_values(device, NUMEL, 0.1, i)).collect::<Result<Vec<_>>>()?;
    let mut call = Table::new(device, 1024)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let block = PluginBlock {
            len: NUMEL,
            offset: 0,
            numel: NUMEL,
            seed: 0,
            experts: values[1..].iter().map(Array::view).collect(),
            base: None,
            merged: mask.then(|| values[0].view()),
            totals: None,
            global: bound.global(),
            per_expert: bound.per_expert(),
        };
        let Some(code) = bound.method().cuda() else { return Ok(()) };
        let kernel = PluginKernel { image: code.image, name: &code.run, threads: code.threads };
        with_output(&mut |output| run_plugin(&device, &mut call, kernel, &block, output))
    }))
}
