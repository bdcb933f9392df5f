use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    attention::{merge_heads, plain_attention, split_heads},
    cpu::Cpu,
    element::Bf16,
};

/// Whether the CPU has the instructions; says so if not.
fn is_there() -> bool {
    let there = Cpu::detect().avx2;
    if !there {
        eprintln!("SKIPPED: no AVX2");
    }
    there
}

/// Numbers of about 1 that depend on `factor`.
fn numbers(shape: &[i64], factor: f64) -> Tensor {
    let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    ((at * factor).sin() * 1.6).view(shape)
}

/// Results, and the gradient of `qkv` where that of the results is `gradient`.
fn own<E: Element>(qkv: &Tensor, heads: i64, gradient: &Tensor) -> [Tensor; 2] {
    let (qkv, gradient) = (qkv.to_kind(E::KIND), gradient.to_kind(E::KIND));
    let size = |at: usize| qkv.size()[at] as usize;
    let heads = heads as usize;
    let shape = Shape { samples: size(0), tokens: size(1), heads, head: size(2) / 3 / heads };
    let (output, kept) = self_attention::<E>(&qkv, shape, true);
    let given = Given { shape, qkv: &qkv, output: &output, gradient: &gradient, kept: &kept.unwrap() };
    let of_qkv = pull_back::<E>(&given);
    let (without, _) = self_attention::<E>(&qkv, shape, false);
    assert!(without.allclose(&output, 0.0, 0.0, true), "results depend on whether weightings are kept");
    [output, of_qkv]
}

fn exact(qkv: &Tensor, heads: i64, gradient: &Tensor) -> [Tensor; 2] {
    let qkv = qkv.to_kind(Kind::Double).set_requires_grad(true);
    let [q, k, v] = split_heads(&qkv, heads);
    let output = merge_heads(&plain_attention(&q, &k, &v));
    (&output * gradient.to_kind(Kind::Double)).sum(Kind::Double).backward();
    [output.detach(), qkv.grad()]
}

/// ‖found − expected‖ / ‖expected‖ of results and gradient.
fn errors(found: &[Tensor; 2], expected: &[Tensor; 2]) -> [f64; 2] {
    std::array::from_fn(|at| {
        let norm = expected[at].norm().double_value(&[]).max(1e-9);
        (found[at].to_kind(Kind::Double) - &expected[at]).norm().double_value(&[]) / norm
    })
}

#[test]
fn results_and_gradients_are_those_of_the_mathematics() {
    if !is_there() {
        return;
    }
    // What threads keep of earlier heads must not show.
    let spoiled = Tensor::full([2, 330, 3 * 2 * 180], f64::NAN, (Kind::Double, Device::Cpu));
    let [output, of_qkv] = own::<f32>(&spoiled, 2, &spoiled.narrow(2, 0, 360));
    assert!(output.isnan().all().int64_value(&[]) == 1 && of_qkv.isnan().all().int64_value(&[]) == 1);
    for tokens in [1, 2, 5, 15, 16, 17, 97, 144, 145, 256, 300] {
        for (heads, head) in [(1, 1), (3, 2), (2, 7), (1, 16), (2, 18), (1, 64), (2, 72), (1, 130)] {
            let qkv = numbers(&[2, tokens, 3 * heads * head], 12.9898);
            let gradient = numbers(&[2, tokens, heads * head], 0.7311);
            let name = format!("{tokens} tokens, {heads} heads of {head}");
            let expected = exact(&qkv.to_kind(Kind::Float), heads, &gradient.to_kind(Kind::Float));
            let off = errors(&own::<f32>(&qkv, heads, &gradient), &expected);
            assert!(off.iter().all(|&off| off < 2e-5), "{name}: {off:?}");
            let expected = exact(&qkv.to_kind(Kind::BFloat16), heads, &gradient.to_kind(Kind::BFloat16));
            let off = errors(&own::<Bf16>(&qkv, heads, &gradient), &expected);
            assert!(off.iter().all(|&off| off < 4e-3), "{name}, bf16: {off:?}");
        }
    }
}

