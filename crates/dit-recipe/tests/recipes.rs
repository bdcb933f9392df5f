//! What a recipe's text means, and what is said where it means nothing.

use dit_config::{BlockDesign, LatentSize};
use dit_recipe::{
    ClipNorm, DataShape, Error, Every, HeldOut, LogitNormal, LrSchedule, NonFinitePolicy, Precision, Predict, Recipe,
    SigmaKind, Timesteps, Weighting,
};

fn recipe(text: &str, overrides: &[&str]) -> Result<Recipe, Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Recipe::from_toml(text, &overrides)
}

#[track_caller]
fn check(text: &str, overrides: &[&str], holds: impl FnOnce(&Recipe) -> bool) {
    let recipe = recipe(text, overrides).unwrap();
    assert!(holds(&recipe), "{recipe:#?}");
    let printed = recipe.to_toml();
    assert_eq!(Recipe::from_toml(&printed, &[]).unwrap(), recipe, "what is printed is the recipe:\n{printed}");
}

#[test]
fn what_is_left_out_is_the_originals_recipe() {
    check("", &[], |recipe| {
        recipe.model.name.is_some_and(|name| name.0.to_string() == "DiT-XL/2")
            && (recipe.optim.lr, recipe.optim.betas, recipe.optim.weight_decay) == (1e-4, [0.9, 0.999], 0.0)
            && recipe.optim.clip_grad_norm == ClipNorm::Off
            && recipe.optim.schedule == LrSchedule::Constant
            && recipe.optim.warmup_steps == 0
            && recipe.ema.decays == [0.9999]
            && (recipe.train.batch_size, recipe.train.precision) == (256, Precision::Fp32)
            && recipe.data.label_dropout == 0.1
            && recipe.diffusion.timesteps == Timesteps::Uniform
    });
}

#[test]
fn every_kind_of_value_is_read() {
    check("[train]\nprecision = \"bf16\"", &[], |recipe| recipe.train.precision == Precision::Bf16);
    check("[model]\nblock = \"in-context\"", &[], |recipe| recipe.model.block == BlockDesign::InContext);
    check("[optim]\nclip_grad_norm = 1\nweight_decay = 0", &[], |recipe| {
        recipe.optim.clip_grad_norm == ClipNorm::At(1.0)
    });
    check("[diffusion]\npredict = \"v\"\nsigma = \"fixed-large\"", &[], |recipe| {
        (recipe.diffusion.predict, recipe.diffusion.sigma) == (Predict::V, SigmaKind::FixedLarge)
    });
    check("[diffusion]\nweighting = { min-snr = 5 }", &[], |recipe| {
        recipe.diffusion.weighting == Weighting::MinSnr(5.0)
    });
    check("[diffusion.timesteps.logit-normal]\nmean = -0.5\nstd = 1.2", &[], |recipe| {
        recipe.diffusion.timesteps == Timesteps::LogitNormal(LogitNormal { mean: -0.5, std: 1.2 })
    });
    check("[validation]\nheld_out = { folder = \"latents \\\"test\\\"\" }\nevery = 10", &[], |recipe| {
        recipe.validation.held_out == HeldOut::Folder("latents \"test\"".to_owned())
    });
    check("[train]\nkeep_every = 100000\n[samples]\nevery = \"never\"", &[], |recipe| {
        recipe.train.keep_every.is_due(200_000) && recipe.samples.every == Every::Never
    });
    check("[eval]\nevery = 10\nreference = \"stats.npz\"\nfeatures = \"demo\"", &[], |recipe| {
        recipe.eval.every.is_due(20) && recipe.eval.features == "demo" && recipe.eval.count == 1000
    });
    check("[guardian]\non_non_finite = \"roll-back\"", &[], |recipe| {
        recipe.guardian.on_non_finite == NonFinitePolicy::RollBack
    });
    check("[model]\nlatent = [16, 32]", &[], |recipe| {
        recipe.model.latent == Some(LatentSize { height: 16, width: 32 })
    });
}

