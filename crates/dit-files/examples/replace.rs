//! Replaces a file as a whole, and shows that nobody sees it half written.
//!
//! `cargo run -p dit-files --example replace -- FILE TEXT`; without arguments, in a temporary folder.

use std::{env, error::Error, fs, io::Write, path::PathBuf};

use dit_files::{AtomicFile, ensure_writable, remove_unfinished};

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let mut arguments = env::args_os().skip(1);
    let path = arguments.next().map_or_else(|| scratch.path().join("result.txt"), PathBuf::from);
    let text = arguments.next().map_or_else(|| "new".to_owned(), |text| text.to_string_lossy().into_owned());

    // Before the long computation, not after it.
    ensure_writable(&path)?;

    let show = |when: &str| match fs::read_to_string(&path) {
        Ok(text) => println!("{when}: {text:?}"),
        Err(error) => println!("{when}: {error}"),
    };
    show("before");
    let mut file = AtomicFile::create(&path)?;
    file.write_all(text.as_bytes())?;
    show("written, not committed");
    file.commit()?;
    show("committed");

    // What a killed process had left here before.
    for left in remove_unfinished(&path)? {
        println!("removed {}", left.display());
    }
    Ok(())
}
