//! The kernels' gradients against those of libtorch's plain operators in float64, over odd sizes.

use dit_ops::{Cpu, Kernels, Linear};
use tch::{Kind, Tensor};

mod support;
use support::{KINDS, distance, error, normal, tolerance};

/// Copies as leaves that ask for their gradients.
fn leaves(tensors: &[&Tensor], kind: Kind) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.detach().to_kind(kind).copy().set_requires_grad(true)).collect()
}

/// Result, then gradients of ⟨result, weights⟩.
fn gradients(inputs: &[Tensor], weights: &Tensor, f: impl Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let result = f(inputs);
    (&result * weights.to_kind(result.kind())).sum(Kind::Float).backward();
    [result.detach()].into_iter().chain(inputs.iter().map(Tensor::grad)).collect()
}

#[track_caller]
fn check(
    name: &str,
    kind: Kind,
    inputs: &[&Tensor],
    f: impl Fn(&[Tensor]) -> Tensor,
    exact: impl Fn(&[Tensor]) -> Tensor,
) {
    let rounded: Vec<Tensor> = inputs.iter().map(|input| input.to_kind(kind)).collect();
    let rounded: Vec<&Tensor> = rounded.iter().collect();
    let of_kind = |kind: Kind| leaves(&rounded, kind);
    let weights = normal(&exact(&of_kind(Kind::Double)).size(), 77).to_kind(kind);
    let expected = gradients(&of_kind(Kind::Double), &weights.to_kind(Kind::Double), &exact);
    let libtorch = gradients(&of_kind(kind), &weights, &exact);
    let ours = gradients(&of_kind(kind), &weights, f);
    for (place, ((ours, libtorch), expected)) in ours.iter().zip(&libtorch).zip(&expected).enumerate() {
        assert_eq!(ours.kind(), kind);
        let (off, theirs) = (error(ours, expected), error(libtorch, expected));
        // (On Arm libtorch itself is as far off as that in bf16.)
        assert!(off < (10.0 * tolerance(kind)).max(2.0 * theirs), "{name} {kind:?}: {place}: {off}");
        // No further off than libtorch's operators, give or take a rounding.
        let (off, theirs) = (distance(ours, expected), distance(libtorch, expected));
        let rounding = if kind == Kind::Float { 1e-6 } else { 2e-3 };
        assert!(off < 1.2 * theirs + rounding, "{name} {kind:?}: {place}: {off}, and {theirs} by libtorch's operators");
    }
}

#[test]
fn linears() {
    for kind in KINDS {
        for (rows, inputs, outputs) in [
            (&[32][..], 4, 2),
            (&[33], 8, 46),
            (&[2, 131], 36, 48),
            (&[70], 72, 50),
            (&[3, 5, 7], 128, 96),
            (&[1030], 20, 146),
            (&[2, 300], 384, 100),
            // Too few, or odd in bf16: libtorch's operators.
            (&[31], 24, 48),
            (&[70], 7, 9),
        ] {
            let x = normal(&[rows, &[inputs]].concat(), 1);
            let weight = normal(&[outputs, inputs], 2) / (inputs as f64).sqrt();
            let bias = normal(&[outputs], 3);
            let name = format!("{rows:?} {inputs} → {outputs}");
            let linear = |tensors: &[Tensor]| {
                let mut linear = Linear::new(tensors[1].shallow_clone(), tensors.get(2).map(Tensor::shallow_clone));
                linear.optimize(Kernels::Differentiable);
                linear
            };
            let plain = |tensors: &[Tensor]| tensors[0].linear(&tensors[1], tensors.get(2));
            check(&name, kind, &[&x, &weight, &bias], |all| linear(all).forward(&all[0]), plain);
            check(&name, kind, &[&x, &weight], |all| linear(all).forward(&all[0]), plain);
            let gelu = |tensors: &[Tensor]| plain(tensors).gelu("tanh");
            check(&name, kind, &[&x, &weight, &bias], |all| linear(all).forward_gelu(&all[0]), gelu);
        }
    }
}

#[test]
fn attention() {
    for kind in KINDS {
        // The last is odd.
        for [samples, tokens, heads, head] in [
            [1, 2, 1, 2],
            [2, 16, 3, 8],
            [1, 50, 2, 64],
            [2, 130, 2, 72],
            [1, 258, 1, 64],
            [1, 300, 1, 24],
            [1, 33, 2, 20],
        ] {
            let qkv = normal(&[samples, tokens, 3 * heads * head], 1) * 1.5;
            let name = format!("{samples} × {tokens}, {heads} heads of {head}");
            let attend = |kernels: Kernels| move |all: &[Tensor]| kernels.self_attention(&all[0], heads);
            check(&name, kind, &[&qkv], attend(Kernels::Differentiable), attend(Kernels::Plain));
        }
    }
}

