//! What happens before the first step: through dit-cli, as users start it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::cases::{self, Scale, Subject};
use super::measure::Bench;
use super::record::{Figure, Figures, Record};
use super::report;
use super::statistics::Summary;

/// Turns of everything that takes seconds.
const ROUNDS: usize = 5;

pub fn measure(bench: &Bench<'_>, quick: bool) -> Result<Record> {
    let scale = if quick { Scale::Quick } else { Scale::Cpu };
    let case = cases::pairs(scale).into_iter().map(|pair| pair.case).find(|case| case.subject == Subject::Sample);
    let case = case.context("no case samples")?;
    let description = bench.prepare(&case).map_err(|error| anyhow!(error))?;
    let description: Value = serde_json::from_slice(&std::fs::read(&description)?)?;
    let weights = Path::new(text(&description, "weights")?);

    let mut rows = vec![help(bench)?];
    let activations = activations(bench, weights)?;
    let bytes = std::fs::metadata(weights).with_context(|| weights.display().to_string())?.len();
    for precision in ["fp32", "bf16"] {
        let mut peak = 0;
        for &from in Place::known() {
            let rounds = if quick { 2 } else { ROUNDS };
            let [mut times, mut through_buffer] = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                let buffer = read_time(weights, from, read_through_buffer)?;
                from.prepare(weights)?;
                let run = sample(bench, weights, precision)?;
                let loading = run.get("seconds_load").and_then(Value::as_f64).context("no seconds_load")?;
                times.push(loading);
                through_buffer.push(loading / buffer);
                peak = run.get("peak_rss_bytes").and_then(Value::as_u64).context("no peak_rss_bytes")?;
            }
            // Apart: what it gives back at its end is memory that a virtual machine's host may take, which the next program waits for.
            let memory = (0..rounds).map(|_| read_time(weights, from, read_to_memory)).collect::<Result<Vec<_>>>()?;
            let memory = middle(&memory)?;
            let to_memory: Vec<f64> = times.iter().map(|time| time / memory.median).collect();
            let start = format!("{}, {precision}: process start to first step, the file {}", case.title, from.name());
            rows.push(Figure { what: start.clone(), measured: report::seconds(middle(&times)?), target: None });
            for (reading, ratios) in
                [("into memory", middle(&to_memory)?), ("through a buffer of 1 MB", middle(&through_buffer)?)]
            {
                rows.push(Figure {
                    what: format!("{start}, beside reading it {reading}"),
                    measured: format!("{:.2} × ({:.2}–{:.2})", ratios.median, ratios.low, ratios.high),
                    target: Some("1.3 ×".to_owned()),
                });
            }
        }
        let share = if precision == "fp32" { 1 } else { 2 };
        let needed = (bytes + activations) / share;
        rows.push(Figure {
            what: format!("{}, {precision}: peak memory of one guided step", case.title),
            measured: format!(
                "{} MB, {:.2} × weights and activations ({} MB)",
                peak / 1_000_000,
                peak as f64 / needed as f64,
                needed / 1_000_000
            ),
            target: Some("1.15 ×".to_owned()),
        });
    }
    Ok(Record::Figures(Box::new(Figures {
        name: "startup".to_owned(),
        title: "Start-up".to_owned(),
        rows,
        machine: bench.machine.clone(),
    })))
}

fn dit_cli(bench: &Bench<'_>) -> Result<Command> {
    Ok(Command::new(bench.binaries.dit_cli.as_ref().context("dit-cli was not built")?))
}

fn middle(values: &[f64]) -> Result<Summary> {
    Summary::of(values).context("nothing was measured")
}

fn help(bench: &Bench<'_>) -> Result<Figure> {
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        let mut command = dit_cli(bench)?;
        let status = command.arg("--help").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "dit-cli --help failed ({status})");
        times.push(start.elapsed().as_secs_f64());
    }
    let what = "`dit-cli --help`".to_owned();
    Ok(Figure { what, measured: report::seconds(middle(&times)?), target: Some("50 ms".to_owned()) })
}

/// Where a file is when it is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    PageCache,
    Disk,
}

impl Place {
    /// Elsewhere than on Linux the system cannot be asked to forget what it has read.
    fn known() -> &'static [Self] {
        if cfg!(target_os = "linux") { &[Self::PageCache, Self::Disk] } else { &[Self::PageCache] }
    }

    fn name(self) -> &'static str {
        match self {
            Self::PageCache => "in the page cache",
            Self::Disk => "on the disk",
        }
    }

    /// Has the file be there.
    fn prepare(self, path: &Path) -> Result<()> {
        match self {
            Self::PageCache => read_through_buffer(path).map(drop),
            Self::Disk => forget(path),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| path.display().to_string())
}

/// Reads a file into memory, as whatever holds its weights has to.
fn read_to_memory(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// Reads every byte of a file and keeps the last ones: the least that reading can take.
fn read_through_buffer(path: &Path) -> Result<Vec<u8>> {
    let (mut file, mut buffer) = (open(path)?, vec![0; 1 << 20]);
    while file.read(&mut buffer)? > 0 {}
    Ok(buffer)
}

/// Has the system give up a file's pages, which are written to the disk first.
#[cfg(target_os = "linux")]
fn forget(path: &Path) -> Result<()> {
    let file = open(path)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &Path) -> Result<()> {
    anyhow::bail!("what was read cannot be forgotten on this system")
}

/// Seconds that `read` takes from there; giving the memory back is not counted.
fn read_time(path: &Path, from: Place, read: fn(&Path) -> Result<Vec<u8>>) -> Result<f64> {
    from.prepare(path)?;
    let start = Instant::now();
    let bytes = read(path)?;
    let seconds = start.elapsed().as_secs_f64();
    drop(bytes);
    Ok(seconds)
}

/// Bytes of fp32 activations in one guided step of one picture.
fn activations(bench: &Bench<'_>, weights: &Path) -> Result<u64> {
    let mut command = dit_cli(bench)?;
    let report = json_of(command.arg("inspect").arg(weights).arg("--json"))?;
    let bytes = report.get("memory").and_then(|memory| memory.get("activations_fp32_per_picture")?.as_u64());
    Ok(2 * bytes.context("dit-cli inspect tells no activations")?)
}

fn sample(bench: &Bench<'_>, weights: &Path, precision: &str) -> Result<Value> {
    let latents = bench.folder.join("startup.safetensors");
    let mut command = dit_cli(bench)?;
    command.arg("sample").arg("--ckpt").arg(weights).args(["--vae", "none", "--class", "207"]);
    command.args(["--sampler", "ddim", "--steps", "1", "--precision", precision, "--device", "cpu", "--json"]);
    command.args(["--threads", &bench.threads.to_string()]).arg("--latents").arg(&latents);
    let run = json_of(&mut command);
    // A leftover is no reason to fail.
    let _ = std::fs::remove_file(&latents);
    run
}

fn json_of(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).output().context("dit-cli does not start")?;
    ensure!(output.status.success(), "dit-cli failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("the case lacks {key}"))
}
