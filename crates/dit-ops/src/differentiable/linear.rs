use dit_autograd::differentiable;
use tch::{Device, Kind, Tensor};

use super::gelu::pull_back_gelu;
use crate::{
    PackedLinear,
    cpu::Cpu,
    element::{Bf16, allocate, needs_gradient, values},
    factors::{Factor, Matrix},
    gemm::{self, Activation, Epilogue, Left, Output, Panels},
    packed::{as_words, on_word_boundary},
    parallel::Destination,
};

/// Fewest rows that are worth packing the weights for, which they are at every call.
const FEWEST_ROWS: usize = 32;

/// activation(x·Wᵀ + b). `None` where there is no kernel for it: other kinds, another device, another CPU, an odd number of bf16
/// inputs or outputs; and where there are few rows.
///
/// # Shapes
/// `x` (…, inputs), `weight` (outputs, inputs), `bias` (outputs) → (…, outputs).
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Option<Tensor> {
    match x.kind() {
        Kind::Float => of_kind::<f32>(x, weight, bias, activation),
        Kind::BFloat16 => of_kind::<Bf16>(x, weight, bias, activation),
        _ => None,
    }
}

fn of_kind<E: Factor>(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Option<Tensor> {
    let &[outputs, inputs] = weight.size().as_slice() else { return None };
    let known = |tensor: &Tensor| tensor.device() == Device::Cpu && tensor.kind() == E::KIND;
    let whole = |count: i64| count > 0 && (count as usize).is_multiple_of(E::WORDS.elements());
    let fits = known(x) && known(weight) && bias.is_none_or(|bias| known(bias) && bias.size() == [outputs]);
    let fits = fits && x.size().last() == Some(&inputs) && whole(inputs) && whole(outputs);
    if !fits || x.numel() < FEWEST_ROWS * inputs as usize || !E::WORDS.supported(Cpu::detect()) {
        return None;
    }
    let packed = PackedLinear::pack(weight, bias)?;
    let recorded: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    let kept_x = on_word_boundary::<E>(x.detach().contiguous());
    let bends = needs_gradient(&recorded) && activation == Activation::GeluTanh;
    let (output, before) = packed.forward_in_training(&kept_x, activation, bends);
    let kept_weight = weight.detach().contiguous();
    let backward = move |gradient: Tensor, wanted: &[bool]| {
        let gradient = on_word_boundary::<E>(gradient.contiguous());
        let gradient = match before {
            Some(before) => pull_back_gelu::<E>(&before, &gradient),
            None => gradient,
        };
        let of_x = wanted[0].then(|| gradient_of_input::<E>(&gradient, &kept_weight).view_as(&kept_x));
        let wants_bias = wanted.get(2).copied().unwrap_or(false);
        let (of_weight, of_bias) = match wanted[1] || wants_bias {
            true => gradients_of_parameters::<E>(&gradient, &kept_x, wants_bias),
            false => (None, None),
        };
        let mut gradients = vec![of_x, of_weight, of_bias];
        gradients.truncate(wanted.len());
        gradients
    };
    Some(differentiable("Linear", &recorded, output, backward))
}

/// dX = dY·W.
///
/// # Shapes
/// `gradient` (…, outputs), `weight` (outputs, inputs), both contiguous → (rows, inputs).
fn gradient_of_input<E: Factor>(gradient: &Tensor, weight: &Tensor) -> Tensor {
    let (outputs, inputs) = (weight.size()[0] as usize, weight.size()[1] as usize);
    let rows = gradient.numel() / outputs;
    let right = Matrix { values: values::<E>(weight), columns: inputs }.panels();
    let left = Left { words: as_words::<E>(gradient), rows, stride: outputs / E::WORDS.elements() };
    product::<E>(left, right.as_right(), rows, inputs)
}

/// dW = dYᵀ·X, and the sums of dY's columns where they are asked for.
///
/// # Shapes
/// `gradient` (…, outputs), `x` (…, inputs), both contiguous → (outputs, inputs), (outputs).
fn gradients_of_parameters<E: Factor>(gradient: &Tensor, x: &Tensor, sums: bool) -> (Option<Tensor>, Option<Tensor>) {
    let last = |tensor: &Tensor| tensor.size().last().map_or(1, |&size| size as usize);
    let (outputs, inputs) = (last(gradient), last(x));
    let left = Matrix { values: values::<E>(gradient), columns: outputs }.transposed(sums);
    let right = Matrix { values: values::<E>(x), columns: inputs }.panels();
    let of_weight = product::<E>(left.as_left(), right.as_right(), outputs, inputs);
    (Some(of_weight), sums.then(|| Tensor::from_slice(&left.sums).to_kind(E::KIND)))
}

/// (rows, columns).
fn product<E: Factor>(left: Left<'_>, right: Panels<'_>, rows: usize, columns: usize) -> Tensor {
    let (result, start) = allocate::<E>(&[rows as i64, columns as i64]);
    let epilogue = Epilogue { dequantize: None, bias: &[], activation: Activation::Identity, before: None, past_caches: false };
    let output: Output = E::output(Destination::new(start));
    gemm::multiply(left, right, epilogue, output);
    result
}
