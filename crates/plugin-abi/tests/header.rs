//! The C headers and the Rust structs must say the same: constants are read from the header's text, layouts are
//! checked by a C compiler.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use skillweld_plugin_abi as abi;

fn header() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/skillweld_plugin.h")).unwrap()
}

/// The value of `#define NAME VALUE` as an integer: decimal, hexadecimal or `(1ull << n)`.
fn define(name: &str) -> u64 {
    let header = header();
    let line = header.lines().find_map(|l| l.strip_prefix(&format!("#define {name} ")));
    let text =
        line.unwrap_or_else(|| panic!("{name} is not in the header")).split("/*").next().unwrap().trim();
    if let Some(shift) = text.strip_prefix("(1ull << ") {
        return 1 << shift.trim_end_matches(')').parse::<u32>().unwrap();
    }
    let digits = text.trim_end_matches(['u', 'l']);
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => digits.parse().unwrap(),
    }
}

#[test]
fn constants_are_equal() {
    assert_eq!(define("SKW_LAYOUT_HASH"), abi::LAYOUT_HASH, "header needs {:#x}", abi::LAYOUT_HASH);
    let pairs = [
        ("SKW_MAGIC", abi::MAGIC),
        ("SKW_ABI_MINOR", abi::ABI_MINOR.into()),
        ("SKW_MAX_PASSES", abi::MAX_PASSES as u64),
        ("SKW_KIND_MERGE", abi::KIND_MERGE.into()),
        ("SKW_KIND_MASK", abi::KIND_MASK.into()),
        ("SKW_SCOPE_TENSOR", abi::SCOPE_TENSOR.into()),
        ("SKW_SCOPE_GLOBAL", abi::SCOPE_GLOBAL.into()),
        ("SKW_TASK_VECTORS", abi::flags::TASK_VECTORS),
        ("SKW_NEEDS_BASE", abi::flags::NEEDS_BASE),
        ("SKW_ELEMENTWISE", abi::flags::ELEMENTWISE),
        ("SKW_MATRIX", abi::flags::MATRIX),
        ("SKW_LOW_RANK", abi::flags::LOW_RANK),
        ("SKW_DETERMINISTIC", abi::flags::DETERMINISTIC),
        ("SKW_EMITS_MASKS", abi::flags::EMITS_MASKS),
        ("SKW_PROPAGATES_NON_FINITE", abi::flags::PROPAGATES_NON_FINITE),
        ("SKW_OPTIONAL_BASE", abi::flags::OPTIONAL_BASE),
        ("SKW_ROWS", abi::flags::ROWS),
        ("SKW_NEEDS_STATISTICS", abi::flags::NEEDS_STATISTICS),
        ("SKW_ANY_SHAPE", abi::flags::ANY_SHAPE),
        ("SKW_LAW_IDENTITY", abi::laws::IDENTITY),
        ("SKW_LAW_PERMUTATION", abi::laws::PERMUTATION),
        ("SKW_LAW_ENDPOINTS", abi::laws::ENDPOINTS),
        ("SKW_LAW_LINEAR", abi::laws::LINEAR),
        ("SKW_LAW_HOMOGENEOUS", abi::laws::HOMOGENEOUS),
        ("SKW_LAW_ZERO", abi::laws::ZERO),
        ("SKW_LAW_SIGN_AGREEMENT", abi::laws::SIGN_AGREEMENT),
        ("SKW_LAW_KEEPS_ITSELF", abi::laws::KEEPS_ITSELF),
        ("SKW_OK", abi::status::OK as u64),
        ("SKW_ERROR", abi::status::ERROR as u64),
        ("SKW_PANIC", abi::status::PANIC as u64),
        ("SKW_CANCELLED", abi::status::CANCELLED as u64),
    ];
    for (name, value) in pairs {
        assert_eq!(define(name), value, "{name}");
    }
    assert!(header().contains(&format!("#define SKW_CUDA_EXTENSION \"{}\"\n", abi::CUDA_EXTENSION)));
}

#[test]
fn a_c_compiler_lays_the_structs_out_as_rust_does() {
    let mut program = String::from("#include \"skillweld_plugin.h\"\n#include \"skillweld_cuda.h\"\n");
    let mut check = |what: String, rust: usize| {
        program.push_str(&format!("_Static_assert({what} == {rust}, \"{what}\");\n"));
    };
    macro_rules! sizes {
        ($($c:literal $rust:ident: $($field:ident),+;)+) => {$(
            check(format!("sizeof({})", $c), size_of::<abi::$rust>());
            $(check(format!("offsetof({}, {})", $c, stringify!($field)), offset_of!(abi::$rust, $field));)+
        )+};
    }
    sizes! {
        "skw_str" Str: ptr, len;
        "skw_host" Host: size, context, error, log, progress, cancelled, settled, path;
        "skw_params" Params: size, global, global_count, per_expert, per_expert_count, expert_count;
        "skw_plan" Plan: size, passes, scope, sums_len, scratch_per_element, sample, whole;
        "skw_tensor" Tensor: dense, b, a, rank, statistics, statistics_len;
        "skw_call" Call: size, host, params, key, shape, ndim, numel, offset, len, seed, expert_count, experts,
            expert_stride, base, merged, totals, totals_len, out, masks, scratch, scratch_len;
        "skw_method" Method: size, kind, id, version, summary, citation, schema, mask, min_experts, max_experts,
            flags, laws, plan, observe, run, rescale, cuda;
        "skw_cuda" Cuda: size, threads, extension, image, image_len, run;
        "skw_cuda_call" CudaCall: size, len, offset, numel, seed, expert_count, experts, base, merged, totals, totals_len,
            global, global_count, per_expert, per_expert_count, out, masks;
        "skw_plugin" Plugin: magic, size, abi_minor, layout_hash, method_count, reserved, method;
    }
    let dir = std::env::temp_dir().join(format!("skillweld-header-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let source = dir.join("layout.c");
    std::fs::write(&source, program).unwrap();
    // Rust links through the C compiler, so one is there wherever these tests build.
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Werror", "-fsyntax-only", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(&source)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_dir_all(&dir).unwrap();
}
