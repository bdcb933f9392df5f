//! What to type instead: libraries say what is wrong, and know no options.

use std::error::Error;

use dit_sample::{Conflict, GuidedBy};

/// What helps where one of an error's causes is of a library that knows what is wrong, and not what was typed.
pub fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(of_cause)
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref() {
        return sampling(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return evaluation(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return training(error);
    }
    let help = match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(dit_weights::Error::HeadsUnknown { .. }), _) => "pass their number as --num-heads",
        (_, Some(dit_precompute::Error::TooManySkipped { .. })) => {
            "mend or remove them, or pass a larger --max-skipped"
        }
        _ => return None,
    };
    Some(help.to_owned())
}

fn sampling(error: &dit_sample::Error) -> Option<String> {
    use dit_sample::Error as E;
    let help = match error {
        E::Conflict(conflict) => return conflicting(conflict),
        E::NoNullClass => "pass --cfg-scale 1",
        E::Strength(_) => "pass another --strength",
        E::LatentChannels { .. } => "pass that one as --vae",
        E::GridTooLarge { .. } => "write them with --out-dir or --npz",
        E::NoVae => "with --vae none, pass --latents FILE and no other output",
        _ => return None,
    };
    Some(help.to_owned())
}

/// The samplers that add no noise.
const DETERMINISTIC: &str = "pass --sampler ddim, dpmpp-2m, dpmpp-3m, unipc or heun with it";

fn conflicting(conflict: &Conflict) -> Option<String> {
    let help = match conflict {
        Conflict::AutoguidanceBesideCfg => "pass --cfg-scale 1 with --autoguidance, or leave --autoguidance out",
        Conflict::AutoguidanceBesideNegativeClass => "leave --negative-class out, or --autoguidance",
        Conflict::IdleAutoguidance => "pass --autoguidance-scale above 1, or leave --autoguidance out",
        Conflict::EndlessInterval => "pass --cfg-interval LO,1000 for all from LO on",
        Conflict::Unguided(by) => {
            let option = match by {
                GuidedBy::Interval => "--cfg-interval",
                GuidedBy::Schedule => "--cfg-schedule",
                GuidedBy::Rescale => "--cfg-rescale",
                GuidedBy::NegativeClass => "--negative-class",
                _ => return None,
            };
            return Some(format!("pass --cfg-scale above 1 with {option}, or leave {option} out"));
        }
        Conflict::TooFewChannels { .. } => "pass --cfg-channels all",
        Conflict::NoisedOtherwise(_) => "leave --classifier out",
        Conflict::CacheFactor(_) => "pass --cache off, or a factor such as 0.1",
        Conflict::InversionBeforeNoise(_) | Conflict::SeedsUnderNoise(_) => DETERMINISTIC,
        Conflict::InversionWithoutClass => "pass --init-class with the picture's class",
        Conflict::TooFewFrames(_) => "pass --frames with 2 or more",
        Conflict::InterpolationFromPicture => "leave --init out, or --interpolate",
        _ => return None,
    };
    Some(help.to_owned())
}

fn evaluation(error: &dit_eval::Error) -> Option<String> {
    use dit_eval::Error as E;
    let help = match error {
        E::PictureSize { .. } => {
            "for folders, archives and IDX files, pass --image-size and --crop; else choose other --features"
        }
        E::NeedsPictures { .. } => "give a reference with pictures, or leave it out of --metrics",
        E::NeedsFeatures { .. } => "choose other --features or --metrics",
        E::OtherNetwork { .. } => "pass the same --features as when they were made, or make them again",
        E::Cache { .. } => "pass --cache DIR, a folder that can be written to",
        E::NoRoom { .. } => "make room, or pass --cache DIR on another disk; --stats needs none with --no-cache",
        E::MixedSizes { .. } => "pass --image-size and --crop to bring all to one size",
        E::NotBroughtToSize { .. } => {
            "pass --image-size with the side of its pictures, if they are square and the other side can be brought to that"
        }
        _ => return None,
    };
    Some(help.to_owned())
}

fn training(error: &dit_train::TrainError) -> Option<String> {
    use dit_train::TrainError as E;
    let help = match error {
        E::Exists { .. } => "continue it with --resume, or choose another folder",
        E::NoRun { .. } => "begin it without --resume",
        _ => return None,
    };
    Some(help.to_owned())
}
