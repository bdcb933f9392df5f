use std::sync::Arc;

use dit_torch::grad_is_enabled;
use tch::{Kind, Tensor};

use crate::{
    Kernels, PackedLinear, StoredWeight, differentiable,
    element::needs_gradient,
    gelu_epilogue::GeluEpilogue,
    gemm::{Activation, Words},
    observe,
    packed::words_of,
    pointwise::Pointwise,
};

/// A Linear, x·Wᵀ + b, that can be handed over to faster kernels: in training to ones that give gradients, once its weights no longer
/// change to the fastest.
#[derive(Debug)]
pub struct Linear {
    form: Form,
    sensitive: bool,
    /// Before it was given a form that gives none.
    wanted_gradients: bool,
    name: Option<Arc<str>>,
}

#[derive(Debug)]
enum Form {
    /// As given: trainable, on any device.
    Plain { weight: Tensor, bias: Option<Tensor> },
    /// The same tensors, packed at every call by the kernels of this crate, which give gradients.
    Differentiable { weight: Tensor, bias: Option<Tensor> },
    /// The same tensors, computed with by oneDNN.
    Pointwise { weight: Tensor, bias: Option<Tensor>, pointwise: Pointwise },
    /// The same tensors, on a GPU whose products end with the bias and GELU.
    GeluEpilogue { weight: Tensor, bias: Tensor, epilogue: GeluEpilogue },
    /// By the kernels of this crate.
    Packed(Box<PackedLinear>),
}

impl Linear {
    /// By libtorch's operators.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), `bias` (outputs).
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { form: Form::Plain { weight, bias }, sensitive: false, wanted_gradients: false, name: None }
    }

    /// What [`observe_linears`](crate::observe_linears) is to call it: what its tensors' names begin with, say.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A Linear that 8 bits would harm: it is computed by [`Kernels::sensitive`] of whatever kernels are chosen.
    #[must_use]
    pub fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    /// What [`optimize`](Self::optimize) makes of a `weight` of `kind`, straight from where it is stored: rounded to `kind` and
    /// packed in one pass, to the same bits, with no tensor in between. Also tells how many values are NaN or infinite; the
    /// Linear is of no use if there are any. `None` where it would not be packed, or `bias` is of another shape: see there, and go that way.
    ///
    /// # Shapes
    /// `bias` (outputs).
    pub fn of_stored(
        weight: StoredWeight<'_>,
        bias: Option<&Tensor>,
        kind: Kind,
        kernels: Kernels,
    ) -> Option<(Self, usize)> {
        let (packed, non_finite) = PackedLinear::of_stored(weight, bias, kind, words(kernels, kind)?)?;
        Some((
            Self { form: Form::Packed(Box::new(packed)), sensitive: false, wanted_gradients: false, name: None },
            non_finite,
        ))
    }

    /// Gives the weights the form that `kernels` are fastest with on this machine; one that has none, for its kind or device say, stays as
    /// it is. With [`Kernels::Plain`] and [`Kernels::Differentiable`] they stay the tensors that were given, and may change; with the
    /// others they must not any more, and there is no way back. With [`Kernels::Int8`] they are rounded.
    ///
    /// A packed form replaces the tensors: memory grows only while one Linear is packed. Which form it is:
    /// - this crate's kernels where the CPU has AVX2, AVX-512 or NEON, with AMX and Arm's matrix instructions if it has those;
    /// - else oneDNN's, where libtorch has them;
    /// - on a GPU libtorch's products, with GELU in their epilogue;
    /// - else, on a Mac say, libtorch's plain Linear.
    pub fn optimize(&mut self, kernels: Kernels) {
        let (Form::Plain { weight, bias } | Form::Differentiable { weight, bias }) = &self.form else { return };
        let bias = bias.as_ref();
        let kernels = if self.sensitive { kernels.sensitive() } else { kernels };
        match kernels {
            Kernels::Plain | Kernels::Differentiable => {
                let (weight, bias) = (weight.shallow_clone(), bias.map(Tensor::shallow_clone));
                self.form = match kernels {
                    Kernels::Plain => Form::Plain { weight, bias },
                    _ => Form::Differentiable { weight, bias },
                };
                return;
            }
            Kernels::Fused | Kernels::Int8 => {}
        }
        let wants_gradients = weight.requires_grad() || bias.is_some_and(Tensor::requires_grad);
        let packed = match words(kernels, weight.kind()) {
            Some(Words::Int8) => PackedLinear::quantize(weight, bias),
            Some(_) => PackedLinear::pack(weight, bias),
            None => None,
        };
        if let Some(packed) = packed {
            self.form = Form::Packed(Box::new(packed));
        } else if let Some(pointwise) = Pointwise::get().filter(|_| Pointwise::accepts(weight)) {
            let (weight, bias) = (weight.detach(), bias.map(Tensor::detach));
            self.form = Form::Pointwise { weight, bias, pointwise };
        } else if let (true, Some(bias), Some(epilogue)) = (GeluEpilogue::suits(weight), bias, GeluEpilogue::of_cuda())
        {
            self.form = Form::GeluEpilogue { weight: weight.detach(), bias: bias.detach(), epilogue };
        } else {
            return;
        }
        self.wanted_gradients = wants_gradients;
    }

    /// Whether gradients are recorded that it would not give: its weights wanted them before [`optimize`](Self::optimize) gave it a form for
    /// inference.
    pub fn loses_gradients(&self) -> bool {
        self.wanted_gradients && grad_is_enabled()
    }

    /// Kind of the weights, and of the activations that it takes and gives.
    pub fn kind(&self) -> Kind {
        match &self.form {
            Form::Plain { weight, .. }
            | Form::Differentiable { weight, .. }
            | Form::Pointwise { weight, .. }
            | Form::GeluEpilogue { weight, .. } => weight.kind(),
            Form::Packed(packed) => packed.kind(),
        }
    }

    /// # Shapes
    /// (…, inputs) → (…, outputs).
    ///
    /// # Panics
    /// If it [loses gradients](Self::loses_gradients).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.apply(x, Activation::Identity)
    }

    /// [`forward`](Self::forward), then GELU in its tanh form.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_gelu(&self, x: &Tensor) -> Tensor {
        self.apply(x, Activation::GeluTanh)
    }

    fn apply(&self, x: &Tensor, activation: Activation) -> Tensor {
        assert!(
            !self.loses_gradients(),
            "a gradient is wanted of weights that were packed for inference, which give none; train with other kernels, or compute under no_grad"
        );
        let y = self.compute(x, activation);
        observe::tell(self.name.as_ref(), x, &y);
        y
    }

    fn compute(&self, x: &Tensor, activation: Activation) -> Tensor {
        match &self.form {
            Form::Plain { weight, bias } => plain(x, weight, bias.as_ref(), activation),
            Form::Differentiable { weight, bias } => differentiable::linear(x, weight, bias.as_ref(), activation)
                .unwrap_or_else(|| plain(x, weight, bias.as_ref(), activation)),
            // The weights are constant, but the input may be asked for its gradient.
            Form::Packed(packed) if needs_gradient(&[x]) || x.numel() == 0 => {
                let (weight, bias) = packed.unpack();
                plain(x, &weight, bias.as_ref(), activation)
            }
            Form::Packed(packed) => match activation {
                Activation::Identity => packed.forward(x),
                Activation::GeluTanh => packed.forward_gelu(x),
            },
            Form::GeluEpilogue { weight, bias, epilogue } => {
                let usable = activation == Activation::GeluTanh && !needs_gradient(&[x]) && x.numel() > 0;
                let fused = usable.then(|| epilogue.linear(x, weight, bias)).flatten();
                fused.unwrap_or_else(|| plain(x, weight, Some(bias), activation))
            }
            Form::Pointwise { weight, bias, pointwise } => {
                let usable = !needs_gradient(&[x]) && Pointwise::accepts(x);
                let fused = usable.then(|| pointwise.linear(x, weight, bias.as_ref(), activation));
                match fused {
                    Some(Ok(result)) => result,
                    _ => plain(x, weight, bias.as_ref(), activation),
                }
            }
        }
    }
}

