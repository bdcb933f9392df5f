//! What a new model's weights are.

use crate::common::{Tensors, relative_error, tiny, tiny_input, tiny_model};
use dit_model::{BlockDesign, Dit, DitConfig, Initialization};
use tch::{Device, Kind, Tensor, nn::VarStore};

fn variables(store: &VarStore) -> Tensors {
    store.variables().into_iter().collect()
}

fn new(config: &DitConfig, initialization: Initialization) -> (VarStore, Dit) {
    let store = VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), config, initialization);
    (store, dit)
}

fn moments(tensor: &Tensor) -> (f64, f64, f64) {
    let x = tensor.to_kind(Kind::Double);
    let mean = x.mean(None).double_value(&[]);
    let std = (x.square().mean(None).double_value(&[]) - mean * mean).sqrt();
    let kurtosis = ((&x - mean) / std).pow_tensor_scalar(4).mean(None).double_value(&[]);
    (mean, std, kurtosis)
}

/// U(−bound, bound): standard deviation bound/√3, kurtosis 1.8.
#[track_caller]
fn check_xavier(name: &str, tensor: &Tensor) {
    let (fan_out, fan_in) = (tensor.size()[0], tensor.numel() as i64 / tensor.size()[0]);
    let bound = (6.0 / (fan_in + fan_out) as f64).sqrt();
    let most = tensor.abs().max().double_value(&[]);
    assert!(most <= bound * (1.0 + 1e-6) && most > 0.99 * bound, "{name}: {most} for bound {bound}");
    let (mean, std, kurtosis) = moments(tensor);
    let tolerance = 5.0 / (tensor.numel() as f64).sqrt(); // five standard errors
    assert!(mean.abs() < tolerance * bound, "{name}: mean {mean}");
    assert!((std / bound - 3_f64.sqrt().recip()).abs() < tolerance, "{name}: std {std} for bound {bound}");
    assert!((kurtosis - 1.8).abs() < 4.0 * tolerance, "{name}: kurtosis {kurtosis}");
}

#[track_caller]
fn check_normal(name: &str, tensor: &Tensor, expected_std: f64) {
    let (mean, std, kurtosis) = moments(tensor);
    let tolerance = 5.0 / (tensor.numel() as f64).sqrt();
    assert!(mean.abs() < tolerance * expected_std, "{name}: mean {mean}");
    assert!((std / expected_std - 1.0).abs() < tolerance, "{name}: std {std}");
    assert!((kurtosis - 3.0).abs() < 10.0 * tolerance, "{name}: kurtosis {kurtosis}");
}

#[track_caller]
fn check_constant(name: &str, tensor: &Tensor, value: f64) {
    let (least, most) = tensor.aminmax(None, false);
    assert_eq!((least.double_value(&[]), most.double_value(&[])), (value, value), "{name}");
}

#[track_caller]
fn check_design(block: BlockDesign) {
    let config = "DiT-S/4".parse::<DitConfig>().unwrap().with(|spec| {
        spec.block = block;
        spec.depth = 2;
    });
    let (store, _) = new(&config.unwrap(), Initialization::Reference { seed: 3 });
    for (name, tensor) in &variables(&store) {
        let modulation = name.contains("adaLN_modulation");
        if name == "pos_embed" {
            assert!(tensor.abs().max().double_value(&[]) <= 1.0 && !tensor.requires_grad());
        } else if name.ends_with(".bias") {
            check_constant(name, tensor, 0.0);
        } else if name.contains("norm") {
            check_constant(name, tensor, 1.0);
        } else if name == "final_layer.linear.weight" || (modulation && block == BlockDesign::AdaLnZero) {
            check_constant(name, tensor, 0.0);
        } else if name.starts_with("t_embedder") || name.starts_with("y_embedder") {
            check_normal(name, tensor, 0.02);
        } else {
            check_xavier(name, tensor);
        }
    }
}

#[test]
fn every_tensor_of_every_design_has_its_distribution() {
    BlockDesign::ALL.into_iter().for_each(check_design);
}

#[test]
fn an_empty_model_is_zero_but_for_its_positions() {
    for block in BlockDesign::ALL {
        let (store, dit) = new(&tiny(block), Initialization::Empty);
        for (name, tensor) in variables(&store).iter().filter(|(name, _)| *name != "pos_embed") {
            check_constant(name, tensor, 0.0);
        }
        assert_eq!(dit.pos_embed(), &dit_model::position_table(dit.config()));
    }
}

#[track_caller]
fn same(a: &Tensors, b: &Tensors) -> bool {
    assert_eq!(a.len(), b.len());
    a.values().zip(b.values()).all(|(a, b)| a == b)
}

#[test]
fn weights_follow_from_the_seed_alone() {
    let config = tiny(BlockDesign::AdaLn);
    let seeded = |seed| variables(&new(&config, Initialization::Reference { seed }).0);
    assert!(same(&seeded(7), &seeded(7)));
    assert!(!same(&seeded(7), &seeded(8)));
    assert_ne!(seeded(7)["blocks.0.attn.qkv.weight"], seeded(7)["blocks.1.attn.qkv.weight"]);

    // Neither the prefix nor the kind changes what is drawn.
    let mut store = VarStore::new(Device::Cpu);
    store.set_kind(Kind::BFloat16);
    Dit::new(&(store.root() / "ema"), &config, Initialization::Reference { seed: 7 });
    let rounded = seeded(7).into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::BFloat16))).collect();
    assert!(same(&variables(&store), &rounded));
}

/// At first an adaLN-Zero model is the identity block by block and its output zero; the other designs' blocks are not.
#[test]
fn adaln_zero_starts_as_the_identity() {
    for block in BlockDesign::ALL {
        let (_store, dit) = new(&tiny(block), Initialization::Reference { seed: 5 });
        let (x, t, labels) = tiny_input();
        let c = dit.condition(&t, &labels);
        let sequence = dit.embed(&x, &c);
        for each in dit.blocks() {
            let identity = each.forward(&sequence, &c) == sequence;
            assert_eq!(identity, block == BlockDesign::AdaLnZero, "{block}");
        }
        check_constant("output", &dit.forward(&x, &t, &labels), 0.0);
    }
}

#[test]
fn with_open_gates_no_block_is_the_identity() {
    for block in BlockDesign::ALL {
        let (_store, dit) = tiny_model(block);
        let (x, t, labels) = tiny_input();
        let c = dit.condition(&t, &labels);
        let sequence = dit.embed(&x, &c);
        for each in dit.blocks() {
            assert!(relative_error(&each.forward(&sequence, &c), &sequence) > 0.1, "{block}");
        }
    }
}

#[test]
#[should_panic(expected = "already holds a DiT")]
fn a_path_holds_one_model() {
    let store = VarStore::new(Device::Cpu);
    let config = tiny(BlockDesign::AdaLnZero);
    Dit::new(&store.root(), &config, Initialization::Empty);
    Dit::new(&store.root(), &config, Initialization::Empty);
}
