//! What is there: a table of checkpoints.

use std::path::Path;

use dit_catalog::{Catalog, Entry};

use crate::layout::staged;
use crate::part::with_suffix;
use crate::receipt::Receipt;

/// How far a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not there; so many bytes of its files have arrived.
    Missing {
        /// Bytes in `.part` files and in files not yet converted.
        arrived: u64,
    },
    /// There, but not hashed by a fetch, or touched since.
    Present,
    /// There, and as it was when its hash was right.
    Verified,
}

/// One checkpoint of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Bytes to download, where known.
    pub bytes: Option<u64>,
    /// Its licence.
    pub licence: String,
    /// How far it is.
    pub state: State,
}

/// The state of each checkpoint in the weights folder `dir`, in the manifest's order. Reads no weights: `Verified` means
/// that length and time are as they were when the file was hashed.
pub fn list(catalog: &Catalog, dir: &Path) -> Vec<Row> {
    let row = |entry: &Entry| Row {
        name: entry.name().to_owned(),
        bytes: entry.bytes(),
        licence: entry.license().to_owned(),
        state: state(catalog, entry, dir),
    };
    catalog.entries().iter().map(row).collect()
}

fn state(catalog: &Catalog, entry: &Entry, dir: &Path) -> State {
    if entry.missing_in(dir).is_none() {
        return match Receipt::read(dir, entry.name()) {
            Some(receipt) if receipt.untouched(dir) => State::Verified,
            _ => State::Present,
        };
    }
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let arrived = entry.files().iter().filter(|_| entry.is_remote()).map(|file| {
        let path = staged(catalog, entry, file, dir);
        length(&path).max(length(&with_suffix(&path, ".part")))
    });
    State::Missing { arrived: arrived.sum() }
}

/// The rows as aligned text, with a heading.
pub fn table(rows: &[Row]) -> String {
    let size = |row: &Row| row.bytes.map_or_else(|| "unknown".to_owned(), human_bytes);
    let width = |heading: &str, cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0).max(heading.len());
    let name = width("NAME", &mut rows.iter().map(|r| r.name.len()));
    let bytes = width("SIZE", &mut rows.iter().map(|r| size(r).len()));
    let licence = width("LICENCE", &mut rows.iter().map(|r| r.licence.len()));
    let mut text = format!("{:name$}  {:>bytes$}  {:licence$}  STATE\n", "NAME", "SIZE", "LICENCE");
    for row in rows {
        let state = match row.state {
            State::Missing { arrived: 0 } => "missing".to_owned(),
            State::Missing { arrived } => format!("missing ({} arrived)", human_bytes(arrived)),
            State::Present => "present".to_owned(),
            State::Verified => "verified".to_owned(),
        };
        text.push_str(&format!("{:name$}  {:>bytes$}  {:licence$}  {state}\n", row.name, size(row), row.licence));
    }
    text
}

/// `2.7 GB`: decimal units, as file sizes are published.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_published() {
        #[track_caller]
        fn check(bytes: u64, expected: &str) {
            assert_eq!(human_bytes(bytes), expected);
        }
        check(0, "0 B");
        check(547, "547 B");
        check(999, "999 B");
        check(1000, "1.0 kB");
        check(334_643_276, "335 MB");
        check(2_700_611_775, "2.7 GB");
        check(999_600, "1.0 MB");
    }

    #[test]
    fn the_table_is_aligned() {
        let row = |name: &str, bytes, licence: &str, state| Row {
            name: name.to_owned(),
            bytes,
            licence: licence.to_owned(),
            state,
        };
        let rows = [
            row("dit-xl-2-256", Some(2_700_611_775), "CC-BY-NC-4.0", State::Missing { arrived: 1_500_000_000 }),
            row("vae", None, "MIT", State::Verified),
            row("demo", Some(12), "MIT", State::Present),
            row("x", Some(12), "MIT", State::Missing { arrived: 0 }),
        ];
        let expected = "\
NAME             SIZE  LICENCE       STATE
dit-xl-2-256   2.7 GB  CC-BY-NC-4.0  missing (1.5 GB arrived)
vae           unknown  MIT           verified
demo             12 B  MIT           present
x                12 B  MIT           missing
";
        assert_eq!(table(&rows), expected);
    }
}
