//! Wrong usage: what was typed cannot be done, however sound the files are. The program ends with 2 then, as it does for an
//! option that it does not know, and with 1 for all else.

use std::{error::Error, fmt, process::ExitCode};

/// What ends the program with 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

/// As `bail!`, with [`Usage`].
macro_rules! wrong_usage {
    ($($text:tt)*) => {
        return Err($crate::usage::Usage(format!($($text)*)).into())
    };
}
pub(crate) use wrong_usage;

/// What the program ends with after this error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_usage) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Our own, or what a library says of values that come from the command line or from a recipe: typed, a PNG's or a run's.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref() {
        return sampling(error);
    }
    if let Some(error) = error.downcast_ref() {
        return diffusion(error);
    }
    if let Some(error) = error.downcast_ref() {
        return recipe(error);
    }
    if let Some(error) = error.downcast_ref() {
        return training(error);
    }
    error.is::<Usage>()
        || matches!(error.downcast_ref(), Some(dit_classes::Error::List(_)))
        || matches!(error.downcast_ref(), Some(dit_weights::Error::Unwritable { .. }))
        || matches!(error.downcast_ref(), Some(dit_classifier::Error::Options(_)))
        || matches!(
            error.downcast_ref(),
            Some(
                dit_eval::Error::Recipe { .. }
                    | dit_eval::Error::NeedsPictures { .. }
                    | dit_eval::Error::NeedsFeatures { .. }
            )
        )
}

fn recipe(error: &dit_recipe::Error) -> bool {
    matches!(error, dit_recipe::Error::Recipe(_) | dit_recipe::Error::Geometry(_))
}

fn training(error: &dit_train::TrainError) -> bool {
    use dit_train::TrainError as E;
    match error {
        // What a run began with does not change.
        E::Recipe { .. } => true,
        E::NotARecipe(error) => recipe(error),
        _ => false,
    }
}

fn sampling(error: &dit_sample::Error) -> bool {
    use dit_sample::Error as E;
    match error {
        E::Class { .. }
        | E::NoNullClass
        | E::Conflict(_)
        | E::Strength(_)
        | E::ImageCount(_)
        | E::BatchSize
        | E::FirstImage(_)
        | E::SamePath(_)
        | E::NotPng(_)
        | E::GridTooLarge { .. }
        | E::NoVae => true,
        E::Diffusion(error) => diffusion(error),
        _ => false,
    }
}

fn diffusion(error: &dit_diffusion::Error) -> bool {
    use dit_diffusion::Error as E;
    matches!(
        error,
        E::SpacingSyntax { .. }
            | E::ZeroSteps { .. }
            | E::TooManySteps { .. }
            | E::SectionTooSmall { .. }
            | E::NoSuchStride { .. }
            | E::Eta { .. }
            | E::GuidanceScale { .. }
            | E::GuidanceInterval { .. }
            | E::GuidanceRescale { .. }
            | E::ClassifierScale { .. }
            | E::GuidedChannels { .. }
    )
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result};

    use super::*;

    #[track_caller]
    fn check(error: impl Into<anyhow::Error>, wrong_usage: bool) {
        let error = error.into();
        let code = |error: &anyhow::Error| format!("{:?}", exit_code(error));
        let expected = format!("{:?}", if wrong_usage { ExitCode::from(2) } else { ExitCode::FAILURE });
        assert_eq!(code(&error), expected, "{error:?}");
        let told: Result<()> = Err(error).context("in the middle").context("outside");
        assert_eq!(code(&told.unwrap_err()), expected, "with more said about it");
    }

    #[test]
    fn wrong_usage_is_told_whatever_is_said_about_it() {
        let wrong = || -> Result<()> { wrong_usage!("--frames {}: too few", 1) };
        check(wrong().unwrap_err(), true);
        check(dit_diffusion::Error::Eta { eta: 2.0 }, true);
        check(dit_sample::Error::Diffusion(dit_diffusion::Error::Eta { eta: 2.0 }), true);
        check(dit_recipe::Recipe::from_toml("", &["x=1".to_owned()]).unwrap_err(), true);
        check(dit_recipe::Error::Geometry("3 heads do not divide hidden 32".to_owned()), true);
        check(dit_recipe::Error::Data(Vec::new()), false);
        check(dit_train::TrainError::Recipe { path: "run".into(), differences: vec!["a key".to_owned()] }, true);
        check(dit_train::TrainError::NotARecipe(dit_recipe::Error::Geometry("too narrow".to_owned())), true);
        check(dit_train::TrainError::NotARecipe(dit_recipe::Error::Data(Vec::new())), false);
        check(dit_train::TrainError::FeedEnded, false);
        check(dit_sample::Error::Cancelled, false);
        check(dit_sample::Error::Diffusion(dit_diffusion::Error::EmptySchedule), false);
        check(std::io::Error::other("a full disk"), false);
        let problem = "a .pt file has no place for class names".to_owned();
        check(dit_weights::Error::Unwritable { path: "x.pt".into(), problem, help: "name another" }, true);
        check(dit_weights::Error::EmptyFile { path: "x.pt".into() }, false);
    }
}
