//! The network with its batch normalisations.

use tch::{
    Kind, Tensor,
    nn::{self, ModuleT},
};

use super::super::demo::{Convolution, LAYERS, WIDTH};
use crate::Error;

/// Of batch normalisation.
const NORM_EPSILON: f64 = 1e-5;

/// The classifier while it is trained.
pub(super) struct Trainee {
    convolutions: Vec<(nn::Conv2D, nn::BatchNorm)>,
    pub(super) head: nn::Linear,
}

impl Trainee {
    pub(super) fn new(path: &nn::Path, classes: usize) -> Self {
        let layer = |(index, &(inputs, outputs, stride)): (usize, &(i64, i64, i64))| {
            let path = path / index;
            let config = nn::ConvConfig { stride, padding: 1, bias: false, ..Default::default() };
            let norm = nn::BatchNormConfig { eps: NORM_EPSILON, ..Default::default() };
            (nn::conv2d(&path / "conv", inputs, outputs, 3, config), nn::batch_norm2d(&path / "norm", outputs, norm))
        };
        let convolutions = LAYERS.iter().enumerate().map(layer).collect();
        Self { convolutions, head: nn::linear(path / "head", WIDTH as i64, classes as i64, Default::default()) }
    }

    /// (N, 1, 32, 32) → (N, classes).
    pub(super) fn forward(&self, pictures: &Tensor, train: bool) -> Tensor {
        let mut x = pictures.shallow_clone();
        for (convolution, norm) in &self.convolutions {
            x = norm.forward_t(&x.apply(convolution), train).relu();
        }
        x.mean_dim(&[2i64, 3][..], false, Kind::Float).apply(&self.head)
    }

    /// The convolutions with the normalisation of their outputs folded in.
    pub(super) fn folded(&self) -> Result<Vec<Convolution>, Error> {
        let _guard = tch::no_grad_guard();
        let fold = |((convolution, norm), &(_, _, stride)): (&(nn::Conv2D, nn::BatchNorm), &(i64, i64, i64))| {
            let parts = (norm.ws.as_ref(), norm.bs.as_ref());
            let (Some(gain), Some(shift)) = parts else { return Err(Error::NotAffine) };
            let scale = gain / (&norm.running_var + NORM_EPSILON).sqrt();
            let bias = shift - &norm.running_mean * &scale;
            let weight = &convolution.ws * scale.view([-1, 1, 1, 1]);
            Ok(Convolution { weight, bias, stride })
        };
        self.convolutions.iter().zip(&LAYERS).map(fold).collect()
    }
}
