//! An episode's frames as a parquet file.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use indexmap::IndexMap;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

use crate::RecorderError;
use crate::atomic::Pending;
use crate::column::Column;
use crate::info::Feature;
use crate::journal::Track;

/// Frames that are in memory at once.
const BATCH: usize = 32;

/// A row group is closed when it has about so many bytes: what is in memory encoded, and what a reader loads at least.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Writes all frames beside the file's place. `columns` has the features that no camera sees, `tracks` the images that are no
/// videos, each in the order of `features`; videos have no column.
pub(crate) fn write(
    path: &Path,
    features: &IndexMap<String, Feature>,
    columns: &IndexMap<String, Column>,
    tracks: &[Track],
) -> Result<Pending, RecorderError> {
    let (pending, file) = Pending::create(path)?;
    let schema = Arc::new(schema(features, columns));
    let properties = properties(features);
    let rows = columns.values().next().map_or(0, Column::rows);
    let mut readers = tracks.iter().map(Track::read).collect::<Result<Vec<_>, _>>()?;
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
        .map_err(RecorderError::writing(path))?;
    for begin in (0..rows).step_by(BATCH) {
        let range = begin..rows.min(begin + BATCH);
        let mut images = readers.iter_mut();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(features.len());
        for name in features.keys() {
            match columns.get(name) {
                Some(column) => arrays.push(column.array(range.clone())),
                None => {
                    let Some(reader) = images.next() else { continue };
                    let pngs = range.clone().map(|_| reader.next()).collect::<Result<Vec<_>, _>>()?;
                    arrays.push(image_array(&pngs, begin));
                }
            }
        }
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)
            .map_err(|error| RecorderError::damaged(path, format!("cannot be written: {error}")))?;
        writer.write(&batch).map_err(RecorderError::writing(path))?;
    }
    let file: File = writer.into_inner().map_err(RecorderError::writing(path))?;
    file.sync_all().map_err(RecorderError::io("sync", path))?;
    Ok(pending)
}

fn image_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

/// Images as `datasets` has them: the file, and a name for it.
fn image_array(pngs: &[Vec<u8>], first: usize) -> ArrayRef {
    let bytes = BinaryArray::from_iter_values(pngs);
    let names = (first..).take(pngs.len()).map(|frame| format!("frame-{frame:06}.png"));
    let names = StringArray::from_iter_values(names);
    Arc::new(StructArray::new(image_fields(), vec![Arc::new(bytes), Arc::new(names)], None))
}

fn schema(features: &IndexMap<String, Feature>, columns: &IndexMap<String, Column>) -> Schema {
    let fields: Vec<_> = features
        .iter()
        .filter(|(_, feature)| !feature.is_video())
        .map(|(name, _)| {
            let data_type =
                columns.get(name).map_or_else(|| DataType::Struct(image_fields()), Column::data_type);
            Field::new(name, data_type, true)
        })
        .collect();
    let metadata = HashMap::from([("huggingface".to_owned(), huggingface(features))]);
    Schema::new_with_metadata(fields, metadata)
}

/// What `datasets` wants to know of the columns: without it, images would be structs of bytes to it.
fn huggingface(features: &IndexMap<String, Feature>) -> String {
    let columns: Map<_, _> = features
        .iter()
        .filter(|(_, feature)| !feature.is_video())
        .map(|(name, feature)| {
            let value = json!({ "dtype": feature.dtype, "_type": "Value" });
            let column = match feature.shape.as_slice() {
                _ if feature.is_image() => json!({ "_type": "Image" }),
                [1] => value,
                [n] => json!({ "feature": value, "length": n, "_type": "List" }),
                _ => Value::Null,
            };
            (name.clone(), column)
        })
        .collect();
    json!({ "info": { "features": columns } }).to_string()
}

fn properties(features: &IndexMap<String, Feature>) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES));
    for (name, _) in features.iter().filter(|(_, feature)| feature.is_image()) {
        // PNG files compress no further, repeat never, and have no least and largest that anybody looks for.
        let bytes = ColumnPath::new(vec![name.clone(), "bytes".into()]);
        properties = properties
            .set_column_compression(bytes.clone(), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(bytes.clone(), false)
            .set_column_statistics_enabled(bytes, EnabledStatistics::None);
    }
    properties.build()
}
