//! Guidance beyond the plain scale, editing and caching, as typed or as a recipe has them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use dit_args::{CfgScheduleArg, SampleArgs};
use dit_classes::ClassNames;
use dit_sample::{CfgSchedule, Guidance, Interpolation, MOST_IMAGES, Recipe, Settings, Start};

use crate::{recorded::expand, speak::say, usage::wrong_usage};

const DEFAULT_AUTOGUIDANCE_SCALE: f64 = 2.0;
const DEFAULT_CLASSIFIER_SCALE: f64 = 1.0;
const DEFAULT_STRENGTH: f64 = 0.6;
const DEFAULT_FRAMES: u32 = 9;

/// What was asked for; class names are not yet resolved.
pub struct Options {
    pub weaker: Option<String>,
    pub classifier: Option<PathBuf>,
    pub init: Option<PathBuf>,
    pub autoguidance_scale: Option<f64>,
    pub cache: f64,
    /// The first of two seeds.
    pub first_seed: Option<u64>,
    /// The recipe's, without what is asked for anew.
    guidance: Guidance,
    negative_class: Option<String>,
    start: Start,
    init_class: Option<String>,
    interpolate: Option<Way>,
}

/// From where to where.
enum Way {
    /// As the recipe has it, perhaps in another number of pictures.
    Repeated(Interpolation),
    /// Two classes, ids or names.
    Classes {
        list: String,
        frames: u32,
    },
    Seeds {
        to: u64,
        frames: u32,
    },
}

impl Options {
    /// What is typed, else what the recipe has.
    pub fn from_args(args: &SampleArgs, old: Option<&Recipe>) -> Result<Self> {
        check_pairs(args, old)?;
        let settings = old.map(|recipe| &recipe.settings);
        let mut guidance = settings.map(|settings| settings.guidance.clone()).unwrap_or_default();
        if let Some(text) = &args.guidance.cfg_interval {
            guidance.interval = Some(interval(text)?);
        }
        if let Some(schedule) = args.guidance.cfg_schedule {
            guidance.schedule = match schedule {
                CfgScheduleArg::Constant => CfgSchedule::Constant,
                CfgScheduleArg::Linear => CfgSchedule::Linear,
                CfgScheduleArg::Cosine => CfgSchedule::Cosine,
            };
        }
        guidance.rescale = args.guidance.cfg_rescale.unwrap_or(guidance.rescale);
        let scale = |file: bool, flag: Option<f64>, then: Option<f64>, default: f64| {
            if file || then.is_some() { flag.or(then).or(Some(default)) } else { None }
        };
        let autoguidance = args.guidance.autoguidance.is_some();
        guidance.autoguidance_scale = scale(
            autoguidance,
            args.guidance.autoguidance_scale,
            guidance.autoguidance_scale,
            DEFAULT_AUTOGUIDANCE_SCALE,
        );
        guidance.classifier_scale = scale(
            args.guidance.classifier.is_some(),
            args.guidance.classifier_scale,
            guidance.classifier_scale,
            DEFAULT_CLASSIFIER_SCALE,
        );
        let path = |source: Option<&dit_sample::Source>| source.map(|source| PathBuf::from(expand(&source.name)));
        let init = args.editing.init.clone().or(path(old.and_then(|recipe| recipe.init.as_ref())));
        let interpolate = way(args, settings.and_then(|settings| settings.interpolate))?;
        if interpolate.is_some() {
            check_strip(args)?;
        }
        if let (Some(Way::Seeds { .. }), None, None) = (&interpolate, &args.class, old) {
            wrong_usage!(
                "--interpolate seeds leads between pictures of one class\n  help: pass --class with that class"
            );
        }
        Ok(Self {
            weaker: args
                .guidance
                .autoguidance
                .clone()
                .or(old.and_then(|recipe| Some(recipe.weaker.as_ref()?.name.clone()))),
            classifier: args.guidance.classifier.clone().or(path(old.and_then(|recipe| recipe.classifier.as_ref()))),
            start: start(args, settings.map_or(Start::Noise, |settings| settings.start), init.is_some()),
            init,
            autoguidance_scale: guidance.autoguidance_scale,
            cache: match args.cache.as_deref() {
                None => settings.map_or(0.0, |settings| settings.cache),
                Some("off") => 0.0,
                Some(text) => match text.parse() {
                    Ok(factor) => factor,
                    Err(_) => wrong_usage!("--cache {text}: expected `off` or a factor such as 0.1"),
                },
            },
            first_seed: first_seed(args)?,
            guidance,
            negative_class: args.guidance.negative_class.clone(),
            init_class: args.editing.init_class.clone(),
            interpolate,
        })
    }

