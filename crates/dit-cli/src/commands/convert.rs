use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use dit_args::{ConvertArgs, DtypeArg, LayoutArg};
use dit_catalog::Kind;
use dit_weights::{
    Codec, ConvertOptions, Dtype, Layout, ModelConfig, OpenOptions, Origin, VaeCheckpoint, WeightsKind, convert,
    is_file_ending, sha256_of,
};

use crate::{
    interrupt::OnInterrupt,
    open::{Library, Located, told},
    progress::bar,
    run_folder,
    speak::say,
    usage::wrong_usage,
};

pub fn run(args: &ConvertArgs) -> Result<()> {
    let library = Library::discover()?;
    let input = match run_folder::weights_of(Path::new(&args.input))? {
        Some(weights) => {
            let path = if args.raw { weights.raw } else { weights.average()? };
            say(format_args!("of the run: {}", path.display()));
            library.locate_any(&path.to_string_lossy())?
        }
        None => library.locate_any(&args.input)?,
    };
    if !args.force && args.output.exists() {
        bail!("{} exists\n  help: pass --force to replace it", args.output.display());
    }
    if args.layout != Some(LayoutArg::Diffusers) {
        check_name(&args.output)?;
    }
    let weights = match (args.ema, args.raw) {
        (true, _) => Some(WeightsKind::Ema),
        (_, true) => Some(WeightsKind::Raw),
        (false, false) => None,
    };
    let class_names = match &args.class_names {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let names = serde_json::from_str::<Vec<String>>(&text);
            Some(names.with_context(|| format!("{} is not a JSON array of strings", path.display()))?)
        }
    };
    let options = ConvertOptions {
        open: OpenOptions {
            weights,
            ..told(input.options.clone(), args.opened_as.model.as_deref(), args.opened_as.num_heads)?
        },
        layout: args.layout.map(|layout| match layout {
            LayoutArg::Original => Layout::Original,
            LayoutArg::Diffusers => Layout::Diffusers,
        }),
        dtype: args.dtype.map(|dtype| match dtype {
            DtypeArg::F32 => Dtype::F32,
            DtypeArg::Bf16 => Dtype::BF16,
            DtypeArg::F16 => Dtype::F16,
        }),
        class_names,
        ..ConvertOptions::default()
    };
    let sha256 = run_folder::check_file(&input.path, || Ok(sha256_of(&[&input.path])?))?;
    let name = input.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // What a run wrote comes from nowhere else, and need not be hashed again.
    let origin = sha256.map(|sha256| Origin { name, sha256 });
    let options = ConvertOptions { origin, codec: codec_of(&library, &input), ..options };
    let bar = bar("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    let interrupt = OnInterrupt::install()?;
    let output = args.output.clone();
    interrupt.set(move || {
        let _ = dit_files::remove_unfinished(&output); // what cannot be removed is a hidden file beside it
        say(format_args!("\nstopped; nothing was written"));
    });
    let done = convert(&input.path, &args.output, &options, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.written);
    });
    interrupt.clear();
    bar.finish_and_clear();
    let done = done?;
    let what = match &done.config {
        ModelConfig::Dit(config) => config.to_string(),
        ModelConfig::Vae(_) => "AutoencoderKL".to_owned(),
    };
    say(format_args!("{what}: {} layout -> {} layout, {:.1} MB", done.from, done.to, done.bytes as f64 / 1e6));
    let in_torch = done
        .files
        .iter()
        .any(|file| file.extension().is_some_and(|extension| extension != "safetensors" && extension != "json"));
    if let (ModelConfig::Dit(config), true) = (&done.config, in_torch) {
        say(format_args!(
            "note: a .pt file holds tensors alone, no class names and no configuration; to read it back, pass --num-heads {}",
            config.heads
        ));
    }
    if let (Some(process), Layout::Diffusers) = (done.process.filter(|process| !process.is_original()), done.to) {
        say(format_args!(
            "note: the weights' metadata says that they were trained on a {process}; diffusers does not read that: give its \
             scheduler the same"
        ));
    }
    for file in &done.files {
        say(format_args!("wrote {}", file.display()));
    }
    Ok(())
}

/// The codec that the catalogue says belongs to it, where that is at hand: what is converted is found without the catalogue.
fn codec_of(library: &Library, input: &Located) -> Option<Codec> {
    // A run's weights say it themselves.
    let codec = input.pairs_with.as_deref().filter(|_| run_folder::codec_of(&input.path).is_none())?;
    let at = library.locate(codec, Kind::Vae).ok()?;
    let vae = VaeCheckpoint::open(&at.path).ok()?;
    Some(Codec::new(codec, vae.sha256().ok()?.to_owned()))
}

/// A name that ends as no file does which can be written, and which a folder was not asked for under: a misspelling, perhaps. (Some
/// endings of other files are refused in any case, and what begins with a digit is a version, say.)
fn check_name(output: &Path) -> Result<()> {
    let Some(ending) = output.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()) else {
        return Ok(());
    };
    let is_folder = output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_folder || is_file_ending(&ending) || !ending.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Ok(());
    }
    let near = match ending.as_bytes() {
        [b's', ..] => format!("did you mean {}? ", output.with_extension("safetensors").display()),
        [b'p', ..] => format!("did you mean {}? ", output.with_extension("pt").display()),
        _ => String::new(),
    };
    wrong_usage!(
        "{}: a .{ending} file is not among the formats\n  \
         help: {near}.safetensors and .pt are files; for a folder of that name, pass --layout diffusers",
        output.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `help` where the name is refused.
    #[track_caller]
    fn check(output: &str, help: Option<&str>) {
        let found = check_name(Path::new(output)).err().map(|error| error.to_string());
        match (&found, help) {
            (None, None) => {}
            (Some(found), Some(help)) if found.contains(help) => {}
            _ => panic!("{output}: {found:?} instead of {help:?}"),
        }
    }

    #[test]
    fn what_ends_as_no_known_file_is_no_folder_unasked() {
        for output in ["hub", "hub/", "dit.safetensors", "dit.PT", "dit.pth", "dit.ckpt", "dit-v1.5", "hub.v1/", ".hub"]
        {
            check(output, None);
        }
        check("my/dit.safetensor", Some("did you mean my/dit.safetensors?"));
        check("dit.pht", Some("did you mean dit.pt?"));
        check(
            "run.xyz",
            Some("help: .safetensors and .pt are files; for a folder of that name, pass --layout diffusers"),
        );
    }
}
