//! What must hold for any weights.

use std::panic::AssertUnwindSafe;

use crate::common::{Tensors, check_close, load, noise, randomise, relative_error, tiny, tiny_input, tiny_model};
use dit_model::{BlockDesign, Dit, DitConfig, Initialization, Kernels, LatentSize, ModelError};
use tch::{Device, Kind, Tensor, nn::VarStore};

/// With a patch convolution that only moves each pixel to its place in the token, `unpatchify` undoes `embed`.
#[track_caller]
fn check_patches(patch: usize, channels: usize, latent: LatentSize) {
    let width = patch * patch * channels;
    let config = tiny(BlockDesign::AdaLnZero).with(|spec| {
        spec.patch = patch;
        spec.in_channels = channels;
        spec.latent = latent;
        spec.hidden = width;
        spec.heads = 1;
        spec.depth = 1;
    });
    let config = config.unwrap();
    let store = VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), &config, Initialization::Empty);
    let (p, c) = (patch as i64, channels as i64);
    let moves = Tensor::eye(width as i64, (Kind::Float, Device::Cpu)).view([p * p * c, p, p, c]).permute([0, 3, 1, 2]);
    tch::no_grad(|| store.variables()["x_embedder.proj.weight"].shallow_clone().copy_(&moves));

    let (t, labels) = (Tensor::from_slice(&[0_i64, 1]), Tensor::from_slice(&[0_i64, 1]));
    let x = noise(&[2, c, latent.height as i64, latent.width as i64], 5);
    let tokens = dit.embed(&x, &dit.condition(&t, &labels)) - dit.pos_embed();
    check_close(&config.to_string(), &dit_model::unpatchify(&tokens, config.grid(), patch), &x, 1e-6);
}

#[test]
fn a_model_can_be_sent_to_another_thread() {
    let (_store, dit) = tiny_model(BlockDesign::AdaLnZero);
    let (x, t, labels) = tiny_input();
    let here = dit.forward(&x, &t, &labels).detach();
    let there = std::thread::spawn(move || dit.forward(&x, &t, &labels).detach()).join().unwrap();
    assert_eq!(here, there);
}

#[test]
fn unpatchify_undoes_patchify() {
    check_patches(2, 4, LatentSize::square(8));
    check_patches(2, 3, LatentSize { height: 4, width: 10 });
    check_patches(4, 1, LatentSize { height: 12, width: 4 });
    check_patches(8, 2, LatentSize { height: 8, width: 24 });
    check_patches(1, 4, LatentSize { height: 3, width: 5 });
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    for block in BlockDesign::ALL {
        let (_store, dit) = tiny_model(block);
        let (x, t, labels) = tiny_input();
        let batch = dit.forward(&x, &t, &labels);
        for i in 0..3 {
            let alone = dit.forward(&x.narrow(0, i, 1), &t.narrow(0, i, 1), &labels.narrow(0, i, 1));
            check_close(block.name(), &alone, &batch.narrow(0, i, 1), 2e-6);
        }
        assert_eq!(batch, dit.forward(&x, &t, &labels), "{block}: forward is a function");
    }
}

#[test]
fn every_argument_matters_to_its_own_sample() {
    for block in BlockDesign::ALL {
        let (_store, dit) = tiny_model(block);
        let (x, t, labels) = tiny_input();
        let output = dit.forward(&x, &t, &labels);
        let changed_t = dit.forward(&x, &Tensor::from_slice(&[0_i64, 501, 999]), &labels);
        let changed_label = dit.forward(&x, &t, &Tensor::from_slice(&[3_i64, 8, 10]));
        for changed in [changed_t, changed_label] {
            check_close(block.name(), &changed.narrow(0, 0, 1), &output.narrow(0, 0, 1), 1e-12);
            assert!(relative_error(&changed.narrow(0, 1, 1), &output.narrow(0, 1, 1)) > 1e-4, "{block}");
        }
        let swapped = dit.forward(&x, &t, &labels.index_select(0, &Tensor::from_slice(&[1_i64, 0, 2])));
        assert!(relative_error(&swapped, &output) > 1e-3, "{block}");
    }
}

/// Attention alone would not see where a patch is: moving patches moves the output only without the position table.
#[test]
fn positions_tell_patches_apart() {
    let columns = Tensor::from_slice(&[2_i64, 3, 0, 1, 4, 5]); // the first two columns of patches change places
    for block in BlockDesign::ALL {
        let (store, dit) = tiny_model(block);
        let (x, t, labels) = tiny_input();
        let moved = || {
            let output = dit.forward(&x, &t, &labels).index_select(3, &columns);
            relative_error(&dit.forward(&x.index_select(3, &columns), &t, &labels), &output)
        };
        assert!(moved() > 1e-2, "{block}");
        let _ = tch::no_grad(|| store.variables()["pos_embed"].shallow_clone().zero_());
        assert!(moved() < 2e-6, "{block}");
    }
}

