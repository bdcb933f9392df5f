//! The fused kernels against libtorch's plain operators in float64, over odd sizes.
//!
//! On a CPU without AVX2 and NEON the same tests hold for what the kernels fall back to.

use dit_ops::{
    Cpu, Kernels, Linear, PackedLinear, StoredWeight, add_gated,
    conv::{Convolution, Products},
    layer_norm_modulate, plain_attention, self_attention, split_heads,
};
use tch::{Device, Kind, Tensor};

mod support;
use support::{KINDS, error, normal, tolerance};

#[track_caller]
fn check_linear(kind: Kind, kernels: Kernels, rows: &[i64], inputs: i64, outputs: i64, tolerance: f64) {
    let x = normal(&[rows, &[inputs]].concat(), 1).to_kind(kind);
    let weight = (normal(&[outputs, inputs], 2) / (inputs as f64).sqrt()).to_kind(kind);
    let bias = normal(&[outputs], 3).to_kind(kind);
    let exact = x.to_kind(Kind::Double).linear(&weight.to_kind(Kind::Double), Some(&bias.to_kind(Kind::Double)));
    let without = x.to_kind(Kind::Double).linear(&weight.to_kind(Kind::Double), None::<Tensor>);

    let name = format!("{kind:?} {kernels:?} {rows:?} {inputs} → {outputs}");
    let mut linear = Linear::new(weight.shallow_clone(), Some(bias));
    linear.optimize(kernels);
    let found = linear.forward(&x);
    assert_eq!(found.kind(), kind);
    let off = error(&found, &exact);
    assert!(off < tolerance, "{name}: {off}");
    let off = error(&linear.forward_gelu(&x), &exact.gelu("tanh"));
    assert!(off < 2.0 * tolerance, "{name} with GELU: {off}");
    let mut linear = Linear::new(weight, None);
    linear.optimize(kernels);
    let off = error(&linear.forward(&x), &without);
    assert!(off < tolerance, "{name} without bias: {off}");
}

#[test]
fn linears_of_odd_sizes() {
    for kind in KINDS {
        for kernels in [Kernels::Plain, Kernels::Fused] {
            for (rows, inputs, outputs) in [
                (&[1][..], 4, 1),
                (&[2], 8, 47),
                (&[3], 36, 48),
                (&[7], 72, 49),
                (&[8], 128, 96),
                (&[9], 30, 100),
                (&[2, 131], 1152, 145),
                (&[4, 5, 6], 16, 16),
                (&[1030], 20, 50),
                (&[5], 7, 9),
                // Whole tiles of AMX and parts of them, in either direction.
                (&[70], 1150, 145),
                (&[2, 40], 34, 96),
            ] {
                check_linear(kind, kernels, rows, inputs, outputs, tolerance(kind));
            }
        }
    }
}

#[test]
fn int8_linears_of_odd_sizes() {
    for kind in KINDS {
        for (rows, inputs, outputs) in [
            (&[1][..], 4, 1),
            (&[2], 8, 47),
            (&[7], 72, 49),
            (&[2, 131], 1152, 145),
            (&[600], 20, 50),
            (&[5], 7, 9),
            (&[70], 1148, 145),
        ] {
            check_linear(kind, Kernels::Int8, rows, inputs, outputs, 8e-2);
        }
    }
}

#[test]
fn int8_errors_are_those_of_the_rounding_and_nothing_else() {
    let (x, weight) = (normal(&[64, 1152], 1), normal(&[96, 1152], 2) / 34.0);
    let mut linear = Linear::new(weight.to_kind(Kind::Float), None);
    linear.optimize(Kernels::Int8);
    let exact = x.linear(&weight, None::<Tensor>);
    let off = (linear.forward(&x.to_kind(Kind::Float)).to_kind(Kind::Double) - &exact).square().mean(Kind::Double);
    let signal = exact.square().mean(Kind::Double);
    let ratio = 10.0 * (signal / off).log10().double_value(&[]);
    // Steps of about 6/255 for values of variance 1, and 3.5/127 for the weights: 43 and 42 dB; of 5/127 with AVX2, 39 dB.
    assert!(ratio > 37.0, "{ratio} dB");
}

