//! Encodes a drawn picture and decodes it again: shapes, moments, error, time and memory.
//!
//! ```sh
//! cargo run --release -p dit-vae --example roundtrip -- weights/demo/vae-fashion --size 32
//! cargo run --release -p dit-vae --example roundtrip -- --size 1024 --tiled   # Stable Diffusion's geometry, random weights
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use dit_config::{TensorSpec, VaeConfig, VaeSpec};
use dit_vae::{AutoencoderKl, Kernels, LatentCodec, Tiled, Tiling};
use dit_weights::VaeCheckpoint;
use tch::{Device, Kind, Tensor};

const USAGE: &str = "roundtrip [VAE] [--size PIXELS] [--batch IMAGES] [--tiled] [--bf16] [--plain] [--repeat TIMES]";

struct Args {
    path: Option<PathBuf>,
    size: i64,
    batch: i64,
    tiled: bool,
    kind: Kind,
    kernels: Kernels,
    repeat: usize,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut parsed =
        Args { path: None, size: 256, batch: 1, tiled: false, kind: Kind::Float, kernels: Kernels::Fused, repeat: 1 };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        match arg.as_str() {
            "--size" => parsed.size = given.next().ok_or(USAGE)?.parse()?,
            "--batch" => parsed.batch = given.next().ok_or(USAGE)?.parse()?,
            "--repeat" => parsed.repeat = given.next().ok_or(USAGE)?.parse::<usize>()?.max(1),
            "--plain" => parsed.kernels = Kernels::Plain,
            "--tiled" => parsed.tiled = true,
            "--bf16" => parsed.kind = Kind::BFloat16,
            path if !path.starts_with('-') => parsed.path = Some(path.into()),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(parsed)
}

/// Stable Diffusion's geometry with weights that keep activations near one. Its pictures mean nothing.
fn random(kind: Kind, kernels: Kernels) -> Result<AutoencoderKl, Box<dyn Error>> {
    tch::manual_seed(0);
    let config = VaeConfig::new(VaeSpec::default())?;
    let tensor = |spec: TensorSpec| {
        let shape: Vec<i64> = spec.shape.iter().map(|&extent| extent as i64).collect();
        let fan_in: i64 = shape[1..].iter().product();
        let noise = Tensor::randn(&shape, (Kind::Float, Device::Cpu));
        let norm = shape.len() == 1 && spec.name.ends_with("weight");
        (spec.name, if norm { noise * 0.2 + 1.0 } else { noise / (fan_in.max(100) as f64).sqrt() })
    };
    let weights: BTreeMap<String, Tensor> = config.tensors().into_iter().map(tensor).collect();
    Ok(AutoencoderKl::from_tensors(config, weights, Device::Cpu, kind, kernels)?)
}

/// Grey discs on a slope of grey, (batch, channels, size, size) in [−1, 1].
fn picture(batch: i64, channels: i64, size: i64) -> Tensor {
    let axis = Tensor::arange(size, (Kind::Float, Device::Cpu)) / (size - 1).max(1) as f64 * 2.0 - 1.0;
    let (x, y) = (axis.unsqueeze(0), axis.unsqueeze(1));
    let discs = ((x.square() + y.square()).sqrt() * 9.0).sin().clamp(-0.2, 0.2) * 4.0;
    (discs + (&x + &y) * 0.1).clamp(-1.0, 1.0).expand([batch, channels, size, size], false).contiguous()
}

/// Peak resident memory of this process, where the system tells.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(format!("{} MiB", line.trim().trim_end_matches(" kB").parse::<u64>().ok()? >> 10))
}

/// The last result, and the median of the times in seconds.
fn timed<T>(times: usize, mut work: impl FnMut() -> Result<T, dit_vae::Error>) -> Result<(T, f64), dit_vae::Error> {
    let mut seconds = Vec::new();
    loop {
        let start = Instant::now();
        let result = work()?;
        seconds.push(start.elapsed().as_secs_f64());
        if seconds.len() >= times {
            seconds.sort_by(f64::total_cmp);
            return Ok((result, seconds[seconds.len() / 2]));
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let _no_grad = tch::no_grad_guard();
    let codec = match &args.path {
        Some(path) => AutoencoderKl::load_with(&VaeCheckpoint::open(path)?, Device::Cpu, args.kind, args.kernels)?,
        None => random(args.kind, args.kernels)?,
    };
    let config = codec.config().clone();
    println!("{:.1} M parameters, 1/{} of each side", config.parameters() as f64 / 1e6, config.downsampling());
    let codec: Box<dyn LatentCodec> =
        if args.tiled { Box::new(Tiled::new(codec, Tiling::default())) } else { Box::new(codec) };

    let images = picture(args.batch, config.in_channels as i64, args.size);
    let (moments, seconds) = timed(args.repeat, || codec.encode(&images))?;
    println!("encode  {:?} → {:?}  {:.3} s", images.size(), moments.mean().size(), seconds);
    for (name, values) in [("mean", moments.mean()), ("logvar", moments.logvar())] {
        let (mean, std) = (values.mean(Kind::Double), values.to_kind(Kind::Double).std(false));
        println!("        {name} {:.3} ± {:.3}", mean.double_value(&[]), std.double_value(&[]));
    }
    let latents = codec.latents(&moments.mode());
    let (decoded, seconds) = timed(args.repeat, || codec.decode(&latents))?;
    println!("decode  {:?} → {:?}  {:.3} s", latents.tensor().size(), decoded.size(), seconds);
    let error = (decoded - images).square().mean(Kind::Double).sqrt().double_value(&[]);
    println!("root mean square error {error:.3} (images in [−1, 1])");
    if let Some(peak) = peak_memory() {
        println!("peak memory {peak}");
    }
    Ok(())
}
