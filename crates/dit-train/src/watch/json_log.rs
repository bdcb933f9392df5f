use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use dit_files::write_atomically;

use super::Line;
use crate::{Event, Observer, ObserverError, Remedy};

/// The log's name in the run's folder.
const NAME: &str = "log.jsonl";

/// Writes `log.jsonl`: a [`Line`] each, appended and handed to the system at once.
#[derive(Debug)]
pub struct JsonLog {
    path: PathBuf,
    file: Option<File>,
    complained: bool,
}

impl JsonLog {
    /// The log of the run in this folder. Nothing is opened before the run begins.
    pub fn new(run: &Path) -> Self {
        Self { path: run.join(NAME), file: None, complained: false }
    }

    /// The lines of the run in this folder, damaged ones left out; none where there is no log.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn read(run: &Path) -> io::Result<Vec<Line>> {
        match fs::read(run.join(NAME)) {
            Ok(text) => Ok(lines(&text).filter_map(|text| serde_json::from_slice(text).ok()).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Takes out what was written after `step`, and a half-written last line, then appends.
    fn open_at(&mut self, step: u64) -> io::Result<()> {
        self.file = None;
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let belongs = |text: &&[u8]| serde_json::from_slice::<Line>(text).is_ok_and(|line| line.step() <= step);
        let kept: Vec<u8> = lines(&text).filter(belongs).flat_map(|line| line.iter().chain(b"\n").copied()).collect();
        if kept != text {
            write_atomically(&self.path, &kept).map_err(io::Error::other)?;
        }
        self.file = Some(File::options().create(true).append(true).open(&self.path)?);
        Ok(())
    }

    fn write(&mut self, event: &Event<'_>) -> io::Result<()> {
        match event {
            Event::Started { step, .. } | Event::NonFinite { remedy: Remedy::RolledBack { to: step }, .. } => {
                self.open_at(*step)?;
            }
            _ => {}
        }
        let (Some(file), Some(line)) = (&mut self.file, Line::of(event)) else { return Ok(()) };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        file.write_all(&text)
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

impl Observer for JsonLog {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        if let Err(error) = self.write(event)
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(path = %self.path.display(), %error, "the log cannot be written; training goes on");
        }
        Ok(())
    }
}
