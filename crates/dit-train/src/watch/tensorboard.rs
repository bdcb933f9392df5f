use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    BucketLine, Line, LossLine,
    append::AppendFile,
    samples::grid_path,
    tfrecord::{Message, record},
};
use crate::{Event, Observer, ObserverError, Remedy};

/// Writes event files for TensorBoard: `tensorboard --logdir RUN`.
///
/// A run that continues begins another file with a note by which TensorBoard drops what the earlier ones have of later steps.
/// Pictures are those that [`SampleGrids`](super::SampleGrids) wrote for the same event: it has to come before.
#[derive(Debug)]
pub struct TensorBoard {
    run: PathBuf,
    /// The step that the run goes on from, until there is a file for what follows.
    opens: Option<u64>,
    file: Option<AppendFile>,
    complained: bool,
}

impl TensorBoard {
    /// Into the folder `tensorboard` of the run.
    pub fn new(run: &Path) -> Self {
        Self { run: run.to_owned(), opens: None, file: None, complained: false }
    }

    fn open_at(&self, step: u64) -> io::Result<AppendFile> {
        let folder = self.run.join("tensorboard");
        fs::create_dir_all(&folder)?;
        // Names are read in their order, and none may be taken.
        let mut seconds = now().as_secs();
        let (path, mut file) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.dit"));
            match AppendFile::create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => seconds += 1,
                file => break (path, file?),
            }
        };
        let version = record(event().bytes(3, b"brain.Event:2").as_bytes());
        let start = Message::default().integer(1, 1); // SessionLog.status = START
        let start = record(event().integer(2, step + 1).message(7, &start).as_bytes());
        match file.append(&[version, start].concat()) {
            Ok(()) => Ok(file),
            Err(error) => {
                // It is tried again, under another name.
                let _ = fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn write(&mut self, seen: &Event<'_>) -> io::Result<()> {
        match seen {
            Event::Started { step, .. } | Event::NonFinite { remedy: Remedy::RolledBack { to: step }, .. } => {
                (self.opens, self.file) = (Some(*step), None);
                self.open()?;
            }
            Event::SamplesDue { step, .. } => {
                if let Ok(png) = fs::read(grid_path(&self.run, *step)) {
                    self.append(*step, &picture("samples", &png))?;
                }
            }
            _ => {}
        }
        let Some(line) = Line::of(seen) else { return Ok(()) };
        let scalars = scalars(&line);
        if scalars.is_empty() {
            return Ok(());
        }
        let add = |summary: Message, (tag, value): &(String, f64)| summary.message(1, &scalar(tag, *value));
        self.append(line.step(), &scalars.iter().fold(Message::default(), add))
    }

    fn append(&mut self, step: u64, summary: &Message) -> io::Result<()> {
        self.open()?;
        match &mut self.file {
            Some(file) => file.append(&record(event().integer(2, step).message(5, summary).as_bytes())),
            None => Ok(()),
        }
    }

    /// Opens the file that is to be opened, if it is not.
    fn open(&mut self) -> io::Result<()> {
        if let Some(step) = self.opens {
            self.file = Some(self.open_at(step)?);
            self.opens = None;
        }
        Ok(())
    }
}

impl Observer for TensorBoard {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        if let Err(error) = self.write(event)
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(run = %self.run.display(), %error, "TensorBoard's events cannot be written; training goes on");
        }
        Ok(())
    }
}

/// Tags and values.
fn scalars(line: &Line) -> Vec<(String, f64)> {
    let mut scalars = Vec::new();
    match line {
        Line::Train { losses, lr, grad_norm, images_per_second, by_timestep, .. } => {
            add_losses(&mut scalars, "train", losses, by_timestep);
            scalars.push(("train/lr".to_owned(), *lr));
            scalars.push(("train/grad_norm".to_owned(), *grad_norm));
            scalars.push(("train/images_per_second".to_owned(), *images_per_second));
        }
        Line::Validation { raw, raw_by_timestep, ema, ema_by_timestep, .. } => {
            add_losses(&mut scalars, "validation", raw, raw_by_timestep);
            add_losses(&mut scalars, "validation_ema", ema, ema_by_timestep);
        }
        Line::Evaluation { samples, fid, .. } => scalars.push((format!("evaluation/fid_of_{samples}_samples"), *fid)),
        Line::Started { .. }
        | Line::Checkpoint { .. }
        | Line::CheckpointFailed { .. }
        | Line::NonFinite { .. }
        | Line::EmaLags { .. } => {}
    }
    scalars
}