#[test]
fn views_and_empty_batches() {
    for kind in KINDS {
        let weight = normal(&[50, 24], 2).to_kind(kind);
        let mut linear = Linear::new(weight.shallow_clone(), None);
        linear.optimize(Kernels::Fused);
        let wide = normal(&[10, 49], 4).to_kind(kind);
        for x in [wide.narrow(1, 3, 24), wide.narrow(0, 0, 1).view([49]).narrow(0, 1, 24), wide.slice(1, 0, 48, 2)] {
            let exact = x.to_kind(Kind::Double).linear(&weight.to_kind(Kind::Double), None::<Tensor>);
            assert!(error(&linear.forward(&x), &exact) < tolerance(kind));
        }
        assert_eq!(linear.forward(&Tensor::zeros([0, 24], (kind, Device::Cpu))).size(), [0, 50]);
    }
}

/// That what the other tests compare with libtorch is our kernels, and not what they fall back to.
#[test]
fn kernels_are_used_where_the_cpu_has_them() {
    let cpu = Cpu::detect();
    let weight = normal(&[8, 8], 1).to_kind(Kind::Float);
    let fp32 = cpu.avx2 || cpu.avx512 || cpu.neon;
    let bf16 = fp32;
    let int8 = cpu.avx2 || cpu.avx512_vnni || cpu.neon_i8mm || cpu.neon_dotprod;
    assert_eq!(PackedLinear::pack(&weight, None).is_some(), fp32);
    assert_eq!(PackedLinear::pack(&weight.to_kind(Kind::BFloat16), None).is_some(), bf16);
    assert_eq!(PackedLinear::quantize(&weight, None).is_some(), int8);
    assert_eq!(Kernels::Int8.is_supported(), int8);
    assert_eq!(Convolution::is_supported(Products::Fp32), fp32);
    assert_eq!(Convolution::is_supported(Products::Bf16), bf16);
    // Sums in another order: other bits than libtorch's, where the kernel is ours.
    for (kind, ours) in [(Kind::Float, fp32), (Kind::BFloat16, bf16)] {
        let qkv = normal(&[1, 200, 3 * 64], 1).to_kind(kind);
        let [q, k, v] = split_heads(&qkv, 1);
        let plain = plain_attention(&q, &k, &v).transpose(1, 2).flatten(2, 3);
        assert_eq!(self_attention(&qkv, 1) != plain, ours, "{kind:?}");
    }
}

#[test]
fn packing_loses_nothing() {
    for kind in KINDS {
        let weight = normal(&[101, 36], 5).to_kind(kind);
        let bias = normal(&[101], 6).to_kind(kind);
        let Some(packed) = PackedLinear::pack(&weight, Some(&bias)) else { continue };
        let (unpacked, unpacked_bias) = packed.unpack();
        assert_eq!((unpacked, unpacked_bias.unwrap()), (weight, bias));
    }
}

/// Packed straight from bytes of `from`, a Linear of `kind` is what it is by way of a tensor of `kind`, to the bit.
#[track_caller]
fn check_stored(outputs: i64, inputs: i64, from: Kind, kind: Kind, kernels: Kernels) {
    let weight = (normal(&[outputs, inputs], 5) * 0.1).to_kind(from);
    let bias = normal(&[outputs], 6).to_kind(kind);
    let mut bytes = vec![0; weight.numel() * weight.kind().elt_size_in_bytes()];
    weight.copy_data_u8(&mut bytes, weight.numel());
    let stored = StoredWeight::new(from, &bytes, outputs as usize, inputs as usize).unwrap();
    let mut expected = Linear::new(weight.to_kind(kind), Some(bias.shallow_clone()));
    expected.optimize(kernels);
    let what = format!("{outputs} × {inputs}, {from:?} as {kind:?}, {kernels:?}");
    let packs = format!("{expected:?}").contains("PackedLinear");
    let found = Linear::of_stored(stored, Some(&bias), kind, kernels);
    assert_eq!(found.is_some(), packs, "{what}: {expected:?}");
    let Some((linear, non_finite)) = found else { return };
    assert_eq!(non_finite, 0);
    let x = normal(&[9, inputs], 7).to_kind(kind);
    assert!(linear.forward(&x).equal(&expected.forward(&x)), "{what}");

    // NaN and infinities are counted, wherever they stand.
    let numel = weight.numel() as i64;
    for (count, bad) in [(1, f64::NAN), (2, f64::INFINITY), (3, f64::NEG_INFINITY)] {
        let mut damaged = weight.copy();
        for i in 0..count {
            let _ = damaged.view([-1]).narrow(0, (numel - 1) * i / 2, 1).fill_(bad);
        }
        damaged = damaged.contiguous();
        damaged.copy_data_u8(&mut bytes, damaged.numel());
        let stored = StoredWeight::new(from, &bytes, outputs as usize, inputs as usize).unwrap();
        let (_, found) = Linear::of_stored(stored, Some(&bias), kind, kernels).unwrap();
        assert_eq!(found as i64, count, "{what}, {bad}");
    }
}

