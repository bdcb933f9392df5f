use dit_torch::differentiable;
use tch::{Device, Kind, Tensor};

use super::gelu::pull_back_gelu;
use crate::{
    cpu::Cpu,
    element::{Bf16, allocate, needs_gradient, values},
    factors::{Factor, Matrix},
    gemm::{self, Activation, Epilogue, Left, Panels},
    packed::{bias_values, on_word_boundary},
    parallel::Destination,
};

/// Fewest rows that are worth packing the weights for, which they are at every call.
const FEWEST_ROWS: usize = 32;

/// Bytes of results from which on they are written past the caches, where the next operator would not find them.
const PAST_CACHES: usize = 16 << 20;

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
    let recorded: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    let kept_x = on_word_boundary::<E>(x.detach().contiguous());
    let kept_weight = weight.detach().contiguous();
    let bends = needs_gradient(&recorded) && activation == Activation::GeluTanh;
    let (output, before) = forward::<E>(&kept_x, &kept_weight, bias, activation, bends);
    let backward = move |gradient: Tensor, wanted: &[bool]| {
        // Whatever has served is dropped: gradients of activations are what memory is full of.
        let gradient = {
            let given = on_word_boundary::<E>(gradient.contiguous());
            drop(gradient);
            match before {
                Some(before) => pull_back_gelu::<E>(&before, &given),
                None => given,
            }
        };
        let of_x = wanted[0].then(|| gradient_of_input::<E>(&gradient, &kept_weight).view_as(&kept_x));
        let wants_bias = wanted.get(2).copied().unwrap_or(false);
        let (of_weight, of_bias) = gradients_of_parameters::<E>(&gradient, &kept_x, wanted[1], wants_bias);
        let mut gradients = vec![of_x, of_weight, of_bias];
        gradients.truncate(wanted.len());
        gradients
    };
    Some(differentiable("Linear", &recorded, output, backward))
}

/// The result, and if it is to be kept, what the activation was applied to.
fn forward<E: Factor>(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    keep: bool,
) -> (Tensor, Option<Tensor>) {
    let (outputs, inputs) = (weight.size()[0] as usize, weight.size()[1] as usize);
    let right = Matrix { values: values::<E>(weight), columns: inputs }.turned_panels();
    let left = Matrix { values: values::<E>(x), columns: inputs };
    // A bias of another length has been refused.
    let bias = bias_values(bias, outputs).unwrap_or_default();
    let shape: Vec<i64> =
        x.size().split_last().map_or(&[][..], |(_, rows)| rows).iter().copied().chain([outputs as i64]).collect();
    let (result, start) = allocate::<E>(&shape);
    let before = keep.then(|| allocate::<E>(&shape));
    let epilogue = Epilogue {
        bias: &bias,
        activation,
        before: before.as_ref().map(|(_, start)| E::output(Destination::new(*start))),
        past_caches: result.numel() * size_of::<E>() >= PAST_CACHES,
        ..Epilogue::plain()
    };
    gemm::multiply(left.as_left(), right.as_right(), epilogue, E::output(Destination::new(start)));
    (result, before.map(|(tensor, _)| tensor))
}

/// dX = dY·W.
///
/// # Shapes
/// `gradient` (…, outputs), `weight` (outputs, inputs), both contiguous → (rows, inputs).
fn gradient_of_input<E: Factor>(gradient: &Tensor, weight: &Tensor) -> Tensor {
    let (outputs, inputs) = (weight.size()[0] as usize, weight.size()[1] as usize);
    let right = Matrix { values: values::<E>(weight), columns: inputs }.panels();
    let left = Matrix { values: values::<E>(gradient), columns: outputs };
    product::<E>(left.as_left(), right.as_right())
}

/// dW = dYᵀ·X, and the sums of dY's columns; of both what is wanted.
///
/// # Shapes
/// `gradient` (…, outputs), `x` (…, inputs), both contiguous → (outputs, inputs), (outputs).
fn gradients_of_parameters<E: Factor>(
    gradient: &Tensor,
    x: &Tensor,
    of_weight: bool,
    of_bias: bool,
) -> (Option<Tensor>, Option<Tensor>) {
    if !of_weight && !of_bias {
        return (None, None);
    }
    let last = |tensor: &Tensor| tensor.size().last().map_or(1, |&size| size as usize);
    let left = Matrix { values: values::<E>(gradient), columns: last(gradient) }.transposed(of_bias);
    let of_weight = of_weight.then(|| {
        let right = Matrix { values: values::<E>(x), columns: last(x) }.panels();
        product::<E>(left.as_left(), right.as_right())
    });
    (of_weight, of_bias.then(|| Tensor::from_slice(&left.sums).to_kind(E::KIND)))
}

/// (rows, columns).
fn product<E: Factor>(left: Left<'_>, right: Panels<'_>) -> Tensor {
    let (result, start) = allocate::<E>(&[left.rows as i64, right.columns as i64]);
    gemm::multiply(left, right, Epilogue::plain(), E::output(Destination::new(start)));
    result
}
