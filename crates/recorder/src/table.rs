//! Parquet files read column by column: every column that is missing or of another kind is an error that names it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::RecorderError;

/// Rows of a file with the file's name.
pub(crate) struct Table {
    path: Arc<PathBuf>,
    batch: RecordBatch,
}

/// Reads rows `offset..offset + limit` in batches.
pub(crate) fn open(
    path: &Path,
    offset: usize,
    limit: usize,
    batch_size: usize,
) -> Result<Tables, RecorderError> {
    let file = File::open(path).map_err(RecorderError::io("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(RecorderError::reading(path))?;
    let reader = builder
        .with_batch_size(batch_size)
        .with_offset(offset)
        .with_limit(limit)
        .build()
        .map_err(RecorderError::reading(path))?;
    Ok(Tables { path: Arc::new(path.to_owned()), reader })
}

/// All rows of a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<Table>, RecorderError> {
    open(path, 0, usize::MAX, 1024)?.collect()
}

pub(crate) struct Tables {
    path: Arc<PathBuf>,
    reader: ParquetRecordBatchReader,
}

impl Iterator for Tables {
    type Item = Result<Table, RecorderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?.map_err(RecorderError::reading(&self.path));
        Some(batch.map(|batch| Table { path: Arc::clone(&self.path), batch }))
    }
}

impl Table {
    pub(crate) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// Names of all columns.
    pub(crate) fn names(&self) -> Vec<String> {
        self.batch.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    fn column(&self, name: &str) -> Result<&ArrayRef, RecorderError> {
        self.batch.column_by_name(name).ok_or_else(|| self.damaged(format!("has no column {name}")))
    }

    pub(crate) fn damaged(&self, problem: impl Into<String>) -> RecorderError {
        RecorderError::damaged(&self.path, problem)
    }

    /// The column's value in a row, as an index.
    pub(crate) fn index(&self, name: &str, row: usize) -> Result<usize, RecorderError> {
        let value = self.integer(name, row)?;
        usize::try_from(value).map_err(|_| self.damaged(format!("{name} is {value} in row {row}")))
    }

    pub(crate) fn integer(&self, name: &str, row: usize) -> Result<i64, RecorderError> {
        if let Some(column) = self.column(name)?.as_primitive_opt::<Int64Type>()
            && !column.is_null(row)
        {
            return Ok(column.value(row));
        }
        match self.numbers(name, row)?.as_slice() {
            [value] if value.fract() == 0.0 && value.abs() < 9e15 => Ok(*value as i64),
            _ => Err(self.damaged(format!("{name} is no whole number in row {row}"))),
        }
    }

    pub(crate) fn flag(&self, name: &str, row: usize) -> Result<bool, RecorderError> {
        match self.column(name)?.as_boolean_opt() {
            Some(column) if !column.is_null(row) => Ok(column.value(row)),
            _ => Err(self.damaged(format!("{name} is no flag in row {row}"))),
        }
    }

    /// All numbers of a row's value, however deep in lists they lie.
    pub(crate) fn numbers(&self, name: &str, row: usize) -> Result<Vec<f64>, RecorderError> {
        let mut numbers = Vec::new();
        flatten(self.column(name)?.as_ref(), row, &mut numbers)
            .map(|()| numbers)
            .ok_or_else(|| self.damaged(format!("{name} has something else than numbers in row {row}")))
    }

    pub(crate) fn text(&self, name: &str, row: usize) -> Result<String, RecorderError> {
        text(self.column(name)?.as_ref(), row)
            .ok_or_else(|| self.damaged(format!("{name} is no text in row {row}")))
    }

    pub(crate) fn texts(&self, name: &str, row: usize) -> Result<Vec<String>, RecorderError> {
        let texts = list(self.column(name)?.as_ref(), row)
            .and_then(|values| (0..values.len()).map(|i| text(values.as_ref(), i)).collect());
        texts.ok_or_else(|| self.damaged(format!("{name} is no list of texts in row {row}")))
    }

    /// The bytes of an image's struct.
    pub(crate) fn image(&self, name: &str, row: usize) -> Result<Vec<u8>, RecorderError> {
        let bytes = self.column(name)?.as_struct_opt().and_then(|image| {
            let bytes = image.column_by_name("bytes")?;
            if bytes.is_null(row) {
                return None;
            }
            match bytes.data_type() {
                DataType::Binary => Some(bytes.as_binary::<i32>().value(row).to_vec()),
                DataType::LargeBinary => Some(bytes.as_binary::<i64>().value(row).to_vec()),
                _ => None,
            }
        });
        bytes.ok_or_else(|| self.damaged(format!("{name} has no image in row {row}")))
    }
}

fn list(array: &dyn Array, row: usize) -> Option<ArrayRef> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => Some(array.as_fixed_size_list().value(row)),
        _ => None,
    }
}

fn text(array: &dyn Array, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).to_owned()),
        _ => None,
    }
}

fn flatten(array: &dyn Array, row: usize, into: &mut Vec<f64>) -> Option<()> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Float32 => into.push(f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => into.push(array.as_primitive::<Float64Type>().value(row)),
        DataType::Int32 => into.push(f64::from(array.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => into.push(array.as_primitive::<Int64Type>().value(row) as f64),
        DataType::UInt64 => into.push(array.as_primitive::<UInt64Type>().value(row) as f64),
        DataType::Boolean => into.push(f64::from(u8::from(array.as_boolean().value(row)))),
        _ => {
            let values = list(array, row)?;
            for index in 0..values.len() {
                flatten(values.as_ref(), index, into)?;
            }
        }
    }
    Some(())
}
