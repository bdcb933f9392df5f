//! What this process may use of the machine: device, threads, memory.

use std::{fs, path::Path, thread};

use anyhow::{Result, bail};
use tch::{Cuda, Device};

/// `auto`, `cpu`, `cuda` or `cuda:N`.
pub fn parse_device(text: &str) -> Result<Device> {
    let wanted = match text {
        "auto" => return Ok(Device::cuda_if_available()),
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        other => match other.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => number,
            None => bail!("unknown device '{other}'; expected auto, cpu, cuda or cuda:N"),
        },
    };
    let devices = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    match (devices, wanted) {
        (0, _) => bail!(
            "--device {text}: no CUDA device can be used here\n  \
             help: pass --device cpu; for a GPU, check nvidia-smi and build against `cargo xtask libtorch --cuda`"
        ),
        (_, wanted) if wanted as i64 >= devices => {
            bail!("--device {text}: this machine has {devices} CUDA devices, counted from 0")
        }
        (_, wanted) => Ok(Device::Cuda(wanted)),
    }
}

/// The name that `parse_device` reads.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

/// Sets libtorch's threads: `wanted`, or all cores that this process may use (its CPU mask and cgroup quota respected).
pub fn set_threads(wanted: Option<usize>) -> Result<usize> {
    let available = thread::available_parallelism().map_or(1, usize::from);
    let threads = wanted.unwrap_or(available);
    if !(1..=1024).contains(&threads) {
        bail!("--threads {threads}: expected 1 to 1024");
    }
    tch::set_num_threads(threads as i32);
    Ok(threads)
}

/// What activations may be counted against on `device`: the CPU's memory, or a cautious share of a GPU's, which libtorch does not tell.
pub fn memory_for_batches(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(_) => Some(12 << 30),
        _ => available_memory(),
    }
}

/// Free memory of the device that training runs on; none where it cannot be told.
pub fn memory_for_training(device: Device) -> Option<u64> {
    let Device::Cuda(number) = device else { return available_memory() };
    let query = ["--query-gpu=memory.free", "--format=csv,noheader,nounits", &format!("--id={number}")];
    let output = std::process::Command::new("nvidia-smi").args(query).output().ok()?;
    let mebibytes: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(mebibytes << 20)
}

/// Bytes of memory that this process may still take: what the system has available, less if its cgroup allows less.
/// Unknown on systems other than Linux.
fn available_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let cgroup = cgroup_room("memory.max", "memory.current")
        .or_else(|| cgroup_room("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"));
    Some(cgroup.unwrap_or(u64::MAX).min(kibibytes * 1024))
}

fn cgroup_room(limit: &str, usage: &str) -> Option<u64> {
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?.trim().parse().ok()
    };
    Some(read(limit)?.saturating_sub(read(usage)?)) // no limit reads "max" and ends here
}

/// The most memory that this process has had resident, in bytes.
#[cfg(target_os = "linux")]
pub fn peak_rss_bytes() -> Option<u64> {
    // Not getrusage: its figure begins with that of the process that started this one.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The most memory that this process has had resident, in bytes.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn peak_rss_bytes() -> Option<u64> {
    // SAFETY: getrusage writes a plain struct of integers, all zeros of which are valid, behind a valid pointer.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) == 0).then_some(usage)
    }?;
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Some(usage.ru_maxrss as u64 * unit)
}

/// Not known here.
#[cfg(not(unix))]
pub fn peak_rss_bytes() -> Option<u64> {
    None
}
