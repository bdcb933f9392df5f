//! Convolution, batch normalisation and ReLU as one operation.

use dit_weights::TensorSource;
use tch::{Device, Kind, Tensor};

use super::pointwise;
use crate::Error;
use crate::features::read_to;

/// Of every batch normalisation in the network.
const NORM_EPSILON: f64 = 1e-3;

/// A window over rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Rows and columns.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: i64,
    pub(crate) padding: [i64; 2],
}

impl Window {
    pub(crate) fn new(inputs: usize, outputs: usize, kernel: [usize; 2]) -> Self {
        Self { inputs, outputs, kernel, stride: 1, padding: [0, 0] }
    }

    /// As large a result as the input.
    pub(crate) fn same(self) -> Self {
        Self { padding: self.kernel.map(|side| (side / 2) as i64), ..self }
    }

    pub(crate) fn strided(self) -> Self {
        Self { stride: 2, ..self }
    }
}

/// A convolution whose batch normalisation is folded into its weights, followed by ReLU.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// (outputs, inputs, rows, columns), channels last in memory.
    weight: Tensor,
    bias: Tensor,
    stride: [i64; 2],
    padding: [i64; 2],
}

impl Convolution {
    /// Reads `NAME.conv.weight` and `NAME.bn.*`; the fold is done in f64.
    pub(crate) fn read(source: &dyn TensorSource, name: &str, window: Window, device: Device) -> Result<Self, Error> {
        let read = |part: &str| read_to(source, &format!("{name}.{part}"), Kind::Double, Device::Cpu);
        let scale = read("bn.weight")? / (read("bn.running_var")? + NORM_EPSILON).f_sqrt()?;
        let bias = read("bn.bias")? - read("bn.running_mean")? * &scale;
        let weight = read("conv.weight")? * scale.f_view([-1, 1, 1, 1])?;
        let place =
            |tensor: Tensor| -> Result<Tensor, Error> { Ok(tensor.f_to_kind(Kind::Float)?.f_to_device(device)?) };
        Ok(Self {
            weight: channels_last(&place(weight)?)?,
            bias: place(bias)?,
            stride: [window.stride; 2],
            padding: window.padding,
        })
    }

    /// relu(conv(x)): (N, inputs, H, W) → (N, outputs, H′, W′).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let Self { weight, bias, stride, padding } = self;
        match pointwise::convolution_relu(x, weight, bias, *stride, *padding)? {
            Some(y) => Ok(y),
            None => Ok(self.linear(x)?.f_relu_()?),
        }
    }

    /// conv(x), without the ReLU.
    pub(crate) fn linear(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.f_conv2d(&self.weight, Some(&self.bias), self.stride, self.padding, [1, 1], 1)?)
    }
}

/// The same tensor with its channels next to each other in memory, which convolutions on a CPU read fastest.
pub(crate) fn channels_last(x: &Tensor) -> Result<Tensor, Error> {
    Ok(x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}
