//! What this process may use of the machine: device, threads, memory.

use std::{fs, path::Path, sync::OnceLock, thread};

use anyhow::{Result, bail};
use dit_ops::{allow_cudnn_attention, allow_tf32, links_cuda};
use tch::{Cuda, Device, Kind, TchError, Tensor};

use crate::{gpu_memory, speak::say, torch_text::without_call_stack, usage::wrong_usage};

/// The device that is named: `auto`, `cpu`, `cuda` or `cuda:N`, once a GPU has computed something: it may be busy, or of a kind that
/// this libtorch has no kernels for. fp32 is fp32 on it, where libtorch would begin with TF32 in CUDA's convolutions. Where that
/// cannot be had, whatever asks for fp32 by name fails later.
pub fn open_device(text: &str) -> Result<Device> {
    let device = parse_device(text)?;
    if device.is_cuda()
        && let Err(why) = try_out(device)
    {
        bail!(
            "--device {text}: {} cannot be used: {why}\n  \
             help: nvidia-smi tells whether others have it, or its memory; --device cpu does without",
            device_name(device)
        );
    }
    if device.is_cuda() {
        if let Err(error) = allow_tf32(false) {
            say(format_args!("warning: {error}"));
        }
        ensure_attention(device);
    }
    Ok(device)
}

/// cuDNN, which libtorch takes for attention in bf16 on some GPUs, compiles for them when it is asked to, and may lack what it needs for that.
fn ensure_attention(device: Device) {
    let Err(why) = try_attention(device) else { return };
    if allow_cudnn_attention(false) && try_attention(device).is_ok() {
        say(format_args!("warning: cuDNN has no attention here ({why}); libtorch's own computes it"));
    }
}

/// Has `device` compute attention as the network does in bf16; or why it does not.
fn try_attention(device: Device) -> Result<(), String> {
    let attention = || -> Result<f64, TchError> {
        let x = Tensor::f_ones([1, 2, 16, 72], (Kind::BFloat16, device))?; // (N, H, T, D/H)
        let (dropout, causal, grouped) = (0.0, false, false);
        let y = Tensor::f_scaled_dot_product_attention(&x, &x, &x, None::<Tensor>, dropout, causal, None, grouped)?;
        f64::try_from(y.f_mean(Kind::Float)?.f_to_device(Device::Cpu)?)
    };
    one_line(attention().map(|_| ()))
}

/// The first line of what libtorch says.
fn one_line<T>(result: Result<T, TchError>) -> Result<T, String> {
    result.map_err(|error| without_call_stack(&error.to_string()).lines().next().unwrap_or_default().to_owned())
}

/// Has `device` compute one number; or why it does not.
fn try_out(device: Device) -> Result<(), String> {
    let sum = || -> Result<f64, TchError> {
        let one = Tensor::f_ones([1], (Kind::Float, device))?;
        f64::try_from(one.f_add(&one)?.f_to_device(Device::Cpu)?)
    };
    match one_line(sum())? {
        2.0 => Ok(()),
        wrong => Err(format!("it says that 1 + 1 is {wrong}")),
    }
}

fn parse_device(text: &str) -> Result<Device> {
    let wanted = match text {
        "auto" => return Ok(Device::cuda_if_available()),
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        other => match other.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => number,
            None => wrong_usage!("unknown device '{other}'; expected auto, cpu, cuda or cuda:N"),
        },
    };
    let devices = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    match (devices, wanted) {
        (0, _) if links_cuda() => bail!(
            "--device {text}: no CUDA device can be used here\n  \
             help: nvidia-smi tells of devices and of the driver, which has to be 580 or newer for CUDA 13; --device cpu does without"
        ),
        (0, _) => bail!(
            "--device {text}: this program was built without CUDA\n  \
             help: `cargo xtask libtorch --cuda`, then build it again, with LIBTORCH_USE_PYTORCH not set; --device cpu does without"
        ),
        (_, wanted) if wanted as i64 >= devices => {
            bail!("--device {text}: this machine has {devices} CUDA devices, counted from 0")
        }
        (_, wanted) => Ok(Device::Cuda(wanted)),
    }
}

