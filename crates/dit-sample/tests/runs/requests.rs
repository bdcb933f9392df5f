//! What a request may be, and what a recipe must say; no network is loaded.

use dit_config::{DitConfig, NoiseScheduleKind, Predict, Process, Sigma, SigmaKind};
use dit_diffusion::{ReplayedNoise, SeededNoise};
use dit_sample::{
    CfgChannels, Guidance, OpenedAs, OutputPaths, Plan, Provenance, Recipe, SamplerKind, Settings, Shows, Spacing,
};

use crate::support;

fn settings() -> Settings {
    Settings {
        sampler: SamplerKind::Ddim { eta: 0.25 },
        steps: Spacing::even(10),
        cfg_scale: 2.5,
        cfg_channels: CfgChannels::Three,
        seed: 7,
        ..Settings::default()
    }
}

fn config() -> DitConfig {
    "DiT-S/8".parse::<DitConfig>().unwrap().with(|spec| spec.num_classes = 10).unwrap()
}

fn recipe(shows: Shows) -> Recipe {
    let provenance = Provenance {
        opened_as: OpenedAs { model: None, num_heads: Some(6) },
        threads: 2,
        batch_size: 3,
        ..support::provenance(settings())
    };
    provenance.recipe(6, &[1, 2, 3], shows).unwrap()
}

#[test]
fn recipes_survive_their_text() {
    for shows in [Shows::Grid, Shows::First(2), Shows::Image(8)] {
        let recipe = recipe(shows);
        assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    }
}

#[track_caller]
fn check_recipe_refused(from: &str, to: &str, expected: &str) {
    let json = recipe(Shows::Grid).to_json();
    assert!(json.contains(from), "{json}");
    let error = Recipe::from_json(&json.replace(from, to)).unwrap_err().to_string();
    assert!(error.contains(expected), "'{error}' lacks '{expected}'");
}

