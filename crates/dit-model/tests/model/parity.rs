//! Every intermediate and the output against the published implementation (`dit-learned-sigma`, `dit-fixed-sigma`,
//! `dit-diffusers`) and against a float64 forward pass written from the mathematics (`dit-cases`).
//!
//! Tolerance: 2e-5 of the norm, some two hundred fp32 roundings; the worst measured is 6e-7.

use crate::common::{Tensors, check_close, fixture, load, read, relative_error};
use dit_model::{BlockDesign, Dit, DitConfig, DitSpec, LatentSize, Numerics, Sigma};
use dit_weights::{Checkpoint, OpenOptions};
use tch::{Device, Kind, Tensor};

const TOLERANCE: f64 = 2e-5;

fn intermediates(dit: &Dit, x: &Tensor, t: &Tensor, labels: &Tensor) -> Tensors {
    let _no_grad = tch::no_grad_guard();
    let mut all = Tensors::new();
    let mut keep = |name: &str, tensor: &Tensor| all.insert(name.to_owned(), tensor.shallow_clone());
    keep("t_frequencies", &dit.timestep_embedder().features(t));
    keep("t_embedding", &dit.timestep_embedder().forward(t));
    keep("pos_embed", dit.pos_embed());
    let c = dit.condition(t, labels);
    keep("conditioning", &c);
    let mut sequence = dit.embed(x, &c);
    keep("patch_tokens", &sequence);
    for (i, block) in dit.blocks().iter().enumerate() {
        sequence = block.forward(&sequence, &c);
        keep(&format!("after_block_{i}"), &sequence);
    }
    keep("final_tokens", &dit.final_tokens(&sequence, &c));
    keep("output", &dit.try_forward(x, t, labels).unwrap());
    all
}

#[track_caller]
fn check(folder: &str, config: &DitConfig) {
    let (_store, dit) = load(config, &read(&format!("{folder}/model.safetensors")), Kind::Float);
    if !folder.contains("-small") {
        check_close(folder, &dit_model::position_table(config), dit.pos_embed(), 1e-7);
    }
    let expected = read(&format!("{folder}/io.safetensors"));
    let ours = intermediates(&dit, &expected["x"], &expected["t"], &expected["y"]);
    for (name, tensor) in &ours {
        check_close(&format!("{folder}: {name}"), tensor, &expected[name], TOLERANCE);
    }
    let compared = expected.keys().filter(|name| ours.contains_key(*name)).count();
    assert_eq!(compared, 7 + config.depth, "{folder}");
}

fn published(change: impl FnOnce(&mut DitSpec)) -> DitConfig {
    let mut spec = DitSpec {
        block: BlockDesign::AdaLnZero,
        hidden: 48,
        depth: 3,
        heads: 4,
        patch: 2,
        mlp_ratio: 4.0,
        in_channels: 4,
        latent: LatentSize::square(8),
        num_classes: 10,
        label_dropout: 0.1,
        sigma: Sigma::Learned,
        numerics: Numerics::Original,
    };
    change(&mut spec);
    DitConfig::new(spec).unwrap()
}

#[test]
fn published_implementation_with_learned_sigma() {
    check("dit-learned-sigma", &published(|_| ()));
}

#[test]
fn published_implementation_with_fixed_sigma_and_no_null_class() {
    let config = published(|spec| {
        spec.hidden = 32;
        spec.depth = 2;
        spec.heads = 2;
        spec.patch = 4;
        spec.mlp_ratio = 2.0;
        spec.in_channels = 3;
        spec.latent = LatentSize::square(16);
        spec.num_classes = 7;
        spec.label_dropout = 0.0;
        spec.sigma = Sigma::Fixed;
    });
    check("dit-fixed-sigma", &config);
}

/// All four designs, patches 1 to 8, wide and high latents, other heads, classes, MLPs, channels; fractional timesteps;
/// both arithmetics where the LayerNorms' eps decides.
#[test]
fn cases_computed_in_float64() {
    let mut designs = Vec::new();
    for case in std::fs::read_dir(fixture("dit-cases")).unwrap() {
        let name = case.unwrap().file_name().into_string().unwrap();
        let json = std::fs::read_to_string(fixture(&format!("dit-cases/{name}/config.json"))).unwrap();
        let config: DitConfig = serde_json::from_str(&json).unwrap();
        check(&format!("dit-cases/{name}"), &config);
        designs.push(config.block);
    }
    for design in BlockDesign::ALL {
        assert!(designs.contains(&design), "{design}");
    }
}

#[track_caller]
fn check_numerics(numerics: Numerics, output: &str, other_output: &str) {
    let options = OpenOptions { numerics: Some(numerics), ..Default::default() };
    let checkpoint = Checkpoint::open(fixture("dit-diffusers"), &options).unwrap();
    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
    let io = read("dit-diffusers/io.safetensors");
    let ours = dit.try_forward(&io["x"], &io["t"], &io["y"]).unwrap();
    check_close(output, &ours, &io[output], TOLERANCE);
    // Far from each other: a mode that did nothing would be seen.
    assert!(relative_error(&ours, &io[other_output]) > 0.1);
}

#[test]
fn diffusers_weights_under_either_arithmetic() {
    check_numerics(Numerics::Original, "output_original", "output_diffusers");
    check_numerics(Numerics::Diffusers, "output_diffusers", "output_original");
}

#[track_caller]
fn check_bf16(case: &str) {
    let json = std::fs::read_to_string(fixture(&format!("dit-cases/{case}/config.json"))).unwrap();
    let config: DitConfig = serde_json::from_str(&json).unwrap();
    let weights = read(&format!("dit-cases/{case}/model.safetensors"));
    let (_store, dit) = load(&config, &weights, Kind::BFloat16);
    let io = read(&format!("dit-cases/{case}/io.safetensors"));
    let with_grad = dit.forward(&io["x"], &io["t"], &io["y"]);
    let output = tch::no_grad(|| dit.forward(&io["x"], &io["t"], &io["y"]));
    assert_eq!((output.kind(), dit.kind()), (Kind::BFloat16, Kind::BFloat16));
    // bf16 keeps 8 bits: 4e-3 per rounding, which a few layers make about 1e-2.
    check_close(case, &output, &io["output"], 3e-2);
    check_close(case, &with_grad, &io["output"], 3e-2);
    let features = dit.timestep_embedder().features(&io["t"]);
    assert_eq!(features.kind(), Kind::Float);
    check_close(case, &features, &io["t_frequencies"], TOLERANCE);
}

#[test]
fn bf16_stays_within_its_precision() {
    for case in ["in-context", "cross-attention", "adaln", "adaln-zero-wide"] {
        check_bf16(case);
    }
}