#[test]
fn integer_and_floating_timesteps_agree() {
    let (_store, dit) = tiny_model(BlockDesign::AdaLnZero);
    let (x, t, labels) = tiny_input();
    let output = dit.forward(&x, &t, &labels);
    for kind in [Kind::Int, Kind::Float, Kind::Double] {
        assert_eq!(dit.try_forward(&x, &t.to_kind(kind), &labels).unwrap(), output, "{kind:?}");
    }
    let between = dit.forward(&x, &(t.to_kind(Kind::Float) + 0.5), &labels);
    assert!(relative_error(&between, &output) > 1e-4);
}

#[test]
fn gradients_reach_every_weight_but_the_positions() {
    for block in BlockDesign::ALL {
        let (store, dit) = tiny_model(block);
        let (x, t, labels) = tiny_input();
        dit.forward(&x, &t, &labels).square().mean(None).backward();
        for (name, tensor) in store.variables() {
            let reached = tensor.grad().defined() && tensor.grad().abs().max().double_value(&[]) > 0.0;
            assert_eq!(reached, name != "pos_embed", "{block}: {name}");
        }
    }
}

#[test]
fn packed_weights_lose_no_gradient_without_a_word() {
    for block in BlockDesign::ALL {
        for kernels in [Kernels::Plain, Kernels::Fused, Kernels::Int8] {
            let (x, t, labels) = tiny_input();
            let (store, mut dit) = tiny_model(block);
            dit.optimize(kernels);
            assert!(tch::no_grad(|| dit.try_forward(&x, &t, &labels)).is_ok(), "{block}, {kernels:?}: inference");
            match dit.try_forward(&x, &t, &labels) {
                Err(ModelError::Gradient) if kernels != Kernels::Plain => {
                    let passes = std::panic::catch_unwind(AssertUnwindSafe(|| dit.forward(&x, &t, &labels)));
                    assert!(passes.is_err(), "{block}, {kernels:?}: unchecked");
                }
                // There may be no kernel here that packs: then nothing is lost.
                Ok(output) => {
                    output.square().mean(None).backward();
                    let lost = |(name, tensor): &(String, Tensor)| name != "pos_embed" && !tensor.grad().defined();
                    let lost: Vec<_> = store.variables().into_iter().filter(lost).map(|(name, _)| name).collect();
                    assert!(lost.is_empty(), "{block}, {kernels:?}: {lost:?}");
                }
                Err(error) => panic!("{block}, {kernels:?}: {error}"),
            }
            // Weights that are not to be trained want no gradient; the latents may.
            let (mut store, mut frozen) = tiny_model(block);
            store.freeze();
            frozen.optimize(kernels);
            let x = x.set_requires_grad(true);
            frozen.try_forward(&x, &t, &labels).unwrap().square().mean(None).backward();
            assert!(x.grad().abs().max().double_value(&[]) > 0.0, "{block}, {kernels:?}: latents");
        }
    }
}

/// Longer than the limit of the plain attention, so that the fused one runs; both in bf16, against fp32.
#[test]
fn both_attention_kernels_agree() {
    for side in [8, 24] {
        let config = tiny(BlockDesign::AdaLnZero).with(|spec| {
            spec.latent = LatentSize::square(side);
            spec.patch = 1;
        });
        let config: DitConfig = config.unwrap();
        let store = VarStore::new(Device::Cpu);
        let _dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 2 });
        randomise(&store);
        let weights: Tensors = store.variables().into_iter().collect();
        let (_, fp32) = load(&config, &weights, Kind::Float);
        let (_, bf16) = load(&config, &weights, Kind::BFloat16);
        let x = noise(&[1, 4, side as i64, side as i64], 4);
        let (t, labels) = (Tensor::from_slice(&[400_i64]), Tensor::from_slice(&[1_i64]));
        let expected = tch::no_grad(|| fp32.forward(&x, &t, &labels));
        check_close("bf16 inference", &tch::no_grad(|| bf16.forward(&x, &t, &labels)), &expected, 3e-2);
        check_close("bf16 training", &bf16.forward(&x, &t, &labels), &expected, 3e-2);
    }
}