#[test]
fn recipes_that_contradict_themselves_are_refused() {
    check_recipe_refused(r#""version":1"#, r#""version":2"#, "version 2");
    check_recipe_refused(r#""shows":"grid""#, r#""shows":{"image":9}"#, "not among its own");
    check_recipe_refused(r#""shows":"grid""#, r#""shows":{"image":5}"#, "not among its own");
    check_recipe_refused(r#""shows":"grid""#, r#""shows":{"first":4}"#, "not among its own");
    check_recipe_refused(r#""shows":"grid""#, r#""shows":{"first":0}"#, "not among its own");
    check_recipe_refused(r#""first_image":6"#, r#""first_image":18446744073709551615"#, "not among its own");
    check_recipe_refused(r#""classes":[1,2,3]"#, r#""classes":[]"#, "no classes");
    check_recipe_refused(
        r#""settings":{"#,
        r#""settings":{"process":{"schedule":"sigmoid"},"#,
        "unknown variant `sigmoid`",
    );
    check_recipe_refused(r#""batch_size":3"#, r#""batch_size":0"#, "batch size");
    check_recipe_refused(r#""threads":2"#, r#""treads":2"#, "treads");
    assert!(Recipe::from_json("not json").is_err());
}

#[track_caller]
fn check_plan_refused(change: impl FnOnce(&mut Settings), classes: Vec<u32>, expected: &str) {
    let mut settings = settings();
    change(&mut settings);
    let error = Plan::new(&config(), settings, 0, classes, 4).unwrap_err().to_string();
    assert!(error.contains(expected), "'{error}' lacks '{expected}'");
}

#[test]
fn requests_are_checked_against_the_model() {
    check_plan_refused(|_| {}, vec![3, 10], "class 10 is not one of the model's 10 (0 to 9)");
    check_plan_refused(|_| {}, vec![], "0 images");
    check_plan_refused(|settings| settings.steps = Spacing::even(0), vec![1], "zero steps");
    check_plan_refused(|settings| settings.steps = Spacing::Ddim(64), vec![1], "ddim63");
    check_plan_refused(|settings| settings.sampler = SamplerKind::Ddim { eta: f64::NAN }, vec![1], "eta");
    let unconditional = config().with(|spec| spec.label_dropout = 0.0).unwrap();
    let error = Plan::new(&unconditional, settings(), 0, vec![1], 1).unwrap_err().to_string();
    assert!(error.contains("needs a null class"), "{error}");
    assert!(Plan::new(&config(), settings(), u64::MAX, vec![1], 1).is_err());
}

#[test]
fn another_process_is_walked_in_its_own_steps() {
    let original = Process::original(Sigma::Learned);
    let cosine = Process { schedule: NoiseScheduleKind::Cosine, steps: 100, predict: Predict::V, ..original };
    let plan = |steps: &str, process| {
        let settings = Settings { steps: steps.parse().unwrap(), process, ..settings() };
        Plan::new(&config(), settings, 0, vec![1], 1)
    };
    assert_eq!(plan("all", None).unwrap().schedule().num_steps(), 1000);
    assert_eq!(plan("all", Some(cosine)).unwrap().schedule().num_steps(), 100);
    assert_eq!(plan("100", Some(cosine)).unwrap().process(), cosine);
    let error = plan("101", Some(cosine)).unwrap_err().to_string();
    assert!(error.contains("100"), "{error}");
    assert!(plan("1", Some(Process { steps: 0, ..original })).is_err());
    assert_eq!(SamplerKind::Ddpm.default_steps_of(&cosine), Spacing::All);
    assert_eq!(SamplerKind::Heun.default_steps_of(&cosine), Spacing::UniformLambda(20));
    assert_eq!(SamplerKind::Ddpm.default_steps_of(&original), Spacing::even(250));

    // The walks are the same where nothing is said and where the original's process is.
    let levels = |process| {
        let plan = plan("10", process).unwrap();
        plan.schedule().steps().iter().map(|step| step.alpha_bar()).collect::<Vec<f64>>()
    };
    assert_eq!(levels(None), levels(Some(original)));
    assert_ne!(levels(None), levels(Some(Process { schedule: NoiseScheduleKind::Cosine, ..original })));
}

#[test]
fn what_was_trained_on_another_process_does_not_guide() {
    let original = Process::original(Sigma::Learned);
    let cosine = Process { schedule: NoiseScheduleKind::Cosine, ..original };
    let fixed = Process { sigma: SigmaKind::FixedSmall, ..original };
    check_plan_refused(|settings| settings.process = Some(fixed), vec![1], "learns its variance");
    let towards = Guidance { classifier_scale: Some(2.0), ..Guidance::default() };
    let classified = |process| Settings { process: Some(process), guidance: towards.clone(), ..settings() };
    check_plan_refused(|settings| *settings = classified(cosine), vec![1], "classifiers know");
    // What a network estimates is nothing to a classifier of noised latents.
    let v = Process { predict: Predict::V, ..original };
    let plan = Plan::new(&config(), classified(v), 0, vec![1], 1).unwrap();
    plan.check_weaker(&v).unwrap();
    let error = plan.check_weaker(&original).unwrap_err().to_string();
    assert!(error.contains("predicts epsilon") && error.contains("predicts v"), "{error}");
}

#[test]
fn every_sampler_has_a_solver_and_a_name_of_its_own() {
    let samplers = [
        SamplerKind::Ddpm,
        SamplerKind::Ddim { eta: 0.0 },
        SamplerKind::DpmPlusPlus2M,
        SamplerKind::DpmPlusPlus3M,
        SamplerKind::DpmPlusPlus2MSde,
        SamplerKind::UniPc,
        SamplerKind::Heun,
        SamplerKind::EulerAncestral,
    ];
    let mut names = std::collections::BTreeSet::new();
    for sampler in samplers {
        let settings = Settings { sampler, steps: sampler.default_steps(), ..settings() };
        Plan::new(&config(), settings, 0, vec![1], 1).unwrap().solver().unwrap();
        let json = serde_json::to_string(&sampler).unwrap();
        assert_eq!(serde_json::from_str::<SamplerKind>(&json).unwrap(), sampler);
        assert!(json.contains(&format!("\"{sampler}\"")), "{json} and {sampler}");
        assert!(names.insert(json));
    }
}

#[test]
fn batches_cover_every_image_once() {
    let plan = Plan::new(&config(), settings(), 5, vec![0, 1, 2, 3, 4], 2).unwrap();
    let images: Vec<u64> = plan.batches().flat_map(|batch| batch.images()).collect();
    assert_eq!(images, [5, 6, 7, 8, 9]);
    let classes: Vec<u32> = plan.batches().flat_map(|batch| batch.classes).collect();
    assert_eq!(classes, [0, 1, 2, 3, 4]);
    plan.check_noise(&config(), &SeededNoise::new(0)).unwrap();
    let two = tch::Tensor::ones([2, 4, 32, 32], (tch::Kind::Float, tch::Device::Cpu));
    assert!(plan.check_noise(&config(), &ReplayedNoise::new(&two).unwrap()).is_err());
}

#[test]
fn outputs_are_checked_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Some(folder.path().join(name));
    let plan = Plan::new(&config(), settings(), 0, vec![0; 200_000], 2).unwrap();
    let size = Some((256, 256));
    let check = |paths: OutputPaths, size, expected: &str| {
        let error = paths.check(&plan, size, Shows::Grid, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "'{error}' lacks '{expected}'");
    };
    check(OutputPaths { png: at("x.png"), ..OutputPaths::default() }, size, "too large");
    check(OutputPaths { npz: at("a"), latents: at("a"), ..OutputPaths::default() }, size, "a path of its own");
    check(OutputPaths { npz: at("no/a"), ..OutputPaths::default() }, size, "create it");
    check(OutputPaths { npz: at("a"), latents: at("b"), ..OutputPaths::default() }, None, "no pictures");
    check(OutputPaths::default(), None, "no pictures");
    let input = folder.path().join("weights");
    std::fs::write(&input, "precious").unwrap();
    let over = OutputPaths { latents: Some(input.clone()), ..OutputPaths::default() };
    assert!(over.check(&plan, size, Shows::Grid, &[&input]).is_err());
    assert_eq!(std::fs::read(&input).unwrap(), b"precious");
}