    /// Whether the pictures lead from one to another.
    pub fn is_strip(&self) -> bool {
        self.interpolate.is_some()
    }

    pub fn guidance(&self, names: &ClassNames) -> Result<Guidance> {
        let named =
            self.negative_class.as_deref().map(|text| one_class("--negative-class", text, names)).transpose()?;
        Ok(Guidance { negative_class: named.or(self.guidance.negative_class), ..self.guidance.clone() })
    }

    pub fn start(&self, names: &ClassNames) -> Result<Start> {
        let named = self.init_class.as_deref().map(|text| one_class("--init-class", text, names)).transpose()?;
        Ok(match self.start {
            Start::Inverted { strength, class } => Start::Inverted { strength, class: named.or(class) },
            start @ (Start::Noise | Start::Noised { .. }) => start,
        })
    }

    pub fn interpolation(&self, names: &ClassNames) -> Result<Option<Interpolation>> {
        Ok(match &self.interpolate {
            None => None,
            Some(Way::Repeated(interpolation)) => Some(*interpolation),
            Some(Way::Seeds { to, frames }) => Some(Interpolation::Seeds { to: *to, frames: *frames }),
            Some(Way::Classes { list, frames }) => match names.parse_list(list).context("--interpolate classes")?[..] {
                [from, to] => Some(Interpolation::Classes { from, to, frames: *frames }),
                ref classes => {
                    wrong_usage!("--interpolate classes {list}: {} classes, expected two, such as 3,7", classes.len())
                }
            },
        })
    }
}

/// Flags that mean nothing without another, typed or the recipe's.
fn check_pairs(args: &SampleArgs, old: Option<&Recipe>) -> Result<()> {
    let old = old.map(|recipe| &recipe.settings);
    let has = |part: fn(&Settings) -> bool| old.is_some_and(part);
    let weaker = args.guidance.autoguidance.is_some() || has(|old| old.guidance.autoguidance_scale.is_some());
    let classifier = args.guidance.classifier.is_some() || has(|old| old.guidance.classifier_scale.is_some());
    let init = args.editing.init.is_some() || has(|old| old.start.needs_picture());
    let inverted = args.editing.invert || has(|old| matches!(old.start, Start::Inverted { .. }));
    let strip = args.editing.interpolate.is_some() || has(|old| old.interpolate.is_some());
    let needs = [
        (args.guidance.autoguidance_scale.is_some(), "--autoguidance-scale", weaker, "--autoguidance"),
        (args.guidance.classifier_scale.is_some(), "--classifier-scale", classifier, "--classifier"),
        (args.editing.strength.is_some(), "--strength", init, "--init"),
        (args.editing.invert, "--invert", init, "--init"),
        (args.editing.init_class.is_some(), "--init-class", inverted, "--invert"),
        (args.editing.frames.is_some(), "--frames", strip, "--interpolate"),
    ];
    for (given, flag, there, other) in needs {
        if given && !there {
            let nor = if old.is_some() { ", which the recipe of the PNG does not have either" } else { "" };
            wrong_usage!("{flag} has no effect without {other}{nor}; pass both, or neither");
        }
    }
    if inverted {
        let unused = [
            (args.seed.is_some(), "--seed", "the noise is what the flow makes of the picture"),
            (args.noise.is_some(), "--noise", "the noise is what the flow makes of the picture"),
            (
                args.num_samples.is_some_and(|count| count > 1),
                "--num-samples",
                "all pictures of a class would be the same",
            ),
        ];
        if let Some((_, flag, why)) = unused.iter().find(|(given, ..)| *given) {
            wrong_usage!(
                "{flag} has no effect with --invert: {why}\n  help: leave {flag} out, or --invert for noise that is drawn"
            );
        }
    }
    Ok(())
}

/// Flags that have no place in a strip.
fn check_strip(args: &SampleArgs) -> Result<()> {
    let unused = [
        (args.num_samples.is_some(), "--num-samples", "--frames"),
        (args.labels.is_some(), "--labels", "--interpolate"),
        (args.noise.is_some(), "--noise", "--interpolate"),
    ];
    match unused.iter().find(|(given, ..)| *given) {
        Some((_, flag, choice)) => {
            wrong_usage!("{flag} has no place in a strip from one picture to another; use {choice} alone")
        }
        None => Ok(()),
    }
}

