//! What a model in bf16 carries in fp32 from block to block.

use std::collections::BTreeMap;

use dit_model::{Block, BlockDesign, Dit, Initialization};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::common::{load, relative_error, tiny, tiny_input, tiny_model};

/// What the first block adds to the sequence, its branches scaled down to nearly nothing.
fn added(dit: &Dit) -> Tensor {
    let (x, t, labels) = tiny_input();
    let c = dit.condition(&t, &labels);
    let before = dit.embed(&x, &c);
    let after = dit.blocks()[0].forward(&before, &c);
    after.to_kind(Kind::Float) - before.to_kind(Kind::Float)
}

/// Errors of a small first block's addition in bf16, carried in bf16 and in fp32.
fn errors(block: BlockDesign) -> [f64; 2] {
    let (store, exact) = tiny_model(block);
    let _no_grad = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        // What a branch ends with.
        let last = ["attn.proj", "mlp.fc2"].iter().any(|part| name.contains(part));
        if name.starts_with("blocks.0.") && last {
            let _ = variable.g_mul_scalar_(2e-3);
        }
    }
    let weights: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    let config = tiny(block);
    let (_plain_store, plain) = load(&config, &weights, Kind::BFloat16);
    let (_store, carrying) = load(&config, &weights, Kind::BFloat16);
    let carrying = carrying.carrying_fp32();
    assert_eq!((carrying.kind(), carrying.carried_kind()), (Kind::BFloat16, Kind::Float));
    let (x, t, labels) = tiny_input();
    assert_eq!(carrying.forward(&x, &t, &labels).kind(), Kind::BFloat16);
    let expected = added(&exact);
    [relative_error(&added(&plain), &expected), relative_error(&added(&carrying), &expected)]
}

#[test]
fn small_branches_are_not_lost() {
    for block in BlockDesign::ALL {
        let [plain, carrying] = errors(block);
        assert!(plain > 0.2, "{block}: bf16 alone is only {plain:.1e} off, so that this shows nothing");
        assert!(carrying < 0.03, "{block}: {carrying:.1e}");
    }
}

#[test]
fn in_fp32_it_changes_nothing() {
    let config = tiny(BlockDesign::AdaLnZero);
    let store = VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 3 });
    let (x, t, labels) = tiny_input();
    let before = dit.forward(&x, &t, &labels);
    let dit = dit.carrying_fp32();
    assert!(matches!(dit.blocks()[0], Block::AdaLnZero(_)));
    assert!(dit.forward(&x, &t, &labels).equal(&before));
}
