use tch::{Kind, Tensor};

use crate::{
    ClipX0, Coefficients, Error, Parameterization, Prediction, Result, StepIndex, StepTables,
    likelihood::{decoder_nll, gaussian_kl, per_sample},
    parameterization::{Range, check_floating, check_latents},
};

/// A training batch after the forward process: every sample noised to a step of its own.
#[derive(Debug)]
pub struct NoisedBatch {
    x0: Tensor,
    noise: Tensor,
    x_t: Tensor,
    timesteps: Tensor,
    at_final_step: Tensor,
    at: Coefficients,
    num_steps: usize,
}

impl NoisedBatch {
    /// x_t = √ᾱ x₀ + √(1 − ᾱ) ε, each sample at its own step. Ho et al. 2020, eq. 4. NaN and infinity in either are not looked for:
    /// they go through into x_t and the loss.
    ///
    /// # Shapes
    /// `x0` and `noise` (N, C, H, W), any floating kind; N `indices`.
    ///
    /// # Errors
    /// When the shapes disagree, a tensor is not floating point, or an index is beyond the schedule.
    pub fn new(tables: &StepTables, x0: &Tensor, noise: &Tensor, indices: &[StepIndex]) -> Result<Self> {
        Self::gather(tables, x0, noise, &tables.indices(indices)?)
    }

    /// The same with the indices in a tensor: (N), int64. Its extremes are checked, so this waits for the device.
    ///
    /// # Errors
    /// As [`NoisedBatch::new`], and when the tensor is not (N) int64.
    pub fn from_indices(tables: &StepTables, x0: &Tensor, noise: &Tensor, indices: &Tensor) -> Result<Self> {
        Self::gather(tables, x0, noise, &tables.checked(indices)?)
    }

    fn gather(tables: &StepTables, x0: &Tensor, noise: &Tensor, indices: &Tensor) -> Result<Self> {
        let (batch, ..) = check_latents("x0", x0)?;
        check_floating("x0", x0)?;
        check_floating("the noise", noise)?;
        if noise.size() != x0.size() {
            return Err(Error::Shape {
                what: "the noise",
                expected: format!("{:?}, as x0", x0.size()),
                found: noise.size(),
            });
        }
        if indices.size() != [batch] {
            let expected = format!("[{batch}], one for each sample of x0");
            return Err(Error::Shape { what: "the step indices", expected, found: indices.size() });
        }
        let at = tables.gather(indices);
        Ok(Self {
            x0: x0.shallow_clone(),
            noise: noise.shallow_clone(),
            x_t: at.q_sample(x0, noise),
            timesteps: tables.timesteps(indices),
            at_final_step: indices.eq(0),
            at,
            num_steps: tables.num_steps(),
        })
    }

    /// The noised samples, the network's input: (N, C, H, W).
    pub fn x_t(&self) -> &Tensor {
        &self.x_t
    }

    /// The timesteps the network must see: (N), int64.
    pub fn timesteps(&self) -> &Tensor {
        &self.timesteps
    }
}

/// Which loss is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossKind {
    /// Squared error of the mean's target, plus the variational bound where the variance is learned; the bound trains the
    /// variance alone. DiT's own.
    Mse,
    /// The same with the bound weighted by S/1000, S the number of steps. Nichol & Dhariwal 2021, L_hybrid.
    RescaledMse,
    /// The variational bound alone, training mean and variance.
    Kl,
    /// The same times S, the number of steps: an estimate of the whole bound rather than of one of its terms.
    RescaledKl,
}

/// What is minimised, for networks of one parameterization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Objective {
    /// How the network's output is read.
    pub parameterization: Parameterization,
    /// Which loss is taken of it.
    pub kind: LossKind,
}

/// The loss of each sample; average `total` over the batch to train. All (N), with gradients into the network's output.
#[derive(Debug)]
pub struct LossTerms {
    /// Squared error of the mean's target, averaged over the elements; absent from the KL losses.
    pub mse: Option<Tensor>,
    /// The term of the variational bound at this step, in bits per element, as weighted in `total`; absent from the squared
    /// errors with fixed variance.
    pub vlb: Option<Tensor>,
    /// The sum of those present.
    pub total: Tensor,
}

impl Objective {
    /// What DiT was trained with.
    pub const DIT: Self = Self { parameterization: Parameterization::DIT, kind: LossKind::Mse };

    /// The loss of `output`, which the network gave for the batch's `x_t` at its `timesteps`. Taken in fp32 or better,
    /// whatever the network computed in. Nothing is clipped, and NaN goes through into the loss: whoever trains looks at that.
    ///
    /// # Shapes
    /// `output` (N, C, H, W), or (N, 2C, H, W) with learned variance.
    ///
    /// # Errors
    /// When the output has another shape, or is not floating point.
    pub fn terms(self, batch: &NoisedBatch, output: &Tensor) -> Result<LossTerms> {
        check_floating("the network's output", output)?;
        let output = match output.kind() {
            Kind::Double => output.shallow_clone(),
            _ => output.to_kind(Kind::Float),
        };
        let steps = batch.num_steps as f64;
        match self.kind {
            LossKind::Mse => self.squared_error(batch, &output, 1.0),
            LossKind::RescaledMse => self.squared_error(batch, &output, steps / 1000.0),
            LossKind::Kl => self.bound(batch, &output, 1.0),
            LossKind::RescaledKl => self.bound(batch, &output, steps),
        }
    }

    fn squared_error(self, batch: &NoisedBatch, output: &Tensor, vlb_weight: f64) -> Result<LossTerms> {
        let (estimate, range) = self.parameterization.split(output, &batch.x_t)?;
        let target = self.parameterization.target(&batch.x0, &batch.noise, &batch.at);
        let mse = per_sample(&(target - &estimate).square()); // (N)
        match range {
            Range::FixedSmall | Range::FixedLarge => {
                Ok(LossTerms { total: mse.shallow_clone(), mse: Some(mse), vlb: None })
            }
            Range::Learned(range) => {
                // The bound must not pull at the mean, which the squared error trains better: Nichol & Dhariwal 2021, 3.1.
                let frozen = Tensor::cat(&[estimate.detach(), range], 1);
                let vlb = vlb_weight * self.vlb(batch, &frozen)?;
                Ok(LossTerms { total: &mse + &vlb, mse: Some(mse), vlb: Some(vlb) })
            }
        }
    }

    fn bound(self, batch: &NoisedBatch, output: &Tensor, weight: f64) -> Result<LossTerms> {
        let vlb = weight * self.vlb(batch, output)?;
        Ok(LossTerms { total: vlb.shallow_clone(), mse: None, vlb: Some(vlb) })
    }

    /// One term of the variational bound, in bits per element: KL(q(x_{t−1} | x_t, x₀) ‖ p(x_{t−1} | x_t)), or −log p(x₀ | x₁)
    /// at the final step. Ho et al. 2020, eq. 5. (N)
    fn vlb(self, batch: &NoisedBatch, output: &Tensor) -> Result<Tensor> {
        let NoisedBatch { x0, x_t, at, .. } = batch;
        let Prediction { mean, log_variance, .. } = self.parameterization.interpret(output, x_t, at, ClipX0::No)?;
        let kl = gaussian_kl(&at.posterior_mean(x0, x_t), &at.posterior_log_variance, &mean, &log_variance);
        let nll = decoder_nll(x0, &mean, &log_variance);
        Ok(nll.where_self(&batch.at_final_step, &kl))
    }
}
