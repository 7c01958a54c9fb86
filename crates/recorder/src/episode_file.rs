//! `meta/episodes`: one row an episode, with where its frames lie and its statistics.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::RecorderError;
use crate::atomic::Pending;
use crate::layout::{self, FileNumber};
use crate::statistics::{FeatureStatistics, QUANTILES, Statistics};
use crate::table::{self, Table};

const STATS: &str = "stats/";
const VIDEOS: &str = "videos/";

/// What the metadata say of one episode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EpisodeRow {
    pub(crate) index: usize,
    pub(crate) tasks: Vec<String>,
    pub(crate) frames: usize,
    /// Number of its first frame in the dataset.
    pub(crate) begin: usize,
    pub(crate) data: FileNumber,
    pub(crate) videos: Vec<VideoPart>,
    /// Where this row lies.
    pub(crate) file: FileNumber,
}

/// What of a video file shows an episode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VideoPart {
    /// The feature's name.
    pub(crate) key: String,
    pub(crate) file: FileNumber,
    /// When its first frame begins in the file.
    pub(crate) from_s: f64,
    /// When its last frame ends there.
    pub(crate) to_s: f64,
}

/// Writes one episode's row beside the file's place.
pub(crate) fn write(
    path: &Path,
    row: &EpisodeRow,
    statistics: &FeatureStatistics,
) -> Result<Pending, RecorderError> {
    let integer = |value: usize| -> ArrayRef { Arc::new(Int64Array::from(vec![value as i64])) };
    let seconds = |value: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("episode_index".into(), integer(row.index)),
        ("tasks".into(), list(Arc::new(StringArray::from_iter_values(&row.tasks)))),
        ("length".into(), integer(row.frames)),
        ("data/chunk_index".into(), integer(row.data.chunk)),
        ("data/file_index".into(), integer(row.data.file)),
        ("dataset_from_index".into(), integer(row.begin)),
        ("dataset_to_index".into(), integer(row.begin + row.frames)),
    ];
    for video in &row.videos {
        let name = |what: &str| format!("{VIDEOS}{}/{what}", video.key);
        columns.push((name("chunk_index"), integer(video.file.chunk)));
        columns.push((name("file_index"), integer(video.file.file)));
        columns.push((name("from_timestamp"), seconds(video.from_s)));
        columns.push((name("to_timestamp"), seconds(video.to_s)));
    }
    for (feature, numbers) in statistics {
        for (name, values) in numbers.named() {
            columns.push((format!("{STATS}{feature}/{name}"), nested(values, numbers.shape.len())));
        }
        let count: ArrayRef = Arc::new(Int64Array::from(vec![numbers.count as i64]));
        columns.push((format!("{STATS}{feature}/count"), list(count)));
    }
    columns.push(("meta/episodes/chunk_index".into(), integer(row.file.chunk)));
    columns.push(("meta/episodes/file_index".into(), integer(row.file.file)));
    write_batch(path, columns, Schema::new)
}

/// Columns of one length as a file.
pub(crate) fn write_batch(
    path: &Path,
    columns: Vec<(String, ArrayRef)>,
    schema: impl FnOnce(Vec<Field>) -> Schema,
) -> Result<Pending, RecorderError> {
    let (pending, file) = Pending::create(path)?;
    let fields = columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true));
    let schema = Arc::new(schema(fields.collect()));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)
        .map_err(|error| RecorderError::damaged(path, format!("cannot be written: {error}")))?;
    let mut writer =
        ArrowWriter::try_new(file, schema, Some(properties)).map_err(RecorderError::writing(path))?;
    writer.write(&batch).map_err(RecorderError::writing(path))?;
    let file: File = writer.into_inner().map_err(RecorderError::writing(path))?;
    file.sync_all().map_err(RecorderError::io("sync", path))?;
    Ok(pending)
}

/// All values as the list of one row.
fn list(values: ArrayRef) -> ArrayRef {
    lists(values, 1)
}

/// Values in `rows` lists of equal length.
fn lists(values: ArrayRef, rows: usize) -> ArrayRef {
    let length = values.len() / rows.max(1);
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, rows));
    Arc::new(ListArray::new(field, offsets, values, None))
}

/// One row: a list of numbers, or of channels that are lists of lists of one number.
fn nested(values: &[f64], depth: usize) -> ArrayRef {
    let mut array: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    for _ in 1..depth {
        array = lists(array, values.len());
    }
    list(array)
}

/// All rows of all files in the order of the files; statistics where `statistics` wants them.
pub(crate) fn read_all(
    folder: &Path,
    statistics: bool,
) -> Result<Vec<(EpisodeRow, FeatureStatistics)>, RecorderError> {
    let mut rows = Vec::new();
    for path in parquet_files(&layout::episodes_folder(folder))? {
        for table in table::read(&path)? {
            for row in 0..table.rows() {
                let numbers =
                    if statistics { read_statistics(&table, row)? } else { FeatureStatistics::new() };
                rows.push((read_row(&table, row)?, numbers));
            }
        }
    }
    Ok(rows)
}

