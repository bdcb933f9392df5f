use anyhow::{Context, Result, bail};
use dit_diffusion::{Noise, ReplayedNoise, SeededNoise};
use dit_sample::Source;
use dit_weights::{SafetensorsFile, TensorSource, to_tensor};

use super::request::Request;
use crate::recorded::source_of;

/// What `--noise` reads.
const NOISE_FILE: &str =
    "expected `z` (N, C, H, W), the noise to start from, and `steps` (S, N, C, H, W) for samplers that add noise";

/// The seeded noise, or the recorded one and what file it was.
pub fn open_noise(request: &Request) -> Result<(Box<dyn Noise>, Option<Source>)> {
    let Some(path) = &request.noise else {
        return Ok((Box::new(SeededNoise::new(request.seed)), None));
    };
    let context = || format!("--noise {}", path.display());
    if path.is_dir() {
        bail!("{}: it is a folder: {NOISE_FILE}", context());
    }
    let file = SafetensorsFile::open(path).or_else(|error| match error {
        dit_weights::Error::Io { .. } => Err(error).with_context(context),
        // What a picture's first bytes would mean in the header of safetensors helps nobody.
        _ => bail!("{}: it is no safetensors file, which noise is replayed from: {NOISE_FILE}", context()),
    })?;
    if !file.infos().contains_key("z") {
        bail!("{}: it has no tensor `z`: {NOISE_FILE}", context());
    }
    let mut noise = ReplayedNoise::new(&to_tensor(&file, "z").with_context(context)?)?;
    if file.infos().contains_key("steps") {
        noise = noise.with_steps(&to_tensor(&file, "steps").with_context(context)?)?;
    }
    Ok((Box::new(noise), Some(source_of(path)?)))
}
