use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    attention::{merge_heads, plain_attention, split_heads},
    element::Bf16,
};

/// Calls a function with each kind of registers that this CPU has, and says which there are not.
macro_rules! for_all {
    ($function:ident of $element:ident $(, $argument:expr)*) => {
        #[cfg(target_arch = "aarch64")]
        match Neon::<$element>::detect() {
            Some(registers) => $function(registers $(, $argument)*),
            None => eprintln!("SKIPPED: no NEON"),
        }
        #[cfg(target_arch = "x86_64")]
        match Avx2::<$element>::detect() {
            Some(registers) => $function(registers $(, $argument)*),
            None => eprintln!("SKIPPED: no AVX2"),
        }
        #[cfg(target_arch = "x86_64")]
        match Avx512::<$element>::detect() {
            Some(registers) => $function(registers $(, $argument)*),
            None => eprintln!("SKIPPED: no AVX-512"),
        }
        #[cfg(target_arch = "x86_64")]
        for_all!(@pairs $function of $element $(, $argument)*);
    };
    (@pairs $function:ident of f32 $(, $argument:expr)*) => {};
    (@pairs $function:ident of Bf16 $(, $argument:expr)*) => {
        match Avx512Pairs::detect() {
            Some(registers) => $function(registers $(, $argument)*),
            None => eprintln!("SKIPPED: no fast AVX-512 BF16"),
        }
    };
}

/// Numbers of about 1 that depend on `factor`.
fn numbers(shape: &[i64], factor: f64) -> Tensor {
    let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    ((at * factor).sin() * 1.6).view(shape)
}

