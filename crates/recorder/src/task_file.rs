//! `meta/tasks.parquet`: a pandas frame whose index are the texts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Int64Array, StringArray};
use arrow_schema::Schema;
use serde_json::json;

use crate::atomic::Pending;
use crate::{RecorderError, episode_file, table};

/// Writes the texts, numbered in this order, beside the file's place.
pub(crate) fn write(path: &Path, tasks: &[String]) -> Result<Pending, RecorderError> {
    let numbers = Int64Array::from_iter_values(0..tasks.len() as i64);
    let columns = vec![
        ("task_index".to_owned(), Arc::new(numbers) as _),
        ("task".to_owned(), Arc::new(StringArray::from_iter_values(tasks)) as _),
    ];
    episode_file::write_batch(path, columns, |fields| {
        Schema::new_with_metadata(fields, HashMap::from([("pandas".to_owned(), pandas())]))
    })
}

/// What makes `task` the index when pandas reads the file; lerobot looks tasks up there.
fn pandas() -> String {
    let column = |name: &str, pandas_type: &str, numpy_type: &str| {
        json!({
            "name": name,
            "field_name": name,
            "pandas_type": pandas_type,
            "numpy_type": numpy_type,
            "metadata": null,
        })
    };
    let names = json!({
        "name": null,
        "field_name": null,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": { "encoding": "UTF-8" },
    });
    json!({
        "index_columns": ["task"],
        "column_indexes": [names],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": { "library": "skillweld", "version": env!("CARGO_PKG_VERSION") },
        "pandas_version": "2.2.0",
    })
    .to_string()
}

/// The texts by their numbers.
pub(crate) fn read(path: &Path) -> Result<Vec<String>, RecorderError> {
    let mut tasks = Vec::new();
    for table in table::read(path)? {
        // An index without a name has this one in the file.
        let name = if table.has("task") { "task" } else { "__index_level_0__" };
        for row in 0..table.rows() {
            tasks.push((table.index("task_index", row)?, table.text(name, row)?));
        }
    }
    tasks.sort();
    if tasks.iter().enumerate().any(|(expected, (index, _))| expected != *index) {
        return Err(RecorderError::damaged(path, "tasks are not numbered 0, 1, 2, …: restore the file"));
    }
    Ok(tasks.into_iter().map(|(_, text)| text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.parquet");
        let tasks = ["stack", "öffne die Schublade", "a"].map(String::from);
        write(&path, &tasks).unwrap().commit().unwrap();
        assert_eq!(read(&path).unwrap(), tasks);
    }
}