/// `FOLDER/*/*.parquet` in order, as `lerobot` finds them.
pub(crate) fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>, RecorderError> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>, RecorderError> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(RecorderError::io("list", folder))?,
        };
        entries.map(|entry| Ok(entry.map_err(RecorderError::io("list", folder))?.path())).collect()
    };
    let mut files = Vec::new();
    for chunk in list(folder)?.into_iter().filter(|path| path.is_dir()) {
        let visible = |path: &PathBuf| {
            path.extension().is_some_and(|kind| kind == "parquet")
                && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
        };
        files.extend(list(&chunk)?.into_iter().filter(visible));
    }
    files.sort();
    Ok(files)
}

fn read_row(table: &Table, row: usize) -> Result<EpisodeRow, RecorderError> {
    let index = |name: &str| table.index(name, row);
    let (begin, end, frames) = (index("dataset_from_index")?, index("dataset_to_index")?, index("length")?);
    if end.checked_sub(begin) != Some(frames) {
        return Err(table.damaged(format!(
            "row {row} has {frames} frames from {begin} to {end}: restore the file from a backup"
        )));
    }
    Ok(EpisodeRow {
        index: index("episode_index")?,
        tasks: table.texts("tasks", row)?,
        frames,
        begin,
        data: FileNumber { chunk: index("data/chunk_index")?, file: index("data/file_index")? },
        videos: read_videos(table, row)?,
        file: FileNumber {
            chunk: index("meta/episodes/chunk_index")?,
            file: index("meta/episodes/file_index")?,
        },
    })
}

fn read_videos(table: &Table, row: usize) -> Result<Vec<VideoPart>, RecorderError> {
    let names = table.names();
    let keys = names.iter().filter_map(|name| name.strip_prefix(VIDEOS)?.strip_suffix("/chunk_index"));
    keys.map(|key| {
        let name = |what: &str| format!("{VIDEOS}{key}/{what}");
        let (chunk, file) = (table.index(&name("chunk_index"), row)?, table.index(&name("file_index"), row)?);
        let seconds = |what: &str| match table.numbers(&name(what), row)?[..] {
            [value] => Ok(value),
            _ => Err(table.damaged(format!("{} is no single number in row {row}", name(what)))),
        };
        Ok(VideoPart {
            key: key.to_owned(),
            file: FileNumber { chunk, file },
            from_s: seconds("from_timestamp")?,
            to_s: seconds("to_timestamp")?,
        })
    })
    .collect()
}

fn read_statistics(table: &Table, row: usize) -> Result<FeatureStatistics, RecorderError> {
    let mut all = FeatureStatistics::new();
    for name in &table.names() {
        let Some(feature) = name.strip_prefix(STATS).and_then(|rest| rest.strip_suffix("/count")) else {
            continue;
        };
        let numbers = |statistic: &str| table.numbers(&format!("{STATS}{feature}/{statistic}"), row);
        let [min, max, mean, std] = [numbers("min")?, numbers("max")?, numbers("mean")?, numbers("std")?];
        let count = table.index(name, row)? as u64;
        let quantiles = if table.has(&format!("{STATS}{feature}/{}", QUANTILES[0].0)) {
            let mut all: [Vec<f64>; 5] = Default::default();
            for ((name, _), values) in QUANTILES.iter().zip(&mut all) {
                *values = numbers(name)?;
            }
            Some(all)
        } else {
            None
        };
        let dimensions = mean.len();
        let others = [&min, &max, &std].into_iter().chain(quantiles.iter().flatten());
        if others.into_iter().any(|values| values.len() != dimensions) {
            return Err(table.damaged(format!("statistics of {feature} differ in length in row {row}")));
        }
        let is_image = feature.starts_with(crate::info::IMAGES);
        let shape = if is_image { vec![dimensions, 1, 1] } else { vec![dimensions] };
        all.insert(feature.to_owned(), Statistics { shape, min, max, mean, std, count, quantiles });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::{Column, Values};

    #[test]
    fn a_row_comes_back_with_its_statistics() {
        let folder = tempfile::tempdir().unwrap();
        let row = EpisodeRow {
            index: 4,
            tasks: vec!["put the cube away".into()],
            frames: 3,
            begin: 40,
            data: FileNumber { chunk: 1, file: 2 },
            videos: vec![VideoPart {
                key: "observation.images.front".into(),
                file: FileNumber { chunk: 0, file: 3 },
                from_s: 0.0,
                to_s: 0.1,
            }],
            file: FileNumber::FIRST,
        };
        let column = Column { width: 2, values: Values::F32(vec![0.1, 7.0, 0.2, 8.0, 0.3, -1e6]) };
        let mut counts = [[0; 256]; 3];
        counts.iter_mut().for_each(|channel| channel[3] = 5);
        counts[1][200] = 1;
        let statistics = FeatureStatistics::from([
            ("action".to_owned(), Statistics::of_column(&column)),
            ("observation.images.front".to_owned(), Statistics::of_images(&counts, 2)),
        ]);
        let path = layout::episodes(folder.path(), row.file);
        write(&path, &row, &statistics).unwrap().commit().unwrap();
        assert_eq!(read_all(folder.path(), true).unwrap(), [(row, statistics)]);
    }
}