/// Results, and the gradient of `qkv` where that of the results is `gradient`.
fn own<R: Registers>(registers: R, qkv: &Tensor, heads: i64, gradient: &Tensor) -> [Tensor; 2] {
    let [qkv, gradient] = [qkv, gradient].map(|tensor| tensor.to_kind(R::Element::KIND));
    let size = |at: usize| qkv.size()[at] as usize;
    let heads = heads as usize;
    let shape = Shape { samples: size(0), tokens: size(1), heads, head: size(2) / 3 / heads };
    let (output, kept) = self_attention(registers, &qkv, shape, true);
    let given = Given { shape, qkv: &qkv, output: &output, gradient: &gradient, kept: &kept.unwrap() };
    let of_qkv = pull_back(registers, &given);
    let (without, _) = self_attention(registers, &qkv, shape, false);
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

/// ‖found − expected‖ / ‖expected‖ of results, and of the gradients of queries, keys and values; of one that is small beside the others', by a
/// tenth of theirs.
fn errors(found: &[Tensor; 2], expected: &[Tensor; 2]) -> [f64; 4] {
    let norm = |tensor: &Tensor| tensor.to_kind(Kind::Double).norm().double_value(&[]);
    let width = found[0].size()[2];
    let least = [1e-9, (0.1 * norm(&expected[1])).max(1e-9)];
    std::array::from_fn(|at| {
        let (which, part) = if at == 0 { (0, 0) } else { (1, at as i64 - 1) };
        let [found, expected] = [found, expected].map(|tensors| tensors[which].narrow(2, part * width, width));
        norm(&(found.to_kind(Kind::Double) - &expected)) / norm(&expected).max(least[which])
    })
}

#[test]
fn results_and_gradients_are_those_of_the_mathematics() {
    for_all!(are_those_of_the_mathematics of f32);
    for_all!(are_those_of_the_mathematics of Bf16);
}

fn are_those_of_the_mathematics<R: Registers>(registers: R) {
    // Results are rounded to the tensors' kind, and where products are of bf16, so are weights and gradients of scores.
    let tolerance = match R::Element::KIND {
        Kind::Float => 5e-5,
        _ if R::PER_WORD == 1 => 4e-3,
        _ => 4e-2,
    };
    // What threads keep of earlier heads must not show.
    let spoiled = Tensor::full([2, 330, 3 * 2 * 180], f64::NAN, (Kind::Double, Device::Cpu));
    let [output, of_qkv] = own(registers, &spoiled, 2, &spoiled.narrow(2, 0, 360));
    assert!(output.isnan().all().int64_value(&[]) == 1 && of_qkv.isnan().all().int64_value(&[]) == 1);
    for tokens in [1, 2, 5, 15, 16, 17, 31, 33, 97, 128, 129, 144, 145, 256, 300] {
        for (heads, head) in [(1, 1), (3, 2), (2, 7), (1, 16), (2, 18), (1, 64), (2, 72), (1, 130)] {
            if head % R::PER_WORD as i64 > 0 {
                continue;
            }
            let qkv = numbers(&[2, tokens, 3 * heads * head], 12.9898);
            let gradient = numbers(&[2, tokens, heads * head], 0.7311);
            let name = format!("{tokens} tokens, {heads} heads of {head}, {:?}", R::Element::KIND);
            let expected = exact(&qkv.to_kind(R::Element::KIND), heads, &gradient.to_kind(R::Element::KIND));
            let off = errors(&own(registers, &qkv, heads, &gradient), &expected);
            assert!(off.iter().all(|&off| off < tolerance), "{name}: {off:?}");
        }
    }
    // Sums over a long sequence.
    let (qkv, gradient) = (numbers(&[1, 3000, 3 * 8], 12.9898), numbers(&[1, 3000, 8], 0.7311));
    let expected = exact(&qkv.to_kind(R::Element::KIND), 1, &gradient.to_kind(R::Element::KIND));
    let off = errors(&own(registers, &qkv, 1, &gradient), &expected);
    assert!(off.iter().all(|&off| off < tolerance), "3000 tokens: {off:?}");
}

/// Of one head, whose queries are dealt out to the threads, and of several.
#[test]
fn nothing_depends_on_the_number_of_threads() {
    fn does_not<R: Registers>(registers: R) {
        let threads = tch::get_num_threads();
        for heads in [1, 3] {
            let qkv = numbers(&[1, 300, 3 * heads * 20], 12.9898);
            let gradient = numbers(&[1, 300, heads * 20], 0.7311);
            let [one, several] = [1, 3].map(|threads| {
                tch::set_num_threads(threads);
                own(registers, &qkv, heads, &gradient)
            });
            assert!(one[0].equal(&several[0]) && one[1].equal(&several[1]), "{heads} heads");
        }
        tch::set_num_threads(threads);
    }
    for_all!(does_not of f32);
    for_all!(does_not of Bf16);
}

/// All scores far below 0, where those of keys that are not there would be greater; and far apart.
#[test]
fn scores_may_be_of_any_size() {
    // What the roundings of large scores make of results, and of gradients.
    for_all!(may_be_of_any_size of f32, [2e-3, 5e-2]);
    for_all!(may_be_of_any_size of Bf16, [2e-2, 3e-1]);
}

fn may_be_of_any_size<R: Registers>(registers: R, tolerance: [f64; 2]) {
    let (tokens, head) = (21, 16);
    let gradient = numbers(&[1, tokens, head], 0.7311);
    let off = |qkv: &Tensor| {
        let exact = exact(&qkv.to_kind(R::Element::KIND), 1, &gradient.to_kind(R::Element::KIND));
        errors(&own(registers, qkv, 1, &gradient), &exact)
    };
    let qkv = numbers(&[1, tokens, 3 * head], 12.9898);
    let apart = off(&(&qkv * 40.0));
    // Queries of one sign, keys of the other: scores of about −6000.
    let [q, k, v] = [0, 1, 2].map(|part| qkv.narrow(2, part * head, head));
    let below = off(&Tensor::cat(&[q * 0.1 + 20.0, k * 0.1 - 20.0, v.shallow_clone()], 2));
    for off in [apart, below] {
        assert!(off[0] < tolerance[0] && off[1..].iter().all(|&off| off < tolerance[1]), "{off:?}");
    }
    // Scores near fp32's largest number.
    let huge = Tensor::cat(&[Tensor::full([1, tokens, 2 * head], 4e18, (Kind::Double, Device::Cpu)), v], 2);
    let [output, _] = own(registers, &huge, 1, &gradient);
    assert!(output.isfinite().all().int64_value(&[]) == 1);
}

/// The keys that fill up the last lane have scores of 0, which are far above all others, and no part in anything.
#[test]
fn keys_that_are_not_there_have_no_gradient() {
    fn have_none<R: Registers>(registers: R) {
        for tokens in [1, 17, 31, 33] {
            let qkv = numbers(&[1, tokens, 3 * 16], 12.9898);
            let [q, k, v] = [0, 1, 2].map(|part| qkv.narrow(2, part * 16, 16));
            let qkv = Tensor::cat(&[q * 0.1 + 40.0, k * 0.1 - 40.0, v], 2);
            let [output, of_qkv] = own(registers, &qkv, 1, &numbers(&[1, tokens, 16], 0.7311));
            let finite = output.isfinite().all().int64_value(&[]) + of_qkv.isfinite().all().int64_value(&[]);
            assert_eq!(finite, 2, "{tokens} tokens");
        }
    }
    for_all!(have_none of f32);
    for_all!(have_none of Bf16);
}

#[test]
fn one_value_that_is_nan_spoils_what_depends_on_it() {
    for_all!(spoils_what_depends_on_it of f32);
    for_all!(spoils_what_depends_on_it of Bf16);
}

fn spoils_what_depends_on_it<R: Registers>(registers: R) {
    let (tokens, head) = (40, 16);
    let gradient = numbers(&[1, tokens, head], 0.7311);
    let of = |part: i64, token: i64| {
        let qkv = numbers(&[1, tokens, 3 * head], 12.9898);
        let _ = qkv.get(0).get(token).get(part * head + 3).fill_(f64::NAN);
        own(registers, &qkv, 1, &gradient)
    };
    for token in [0, 13, 39] {
        // A query: its own results, and the gradients of all keys and values.
        let [output, of_qkv] = of(0, token);
        let spoiled = output.isnan().all_dim(2, false).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(spoiled, 1);
        assert!(output.get(0).get(token).isnan().all().int64_value(&[]) == 1);
        assert!(of_qkv.narrow(2, head, 2 * head).isnan().all().int64_value(&[]) == 1);
        // A key: everybody's results and gradients.
        let [output, of_qkv] = of(1, token);
        assert!(output.isnan().all().int64_value(&[]) == 1 && of_qkv.isnan().all().int64_value(&[]) == 1);
        // A value: that value of everybody's, and the gradients of all scores, but not those of values.
        let [output, of_qkv] = of(2, token);
        assert!(output.narrow(2, 3, 1).isnan().all().int64_value(&[]) == 1);
        assert_eq!(output.isnan().sum(Kind::Int64).int64_value(&[]), tokens);
        assert!(of_qkv.narrow(2, 0, 2 * head).isnan().all().int64_value(&[]) == 1);
        assert!(of_qkv.narrow(2, 2 * head, head).isfinite().all().int64_value(&[]) == 1);
    }
}

/// Its weight is 0, and no query that is not there gives its value a gradient that is not.
#[test]
fn a_key_infinitely_far_has_no_part() {
    fn has_none<R: Registers>(registers: R) {
        for tokens in [3, 4, 9] {
            let qkv = numbers(&[1, tokens, 3 * 16], 12.9898).abs() + 0.1;
            let _ = qkv.get(0).get(0).get(16).fill_(f64::NEG_INFINITY);
            let [output, of_qkv] = own(registers, &qkv, 1, &numbers(&[1, tokens, 16], 0.7311));
            assert!(output.isfinite().all().int64_value(&[]) == 1, "{tokens} tokens");
            let of_value = of_qkv.get(0).get(0).narrow(0, 32, 16);
            assert_eq!(of_value.abs().sum(Kind::Float).double_value(&[]), 0.0, "{tokens} tokens");
        }
    }
    for_all!(has_none of f32);
    for_all!(has_none of Bf16);
}

/// A lone key's weight is 1 whatever its score; of two, one's is what its score makes of it.
#[test]
fn weights_are_exponentials_and_nan_is_not_lost() {
    fn are_exponentials<R: Registers>(registers: R) {
        let of = |x: f32| {
            let mut scores = vec![0; R::ROWS * R::COLUMNS];
            scores[R::COLUMNS..2 * R::COLUMNS].fill(x.to_bits());
            let mut weightings = vec![Weighting::default(); R::COLUMNS];
            registers.weigh(&mut scores, 2, 1.0, &mut weightings);
            let Weighting { greatest, factor } = weightings[R::COLUMNS - 1];
            assert!(greatest == 0.0 || x.is_nan(), "{greatest} of 0 and {x}");
            let word = scores[if R::PER_WORD == 1 { 2 } else { 1 } * R::COLUMNS - 1];
            (f32::from_bits(if R::PER_WORD == 1 { word } else { word & 0xffff_0000 }), factor)
        };
        let tolerance = if R::PER_WORD == 1 { 3e-7 } else { 4e-3 };
        for x in (0..100_000).map(|i| i as f32 * -0.001).chain([-0.5, -1e-30, -99.999, -100.0]) {
            let expected = f64::from(x).exp2();
            let (weight, factor) = of(x);
            assert!((f64::from(weight) - expected).abs() < tolerance * expected, "{x}: {weight}");
            assert!((f64::from(factor) - 1.0 / (1.0 + expected)).abs() < 5e-7, "{x}: {factor}");
        }
        assert_eq!([0.0, -1.0, -100.0].map(|x| of(x).0), [1.0, 0.5, 2.0_f32.powi(-100)]);
        assert_eq!([-100.001, -126.5, -300.0, -1e30, f32::NEG_INFINITY].map(|x| of(x).0), [0.0; 5]);
        let (weight, factor) = of(f32::NAN);
        assert!(weight.is_nan() && factor.is_nan());
    }
    for_all!(are_exponentials of f32);
    for_all!(are_exponentials of Bf16);
}