#[test]
fn weights_are_packed_from_where_they_are_stored() {
    for (outputs, inputs) in [(1, 4), (48, 16), (101, 36), (96, 1100), (50, 4500)] {
        for (from, kind) in [
            (Kind::Float, Kind::Float),
            (Kind::Float, Kind::BFloat16),
            (Kind::BFloat16, Kind::Float),
            (Kind::BFloat16, Kind::BFloat16),
        ] {
            for kernels in [Kernels::Fused, Kernels::Int8] {
                check_stored(outputs, inputs, from, kind, kernels);
            }
        }
    }
}

#[test]
fn stored_weights_are_whole_and_aligned() {
    let bytes = [0; 64];
    let offset = bytes.as_ptr().align_offset(4);
    let aligned = &bytes[offset..][..48];
    assert!(StoredWeight::new(Kind::Float, aligned, 3, 4).is_some());
    assert!(StoredWeight::new(Kind::BFloat16, aligned, 6, 4).is_some());
    for (kind, bytes, outputs, inputs) in [
        (Kind::Float, &bytes[offset + 1..][..48], 3, 4),
        (Kind::BFloat16, &bytes[offset + 1..][..48], 6, 4),
        (Kind::Float, &aligned[..47], 3, 4),
        (Kind::Float, aligned, 3, 5),
        (Kind::Float, aligned, usize::MAX, 4),
        (Kind::Half, aligned, 6, 4),
    ] {
        assert!(StoredWeight::new(kind, bytes, outputs, inputs).is_none(), "{kind:?}, {outputs} × {inputs}");
    }
}

/// Codes by the definition: the largest weight of an output is ±127 steps, or, where products are added by twos in 16 bits, the largest sum
/// of two weights' magnitudes.
#[test]
fn int8_codes_are_the_nearest_steps() {
    let (outputs, inputs) = (70, 52);
    let weight = normal(&[outputs, inputs], 8).to_kind(Kind::Float);
    let Some(packed) = PackedLinear::quantize(&weight, None) else { return };
    let magnitudes = match Cpu::detect().avx512_vnni || Cpu::detect().neon {
        true => weight.abs(),
        false => weight.abs().view([outputs, inputs / 2, 2]).sum_dim_intlist([2_i64].as_slice(), false, Kind::Float),
    };
    let largest = magnitudes.amax([1], true);
    let codes = (&weight * (largest.full_like(127.0) / &largest)).round();
    let expected = codes * (largest / 127.0);
    assert!(packed.unpack().0.equal(&expected));
}

#[test]
fn what_has_no_kernel_stays_plain() {
    let weight = normal(&[5, 8], 5);
    assert!(PackedLinear::pack(&weight, None).is_none(), "float64");
    assert!(PackedLinear::pack(&weight.to_kind(Kind::BFloat16).narrow(1, 0, 7), None).is_none(), "odd inputs");
    assert!(PackedLinear::quantize(&weight.to_kind(Kind::Float).narrow(1, 0, 6), None).is_none(), "6 inputs");
    assert!(PackedLinear::pack(&weight.to_kind(Kind::Float).view([40]), None).is_none(), "one dimension");
    let mut linear = Linear::new(weight.shallow_clone(), None);
    linear.optimize(Kernels::Fused);
    let x = normal(&[3, 8], 1);
    assert_eq!(linear.forward(&x), x.linear(&weight, None::<Tensor>));
}

#[test]
fn gradients_of_the_input_pass_a_packed_linear() {
    for kernels in [Kernels::Fused, Kernels::Int8] {
        let weight = normal(&[48, 16], 2).to_kind(Kind::Float);
        let mut linear = Linear::new(weight.shallow_clone(), None);
        linear.optimize(kernels);
        let x = normal(&[3, 16], 1).to_kind(Kind::Float).set_requires_grad(true);
        linear.forward(&x).sum(Kind::Float).backward();
        let exact = weight
            .to_kind(Kind::Double)
            .sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)
            .expand([3, 16], false);
        assert!(error(&x.grad(), &exact) < 2e-2);
    }
}

