//! All plugins in one binary: each exports the same symbol from its library, and none of them clash here.

use skillweld_plugin_emr as _;
use skillweld_plugin_fusion as _;
use skillweld_plugin_linear as _;
use skillweld_plugin_model_stock as _;
use skillweld_plugin_ram as _;
use skillweld_plugin_sce as _;
use skillweld_plugin_slerp as _;
use skillweld_plugin_tall as _;
use skillweld_plugin_task_arithmetic as _;

/// A dependency on a plugin builds its library, too, beside the test.
#[test]
fn every_library_lies_beside_this_test_and_exports_the_symbol() {
    let test = std::env::current_exe().unwrap();
    for name in ["emr", "fusion", "linear", "model_stock", "ram", "sce", "slerp", "tall", "task_arithmetic"] {
        let file = format!(
            "{}skillweld_plugin_{name}{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        );
        let bytes = std::fs::read(test.with_file_name(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let symbol = b"\0skillweld_plugin_v1\0";
        assert!(bytes.windows(symbol.len()).any(|window| window == symbol), "{file} lacks the symbol");
    }
}
