//! What to type instead, where a library says what is wrong and knows no options.

use std::error::Error;

use dit_sample::{Conflict, GuidedBy};

/// What helps where an error is of a library that knows what is wrong, and not what was typed.
pub fn of(cause: &(dyn Error + 'static)) -> Option<String> {
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
        (Some(dit_weights::Error::HeadsUnknown { .. }), _) => "pass it as --num-heads",
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
        E::Strength(_) => "pass such a --strength",
        E::LatentChannels { .. } => "pass the one that it was trained with as --vae",
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use dit_args::Cli;
    use dit_config::{Process, Sigma};
    use dit_sample::SamplerKind;

    use super::*;

    /// Every option that is named, there is.
    #[track_caller]
    fn check(error: &(dyn Error + 'static), option: &str) {
        let help = of(error).unwrap();
        assert!(help.contains(option), "{help}");
        let cli = Cli::command();
        let known = |name: &str| {
            let mut all = cli.get_subcommands().flat_map(clap::Command::get_arguments);
            all.any(|argument| argument.get_long() == Some(name))
        };
        for word in help.split([' ', ',', ';']).filter_map(|word| word.strip_prefix("--")) {
            assert!(known(word), "there is no --{word}: {help}");
        }
        assert!(!error.to_string().contains("--"), "{error}");
    }

    #[test]
    fn what_libraries_refuse_is_answered_by_options_that_there_are() {
        let original = Process::original(Sigma::Learned);
        for (conflict, option) in [
            (Conflict::AutoguidanceBesideCfg, "--cfg-scale 1"),
            (Conflict::AutoguidanceBesideNegativeClass, "--negative-class"),
            (Conflict::IdleAutoguidance, "--autoguidance-scale"),
            (Conflict::EndlessInterval, "--cfg-interval"),
            (Conflict::Unguided(GuidedBy::Interval), "--cfg-interval"),
            (Conflict::Unguided(GuidedBy::Schedule), "--cfg-schedule"),
            (Conflict::Unguided(GuidedBy::Rescale), "--cfg-rescale"),
            (Conflict::Unguided(GuidedBy::NegativeClass), "--negative-class"),
            (Conflict::TooFewChannels { latent_channels: 2 }, "--cfg-channels"),
            (Conflict::NoisedOtherwise(original), "--classifier"),
            (Conflict::CacheFactor(-1.0), "--cache"),
            (Conflict::InversionBeforeNoise(SamplerKind::Ddpm), "--sampler"),
            (Conflict::SeedsUnderNoise(SamplerKind::Ddpm), "--sampler"),
            (Conflict::InversionWithoutClass, "--init-class"),
            (Conflict::TooFewFrames(1), "--frames"),
            (Conflict::InterpolationFromPicture, "--interpolate"),
        ] {
            check(&dit_sample::Error::from(conflict), option);
        }
        check(&dit_sample::Error::NoNullClass, "--cfg-scale 1");
        check(&dit_sample::Error::Strength(2.0), "--strength");
        check(&dit_sample::Error::LatentChannels { vae: 4, model: 16 }, "--vae");
        check(&dit_sample::Error::GridTooLarge { count: 9, mebibytes: 9 }, "--out-dir");
        check(&dit_sample::Error::NoVae, "--latents");
        check(&dit_eval::Error::NeedsPictures { metric: "KID" }, "--metrics");
        check(&dit_eval::Error::NeedsFeatures { metric: "IS", what: "logits" }, "--features");
        let (path, takes) = (std::path::PathBuf::from("set"), "32 x 32");
        let network = || "demo".to_owned();
        check(&dit_eval::Error::PictureSize { network: network(), height: 9, width: 8, takes }, "--image-size");
        check(&dit_eval::Error::OtherNetwork { statistics: "inception".to_owned(), network: network() }, "--features");
        check(&dit_eval::Error::Cache { folder: path.clone(), source: "it is a file".into() }, "--cache");
        check(&dit_eval::Error::NoRoom { folder: path.clone(), needed: 9, free: 8 }, "--no-cache");
        check(&dit_eval::Error::MixedSizes { key: "a.png".to_owned(), found: (9, 8), expected: (8, 8) }, "--crop");
        let sizes = dit_eval::Error::NotBroughtToSize { path: path.clone(), height: 9, width: 8, side: 7 };
        check(&sizes, "--image-size");
        let skipped = dit_precompute::Error::TooManySkipped { skipped: Vec::new(), allowed: 0, total: 9, list: path };
        check(&skipped, "--max-skipped");
        check(&dit_train::TrainError::Exists { path: "run".into() }, "--resume");
        check(&dit_train::TrainError::NoRun { path: "run".into(), problem: String::new() }, "--resume");
        check(&dit_weights::Error::HeadsUnknown { hidden: 96, depth: 3 }, "--num-heads");
        assert!(of(&dit_sample::Error::BatchSize).is_none());
    }
}
