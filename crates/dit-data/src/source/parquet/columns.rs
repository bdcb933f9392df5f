//! Which columns hold pictures, their names and labels, and what is in them.

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::RowGroupReader;

/// More rows than a row group has: what a damaged count may ask for.
const MOST_ROWS: usize = 1 << 28;

/// The columns of one file, by their place among the leaves of its schema.
pub(super) struct Columns {
    pub(super) picture: usize,
    name: Option<usize>,
    label: usize,
    /// From the description that Hugging Face datasets leaves in a file.
    pub(super) class_names: Option<Vec<String>>,
}

/// A leaf of the schema that may be of use.
struct Leaf {
    index: usize,
    path: String,
    kind: Type,
}

/// Picks the columns: those that the Hugging Face description calls `Image` and `ClassLabel`, else those usually so called.
pub(super) fn find(metadata: &ParquetMetaData) -> Result<Columns, ParquetError> {
    let schema = metadata.file_metadata().schema_descr();
    let leaves: Vec<Leaf> = (0..schema.num_columns())
        .map(|index| schema.column(index))
        .enumerate()
        .filter(|(_, column)| column.max_rep_level() == 0)
        .map(|(index, column)| Leaf { index, path: column.path().string(), kind: column.physical_type() })
        .collect();
    let features = features(metadata).unwrap_or_default();
    let of_type = |kind: &str| {
        let named = features.iter().filter(|(_, feature)| feature.get("_type").and_then(|t| t.as_str()) == Some(kind));
        named.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let leaf = |path: &str, kinds: &[Type]| leaves.iter().find(|leaf| leaf.path == path && kinds.contains(&leaf.kind));
    let candidates = |described: Vec<String>, usual: &[&str]| {
        // The usual name first, where several are described.
        let mut names: Vec<String> = usual.iter().map(|name| (*name).to_owned()).collect();
        if !described.is_empty() {
            names.retain(|name| described.contains(name));
            names.extend(described);
        }
        names
    };
    let missing = |what: &str| ParquetError::General(format!("it has no column of {what} at the top level"));
    let pictures = candidates(of_type("Image"), &["image", "img", "jpg", "png", "webp", "picture"]);
    let (picture, name) = pictures
        .iter()
        .find_map(|name| {
            let inner = |part: &str| leaf(&format!("{name}.{part}"), &[Type::BYTE_ARRAY]).map(|leaf| leaf.index);
            let plain = || leaf(name, &[Type::BYTE_ARRAY]).map(|leaf| leaf.index);
            inner("bytes").or_else(plain).map(|picture| (picture, inner("path")))
        })
        .ok_or_else(|| missing("pictures, like image with bytes and path,"))?;
    let labels = candidates(of_type("ClassLabel"), &["label", "labels", "cls", "class", "fine_label"]);
    let (label_name, label) = labels
        .iter()
        .find_map(|name| leaf(name, &[Type::INT32, Type::INT64]).map(|leaf| (name, leaf.index)))
        .ok_or_else(|| missing("whole numbers, like label,"))?;
    let names = |feature: &serde_json::Value| -> Option<Vec<String>> {
        feature.get("names")?.as_array()?.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let class_names = features.get(label_name).and_then(names);
    Ok(Columns { picture, name, label, class_names })
}

/// The description of columns that Hugging Face datasets leaves in a file.
fn features(metadata: &ParquetMetaData) -> Option<serde_json::Map<String, serde_json::Value>> {
    let entry = metadata.file_metadata().key_value_metadata()?.iter().find(|entry| entry.key == "huggingface")?;
    let info: serde_json::Value = serde_json::from_str(entry.value.as_deref()?).ok()?;
    info.get("info")?.get("features")?.as_object().cloned()
}

impl Columns {
    /// A row group's labels.
    pub(super) fn labels(&self, group: &dyn RowGroupReader) -> Result<Vec<i64>, ParquetError> {
        let rows = rows(group)?;
        let deepest = deepest(group, self.label);
        let labels = match group.get_column_reader(self.label)? {
            ColumnReader::Int64ColumnReader(reader) => values(reader, deepest, 0, rows)?,
            ColumnReader::Int32ColumnReader(reader) => {
                values(reader, deepest, 0, rows)?.into_iter().map(|label| label.map(i64::from)).collect()
            }
            _ => Vec::new(),
        };
        labels.into_iter().map(|label| label.ok_or_else(|| general("a row without a label".to_owned()))).collect()
    }

    /// A row group's file names, or nothing if the table has none.
    pub(super) fn names(&self, group: &dyn RowGroupReader) -> Result<Vec<Option<ByteArray>>, ParquetError> {
        match self.name {
            Some(column) => byte_arrays(group, column, 0, rows(group)?),
            None => Ok(Vec::new()),
        }
    }
}

fn rows(group: &dyn RowGroupReader) -> Result<usize, ParquetError> {
    let rows = usize::try_from(group.metadata().num_rows()).ok().filter(|&rows| rows <= MOST_ROWS);
    rows.ok_or_else(|| general(format!("a group of {} rows", group.metadata().num_rows())))
}

/// The level of a column's values, above that of its nulls.
fn deepest(group: &dyn RowGroupReader, column: usize) -> i16 {
    group.metadata().column(column).column_descr().max_def_level()
}

fn general(problem: String) -> ParquetError {
    ParquetError::General(problem)
}

/// `count` values of a column of byte arrays from row `start` on.
pub(super) fn byte_arrays(
    group: &dyn RowGroupReader,
    column: usize,
    start: usize,
    count: usize,
) -> Result<Vec<Option<ByteArray>>, ParquetError> {
    match group.get_column_reader(column)? {
        ColumnReader::ByteArrayColumnReader(reader) => values(reader, deepest(group, column), start, count),
        _ => Err(general("a column of another type than its schema says".to_owned())),
    }
}

/// `count` values from row `start` on; nothing for nulls, which are at a level less than `deepest`.
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    deepest: i16,
    start: usize,
    count: usize,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let short = || general("fewer values than rows".to_owned());
    if reader.skip_records(start)? != start {
        return Err(short());
    }
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    let mut got = 0;
    while got < count {
        let (records, _, _) = reader.read_records(count - got, Some(&mut levels), None, &mut present)?;
        if records == 0 {
            return Err(short());
        }
        got += records;
    }
    if deepest == 0 {
        return Ok(present.into_iter().map(Some).collect());
    }
    // Of an optional column, or one inside an optional group, only the deepest level is a value.
    let mut present = present.into_iter();
    let value = |level| if level == deepest { present.next().map(Some).ok_or_else(short) } else { Ok(None) };
    levels.into_iter().map(value).collect()
}
