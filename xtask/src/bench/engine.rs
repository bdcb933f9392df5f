//! An engine as a process that answers questions, one JSON object a line (`bench/dit/protocol.py`).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Compilers take minutes over a network of gigabytes.
const TO_GET_READY: Duration = Duration::from_secs(1800);
const TO_ANSWER: Duration = Duration::from_secs(600);
/// From the end of stdin to the end of the process.
const TO_END: Duration = Duration::from_secs(20);

/// A running engine, loaded and warm.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
    log: PathBuf,
    ready: Value,
}

impl Process {
    /// Starts it and waits until it is warm; what it says on stderr goes to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self, String> {
        let stderr = File::create(log).map_err(|error| format!("{} cannot be written: {error}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|error| format!("{program} does not start: {error}"))?;
        let (send, answers) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        let mut process = Self { child, stdin, answers, log: log.to_owned(), ready: Value::Null };
        process.ready = process.answer(TO_GET_READY)?;
        Ok(process)
    }

    /// What it said when it was ready.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// One step: the seconds it took, and its loss where it trains.
    pub fn step(&mut self) -> Result<(f64, Option<f64>), String> {
        let answer = self.ask(&json!({ "do": "step" }))?;
        let seconds = answer.get("seconds").and_then(Value::as_f64).ok_or("a step without a time")?;
        Ok((seconds, answer.get("loss").and_then(Value::as_f64)))
    }

    /// The last step's result.
    pub fn output(&mut self, scratch: &Path) -> Result<Vec<f32>, String> {
        self.ask(&json!({ "do": "output", "path": scratch }))?;
        let values = read_values(scratch);
        let _ = std::fs::remove_file(scratch);
        values
    }

    pub fn ask(&mut self, question: &Value) -> Result<Value, String> {
        let stdin = self.stdin.as_mut().ok_or("its stdin is closed")?;
        if writeln!(stdin, "{question}").and_then(|()| stdin.flush()).is_err() {
            return Err(self.ended());
        }
        self.answer(TO_ANSWER)
    }

    fn answer(&mut self, within: Duration) -> Result<Value, String> {
        let line = match self.answers.recv_timeout(within) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => return Err(format!("no answer within {} s", within.as_secs())),
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
        };
        let answer: Value = serde_json::from_str(&line).map_err(|_| format!("an answer that is none: {line}"))?;
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer),
        }
    }

    /// How it ended, with its last words.
    fn ended(&mut self) -> String {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        match complaint(&log) {
            Some(complaint) => format!("it ended ({status}): {complaint} (all of it: {})", self.log.display()),
            None => format!("it ended ({status})"),
        }
    }
}

/// The last line that names an error, else the last.
fn complaint(log: &str) -> Option<&str> {
    let lines = || log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines().find(|line| line.contains("Error: ") || line.starts_with("error: ")).or_else(|| lines().next())
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let started = Instant::now();
        while started.elapsed() < TO_END {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of raw little-endian f32.
pub fn read_values(path: &Path) -> Result<Vec<f32>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let (words, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    } else {
        Err(format!("{} is no file of f32", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine of three lines of shell.
    fn start(script: &str, folder: &Path) -> Result<Process, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command, &folder.join("log"))
    }

    #[test]
    fn questions_are_answered_in_turn() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"echo '{"ready":true,"engine":"shell"}'
            while read line; do echo '{"seconds":0.5,"loss":2.0}'; done"#;
        let mut engine = start(script, folder.path()).unwrap();
        assert_eq!(engine.ready()["engine"], "shell");
        assert_eq!(engine.step(), Ok((0.5, Some(2.0))));
        assert_eq!(engine.step(), Ok((0.5, Some(2.0))));
    }

    #[test]
    fn what_ends_tells_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let error = start("echo no torch here >&2; exit 4", folder.path()).err().unwrap();
        assert!(error.contains("no torch here") && error.contains('4'), "{error}");

        let mut engine = start(r#"echo '{"ready":true}'; read line; echo out of memory >&2"#, folder.path()).unwrap();
        let error = engine.step().unwrap_err();
        assert!(error.contains("out of memory"), "{error}");
    }

    #[test]
    fn the_complaint_is_the_line_that_names_the_error() {
        for (log, expected) in [
            ("", None),
            ("one\n\ntwo\n\n", Some("two")),
            ("File x\nImportError: too short\n\nSet VERBOSE=1 for more\n", Some("ImportError: too short")),
            ("error: invalid value\n\nFor more information, try --help\n", Some("error: invalid value")),
        ] {
            assert_eq!(complaint(log), expected);
        }
    }

    #[test]
    fn an_engines_own_error_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut engine =
            start(r#"echo '{"ready":true}'; read line; echo '{"error":"unknown"}'"#, folder.path()).unwrap();
        assert_eq!(engine.step(), Err("\"unknown\"".to_owned()));
    }
}
