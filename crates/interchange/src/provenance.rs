//! `skillweld_export.json`: what was exported, and from what. It also tells `--force` that the folder is ours.

use std::path::Path;

use serde_json::{Value, json};
use skillweld_merged::layout::{EXPORT_PROVENANCE, FORMAT_VERSION};
use skillweld_store::write_json;

use crate::InterchangeError;

/// `of` has what is special to this export; nothing in it depends on time, machine or thread count.
pub(crate) fn write(dir: &Path, format: &str, of: Value) -> Result<(), InterchangeError> {
    let mut document = json!({
        "format_version": FORMAT_VERSION,
        "skillweld_version": env!("CARGO_PKG_VERSION"),
        "format": format,
    });
    if let (Value::Object(document), Value::Object(of)) = (&mut document, of) {
        document.extend(of);
    }
    Ok(write_json(&dir.join(EXPORT_PROVENANCE), &document)?)
}