/// What words of weights of `kind` hold if this crate's kernels are the fastest for them.
fn words(kernels: Kernels, kind: Kind) -> Option<Words> {
    match kernels {
        Kernels::Plain | Kernels::Differentiable => None,
        Kernels::Fused => words_of(kind),
        Kernels::Int8 => Some(Words::Int8),
    }
}

fn plain(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Tensor {
    // The same with a gradient and without: what is computed again for its gradient must be what was computed before.
    let y = match suits_convolution(x) {
        true => as_convolution(x, weight, bias),
        false => x.linear(weight, bias),
    };
    match activation {
        Activation::Identity => y,
        Activation::GeluTanh => y.gelu("tanh"),
    }
}

/// Fewest rows for which [`as_convolution`] is taken: below, setting a convolution up would show.
const CONVOLUTION_ROWS: i64 = 256;

/// Whether `x` is a batch of sequences large enough for [`as_convolution`], and libtorch has oneDNN (its Linears come with its
/// convolutions).
fn suits_convolution(x: &Tensor) -> bool {
    let rows: i64 = x.size().iter().rev().skip(1).product();
    x.dim() == 3 && rows >= CONVOLUTION_ROWS && x.is_contiguous() && Pointwise::accepts(x) && Pointwise::get().is_some()
}

/// A Linear as the convolution of one pixel that it is, over a picture with a row of T pixels: oneDNN computes it, and both of
/// its gradients, at twice the rate of libtorch's fp32 Linear on CPUs that are not Intel's, and somewhat faster in bf16.
///
/// # Shapes
/// `x` (N, T, inputs), contiguous → (N, T, outputs).
fn as_convolution(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let pixels = x.transpose(1, 2).unsqueeze(2); // (N, inputs, 1, T), channels last in memory
    let kernel = weight.unsqueeze(-1).unsqueeze(-1); // (outputs, inputs, 1, 1)
    let (stride, padding, dilation, groups) = (1, 0, 1, 1);
    let y = pixels.conv2d(&kernel, bias, stride, padding, dilation, groups); // (N, outputs, 1, T)
    y.squeeze_dim(2).transpose(1, 2) // (N, T, outputs)
}