#[test]
fn normalisation_and_gates() {
    for kind in KINDS {
        for [samples, tokens, width] in [[1, 1, 9], [2, 33, 48], [3, 64, 65], [1, 100, 31], [2, 7, 384]] {
            let (x, y) = (normal(&[samples, tokens, width], 1) * 3.0 + 0.5, normal(&[samples, tokens, width], 2));
            let (a, b) = (normal(&[samples, 1, width], 3), normal(&[samples, 1, width], 4));
            let name = format!("{samples} × {tokens} × {width}");
            let norm =
                |kernels: Kernels| move |all: &[Tensor]| kernels.layer_norm_modulate(&all[0], &all[1], &all[2], 1e-6);
            check(&name, kind, &[&x, &a, &b], norm(Kernels::Differentiable), norm(Kernels::Plain));
            let gate = |kernels: Kernels| move |all: &[Tensor]| kernels.add_gated(&all[0], &all[1], &all[2]);
            check(&name, kind, &[&x, &a, &y], gate(Kernels::Differentiable), gate(Kernels::Plain));
        }
    }
}

/// Between blocks fp32 is carried where all else is bf16.
#[test]
fn fp32_is_carried_past_bf16() {
    let x = normal(&[2, 40, 48], 1).to_kind(Kind::Float);
    let [shift, scale, gate] = [2, 3, 4].map(|seed| normal(&[2, 1, 48], seed).to_kind(Kind::BFloat16));
    let branch = |kernels: Kernels, all: &[Tensor]| {
        let y = kernels.layer_norm_modulate(&all[0], &all[1], &all[2], 1e-6);
        kernels.add_gated(&all[0], &all[3], &y)
    };
    let inputs = [&x, &shift, &scale, &gate];
    // The result, then the gradients of half of its squares' sum.
    let run = |kernels: Kernels, exact: bool| -> Vec<Tensor> {
        let kind = |tensor: &Tensor| if exact { Kind::Double } else { tensor.kind() };
        let leaves = inputs.map(|tensor| tensor.to_kind(kind(tensor)).copy().set_requires_grad(true));
        let result = branch(kernels, &leaves);
        (result.square() * 0.5).sum(Kind::Float).backward();
        [result.detach()].into_iter().chain(leaves.iter().map(Tensor::grad)).collect()
    };
    let (ours, libtorch, exact) =
        (run(Kernels::Differentiable, false), run(Kernels::Plain, false), run(Kernels::Plain, true));
    for (place, ((ours, libtorch), exact)) in ours.iter().zip(&libtorch).zip(&exact).enumerate() {
        assert_eq!(ours.kind(), libtorch.kind(), "{place}");
        let (off, theirs) = (error(ours, exact), error(libtorch, exact));
        assert!(off < 1.2 * theirs, "{place}: {off}, and {theirs} by libtorch's operators");
    }
}

/// Views, gradients that lie otherwise than results, and constants among the inputs.
#[test]
fn any_strides_and_any_of_the_inputs() {
    for kind in KINDS {
        let wide = normal(&[3, 96, 50], 1);
        let (rows, width) = (normal(&[3, 1, 96], 2), normal(&[96, 96], 3) / 10.0);
        // Of each operator, (N, T, D) turned in memory; the gradient comes back turned.
        let turned = |kernels: Kernels| {
            move |all: &[Tensor]| {
                let x = all[0].transpose(1, 2); // (3, 50, 96)
                let mut linear = Linear::new(all[2].transpose(0, 1), None);
                linear.optimize(kernels);
                let y = kernels.layer_norm_modulate(&x, &all[1], &all[1], 1e-6);
                let y = kernels.add_gated(&x, &all[1], &linear.forward(&y));
                (kernels.self_attention(&y, 2) + x.narrow(2, 0, 32)).transpose(1, 2)
            }
        };
        check("turned", kind, &[&wide, &rows, &width], turned(Kernels::Differentiable), turned(Kernels::Plain));
        let kernels = Kernels::Differentiable;
        let leaf = |tensor: &Tensor, asks: bool| tensor.to_kind(kind).copy().set_requires_grad(asks);
        let all = |asks: [bool; 3]| {
            let inputs =
                [(&wide, asks[0]), (&rows, asks[1]), (&width, asks[2])].map(|(tensor, asks)| leaf(tensor, asks));
            // A gradient of one number in every place.
            turned(kernels)(&inputs).sum(Kind::Float).backward();
            inputs.map(|input| input.grad())
        };
        let whole = all([true; 3]);
        for asked in 0..3 {
            let alone = all(std::array::from_fn(|place| place == asked));
            assert!(alone[asked].equal(&whole[asked]), "{kind:?}: {asked} alone");
            assert_eq!(alone.iter().filter(|gradient| gradient.defined()).count(), 1);
        }
    }
}