fn interval(text: &str) -> Result<[f64; 2]> {
    let ends: Vec<f64> = text.split(',').filter_map(|end| end.trim().parse().ok()).collect();
    match (&ends[..], text.split(',').count()) {
        (&[low, high], 2) => Ok([low, high]),
        _ => wrong_usage!("--cfg-interval {text}: expected two noise levels, the lower first, such as 0.3,5"),
    }
}

fn start(args: &SampleArgs, old: Start, has_picture: bool) -> Start {
    let (before, class) = match old {
        Start::Noise => (None, None),
        Start::Noised { strength } => (Some(strength), None),
        Start::Inverted { strength, class } => (Some(strength), class),
    };
    let inverted = args.editing.invert || matches!(old, Start::Inverted { .. });
    match (has_picture, inverted) {
        (false, _) => Start::Noise,
        (true, true) => Start::Inverted { strength: args.editing.strength.or(before).unwrap_or(1.0), class },
        (true, false) => Start::Noised { strength: args.editing.strength.or(before).unwrap_or(DEFAULT_STRENGTH) },
    }
}

fn way(args: &SampleArgs, old: Option<Interpolation>) -> Result<Option<Way>> {
    let frames = args.editing.frames.unwrap_or(DEFAULT_FRAMES);
    if frames < 2 {
        wrong_usage!(
            "--frames {frames}: a strip leads from one picture to another\n  help: pass --frames with 2 or more"
        );
    }
    if frames as usize > MOST_IMAGES {
        wrong_usage!("--frames {frames}: at most {MOST_IMAGES} pictures can be sampled in one run");
    }
    match args.editing.interpolate.as_deref() {
        None => old.map_or(Ok(None), |old| repeated(args, old)),
        Some([what, list]) if what == "classes" && args.class.is_none() => {
            Ok(Some(Way::Classes { list: list.clone(), frames }))
        }
        Some([what, _]) if what == "classes" => {
            wrong_usage!("--interpolate classes names its classes; leave --class out")
        }
        Some([what, list]) if what == "seeds" => {
            let [_, to] = seeds(list)?;
            Ok(Some(Way::Seeds { to, frames }))
        }
        Some(other) => wrong_usage!("--interpolate {}: expected `classes A,B` or `seeds A,B`", other.join(" ")),
    }
}

/// The recipe's strip, unless pictures of other classes are asked for.
fn repeated(args: &SampleArgs, old: Interpolation) -> Result<Option<Way>> {
    match (old, args.editing.frames, &args.class) {
        (_, None, None) => Ok(Some(Way::Repeated(old))),
        (_, Some(frames), None) | (Interpolation::Seeds { .. }, Some(frames), Some(_)) => {
            Ok(Some(Way::Repeated(old.with_frames(frames))))
        }
        (Interpolation::Classes { .. }, Some(_), Some(_)) => wrong_usage!(
            "--frames: the strip of the PNG's recipe leads from class to class, so --class has no place in it\n  \
             help: leave --class out, or pass --interpolate"
        ),
        (_, None, Some(_)) => {
            say(format_args!(
                "--class: pictures of their own, not the strip of the PNG's recipe; for a strip pass --interpolate"
            ));
            Ok(None)
        }
    }
}

fn first_seed(args: &SampleArgs) -> Result<Option<u64>> {
    match args.editing.interpolate.as_deref() {
        Some([what, list]) if what == "seeds" => {
            if args.seed.is_some() {
                wrong_usage!("--interpolate seeds names its seeds; leave --seed out");
            }
            let [from, _] = seeds(list)?;
            Ok(Some(from))
        }
        _ => Ok(None),
    }
}

fn seeds(list: &str) -> Result<[u64; 2]> {
    let seeds: Vec<Option<u64>> = list.split(',').map(|seed| seed.trim().parse().ok()).collect();
    match seeds[..] {
        [Some(from), Some(to)] => Ok([from, to]),
        _ => wrong_usage!("--interpolate seeds {list}: expected two numbers, such as 1,2"),
    }
}

fn one_class(flag: &str, text: &str, names: &ClassNames) -> Result<u32> {
    match names.parse_list(text).with_context(|| format!("{flag} {text}"))?[..] {
        [class] => Ok(class),
        ref classes => wrong_usage!("{flag} {text}: {} classes, expected one", classes.len()),
    }
}
