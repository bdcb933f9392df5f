//! Peak memory, each measured in a process of its own: this test's binary, called again.

use std::process::Command;

use dit_config::VaeSpec;
use dit_vae::{LatentCodec, RawLatents, Tiled, Tiling};

use crate::support::{random, wave};

const MODE: &str = "DIT_VAE_MEMORY_TEST";

/// Peak resident bytes of this process, from the kernel.
#[cfg(target_os = "linux")]
fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Decodes 1024×1024 pixels in the mode that the environment names, and prints its peak; without one it does nothing.
#[cfg(target_os = "linux")]
#[test]
fn child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let _no_grad = tch::no_grad_guard();
    tch::set_num_threads(1); // other tests run beside
    let codec = random(VaeSpec {
        block_out_channels: vec![16],
        norm_num_groups: 4,
        layers_per_block: 1,
        mid_block_add_attention: mode == "attention",
        ..VaeSpec::default()
    });
    let latents = |side: i64| RawLatents::new(wave(&[1, 4, side, side], 1));
    let decoded = match mode.as_str() {
        "tiled" => Tiled::new(&codec, Tiling::new(128, 16).unwrap()).decode_raw(&latents(1024)),
        "whole" => codec.decode_raw(&latents(1024)),
        "attention" => codec.decode_raw(&latents(128)),
        mode => panic!("no mode {mode}"),
    };
    assert_eq!(decoded.unwrap().size()[1], 3);
    println!("peak={}", peak_resident_bytes());
}

#[cfg(target_os = "linux")]
fn peak_of(mode: &str) -> u64 {
    let test = std::env::current_exe().unwrap();
    let output = Command::new(test).args(["--exact", "memory::child", "--nocapture"]).env(MODE, mode).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let peak = text.split("peak=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let peak = peak.unwrap_or_else(|| panic!("{mode}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let peak = peak.parse().unwrap();
    println!("{mode}: {} MiB", peak >> 20);
    peak
}

/// Whether an emulator runs this, whose own memory would be counted.
#[cfg(target_os = "linux")]
fn emulated() -> bool {
    let emulated = std::env::var_os("DIT_TEST_RUNNER").is_some();
    if emulated {
        eprintln!("SKIPPED: an emulator's memory is not the program's");
    }
    emulated
}

/// One activation of the whole picture takes 64 MiB, of a tile 1 MiB; two are held at a time.
#[cfg(target_os = "linux")]
#[test]
fn tiles_bound_the_memory_of_decoding() {
    if emulated() {
        return;
    }
    let (whole, tiled) = (peak_of("whole"), peak_of("tiled"));
    assert!(tiled + (32 << 20) < whole, "tiled {} MiB, whole {} MiB", tiled >> 20, whole >> 20);
}

/// 128×128 latent pixels: their attention matrix alone would be 1024 MiB.
#[cfg(target_os = "linux")]
#[test]
fn attention_never_holds_its_matrix() {
    if emulated() {
        return;
    }
    let peak = peak_of("attention");
    assert!(peak < 600 << 20, "{} MiB", peak >> 20);
}
