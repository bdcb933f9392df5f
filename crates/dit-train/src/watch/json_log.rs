use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use dit_files::write_atomically;

use super::{Line, append::AppendFile, leftovers::remove_leftovers};
use crate::{Event, Measurement, Observer, ObserverError, Remedy};

/// The log's name in the run's folder.
const NAME: &str = "log.jsonl";

/// Writes `log.jsonl`: a [`Line`] each, appended and handed to the system at once. Lines that a full disk refuses are lost; those
/// that come once there is room are not.
#[derive(Debug)]
pub struct JsonLog {
    path: PathBuf,
    /// Where the run goes on, until the file could be opened there.
    opens: Option<Opening>,
    file: Option<AppendFile>,
    complained: bool,
}

/// What of the log is kept.
#[derive(Debug, Clone)]
struct Opening {
    /// What was written until this step,
    step: u64,
    /// but for these measurements after it, which are made again.
    owed: Vec<Measurement>,
}

impl Opening {
    fn keeps(&self, line: &Line) -> bool {
        let measurement = match line {
            Line::Validation { .. } => Some(Measurement::Validation),
            Line::Evaluation { .. } => Some(Measurement::Evaluation),
            _ => None,
        };
        let again = measurement.is_some_and(|measurement| self.owed.contains(&measurement));
        line.step() < self.step || (line.step() == self.step && !again)
    }
}

impl JsonLog {
    /// The log of the run in this folder. Nothing is opened before the run begins.
    pub fn new(run: &Path) -> Self {
        Self { path: run.join(NAME), opens: None, file: None, complained: false }
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

    /// Takes out what is not kept, and a half-written last line, then appends.
    fn open(&self, opening: &Opening) -> io::Result<AppendFile> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let belongs = |text: &&[u8]| serde_json::from_slice(text).is_ok_and(|line| opening.keeps(&line));
        let kept: Vec<u8> = lines(&text).filter(belongs).flat_map(|line| line.iter().chain(b"\n").copied()).collect();
        if kept != text {
            write_atomically(&self.path, &kept).map_err(io::Error::other)?;
        }
        AppendFile::of_lines(&self.path)
    }

    fn write(&mut self, event: &Event<'_>) -> io::Result<()> {
        if let Event::Started { .. } = event {
            remove_leftovers(&self.path);
        }
        let opening = match event {
            Event::Started { step, owed, .. } => Some(Opening { step: *step, owed: owed.to_vec() }),
            Event::NonFinite { remedy: Remedy::RolledBack { to }, .. } => Some(Opening { step: *to, owed: Vec::new() }),
            _ => None,
        };
        if opening.is_some() {
            (self.opens, self.file) = (opening, None);
        }
        let Some(line) = Line::of(event) else { return Ok(()) };
        if let Some(opening) = &self.opens {
            self.file = Some(self.open(opening)?);
            self.opens = None;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        file.append(&text)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EmaLag, watch::append::tests::Disk};

    #[test]
    fn a_disk_that_was_full_for_a_while_costs_the_lines_of_then() {
        let disk = Disk::of(0);
        let folder = tempfile::tempdir().unwrap();
        let mut log = JsonLog { file: Some(disk.file()), ..JsonLog::new(folder.path()) };
        let mut lag = |steps: u64| {
            log.observe(&Event::EmaLags(EmaLag { decay: 0.9, steps, initial_share: 0.5 })).unwrap();
            disk.bytes().len()
        };
        disk.set(1000, true);
        let line = lag(1);
        disk.set(line + line / 2, true);
        assert_eq!(lag(2), line, "a half is there");
        disk.set(1000, true);
        lag(3);
        let steps: Vec<u64> =
            lines(&disk.bytes()).map(|line| serde_json::from_slice::<Line>(line).unwrap().step()).collect();
        assert_eq!(steps, [1, 3]);
    }

    #[test]
    fn a_log_that_could_not_be_opened_is_opened_once_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let mut log = JsonLog::new(&run);
        let lag = |steps| Event::EmaLags(EmaLag { decay: 0.9, steps, initial_share: 0.5 });
        log.observe(&Event::Started { step: 5, steps: 9, owed: &[] }).unwrap();
        fs::create_dir(&run).unwrap();
        fs::write(run.join(NAME), b"{\"event\":\"started\",\"step\":6,\"steps\":9}\n").unwrap();
        log.observe(&lag(7)).unwrap();
        log.observe(&lag(8)).unwrap();
        let steps: Vec<u64> = JsonLog::read(&run).unwrap().iter().map(Line::step).collect();
        assert_eq!(steps, [7, 8], "what came after step 5 is gone");
    }
}