/// Means as `GROUP/TERM`, those over ranges of timesteps as `GROUP_by_timestep/RANGE` for what is minimised and
/// `GROUP_TERM_by_timestep/RANGE` for its terms.
fn add_losses(scalars: &mut Vec<(String, f64)>, group: &str, losses: &LossLine, buckets: &[BucketLine]) {
    let terms =
        |LossLine { loss, mse, vb }: &LossLine| [("loss", "", *loss), ("mse", "_mse", *mse), ("vb", "_vb", *vb)];
    for (name, _, value) in terms(losses) {
        scalars.extend(value.map(|value| (format!("{group}/{name}"), value)));
    }
    for BucketLine { timesteps: [first, after], losses } in buckets {
        let range = format!("{first:04}-{:04}", after.saturating_sub(1));
        for (_, term, value) in terms(losses) {
            scalars.extend(value.map(|value| (format!("{group}{term}_by_timestep/{range}"), value)));
        }
    }
}

fn scalar(tag: &str, value: f64) -> Message {
    Message::default().bytes(1, tag.as_bytes()).float(2, value as f32)
}

/// A summary with one PNG, whose header has its size.
fn picture(tag: &str, png: &[u8]) -> Message {
    let extent = |at: usize| {
        let bytes = png.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u64::from(bytes.map_or(0, u32::from_be_bytes))
    };
    let image = Message::default().integer(1, extent(20)).integer(2, extent(16)).integer(3, 3).bytes(4, png);
    Message::default().message(1, &Message::default().bytes(1, tag.as_bytes()).message(4, &image))
}

fn event() -> Message {
    Message::default().double(1, now().as_secs_f64())
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EvaluationReport,
        watch::{append::tests::Disk, tfrecord::read_records},
    };

    fn evaluation(step: u64) -> EvaluationReport {
        let (features, time) = ("f".to_owned(), std::time::Duration::ZERO);
        EvaluationReport { step, samples: 5, features, cfg_scale: 1.0, fid: 2.0, interval: [1.0, 3.0], time }
    }

    #[test]
    fn a_disk_that_was_full_for_a_while_costs_the_events_of_then() {
        let disk = Disk::of(0);
        let mut board = TensorBoard { file: Some(disk.file()), ..TensorBoard::new(Path::new("no such folder")) };
        let mut measured = |step: u64| {
            board.observe(&Event::Evaluation(&evaluation(step))).unwrap();
            disk.bytes().len()
        };
        disk.set(1000, true);
        let record = measured(1);
        disk.set(record + record / 2, true);
        measured(2);
        disk.set(1000, true);
        measured(3);
        // A reader that follows the lengths and checks the sums gets through.
        let file = disk.bytes();
        let records = read_records(&file).expect("whole records");
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|record| record.windows(4).any(|bytes| bytes == 2.0_f32.to_le_bytes())));
    }

    #[test]
    fn events_that_had_no_file_begin_one_once_there_can_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        fs::write(&run, "in the way").unwrap();
        let mut board = TensorBoard::new(&run);
        board.observe(&Event::Started { step: 5, steps: 9, owed: &[] }).unwrap();
        fs::remove_file(&run).unwrap();
        board.observe(&Event::Evaluation(&evaluation(6))).unwrap();
        let files: Vec<PathBuf> =
            fs::read_dir(run.join("tensorboard")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        assert_eq!(read_records(&fs::read(file).unwrap()).expect("whole records").len(), 3);
    }
}
