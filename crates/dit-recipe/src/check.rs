//! What values must satisfy, alone and together.

use dit_config::SigmaKind;

use crate::{
    Place, Problem, Sections,
    recipe::Given,
    values::{ClipNorm, Every, HeldOut, Loss, Timesteps, Weighting},
};

/// Records computed for one step, at most.
const MOST_RECORDS: usize = 1 << 20;

/// Everything that is wrong with `sections`, of which a text has `given` these keys.
pub(crate) fn problems(sections: &Sections, given: &Given) -> Vec<Problem> {
    let mut checker = Checker { problems: Vec::new() };
    checker.model(sections);
    checker.diffusion(sections);
    checker.train(sections);
    checker.optim(sections);
    checker.watching(sections);
    checker.without_effect(given);
    checker.problems
}

struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    fn unless(&mut self, holds: bool, problem: impl FnOnce() -> String, help: &str) {
        if !holds {
            let help = (!help.is_empty()).then(|| help.to_owned());
            self.problems.push(Problem { place: Place::Whole, problem: problem(), help });
        }
    }

    fn within(&mut self, key: &str, value: f64, range: std::ops::Range<f64>) {
        let (from, to) = (range.start, range.end);
        self.unless(range.contains(&value), || format!("{key} is {value}, expected {from} or more and below {to}"), "");
    }

    fn above_zero(&mut self, key: &str, value: f64) {
        self.unless(value > 0.0 && value.is_finite(), || format!("{key} is {value}, expected more than 0"), "");
    }

    fn at_least_one(&mut self, key: &str, value: u64) {
        self.unless(value >= 1, || format!("{key} is 0, expected 1 or more"), "");
    }

    fn model(&mut self, sections: &Sections) {
        let model = &sections.model;
        let geometry =
            [("hidden", model.hidden), ("depth", model.depth), ("heads", model.heads), ("patch", model.patch)];
        let given: Vec<&str> = geometry.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
        let missing: Vec<&str> = geometry.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
        match model.name {
            Some(_) => self.unless(
                given.is_empty(),
                || format!("model.name stands beside {}, which it implies", given.join(", ")),
                "give the name, or all four of hidden, depth, heads and patch",
            ),
            None => self.unless(
                missing.is_empty(),
                || format!("the model's geometry lacks {}", missing.join(", ")),
                "give a standard model's name, or all four of hidden, depth, heads and patch",
            ),
        }
        if model.unconditional {
            self.unless(
                sections.data.label_dropout == 0.0,
                || {
                    format!(
                        "data.label_dropout is {}, but an unconditional model has no labels to drop",
                        sections.data.label_dropout
                    )
                },
                "leave data.label_dropout out",
            );
            self.unless(
                model.num_classes.is_none(),
                || "model.num_classes is given for an unconditional model".to_owned(),
                "leave it out",
            );
        }
        self.within("data.label_dropout", sections.data.label_dropout, 0.0..1.0);
    }

    fn diffusion(&mut self, sections: &Sections) {
        let diffusion = &sections.diffusion;
        self.unless(
            (21..=1_000_000).contains(&diffusion.steps),
            || format!("diffusion.steps is {}, expected 21 to 1000000", diffusion.steps),
            "",
        );
        if let Weighting::MinSnr(gamma) = diffusion.weighting {
            self.above_zero("the gamma of diffusion.weighting", gamma);
            self.unless(
                matches!(diffusion.loss, Loss::Mse | Loss::RescaledMse),
                || "diffusion.weighting weighs the squared error, which the KL losses have not".to_owned(),
                "use diffusion.loss = \"mse\", or diffusion.weighting = \"uniform\"",
            );
        }
        self.unless(
            diffusion.loss != Loss::RescaledMse || diffusion.sigma == SigmaKind::Learned,
            || "diffusion.loss = \"rescaled-mse\" scales the bound, which trains a learned variance only".to_owned(),
            "use diffusion.loss = \"mse\", or diffusion.sigma = \"learned\"",
        );
        if let Timesteps::LogitNormal(normal) = diffusion.timesteps {
            self.above_zero("the std of diffusion.timesteps", normal.std);
            self.unless(
                normal.mean.is_finite(),
                || format!("the mean of diffusion.timesteps is {}", normal.mean),
                "0 is the middle of the schedule",
            );
        }
    }

    fn train(&mut self, sections: &Sections) {
        let train = &sections.train;
        self.unless(
            train.batch_size <= MOST_RECORDS,
            || format!("train.batch_size is {}, expected at most {MOST_RECORDS}", train.batch_size),
            "",
        );
        self.at_least_one("train.steps", train.steps);
        self.at_least_one("train.batch_size", train.batch_size as u64);
        self.at_least_one("train.accumulate", train.accumulate as u64);
        self.at_least_one("train.keep_last", train.keep_last as u64);
        self.unless(
            train.accumulate == 0 || train.batch_size.is_multiple_of(train.accumulate),
            || format!("train.accumulate {} does not divide train.batch_size {}", train.accumulate, train.batch_size),
            "",
        );
        if let Every::Steps(keep) = train.keep_every {
            self.unless(
                keep.get().is_multiple_of(train.checkpoint_every.get()),
                || {
                    format!(
                        "train.keep_every {keep} is not a multiple of train.checkpoint_every {}: no checkpoint would be kept",
                        train.checkpoint_every
                    )
                },
                "",
            );
        }
        self.unless(
            i64::try_from(train.seed).is_ok(),
            || format!("train.seed is {}, expected less than 2^63", train.seed),
            "",
        );
    }

    fn optim(&mut self, sections: &Sections) {
        let optim = &sections.optim;
        self.above_zero("optim.lr", optim.lr);
        for beta in optim.betas {
            self.within("optim.betas", beta, 0.0..1.0);
        }
        self.above_zero("optim.eps", optim.eps);
        self.within("optim.weight_decay", optim.weight_decay, 0.0..f64::INFINITY);
        if let ClipNorm::At(norm) = optim.clip_grad_norm {
            self.above_zero("optim.clip_grad_norm", norm);
        }
        let steps = sections.train.steps;
        self.unless(
            steps == 0 || optim.warmup_steps < steps,
            || format!("optim.warmup_steps is {}, but the run has {steps} steps", optim.warmup_steps),
            &format!("set optim.warmup_steps to fewer, such as {}, or train.steps to more", steps / 20),
        );
        let decays = &sections.ema.decays;
        self.unless(
            !decays.is_empty(),
            || "ema.decays is empty, but the first average is what is sampled from".to_owned(),
            "use [0.9999], or [0.0] for the weights themselves",
        );
        for (place, &decay) in decays.iter().enumerate() {
            self.within("ema.decays", decay, 0.0..1.0);
            self.unless(!decays[..place].contains(&decay), || format!("ema.decays has {decay} twice"), "");
        }
    }

    fn watching(&mut self, sections: &Sections) {
        let validation = &sections.validation;
        match &validation.held_out {
            HeldOut::Fraction(fraction) => self.unless(
                *fraction > 0.0 && *fraction <= 0.5,
                || format!("the fraction of validation.held_out is {fraction}, expected more than 0 and at most 0.5"),
                "0.02 is a usual choice",
            ),
            HeldOut::Folder(folder) => {
                self.unless(!folder.is_empty(), || "the folder of validation.held_out has no name".to_owned(), "")
            }
            HeldOut::None => {}
        }
        match (&validation.held_out, validation.every) {
            (HeldOut::None, Every::Steps(every)) => self.unless(
                false,
                || format!("validation.every is {every}, but nothing is held out"),
                "add validation.held_out = { fraction = 0.02 }",
            ),
            (HeldOut::Fraction(_) | HeldOut::Folder(_), Every::Never) => self.unless(
                false,
                || "records are held out for validation, which never happens".to_owned(),
                "add validation.every, such as 1000",
            ),
            _ => {}
        }
        self.at_least_one("validation.records", validation.records as u64);
        self.pictures(sections);
        self.evaluation(sections);
    }

    fn pictures(&mut self, sections: &Sections) {
        let samples = &sections.samples;
        self.unless(
            (1..=256).contains(&samples.count),
            || format!("samples.count is {}, expected 1 to 256", samples.count),
            "",
        );
        let due = samples.every != Every::Never;
        self.drawing("samples", due, samples.steps, samples.cfg_scale, sections);
    }

    fn evaluation(&mut self, sections: &Sections) {
        let eval = &sections.eval;
        match (eval.every, &eval.reference) {
            (Every::Steps(every), None) => self.unless(
                false,
                || format!("eval.every is {every}, but nothing says what to compare with"),
                "add eval.reference: statistics that `dit-cli evaluate --stats` wrote, or pictures",
            ),
            (Every::Never, Some(_)) => self.unless(
                false,
                || "eval.reference is given, but is never compared with".to_owned(),
                "add eval.every, such as 10000",
            ),
            (_, Some(reference)) => self.unless(!reference.is_empty(), || "eval.reference is empty".to_owned(), ""),
            (Every::Never, None) => {}
        }
        self.unless(!eval.features.is_empty(), || "eval.features is empty".to_owned(), "`inception` is the usual one");
        self.unless(
            (50..=50_000).contains(&eval.count),
            || format!("eval.count is {}, expected 50 to 50000", eval.count),
            "FID of fewer samples than features is far too large; 1000 to 5000 are usual",
        );
        let due = eval.every != Every::Never;
        self.drawing("eval", due, eval.steps, eval.cfg_scale, sections);
    }

    /// Steps and guidance of a section that draws pictures.
    fn drawing(&mut self, section: &str, due: bool, steps: usize, cfg_scale: f64, sections: &Sections) {
        let (label_dropout, most) = (sections.data.label_dropout, sections.diffusion.steps);
        self.unless((2..=1000).contains(&steps), || format!("{section}.steps is {steps}, expected 2 to 1000"), "");
        self.unless(
            !due || steps <= most,
            || format!("{section}.steps is {steps}, but the process has {most} (diffusion.steps)"),
            "a sample takes each of the process's steps once at most",
        );
        self.unless(cfg_scale.is_finite(), || format!("{section}.cfg_scale is {cfg_scale}"), "1 is no guidance");
        let unguided = format!("set {section}.cfg_scale = 1.0");
        let (needs, help) = match sections.model.unconditional {
            true => ("labels, which an unconditional model has not", unguided),
            false => ("a null class, which label dropout trains", unguided + ", or a data.label_dropout above 0"),
        };
        self.unless(
            !due || cfg_scale == 1.0 || label_dropout > 0.0,
            || format!("{section}.cfg_scale {cfg_scale} needs {needs}"),
            &help,
        );
    }

    /// Keys that say how something is done which nobody has said a word of. (A recipe that says `never` has: it is switched off.)
    fn without_effect(&mut self, given: &Given) {
        for (section, switch, example) in [
            ("samples", "every", "samples.every = 1000"),
            ("eval", "every", "eval.every = 10000"),
            ("validation", "held_out", "validation.held_out = { fraction = 0.02 }"),
        ] {
            let idle: Vec<&str> =
                given.iter().filter(|(of, key)| *of == section && *key != "every").map(|(_, key)| *key).collect();
            self.unless(
                idle.is_empty() || given.contains(&(section, switch)) || idle == ["reference"],
                || {
                    format!(
                        "{section}.{} has no effect without {section}.{switch}",
                        idle.join(&format!(", {section}."))
                    )
                },
                &format!("add {example}"),
            );
        }
    }
}
