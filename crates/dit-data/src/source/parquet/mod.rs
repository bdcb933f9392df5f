//! Parquet files of pictures and labels, as Hugging Face datasets keeps them.
//!
//! Records are read at random, but a page (what parquet compresses as a whole, often a hundred pictures) is unpacked at once; the last
//! few stay in memory, so that reading in order unpacks each once.

mod columns;
mod part;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use parquet::column::page::PageReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use self::columns::Columns;
use self::part::Part;
use super::file::Files;
use super::listing::Listing;
use super::names::key;
use super::{Source, SourceKind, Store};
use crate::{Encoded, Error};

/// Pages kept in memory beyond the latest two are bounded by this.
const MOST_CACHED_BYTES: usize = 256 << 20;

/// The pictures of one page; nothing where the table has a null.
type Page = Vec<Option<ByteArray>>;

/// One file of the table.
struct Table {
    path: PathBuf,
    reader: SerializedFileReader<Part>,
    columns: Columns,
}

/// Some consecutive rows of one file.
struct Group {
    table: usize,
    index: usize,
    /// Its first row, counted over all files.
    first: usize,
    rows: usize,
    /// The first row of each page, counted within the group; found when first needed.
    pages: OnceLock<Vec<usize>>,
}

/// A page by group and place, and its pictures once they are unpacked. Whoever comes while it is being unpacked waits for it.
struct Cached {
    group: usize,
    page: usize,
    bytes: usize,
    pictures: Arc<Mutex<Option<Arc<Page>>>>,
}

struct Tables {
    tables: Vec<Table>,
    groups: Vec<Group>,
    /// The latest used last.
    cache: Mutex<VecDeque<Cached>>,
}

/// The rows of `paths`, in that order.
pub(super) fn open(path: &Path, paths: Vec<PathBuf>) -> Result<Source, Error> {
    let files = Arc::new(Files::new(paths.clone()));
    let (mut tables, mut groups, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let mut class_names = None;
    for (index, path) in paths.into_iter().enumerate() {
        let part = Part::new(Arc::clone(&files), index)?;
        let table = guarded(&path, || {
            let reader = SerializedFileReader::new(part)?;
            let columns = columns::find(reader.metadata())?;
            Ok(Table { path: path.clone(), reader, columns })
        })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for index in 0..table.reader.num_row_groups() {
            let first = records.len();
            let (labels, names) = guarded(&path, || {
                let group = table.reader.get_row_group(index)?;
                Ok((table.columns.labels(&*group)?, table.columns.names(&*group)?))
            })?;
            for (row, label) in labels.into_iter().enumerate() {
                let key = match names.get(row).and_then(Option::as_ref) {
                    Some(name) if !name.is_empty() => key(&[stem.as_bytes(), b"/", name.data()].concat()),
                    _ => format!("{}/{:08}", key(stem.as_bytes()), first + row),
                };
                records.push((key, label));
            }
            let rows = records.len() - first;
            groups.push(Group { table: tables.len(), index, first, rows, pages: OnceLock::new() });
        }
        let names = table.columns.class_names.clone();
        if *class_names.get_or_insert_with(|| names.clone()) != names {
            return Err(Error::Source {
                path,
                problem: "its classes are named otherwise than those of the files before it".to_owned(),
                help: "give the files of one data set only",
            });
        }
        tables.push(table);
    }
    let listing = match class_names.flatten() {
        Some(names) => Listing::named(path, records, names)?,
        None => Listing::numbered(path, records)?,
    };
    Source::new(SourceKind::Parquet, path, listing, Tables { tables, groups, cache: Mutex::default() })
}

/// Runs what reads a file whose every byte may lie. The parser is not proven against that: should it panic, the file is damaged.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Error> {
    let problem = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its structure contradicts itself".to_owned(),
    };
    Err(Error::Source {
        path: path.to_owned(),
        problem,
        help: "the parquet file is incomplete or damaged; fetch it again",
    })
}