#[test]
fn overrides_are_in_the_same_language_and_words_need_no_quotes() {
    check("[optim]\nlr = 1e-3", &["optim.lr=2e-4", "optim.schedule=cosine"], |recipe| {
        recipe.optim.lr == 2e-4 && recipe.optim.schedule == LrSchedule::Cosine
    });
    check("", &["ema.decays=[0.99, 0.999]"], |recipe| recipe.ema.decays == [0.99, 0.999]);
    check("", &["model.name=DiT-S/2"], |recipe| recipe.model.name.is_some_and(|name| name.0.patch == 2));
    check("", &["validation.held_out={ fraction = 0.1 }", "validation.every=5"], |recipe| {
        recipe.validation.held_out == HeldOut::Fraction(0.1)
    });
    check("", &["samples.every = never"], |recipe| recipe.samples.every == Every::Never);
}

#[track_caller]
fn check_refused(text: &str, overrides: &[&str], expected: &[&str]) {
    let error = recipe(text, overrides).unwrap_err().to_string();
    for expected in expected {
        assert!(error.contains(expected), "expected {expected:?} in:\n{error}");
    }
}

#[test]
fn mistakes_are_named_with_their_line_and_their_mend() {
    check_refused("[optim]\n\nlearning_rat = 1", &[], &["line 3: learning_rat = 1", "unknown key optim.learning_rat"]);
    check_refused("[optim]\nwarmup = 1", &[], &["did you mean warmup_steps?"]);
    check_refused("[optim]\nlearning_rate = 1", &[], &["did you mean lr?"]);
    check_refused("[optim]\nlr = \"fast\"", &[], &["expected a number"]);
    check_refused("[train]\nsteps = 0.5", &[], &["expected a whole number"]);
    check_refused("[train]\nbatchsize = 1", &[], &["did you mean batch_size?"]);
    check_refused("[train]\nlr = 1", &[], &["lr belongs under [optim]"]);
    check_refused("lr = 1", &[], &["unknown section lr", "lr belongs under [optim]"]);
    check_refused("[optimizer]\nlr = 1", &[], &["did you mean optim?"]);
    check_refused("model = 3", &[], &["model is a section, found integer"]);
    check_refused("[optim]\nlr = \"fast\"", &[], &["line 2", "optim.lr: invalid type: string", "Learning rate."]);
    check_refused("[train]\nprecision = \"fp16\"", &[], &["unknown variant `fp16`", "`fp32`, `tf32`, `bf16`"]);
    check_refused("[train]\ncheckpoint_every = 0", &[], &["line 2", "train.checkpoint_every"]);
    check_refused("[validation]\nevery = 0", &[], &["a number of steps from 1, or \"never\""]);
    check_refused("[diffusion]\ntimesteps = { logit-normal = { mean = 0.0, sd = 1.0 } }", &[], &["sd", "std"]);
    check_refused("[train\n", &[], &["line 1"]);
    check_refused("", &["lr=1"], &["--set lr=1", "did you mean optim.lr?"]);
    check_refused("", &["optim.lr"], &["there is no = in it"]);
    check_refused("", &["optim.lr=1e-4 5"], &["--set optim.lr=1e-4 5"]);
    check_refused("", &["train.stepss=5"], &["did you mean steps?"]);
}