/// The name that `open_device` reads.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

/// Sets libtorch's threads, and rayon's: `wanted`, or all cores that this process may use (its CPU mask and cgroup quota respected).
pub fn set_threads(wanted: Option<usize>) -> Result<usize> {
    let available = thread::available_parallelism().map_or(1, usize::from);
    let threads = wanted.unwrap_or(available);
    if !(1..=1024).contains(&threads) {
        wrong_usage!("--threads {threads}: expected 1 to 1024");
    }
    tch::set_num_threads(threads as i32);
    // Once for the process; what a later call asks for would come too late.
    static POOL: OnceLock<Result<(), String>> = OnceLock::new();
    let pool =
        || rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| error.to_string());
    if let Err(error) = POOL.get_or_init(pool) {
        bail!("--threads {threads}: they cannot be started: {error}\n  help: pass fewer");
    }
    Ok(threads)
}

/// What is taken to be free of a GPU that does not tell.
const CAUTIOUS_GPU_BYTES: u64 = 12 << 30;

/// What activations may be counted against on `device`.
pub fn memory_for_batches(device: Device) -> Option<u64> {
    free_memory(device).or(device.is_cuda().then_some(CAUTIOUS_GPU_BYTES))
}

/// Free memory of `device`; none where it cannot be told.
pub fn free_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(number) => gpu_memory::free_bytes(number),
        _ => available_memory(),
    }
}

/// Bytes of memory that this process may still take: what the system has available, less if its cgroup allows less.
/// Unknown on systems other than Linux.
fn available_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let root = Path::new("/sys/fs/cgroup");
    let cgroup = cgroup_room(root, "memory.max", "memory.current", "")
        .or_else(|| cgroup_room(&root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"));
    Some(cgroup.unwrap_or(u64::MAX).min(kibibytes * 1024))
}

/// What the limit of a cgroup leaves. Its usage counts pages of files that were read, which go as soon as their room is wanted;
/// `memory.stat` tells how many, in lines that begin with `prefix`.
fn cgroup_room(folder: &Path, limit: &str, usage: &str, prefix: &str) -> Option<u64> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| -> Option<u64> { text(name)?.trim().parse().ok() };
    let (limit, usage) = (number(limit)?, number(usage)?); // no limit reads "max" and ends here
    let files: u64 = text("memory.stat").map_or(0, |stat| {
        let of = |line: &str| -> Option<u64> {
            let (name, bytes) = line.split_once(' ')?;
            let name = name.strip_prefix(prefix)?;
            ["inactive_file", "active_file"].contains(&name).then(|| bytes.trim().parse().ok()).flatten()
        };
        stat.lines().filter_map(of).sum()
    });
    Some(limit.saturating_sub(usage.saturating_sub(files)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_tried_out_and_a_reason_is_one_line() {
        assert_eq!(try_out(Device::Cpu), Ok(()));
        assert_eq!(try_attention(Device::Cpu), Ok(()));
        if !Cuda::is_available() {
            let why = try_out(Device::Cuda(0)).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], names: [&str; 3], expected: Option<u64>) {
        let folder = std::env::temp_dir().join(format!("dit-cgroup-{}-{expected:?}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
        let found = cgroup_room(&folder, names[0], names[1], names[2]);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, expected, "{files:?}");
    }

    #[test]
    fn pages_of_files_are_room() {
        let stat = "anon 300\nfile 650\ninactive_file 400\nactive_file 200\ninactive_anon 5\n";
        let second = ["memory.max", "memory.current", ""];
        check(&[("memory.max", "1000\n"), ("memory.current", "950\n"), ("memory.stat", stat)], second, Some(650));
        check(&[("memory.max", "max\n"), ("memory.current", "950\n"), ("memory.stat", stat)], second, None);
        check(&[("memory.max", "1000\n"), ("memory.current", "950\n")], second, Some(50));
        let first = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_"];
        let stat = "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 20\n";
        let files = [("memory.limit_in_bytes", "100"), ("memory.usage_in_bytes", "90"), ("memory.stat", stat)];
        check(&files, first, Some(60));
    }
}