impl Store for Tables {
    fn read(&self, index: usize, key: &str) -> Result<Encoded, Error> {
        let group = self.groups.partition_point(|group| group.first <= index).saturating_sub(1);
        let row = index - self.groups[group].first;
        let starts = self.page_starts(group)?;
        let page = starts.partition_point(|&start| start <= row).saturating_sub(1);
        let pictures = self.page(group, page)?;
        let picture = starts.get(page).and_then(|start| pictures.get(row - start));
        match picture {
            Some(Some(bytes)) => Ok(Encoded::File(bytes.data().to_vec())),
            _ => Err(Error::Record { key: key.to_owned(), problem: "the table holds no bytes for it".to_owned() }),
        }
    }

    /// The sizes of single pictures are not listed; that of the column they lie in is.
    fn size(&self, index: usize) -> u64 {
        let group = &self.groups[self.groups.partition_point(|group| group.first <= index).saturating_sub(1)];
        let Table { reader, columns, .. } = &self.tables[group.table];
        reader.metadata().row_group(group.index).column(columns.picture).uncompressed_size() as u64
    }
}

impl Tables {
    /// The first row of each page of a group, from the pages' headers alone.
    fn page_starts(&self, group: usize) -> Result<&[usize], Error> {
        let group = &self.groups[group];
        if let Some(starts) = group.pages.get() {
            return Ok(starts);
        }
        let table = &self.tables[group.table];
        let starts = guarded(&table.path, || {
            let mut pages = table.reader.get_row_group(group.index)?.get_column_page_reader(table.columns.picture)?;
            page_starts(&mut *pages, group.rows)
        })?;
        Ok(group.pages.get_or_init(|| starts))
    }

    fn page(&self, group: usize, page: usize) -> Result<Arc<Page>, Error> {
        let slot = self.slot(group, page);
        let mut pictures = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pictures) = &*pictures {
            return Ok(Arc::clone(pictures));
        }
        let unpacked = Arc::new(self.unpack(group, page)?);
        *pictures = Some(Arc::clone(&unpacked));
        drop(pictures);
        self.account(group, page, unpacked.iter().flatten().map(ByteArray::len).sum());
        Ok(unpacked)
    }

    /// The place in the cache of a page, new or not, which becomes the latest.
    fn slot(&self, group: usize, page: usize) -> Arc<Mutex<Option<Arc<Page>>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cache.iter().position(|cached| (cached.group, cached.page) == (group, page));
        let cached = at.and_then(|at| cache.remove(at)).unwrap_or_else(|| Cached {
            group,
            page,
            bytes: 0,
            pictures: Arc::default(),
        });
        let pictures = Arc::clone(&cached.pictures);
        cache.push_back(cached);
        pictures
    }

    /// Notes what a page takes, and lets the oldest go.
    fn account(&self, group: usize, page: usize, bytes: usize) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.iter_mut().find(|cached| (cached.group, cached.page) == (group, page)) {
            cached.bytes = bytes;
        }
        while cache.len() > 2 && cache.iter().map(|cached| cached.bytes).sum::<usize>() > MOST_CACHED_BYTES {
            cache.pop_front();
        }
    }

    fn unpack(&self, group: usize, page: usize) -> Result<Page, Error> {
        let starts = self.page_starts(group)?;
        let group = &self.groups[group];
        let start = starts.get(page).copied().unwrap_or(0);
        let end = starts.get(page + 1).copied().unwrap_or(group.rows);
        let table = &self.tables[group.table];
        guarded(&table.path, || {
            let row_group = table.reader.get_row_group(group.index)?;
            columns::byte_arrays(&*row_group, table.columns.picture, start, end - start)
        })
    }
}

fn page_starts(pages: &mut dyn PageReader, rows: usize) -> Result<Vec<usize>, ParquetError> {
    let (mut starts, mut row) = (Vec::new(), 0usize);
    while let Some(page) = pages.peek_next_page()? {
        if !page.is_dict {
            let unknown = || ParquetError::General("a page without a count of rows".to_owned());
            starts.push(row);
            row = row.saturating_add(page.num_rows.or(page.num_levels).ok_or_else(unknown)?);
        }
        pages.skip_next_page()?;
    }
    if row != rows {
        return Err(ParquetError::General(format!("its pages hold {row} rows, its group {rows}")));
    }
    Ok(starts)
}