#[test]
fn everything_wrong_is_said_at_once() {
    check_refused(
        "[optim]\nwarmup = 1\nlr = \"x\"\n[trian]\nsteps = 1",
        &["ema.decay=1"],
        &["the recipe has 4 problems", "warmup_steps", "line 3", "did you mean train?", "decays"],
    );
    check_refused("[optim]\nlr = 0\nbetas = [0.9, 1.0]", &[], &["2 problems", "optim.lr is 0", "optim.betas is 1"]);
    // And nothing else: no warm-up is too long for a run that has no length.
    check_refused("[train]\nsteps = 0", &[], &["the recipe has a problem:", "train.steps is 0, expected 1 or more"]);
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    check_refused("[model]\nname = \"DiT-S/2\"\nhidden = 8", &[], &["stands beside hidden"]);
    check_refused("[model]\nhidden = 8\ndepth = 2", &[], &["lacks heads, patch"]);
    check_refused("[model]\nunconditional = true\nnum_classes = 4", &[], &["unconditional"]);
    check_refused("[model]\nunconditional = true\n[data]\nlabel_dropout = 0.2", &[], &["no labels to drop"]);
    check_refused("[train]\nbatch_size = 10\naccumulate = 3", &[], &["3 does not divide train.batch_size 10"]);
    check_refused("[train]\nkeep_every = 70000", &[], &["not a multiple of train.checkpoint_every"]);
    check_refused("[train]\nsteps = 10\n[optim]\nwarmup_steps = 10", &[], &["the run has 10 steps"]);
    let fewer = "--set train.steps=10\n    optim.warmup_steps is 10, but the run has 10 steps";
    check_refused("[optim]\nwarmup_steps = 10", &["optim.lr=1", "train.steps=10"], &[fewer]);
    let both = "--set optim.warmup_steps=10 --set train.steps=10\n    optim.warmup_steps is";
    check_refused("", &["optim.warmup_steps=10", "train.steps=10"], &[both]);
    check_refused("[diffusion]\nloss = \"kl\"\nweighting = { min-snr = 5.0 }", &[], &["the KL losses have not"]);
    check_refused("[validation]\nevery = 5", &[], &["nothing is held out", "held_out = { fraction = 0.02 }"]);
    check_refused("[validation]\nheld_out = { fraction = 0.1 }", &[], &["which never happens"]);
    check_refused("[ema]\ndecays = []", &[], &["ema.decays is empty"]);
    check_refused("[ema]\ndecays = [0.9, 0.9]", &[], &["0.9 twice"]);
    check_refused(
        "[data]\nlabel_dropout = 0\n[samples]\nevery = 5",
        &[],
        &["needs a null class", "cfg_scale = 1.0, or a data.label_dropout above 0"],
    );
    check_refused("[eval]\nevery = 5", &[], &["eval.every is 5, but nothing says", "add eval.reference"]);
    check_refused("[eval]\nreference = \"a.npz\"", &[], &["never compared with", "add eval.every"]);
    check_refused("[eval]\nevery = 5\nreference = \"\"", &[], &["eval.reference is empty"]);
    check_refused("[eval]\ncount = 49", &[], &["eval.count is 49, expected 50 to 50000"]);
    check_refused("[eval]\nsteps = 1", &[], &["eval.steps is 1, expected 2 to 1000"]);
    check_refused("[eval]\nfeatures = \"\"", &[], &["eval.features is empty"]);
    check_refused(
        "[data]\nlabel_dropout = 0\n[eval]\nevery = 5\nreference = \"a.npz\"\ncfg_scale = 2",
        &[],
        &["eval.cfg_scale 2 needs a null class"],
    );
}

#[test]
fn keys_without_effect_are_refused() {
    check_refused("[samples]\nsteps = 30", &[], &["samples.steps has no effect without samples.every"]);
    check_refused("[samples]\nseed = 0", &[], &["samples.seed has no effect", "add samples.every = 1000"]);
    check_refused("", &["samples.count=4", "samples.cfg_scale=2"], &["samples.cfg_scale, samples.count has no effect"]);
    check_refused("[eval]\ncount = 100", &[], &["eval.count has no effect without eval.every"]);
    check_refused("[validation]\nrecords = 10", &[], &["validation.records has no effect", "fraction = 0.02"]);
    check_refused(
        "[diffusion]\nloss = \"rescaled-mse\"\nsigma = \"fixed-small\"",
        &[],
        &["a learned variance only", "diffusion.loss = \"mse\""],
    );
    check_refused("[diffusion]\nsteps = 50\n[samples]\nevery = 9\nsteps = 51", &[], &["51, but the process has 50"]);
    check_refused("[train]\nbatch_size = 9000000000000000000", &[], &["expected at most 1048576"]);
    // Switched off, which keeps the rest for when it is switched on again.
    check("[samples]\nevery = 5\nsteps = 30", &["samples.every=never"], |recipe| recipe.samples.steps == 30);
}