/// Of one head, whose queries are dealt out to the threads, and of several.
#[test]
fn nothing_depends_on_the_number_of_threads() {
    if !is_there() {
        return;
    }
    let threads = tch::get_num_threads();
    for heads in [1, 3] {
        let qkv = numbers(&[1, 300, 3 * heads * 20], 12.9898);
        let gradient = numbers(&[1, 300, heads * 20], 0.7311);
        let [one, several] = [1, 3].map(|threads| {
            tch::set_num_threads(threads);
            own::<f32>(&qkv, heads, &gradient)
        });
        assert!(one[0].equal(&several[0]) && one[1].equal(&several[1]), "{heads} heads");
    }
    tch::set_num_threads(threads);
}

/// All scores far below 0, where those of keys that are not there would be greater; and far apart.
#[test]
fn scores_may_be_of_any_size() {
    if !is_there() {
        return;
    }
    let (tokens, head) = (21, 16);
    let gradient = numbers(&[1, tokens, head], 0.7311);
    let qkv = numbers(&[1, tokens, 3 * head], 12.9898);
    let apart = exact_and_own(&(&qkv * 40.0), &gradient);
    // Queries of one sign, keys of the other: scores of about −6000.
    let [q, k, v] = [0, 1, 2].map(|part| qkv.narrow(2, part * head, head));
    let below = Tensor::cat(&[q * 0.1 + 20.0, k * 0.1 - 20.0, v.shallow_clone()], 2);
    let below = exact_and_own(&below, &gradient);
    // Results are to a part in a thousand what fp32's scores allow.
    for off in [apart, below] {
        assert!(off[0] < 2e-3 && off[1] < 5e-2, "{off:?}");
    }
    // Scores that are beyond fp32 when multiplied.
    let huge = Tensor::cat(&[Tensor::full([1, tokens, 2 * head], 4e18, (Kind::Double, Device::Cpu)), v], 2);
    let [output, _] = own::<f32>(&huge, 1, &gradient);
    assert!(output.isfinite().all().int64_value(&[]) == 1);
}

fn exact_and_own(qkv: &Tensor, gradient: &Tensor) -> [f64; 2] {
    errors(&own::<f32>(qkv, 1, gradient), &exact(&qkv.to_kind(Kind::Float), 1, &gradient.to_kind(Kind::Float)))
}

#[test]
fn one_value_that_is_nan_spoils_what_depends_on_it() {
    if !is_there() {
        return;
    }
    let (tokens, head) = (40, 16);
    let gradient = numbers(&[1, tokens, head], 0.7311);
    let of = |part: i64, token: i64| {
        let qkv = numbers(&[1, tokens, 3 * head], 12.9898);
        let _ = qkv.get(0).get(token).get(part * head + 3).fill_(f64::NAN);
        own::<f32>(&qkv, 1, &gradient)
    };
    for token in [0, 13, 39] {
        // A query: its own results, and the gradients of all keys and values.
        let [output, of_qkv] = of(0, token);
        let spoiled = output.isnan().all_dim(2, false).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(spoiled, 1);
        assert!(output.get(0).get(token).isnan().all().int64_value(&[]) == 1);
        assert!(of_qkv.narrow(2, head, 2 * head).isnan().all().int64_value(&[]) == 1);
        // A key: everybody's.
        assert!(of(1, token)[0].isnan().all().int64_value(&[]) == 1);
        // A value: that value of everybody's.
        let [output, _] = of(2, token);
        assert!(output.narrow(2, 3, 1).isnan().all().int64_value(&[]) == 1);
        assert_eq!(output.isnan().sum(Kind::Int64).int64_value(&[]), tokens);
    }
}

#[test]
fn powers_of_two_are_close_and_nan_is_not_lost() {
    if !is_there() {
        return;
    }
    let of = |x: f32| {
        let mut found = [0.0; LANES];
        // SAFETY: the CPU has the instructions; a line is two registers.
        unsafe { v::store(found.as_mut_ptr(), exp2(v::splat(x))) };
        found[LANES - 1]
    };
    for x in (0..100_000).map(|i| i as f32 * -0.001).chain([-0.5, -1e-30, -99.999, -100.0]) {
        let expected = f64::from(x).exp2();
        assert!((f64::from(of(x)) - expected).abs() < 3e-7 * expected, "{x}: {}", of(x));
    }
    assert_eq!([of(0.0), of(-1.0), of(-100.0)], [1.0, 0.5, 2.0_f32.powi(-100)]);
    assert_eq!([of(-100.001), of(-126.5), of(-300.0), of(-1e30), of(f32::NEG_INFINITY)], [0.0; 5]);
    assert!(of(f32::NAN).is_nan());
}
