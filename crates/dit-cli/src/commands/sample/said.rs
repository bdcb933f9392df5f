//! What a run says beside its progress.

use std::path::PathBuf;

use anyhow::Result;
use dit_args::SampleArgs;
use dit_config::DitConfig;
use dit_files::parts_of;
use dit_sample::{CfgChannels, Kept, LateProvenance, Others, OutputPaths, Plan, Precision, Settings};
use tch::Device;

use crate::speak::say;

/// Says what is left of a run that did not come to its end.
pub fn say_kept(kept: Option<Kept>) {
    let Some(Kept { files, parts, pictures, of, failure }) = kept else { return say(format_args!("\nstopped")) };
    match &files[..] {
        [] => say(format_args!("\nstopped; no image was {}", if failure.is_some() { "kept" } else { "finished" })),
        [.., last] => {
            let last = last.display();
            say(format_args!(
                "\nstopped; finished images are kept: {pictures} of {of} pictures, {} files, the last {last}",
                files.len()
            ));
            for part in parts {
                say(format_args!("{}: a part, hence not under the name that was asked for", part.display()));
            }
        }
    }
    if let Some(failure) = failure {
        say(format_args!("not all could be kept: {failure}"));
    }
}

/// Says which files were written.
pub fn say_written(files: &[PathBuf]) {
    for path in &files[..files.len().min(8)] {
        say(format_args!("wrote {}", path.display()));
    }
    if files.len() > 8 {
        say(format_args!("and {} more", files.len() - 8));
    }
}

/// Scales on all channels and on three are not alike.
pub fn say_translation(args: &SampleArgs, settings: &Settings, config: &DitConfig) {
    if args.guidance.cfg_channels.is_some() && settings.cfg_channels == CfgChannels::All && config.in_channels == 4 {
        let scale = settings.cfg_scale;
        if scale != 1.0 {
            say(format_args!(
                "guidance {scale} on all four channels acts about as {:.4} on three; for {scale} on three, pass --cfg-scale {:.4}",
                CfgChannels::three_for_four(scale),
                CfgChannels::four_for_three(scale)
            ));
        }
    }
}

/// Multiply-accumulates of a long run: a minute of two cores in fp32, a sixth of a picture of DiT-XL/2 at 256 px by DDPM in 250 steps.
const LONG: f64 = 1e13;

/// A long run in the default arithmetic is told of the faster one. That is not the default, as it rounds.
pub fn say_faster(plan: &Plan, config: &DitConfig, device: Device) {
    let settings = plan.settings();
    let guided = settings.cfg_scale != 1.0 || settings.guidance.autoguidance_scale.is_some();
    let passes = if guided { 2 } else { 1 } * plan.schedule().num_steps() * plan.classes().len();
    let faster = Precision::auto(device);
    if faster != settings.precision && passes as f64 * config.macs() as f64 >= LONG {
        say(format_args!(
            "precision: {}; --precision auto would take {} here, which is faster, and rounds by some 3 %",
            settings.precision.name(),
            faster.name()
        ));
    }
}

/// Files that the run will replace are named before it begins.
pub fn say_replaced(outputs: &OutputPaths, plan: &Plan, provenance: &LateProvenance) -> Result<()> {
    let files = [&outputs.png, &outputs.npz, &outputs.latents, &outputs.animation, &outputs.trajectory];
    for path in files.into_iter().flatten().filter(|path| path.exists()) {
        say(format_args!("{} exists and will be replaced", path.display()));
    }
    for part in [&outputs.npz, &outputs.latents].into_iter().flatten().flat_map(|path| parts_of(path)) {
        say(format_args!("{} is what an interrupted run left, and stays", part.display()));
    }
    let Some(dir) = &outputs.dir else { return Ok(()) };
    let Others { replaced, kept } = Others::find(dir, plan, provenance)?;
    if replaced > 0 {
        say(format_args!("{}: {replaced} pictures were made otherwise, and will be replaced", dir.display()));
    }
    if kept > 0 {
        say(format_args!("{}: {kept} pictures have numbers that this run has not, and stay", dir.display()));
    }
    Ok(())
}