#[test]
fn an_unconditional_model_drops_no_labels_and_guides_none() {
    let data = DataShape { latent: LatentSize::square(8), channels: 4, num_classes: 10 };
    let text = "[model]\nname = \"DiT-S/2\"\nunconditional = true";
    check(text, &[], |recipe| {
        let config = recipe.model_config(data).unwrap();
        (config.num_classes, config.null_class()) == (1, None)
    });
    check(text, &["samples.every=5"], |recipe| recipe.samples.cfg_scale == 1.0);
    for section in ["samples", "eval"] {
        let keys = [format!("{section}.every=5"), format!("{section}.cfg_scale=2"), "eval.reference=a.npz".to_owned()];
        let keys = &keys[..if section == "eval" { 3 } else { 2 }];
        let error = Recipe::from_toml(text, keys).unwrap_err().to_string();
        let help = format!("help: set {section}.cfg_scale = 1.0");
        assert!(error.contains("labels, which an unconditional model has not") && error.ends_with(&help), "{error}");
        // What it advises is followed.
        Recipe::from_toml(text, &[keys, &[format!("{section}.cfg_scale = 1.0")]].concat()).unwrap();
    }
}

#[track_caller]
fn check_data(text: &str, expected: Result<(usize, usize), &str>) {
    let data = DataShape { latent: LatentSize::square(8), channels: 4, num_classes: 10 };
    let found = recipe(text, &[]).unwrap().model_config(data);
    match (found, expected) {
        (Ok(config), Ok(expected)) => assert_eq!((config.tokens(), config.num_classes), expected),
        (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
        (found, expected) => panic!("{found:?}, expected {expected:?}"),
    }
}

#[test]
fn the_data_decides_what_the_recipe_leaves_open() {
    check_data("[model]\nname = \"DiT-S/2\"", Ok((16, 10)));
    check_data("[model]\nname = \"DiT-S/2\"\nnum_classes = 1000", Ok((16, 1000)));
    check_data(
        "[model]\nname = \"DiT-S/2\"\nnum_classes = 9",
        Err("model.num_classes is 9, the data has 10\n  help: pass --set model.num_classes=10, or"),
    );
    check_data(
        "[model]\nname = \"DiT-S/2\"\nlatent = [32, 32]",
        Err("model.latent is 32x32, the data's latents are 8x8\n  help: pass --set 'model.latent=[8,8]', or"),
    );
    check_data("[model]\nname = \"DiT-S/2\"\nchannels = 3", Err("model.channels is 3"));
    check_data("[model]\nhidden = 6\ndepth = 1\nheads = 4\npatch = 3", Err("4 heads do not divide hidden 6"));
}

#[test]
fn differences_say_what_may_change() {
    let before = recipe("[model]\nname = \"DiT-S/2\"", &[]).unwrap();
    let after = before
        .with(|sections| {
            sections.train.steps = 7;
            sections.optim.lr = 1e-3;
            sections.model.latent = Some(LatentSize::square(8));
        })
        .unwrap();
    let told: Vec<(String, String, bool)> =
        before.differences(&after).into_iter().map(|one| (one.key, one.before, one.may_change)).collect();
    let expected =
        [("model.latent", "not given", false), ("train.steps", "400000", true), ("optim.lr", "0.0001", false)];
    let expected: Vec<(String, String, bool)> =
        expected.into_iter().map(|(key, value, may)| (key.to_owned(), value.to_owned(), may)).collect();
    assert_eq!(told, expected);
    assert_eq!(before.differences(&before), []);
    let cosine = before.with(|sections| sections.optim.schedule = LrSchedule::Cosine).unwrap();
    let longer = cosine.with(|sections| sections.train.steps += 1).unwrap();
    assert!(!cosine.differences(&longer)[0].may_change, "a cosine ends at the last step");
    // Also of what is no recipe.
    let overrides = ["train.steps=500", "optim.warmup_steps=500"].map(str::to_owned);
    assert!(Recipe::from_toml(&cosine.to_toml(), &overrides).is_err());
    let changes = cosine.changes(&cosine.to_toml(), &overrides).unwrap();
    let told: Vec<(&str, bool)> = changes.iter().map(|one| (one.key.as_str(), one.may_change)).collect();
    assert_eq!(told, [("train.steps", false), ("optim.warmup_steps", false)]);
}
