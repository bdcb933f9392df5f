//! Which other libraries an ELF shared library needs.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use object::LittleEndian;
use object::elf::{DT_NEEDED, DT_STRSZ, DT_STRTAB, DynamicTag, FileHeader64, PT_LOAD};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, StringTable};

/// The names in its `DT_NEEDED` entries, in order.
pub fn needed(path: &Path) -> Result<Vec<String>> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    read(&ReadCache::new(file)).with_context(|| format!("{} is no shared library for this machine", path.display()))
}

fn read(file: &ReadCache<File>) -> Result<Vec<String>> {
    let header = FileHeader64::<LittleEndian>::parse(file)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, file)?;
    let mut entries = None;
    for segment in segments {
        entries = segment.dynamic(endian, file)?.or(entries);
    }
    let entries = entries.context("it has no dynamic section")?;
    let value =
        |tag: DynamicTag| entries.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.d_val(endian));
    let (address, size) = (value(DT_STRTAB).context("no string table")?, value(DT_STRSZ).context("no string table")?);
    // The table's place is an address in memory; the segment that is loaded there tells its place in the file.
    let start = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .find_map(|segment| {
            let offset = address.checked_sub(segment.p_vaddr(endian))?;
            (offset < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(offset))?
        })
        .context("its string table lies outside of it")?;
    let names = StringTable::new(file, start, start.saturating_add(size));
    let mut needed = Vec::new();
    for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
        let name = entry.string(endian, names)?;
        needed.push(String::from_utf8_lossy(name).into_owned());
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in
            [("empty", &b""[..]), ("text", b"INPUT(-ltorch_cpu -lc10)"), ("cut", b"\x7fELF\x02\x01\x01\0")]
        {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = needed(&path).unwrap_err().to_string();
            assert!(error.contains("no shared library"), "{error}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn our_own_test_binary_needs_the_c_library() {
        let names = needed(&std::env::current_exe().unwrap()).unwrap();
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
    }
}
