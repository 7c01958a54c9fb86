//! One column of an episode in memory, and the same as Arrow has it.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Int64Array};
use arrow_schema::{DataType, Field};

use crate::RecorderError;
use crate::info::Feature;
use crate::spec::ExtraValue;

/// Row after row, `width` values in each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) width: usize,
    pub(crate) values: Values,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    Bool(Vec<bool>),
    F32(Vec<f32>),
    I64(Vec<i64>),
}

impl Column {
    /// An empty one for a feature that is neither image nor video.
    pub(crate) fn new(feature: &Feature) -> Result<Self, RecorderError> {
        let values = match feature.dtype.as_str() {
            "bool" => Values::Bool(Vec::new()),
            "float32" => Values::F32(Vec::new()),
            "int64" => Values::I64(Vec::new()),
            other => {
                return Err(RecorderError::Spec(format!("columns of dtype {other} are not recorded")));
            }
        };
        Ok(Self { width: feature.shape.iter().product(), values })
    }

    pub(crate) fn rows(&self) -> usize {
        let values = match &self.values {
            Values::Bool(values) => values.len(),
            Values::F32(values) => values.len(),
            Values::I64(values) => values.len(),
        };
        values / self.width.max(1)
    }

    /// A value as a number: true is 1.
    pub(crate) fn number(&self, row: usize, dimension: usize) -> f64 {
        let at = row * self.width + dimension;
        match &self.values {
            Values::Bool(values) => f64::from(u8::from(values[at])),
            Values::F32(values) => f64::from(values[at]),
            Values::I64(values) => values[at] as f64,
        }
    }

    pub(crate) fn push_f32(&mut self, new: &[f64]) {
        if let Values::F32(values) = &mut self.values {
            values.extend(new.iter().map(|&value| value as f32));
        }
    }

    pub(crate) fn push_i64(&mut self, value: i64) {
        if let Values::I64(values) = &mut self.values {
            values.push(value);
        }
    }

    /// The value is of the column's kind: frames are checked before.
    pub(crate) fn push(&mut self, value: ExtraValue) {
        match (&mut self.values, value) {
            (Values::Bool(values), ExtraValue::Bool(value)) => values.push(value),
            (Values::F32(values), ExtraValue::F32(value)) => values.push(value),
            (Values::I64(values), ExtraValue::I64(value)) => values.push(value),
            _ => {}
        }
    }

    /// Scalars where a row has one value, else lists of fixed size: what `lerobot` makes of shapes `[1]` and `[n]`.
    pub(crate) fn data_type(&self) -> DataType {
        let single = match &self.values {
            Values::Bool(_) => DataType::Boolean,
            Values::F32(_) => DataType::Float32,
            Values::I64(_) => DataType::Int64,
        };
        if self.width == 1 {
            return single;
        }
        DataType::FixedSizeList(item(single), self.width as i32)
    }

    pub(crate) fn array(&self, rows: Range<usize>) -> ArrayRef {
        let range = rows.start * self.width..rows.end * self.width;
        let values: ArrayRef = match &self.values {
            Values::Bool(values) => Arc::new(BooleanArray::from(values[range].to_vec())),
            Values::F32(values) => Arc::new(Float32Array::from(values[range].to_vec())),
            Values::I64(values) => Arc::new(Int64Array::from(values[range].to_vec())),
        };
        if self.width == 1 {
            return values;
        }
        let field = item(values.data_type().clone());
        Arc::new(FixedSizeListArray::new(field, self.width as i32, values, None))
    }
}

fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, true))
}
