//! The machine that figures belong to, and what others take of it meanwhile.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::libtorch::VERSION;
use crate::workspace::Workspace;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name, family and model.
    pub cpu: String,
    pub cores: usize,
    /// Of every engine.
    pub threads: u16,
    pub memory_bytes: Option<u64>,
    /// The GPU that was computed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Of the instruction sets that decide these speeds, those it has.
    pub instructions: Vec<String>,
    pub libtorch: String,
    pub rustc: String,
    /// A `+` follows where there were changes beside it.
    pub commit: String,
    /// UTC.
    pub date: String,
}

const INSTRUCTIONS: [&str; 11] = [
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
];

impl Machine {
    pub fn of_this_run(workspace: &Workspace, threads: u16, on_gpu: bool) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(workspace.root()).args(arguments);
            said(git)
        };
        let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
        let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.arg("--version").current_dir(workspace.root());
        Self {
            cpu: cpu(&cpuinfo),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads,
            memory_bytes: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            gpu: on_gpu.then(gpu),
            instructions: instructions(&cpuinfo),
            libtorch: VERSION.to_owned(),
            rustc: said(rustc).unwrap_or_else(|| "unknown".to_owned()),
            commit: if changed { format!("{commit}+") } else { commit },
            date: date(now / 86_400),
        }
    }

    /// The same code on the same machine, whenever.
    pub fn is_same_build(&self, other: &Self) -> bool {
        Self { date: String::new(), ..self.clone() } == Self { date: String::new(), ..other.clone() }
    }

    #[cfg(test)]
    pub fn example() -> Self {
        Self {
            cpu: "Example 1".into(),
            cores: 2,
            threads: 2,
            memory_bytes: Some(24 << 30),
            gpu: None,
            instructions: vec!["avx2".into()],
            libtorch: VERSION.into(),
            rustc: "rustc 1".into(),
            commit: "abc".into(),
            date: "2026-01-01".into(),
        }
    }
}

/// What a command prints, trimmed; none if it fails.
fn said(mut command: Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The name of the first GPU that this process is shown, by its place on the bus: among different ones CUDA may begin with another.
fn gpu() -> String {
    let mut list = Command::new("nvidia-smi");
    list.args(["--query-gpu=name", "--format=csv,noheader"]);
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        list.args(["-i", visible.split(',').next().unwrap_or_default()]);
    }
    said(list).and_then(|names| names.lines().next().map(str::to_owned)).unwrap_or_else(|| "an unknown GPU".to_owned())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value =
        |line: &'a str| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    text.lines().find_map(value)
}

fn cpu(cpuinfo: &str) -> String {
    match (field(cpuinfo, "model name"), field(cpuinfo, "cpu family"), field(cpuinfo, "model")) {
        (Some(name), Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        (Some(name), ..) => name.to_owned(),
        _ => std::env::consts::ARCH.to_owned(),
    }
}

fn instructions(cpuinfo: &str) -> Vec<String> {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let has = |name: &&str| flags.split_whitespace().any(|flag| flag == *name);
    INSTRUCTIONS.iter().filter(|name| has(name)).map(|&name| name.to_owned()).collect()
}

fn memory(meminfo: &str) -> Option<u64> {
    Some(field(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A day since 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", left + 1)
}

/// Processor time at a moment, in clock ticks; only Linux tells.
#[derive(Clone, Copy)]
pub struct Moment {
    when: Instant,
    busy: u64,
    stolen: u64,
    own: u64,
}

/// Linux counts in these for every program.
const TICKS_PER_SECOND: f64 = 100.0;

impl Moment {
    /// Now; `engines` are our own processes, beside this one.
    pub fn now(engines: &[u32]) -> Option<Self> {
        let (busy, stolen) = processors(&fs::read_to_string("/proc/stat").ok()?)?;
        let engines: Option<u64> = engines.iter().map(|&id| process_ticks(id)).sum();
        Some(Self { when: Instant::now(), busy, stolen, own: engines? + process_ticks(std::process::id())? })
    }

    /// Of all processors' time since then, what went to others.
    pub fn taken_by_others(self, now: Self, cores: usize) -> f64 {
        let ticks = now.when.duration_since(self.when).as_secs_f64() * TICKS_PER_SECOND * cores as f64;
        let others = (now.busy - self.busy).saturating_sub(now.own - self.own) + (now.stolen - self.stolen);
        if ticks > 0.0 { others as f64 / ticks } else { 0.0 }
    }
}

/// Seconds of processor time that a process has used.
pub fn process_seconds(id: u32) -> Option<f64> {
    Some(process_ticks(id)? as f64 / TICKS_PER_SECOND)
}

fn process_ticks(id: u32) -> Option<u64> {
    ticks_of(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// utime and stime, the 14th and 15th field; the second, the name in parentheses, may hold anything.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Of all processors: ticks of work, and ticks that the host gave to others.
fn processors(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|text| text.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    match ticks.as_slice() {
        [user, nice, system, _, _, irq, softirq, steal, ..] => Some((user + nice + system + irq + softirq, *steal)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (20_454, "2026-01-01"),
            (20_818, "2026-12-31"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn the_processor_is_named_and_its_instructions_are_picked() {
        let text = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16\n";
        assert_eq!(cpu(text), "AMD EPYC (family 26, model 2)");
        assert_eq!(instructions(text), ["avx2", "avx512f", "avx512_bf16"]);
        assert_eq!(memory("MemTotal:       24000 kB\nMemFree: 1 kB\n"), Some(24_000 * 1024));
    }

    #[test]
    fn ticks_are_read_past_any_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 100 0 0 0 700 30 0 0 20 0 3 0 1000 1 1";
        assert_eq!(ticks_of(stat), Some(730));
        assert_eq!(processors("cpu  10 1 5 900 7 2 3 4 0 0\ncpu0 1 1 1 1\n"), Some((21, 4)));
        assert_eq!(processors("nothing"), None);
    }

    #[test]
    fn what_others_took_is_what_is_left() {
        let when = Instant::now();
        let before = Moment { when, busy: 100, stolen: 0, own: 40 };
        let after = Moment { when: when + std::time::Duration::from_secs(1), busy: 260, stolen: 10, own: 180 };
        assert_eq!(before.taken_by_others(after, 2), 0.15);
    }
}