/// What is computed without a gradient is the same to the bit.
#[test]
fn values_do_not_depend_on_the_gradient_mode() {
    for kind in KINDS {
        let x = normal(&[3, 50, 48], 1).to_kind(kind).set_requires_grad(true);
        let rows = normal(&[3, 1, 48], 3).to_kind(kind);
        let mut linear = Linear::new(normal(&[48, 48], 2).to_kind(kind), None);
        linear.optimize(Kernels::Differentiable);
        let kernels = Kernels::Differentiable;
        let operators: [&dyn Fn() -> Tensor; 4] = [
            &|| linear.forward_gelu(&x),
            &|| kernels.self_attention(&x, 2),
            &|| kernels.layer_norm_modulate(&x, &rows, &rows, 1e-6),
            &|| kernels.add_gated(&x, &rows, &x),
        ];
        for (place, operator) in operators.iter().enumerate() {
            let (recorded, unrecorded) = (operator(), tch::no_grad(operator));
            assert!(recorded.requires_grad() && !unrecorded.requires_grad(), "{place}");
            assert!(recorded.detach().equal(&unrecorded), "{place}");
        }
    }
}

/// A run may go on with another number of threads.
#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    if cfg!(target_arch = "aarch64") && !Cpu::detect().neon {
        eprintln!(
            "SKIPPED: libtorch's own operators, which compute on Arm without NEON, sum in an order of their threads'"
        );
        return;
    }
    const THREADS: &str = "DIT_TEST_THREADS";
    let sum = |kind: Kind| {
        let x = normal(&[3, 50, 48], 1).to_kind(kind).set_requires_grad(true);
        let rows = normal(&[3, 1, 48], 3).to_kind(kind).set_requires_grad(true);
        let weight = normal(&[48, 48], 2).to_kind(kind).set_requires_grad(true);
        let mut linear = Linear::new(weight.shallow_clone(), None);
        linear.optimize(Kernels::Differentiable);
        let kernels = Kernels::Differentiable;
        let y = linear.forward_gelu(&kernels.layer_norm_modulate(&x, &rows, &rows, 1e-6));
        (kernels.self_attention(&kernels.add_gated(&x, &rows, &y), 2).square()).sum(Kind::Float).backward();
        [x, rows, weight].map(|leaf| Vec::<f32>::try_from(leaf.grad().to_kind(Kind::Float).flatten(0, -1)).unwrap())
    };
    // libtorch's number of threads holds for the process: another one computes with one.
    let bits = || -> Vec<u32> { KINDS.into_iter().flat_map(sum).flatten().map(f32::to_bits).collect() };
    let hash =
        |bits: Vec<u32>| bits.iter().fold(0_u64, |hash, &bits| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(bits));
    if std::env::var_os(THREADS).is_some() {
        tch::set_num_threads(1);
        println!("hash {}", hash(bits()));
        return;
    }
    let other = support::again::this_program()
        .args(["gradients_do_not_depend_on_the_number_of_threads", "--exact", "--nocapture"])
        .env(THREADS, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(other.stdout).unwrap();
    assert!(text.contains(&format!("hash {}\n", hash(bits()))), "{text}");
}

/// That what the other tests compare is our kernels.
#[test]
fn kernels_are_used_where_the_cpu_has_them() {
    let cpu = Cpu::detect();
    let x = normal(&[64, 1000], 1).to_kind(Kind::Float).set_requires_grad(true);
    let mut linear = Linear::new(normal(&[48, 1000], 2).to_kind(Kind::Float), None);
    linear.optimize(Kernels::Differentiable);
    // Not without GELU: sums may be of the same products in the same order.
    let plain = x.linear(&normal(&[48, 1000], 2).to_kind(Kind::Float), None::<Tensor>).gelu("tanh");
    let ours = linear.forward_gelu(&x);
    assert_eq!(ours.detach().equal(&plain.detach()), !(cpu.avx2 || cpu.avx512 || cpu.neon));
    let qkv = normal(&[1, 200, 3 * 64], 1).to_kind(Kind::Float).set_requires_grad(true);
    let [ours, plain] = [Kernels::Differentiable, Kernels::Plain].map(|kernels| kernels.self_attention(&qkv, 1));
    assert_eq!(ours.detach().equal(&plain.detach()), !(cpu.avx2 || cpu.avx512 || cpu.neon));
}

/// The kernels that wider ones take the place of, by running all of these tests again without those.
#[test]
fn without_wider_instructions_too() {
    support::again_without_wider_instructions();
}
