use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use skillweld_tensor::{Dtype, numel};

use crate::HeaderProblem;
use crate::stored::StoredTensor;

/// Longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A validated header: every tensor lies within the file, and every byte of data belongs to exactly one tensor.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: BTreeMap<String, String>,
    /// Name and place of each tensor, in order of offsets.
    pub(crate) tensors: Vec<(String, StoredTensor)>,
}

/// Reads and validates the header of a whole file.
pub(crate) fn parse(file: &[u8]) -> Result<Header, HeaderProblem> {
    let file_bytes = file.len() as u64;
    let (length, rest) = file.split_first_chunk().ok_or(HeaderProblem::TooShort { file_bytes })?;
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > rest.len() as u64 {
        return Err(HeaderProblem::LongerThanFile { header_bytes, file_bytes });
    }
    if header_bytes > MAX_HEADER_BYTES {
        return Err(HeaderProblem::HeaderTooLarge { header_bytes, limit_bytes: MAX_HEADER_BYTES });
    }
    let (json, data) = rest.split_at(header_bytes as usize);
    let json = str::from_utf8(json)
        .map_err(|error| HeaderProblem::NotUtf8 { at_byte: length.len() + error.valid_up_to() })?;
    let raw: RawHeader<'_> =
        serde_json::from_str(json).map_err(|error| HeaderProblem::NotJson { reason: error.to_string() })?;
    let data_start = file.len() - data.len();
    let mut tensors = raw
        .tensors
        .into_iter()
        .map(|(name, raw)| validate(&name, raw, data.len()).map(|tensor| (name, tensor)))
        .collect::<Result<Vec<_>, _>>()?;
    refuse_duplicates(&tensors)?;
    // Empty tensors may share a begin with the tensor that follows them: they sort first.
    tensors.sort_by_key(|(_, tensor)| (tensor.range.start, tensor.range.end));
    refuse_overlaps_and_holes(&tensors, data.len())?;
    for (_, tensor) in &mut tensors {
        tensor.range = tensor.range.start + data_start..tensor.range.end + data_start;
    }
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.into_owned(), tensor)).collect();
    Ok(Header { metadata: raw.metadata, tensors })
}

fn validate(name: &str, raw: RawTensor<'_>, data_bytes: usize) -> Result<StoredTensor, HeaderProblem> {
    let tensor = || name.to_owned();
    let dtype: Dtype = raw
        .dtype
        .parse()
        .map_err(|()| HeaderProblem::UnknownDtype { tensor: tensor(), dtype: raw.dtype.into_owned() })?;
    let (begin, end) = raw.data_offsets;

    let Some(expected_bytes) = numel(&raw.shape).and_then(|n| dtype.byte_len(n)) else {
        return Err(HeaderProblem::ShapeOverflow { tensor: tensor(), shape: raw.shape });
    };
    if begin > end || end - begin != expected_bytes {
        return Err(HeaderProblem::SizeMismatch { tensor: tensor(), begin, end, expected_bytes });
    }
    if end > data_bytes {
        return Err(HeaderProblem::OutOfRange { tensor: tensor(), begin, end, data_bytes });
    }
    Ok(StoredTensor { dtype, shape: raw.shape, range: begin..end, strided: None })
}

fn refuse_duplicates(tensors: &[(Cow<'_, str>, StoredTensor)]) -> Result<(), HeaderProblem> {
    let mut seen = HashSet::with_capacity(tensors.len());
    match tensors.iter().find(|(name, _)| !seen.insert(name)) {
        Some((name, _)) => Err(HeaderProblem::DuplicateTensor { tensor: name.to_string() }),
        None => Ok(()),
    }
}

fn refuse_overlaps_and_holes(
    sorted: &[(Cow<'_, str>, StoredTensor)],
    data_bytes: usize,
) -> Result<(), HeaderProblem> {
    let mut end = 0;
    let mut previous = "";
    for (name, tensor) in sorted {
        if tensor.range.start > end {
            return Err(HeaderProblem::Hole { begin: end, end: tensor.range.start });
        }
        if tensor.range.start < end {
            return Err(HeaderProblem::Overlap {
                first: previous.to_owned(),
                first_end: end,
                second: name.to_string(),
                second_begin: tensor.range.start,
            });
        }
        end = tensor.range.end;
        previous = name;
    }
    if end < data_bytes { Err(HeaderProblem::Hole { begin: end, end: data_bytes }) } else { Ok(()) }
}

/// The header as JSON has it. A plain map type would silently keep the last of two equal names.
struct RawHeader<'a> {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(Cow<'a, str>, RawTensor<'a>)>,
}

#[derive(serde::Deserialize)]
struct RawTensor<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// A JSON string, borrowed unless it has escapes (`Cow` alone always copies map keys).
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for RawHeader<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = RawHeader<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut header = RawHeader { metadata: BTreeMap::new(), tensors: Vec::new() };
                while let Some(Name(name)) = map.next_key()? {
                    if name == "__metadata__" {
                        if !header.metadata.is_empty() {
                            return Err(A::Error::custom("__metadata__ stands twice"));
                        }
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Table)
    }
}