/// A Linear in training against float64: its result, and the gradients of input, weight and bias.
#[track_caller]
fn check_training(kind: Kind, shape: [i64; 3], outputs: i64) {
    let [_, _, inputs] = shape;
    let rounded = |shape: &[i64], seed| normal(shape, seed).to_kind(kind);
    let leaf = |tensor: &Tensor, kind| tensor.to_kind(kind).detach().set_requires_grad(true);
    let (x, weight, bias) = (rounded(&shape, 1), rounded(&[outputs, inputs], 2), rounded(&[outputs], 3));
    let cotangent = rounded(&[shape[0], shape[1], outputs], 4);
    let results = |kind: Kind| {
        let (x, weight, bias) = (leaf(&x, kind), leaf(&weight, kind), leaf(&bias, kind));
        let y = Linear::new(weight.shallow_clone(), Some(bias.shallow_clone())).forward(&x);
        // Computed again for its gradient, as training that saves memory does, or with weights that are not trained.
        for (weight, bias) in [(weight.shallow_clone(), bias.shallow_clone()), (weight.detach(), bias.detach())] {
            let without = tch::no_grad(|| Linear::new(weight, Some(bias)).forward(&x));
            assert_eq!(without, y.detach(), "{kind:?} {shape:?} → {outputs}: other bits without a gradient");
        }
        (&y * cotangent.to_kind(kind)).sum(kind).backward();
        [y.detach(), x.grad(), weight.grad(), bias.grad()]
    };
    let what = ["result", "gradient of x", "gradient of the weight", "gradient of the bias"];
    for ((found, expected), what) in results(kind).iter().zip(results(Kind::Double)).zip(what) {
        let error = error(found, &expected);
        assert!(error < tolerance(kind), "{kind:?} {shape:?} → {outputs}, {what}: {error:.1e}");
        assert_eq!(found.kind(), kind);
    }
}

#[test]
fn linears_in_training() {
    for kind in KINDS {
        // Few rows; as a convolution; odd sizes; a sequence of one.
        for (shape, outputs) in [([2, 3, 8], 12), ([4, 64, 48], 96), ([3, 101, 33], 7), ([300, 1, 16], 16)] {
            check_training(kind, shape, outputs);
        }
    }
}

#[track_caller]
fn check_modulate(kind: Kind, samples: i64, tokens: i64, width: i64) {
    let x = (normal(&[samples, tokens, width], 1) * 3.0 + 1.0).to_kind(kind);
    // As a regressor gives them: parts of a longer row.
    let parts = normal(&[samples, 3 * width], 2).to_kind(kind).unsqueeze(1).chunk(3, 2);
    let [shift, scale, gate] = [0, 1, 2].map(|i| parts[i].shallow_clone());
    let wide = |tensor: &Tensor| tensor.to_kind(Kind::Double);
    let (eps, cudnn) = (1e-6, false);
    let normal_x = wide(&x).layer_norm([width], None::<Tensor>, None::<Tensor>, eps, cudnn);
    let exact = normal_x * (wide(&scale) + 1.0) + wide(&shift);
    let name = format!("{kind:?} {samples} × {tokens} × {width}");
    let off = error(&layer_norm_modulate(&x, &shift, &scale, eps), &exact);
    assert!(off < tolerance(kind), "norm {name}: {off}");
    let y = normal(&[samples, tokens, width], 3).to_kind(kind);
    let off = error(&add_gated(&x, &gate, &y), &(wide(&x) + wide(&gate) * wide(&y)));
    assert!(off < tolerance(kind), "gate {name}: {off}");
}

#[test]
fn modulation_of_odd_sizes() {
    for kind in KINDS {
        for (samples, tokens, width) in [(1, 1, 2), (2, 3, 31), (3, 17, 48), (1, 100, 1152), (5, 16, 65), (2, 33, 384)]
        {
            check_modulate(kind, samples, tokens, width);
        }
    }
}

