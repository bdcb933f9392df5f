//! Samples measured against a reference.

mod compare;
pub mod input;
mod label_policy;
mod reconstruction;
mod record;
mod stats;

use std::time::Instant;

use anyhow::{Result, anyhow};
use dit_args::{CropArg, EvaluateArgs};
use dit_data::CropRecipe;
use dit_eval::{DEMO_SIDE, FeatureNetwork, Fit};

use self::{
    compare::Networks,
    input::{Input, network},
    reconstruction::Reconstruction,
};
use crate::{interrupt::OnInterrupt, machine, speak::say, usage::wrong_usage};

/// Who writes records and statistics.
const SOFTWARE: &str = concat!("dit-rs ", env!("CARGO_PKG_VERSION"));
/// Fewer samples than this and a number says little about the distribution.
const FEW: usize = 10_000;

/// The arguments know no feature network.
const _: () = assert!(dit_args::LARGEST_BATCH == dit_eval::FeatureSet::CHUNK);

pub fn run(args: &EvaluateArgs) -> Result<()> {
    let interrupt = OnInterrupt::install()?;
    let kept = match args.no_cache {
        true => "nothing is kept with --no-cache, and the same command begins anew",
        false => "features that are finished are kept, and the same command continues",
    };
    interrupt.set(move || say(format_args!("\nstopped; {kept}")));
    let measured = measure(args);
    interrupt.clear();
    measured
}

fn measure(args: &EvaluateArgs) -> Result<()> {
    let start = Instant::now();
    let device = machine::open_device(args.machine.device.as_deref().unwrap_or("auto"))?;
    machine::set_threads(args.machine.threads)?;
    let fit = fit_of(args)?;
    match (&args.stats, &args.out, &args.samples, &args.reference) {
        (Some(data), Some(out), None, None) => {
            dit_files::ensure_apart(out, &[data.as_path()])?;
            dit_files::ensure_writable(out)?;
            let network = network(&args.features, device)?;
            stats::write(args, data, out, fit, &*network)
        }
        (None, None, Some(samples), Some(reference)) => {
            // Both sides are looked at before anything is loaded.
            let samples = Input::open(samples, fit)?;
            let reference = Input::open(reference, fit)?;
            let network = network(&args.features, device).map_err(|error| or_demo(error, &[&samples, &reference]))?;
            let through = args.reconstruct.as_deref();
            let through = through.map(|codec| Reconstruction::new(&*network, codec, device)).transpose()?;
            compare::run(args, &samples, reference, &Networks { plain: &*network, through }, start)
        }
        _ => wrong_usage!("give SAMPLES and REFERENCE, or --stats DATA and --out STATS.npz"),
    }
}

/// Where Inception is not there, the demo's features may do: for small pictures, such as those that they were made for.
fn or_demo(error: anyhow::Error, sides: &[&Input<'_>]) -> anyhow::Error {
    let small = |side: &&Input<'_>| {
        side.pictures.as_ref().is_some_and(|pictures| (pictures.height(), pictures.width()) == (DEMO_SIDE, DEMO_SIDE))
    };
    match error.downcast_ref() {
        Some(dit_catalog::Error::Missing { .. }) if sides.iter().all(small) => anyhow!(
            "{error}\n  help: or pass --features demo, if these are pictures of Fashion-MNIST's kind, which its network was trained on"
        ),
        _ => error,
    }
}

fn fit_of(args: &EvaluateArgs) -> Result<Fit> {
    match (args.image_size, args.crop) {
        (None, None) => Ok(Fit::AsIs),
        (None, Some(_)) => wrong_usage!("--crop needs --image-size"),
        (Some(side), crop) => Ok(Fit::Square {
            side,
            crop: match crop.unwrap_or(CropArg::Adm) {
                CropArg::Adm => CropRecipe::Adm,
                CropArg::Pad => CropRecipe::Pad,
            },
        }),
    }
}

/// Says that numbers over `count` pictures of `whose` side will be too large, where they will.
fn warn_of_rank(whose: &str, count: usize, network: &dyn FeatureNetwork) -> Option<String> {
    let width = network.widths().pooled;
    let warning = if count <= width {
        format!("{whose}{count} pictures for {width} features: the covariance is singular, and FID far too large")
    } else if count < FEW {
        format!("{whose}{count} pictures are few: FID is biased upwards; compare only with as many")
    } else {
        return None;
    };
    Some(warn(warning))
}

/// Says it, and gives it back for the record.
fn warn(warning: String) -> String {
    say(format_args!("warning: {warning}"));
    warning
}
