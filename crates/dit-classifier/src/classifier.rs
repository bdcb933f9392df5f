use dit_diffusion::{DenoiserError, LogProbGradient, Timestep, from_log_prob};
use dit_model::{Initialization, Trunk};
use tch::{
    Device, Kind, Tensor,
    nn::{self, Module},
};

use crate::{ClassifierSpec, Error};

/// log p(y | x_t) of scaled latents x at timestep t, as a network: fp32.
#[derive(Debug)]
pub struct Classifier {
    spec: ClassifierSpec,
    store: nn::VarStore,
    trunk: Trunk,
    norm: nn::LayerNorm,
    head: nn::Linear,
}

impl Classifier {
    /// A new classifier, trainable, whose weights follow from `seed`; its head is zero, so that every class is as probable.
    ///
    /// # Errors
    /// [`Error::Config`] for a geometry that no network has.
    pub fn new(spec: &ClassifierSpec, seed: u64, device: Device) -> Result<Self, Error> {
        Self::with(spec, Initialization::Reference { seed }, device)
    }

    pub(crate) fn with(spec: &ClassifierSpec, initialization: Initialization, device: Device) -> Result<Self, Error> {
        let trunk = spec.trunk()?;
        let store = nn::VarStore::new(device);
        let root = store.root();
        let zero = nn::LinearConfig { ws_init: nn::Init::Const(0.0), bs_init: Some(nn::Init::Const(0.0)), bias: true };
        let width = spec.hidden as i64;
        let norm = nn::LayerNormConfig { eps: 1e-6, ..Default::default() };
        Ok(Self {
            spec: spec.clone(),
            trunk: Trunk::new(&(&root / "trunk"), &trunk, initialization),
            norm: nn::layer_norm(&root / "norm", vec![width], norm),
            head: nn::linear(&root / "head", width, spec.num_classes as i64, zero),
            store,
        })
    }

    /// Logits.
    ///
    /// # Shapes
    /// `x` (N, C, H, W) scaled latents, `t` (N,) timesteps of the training schedule → (N, classes).
    pub fn forward(&self, x: &Tensor, t: &Tensor) -> Tensor {
        let tokens = self.trunk.forward(x, t); // (N, T, D)
        let pooled = tokens.mean_dim([1_i64].as_slice(), false, Kind::Float); // (N, D)
        self.head.forward(&self.norm.forward(&pooled)) // (N, classes)
    }

    /// ∇ₓ log p(y | x_t) for guidance; `labels` (N,) int64 are the y of each sample.
    pub fn towards(&self, labels: &Tensor) -> impl LogProbGradient + use<'_> {
        let labels = labels.to_device(self.device()).unsqueeze(1); // (N, 1)
        from_log_prob(move |x: &Tensor, t: Timestep| -> Result<Tensor, DenoiserError> {
            let t = Tensor::f_full([x.size()[0]], i64::from(t.0), (Kind::Int64, x.device()))?; // (N,)
            let log_probs = self.forward(x, &t).f_log_softmax(1, Kind::Float)?; // (N, classes)
            Ok(log_probs.f_gather(1, &labels, false)?.squeeze_dim(1)) // (N,)
        })
    }

    /// Its geometry.
    pub fn spec(&self) -> &ClassifierSpec {
        &self.spec
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// The number of its parameters.
    pub fn parameters(&self) -> u64 {
        self.store.variables().values().map(|variable| variable.numel() as u64).sum()
    }

    pub(crate) fn store(&self) -> &nn::VarStore {
        &self.store
    }

    pub(crate) fn store_mut(&mut self) -> &mut nn::VarStore {
        &mut self.store
    }
}