#[test]
fn modulation_is_differentiated_and_takes_any_kind() {
    let x = normal(&[2, 3, 8], 1).to_kind(Kind::Float).set_requires_grad(true);
    let row = normal(&[2, 1, 8], 2).to_kind(Kind::Float);
    let y = add_gated(&layer_norm_modulate(&x, &row, &row, 1e-6), &row, &x);
    assert!(y.requires_grad());
    let _no_grad = tch::no_grad_guard();
    assert!(error(&add_gated(&layer_norm_modulate(&x, &row, &row, 1e-6), &row, &x), &y.to_kind(Kind::Double)) < 1e-5);
    let (x, row) = (x.to_kind(Kind::Double), row.to_kind(Kind::Double));
    assert_eq!(add_gated(&x, &row, &x).kind(), Kind::Double);
    // One row for all samples is libtorch's to broadcast.
    assert_eq!(layer_norm_modulate(&x, &row.narrow(0, 0, 1), &row.narrow(0, 0, 1), 1e-6).size(), [2, 3, 8]);
}

#[track_caller]
fn check_attention(kind: Kind, samples: i64, tokens: i64, heads: i64, head: i64) {
    let qkv = (normal(&[samples, tokens, 3 * heads * head], 1) * 1.5).to_kind(kind);
    let [q, k, v] = split_heads(&qkv.to_kind(Kind::Double), heads);
    let exact = plain_attention(&q, &k, &v).transpose(1, 2).flatten(2, 3);
    let found = self_attention(&qkv, heads);
    assert_eq!(found.kind(), kind);
    let off = error(&found, &exact);
    let is_ours = kind == Kind::Float || Cpu::detect().has_bf16_kernels();
    if !is_ours && cfg!(target_arch = "aarch64") {
        // libtorch's own, which computes on Arm without NEON: at 256 tokens 0.11 was seen.
        return;
    }
    // Averages over many keys are small beside the values they average.
    assert!(off < 2.0 * tolerance(kind), "{kind:?} {samples} × {tokens}, {heads} heads of {head}: {off}");
}

#[test]
fn attention_of_odd_sizes() {
    for kind in KINDS {
        // What threads keep of earlier heads must not show.
        let spoiled = Tensor::full([2, 800, 3 * 16 * 96], f64::NAN, (kind, Device::Cpu));
        assert!(self_attention(&spoiled, 16).isnan().all().int64_value(&[]) == 1);
        for (samples, tokens, heads, head) in [
            (1, 1, 1, 2),
            (2, 5, 3, 8),
            (1, 16, 4, 12),
            (2, 63, 2, 64),
            (1, 64, 2, 72),
            (3, 65, 1, 32),
            (1, 97, 2, 80),
            (1, 130, 1, 96),
            (2, 256, 2, 72),
            (1, 7, 2, 176),
            (1, 10, 2, 7),
            (1, 700, 1, 48),
        ] {
            check_attention(kind, samples, tokens, heads, head);
        }
    }
}

#[test]
fn attention_survives_large_scores_and_carries_gradients() {
    let qkv = normal(&[1, 20, 3 * 16], 1).to_kind(Kind::Float) * 60.0;
    let [q, k, v] = split_heads(&qkv.to_kind(Kind::Double), 2);
    let exact = plain_attention(&q, &k, &v).transpose(1, 2).flatten(2, 3);
    assert!(error(&self_attention(&qkv, 2), &exact) < 1e-4);
    assert!(self_attention(&qkv.set_requires_grad(true), 2).requires_grad());
}

/// The kernels that wider ones take the place of, by running all of these tests again without those.
#[test]
fn without_wider_instructions_too() {
    support::again_without_wider_instructions();
}

/// As on a GPU: one operator of libtorch's, also where the sequence is carried in fp32.
#[test]
fn a_gate_without_a_kernel_rounds_once() {
    for (kind, of_x) in [(Kind::Double, Kind::Double), (Kind::Half, Kind::Half), (Kind::Half, Kind::Float)] {
        let x = normal(&[2, 5, 8], 1).to_kind(of_x);
        let (gate, y) = (normal(&[2, 1, 8], 2).to_kind(kind), normal(&[2, 5, 8], 3).to_kind(kind));
        let exact = x.to_kind(Kind::Double) + gate.to_kind(Kind::Double) * y.to_kind(Kind::Double);
        let found = Kernels::Fused.add_gated(&x, &gate, &y);
        assert_eq!(found.kind(), of_x);
        let off = (found.to_kind(Kind::Double) - &exact).abs() / exact.abs();
        assert!(off.max().double_value(&[]) <= if of_x == Kind::Half { 1.0 / 2048.0 } else { 1e-6 });
    }
}
