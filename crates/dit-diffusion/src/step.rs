use crate::{Error, NoiseSchedule, Result, StepIndex, Timestep};

/// A view of a [`NoiseSchedule`] on some of its timesteps, or on noise levels between them: the Markov chain that jumps straight
/// from one kept step to the next, with betas β′ᵢ = 1 − ᾱᵢ/ᾱᵢ₋₁ (Nichol & Dhariwal 2021, eq. 19).
#[derive(Clone, Debug, PartialEq)]
pub struct SampleSchedule {
    steps: Vec<Step>,
}

impl SampleSchedule {
    pub(crate) fn new(schedule: &NoiseSchedule, timesteps: &[Timestep]) -> Result<Self> {
        let mut levels = Vec::with_capacity(timesteps.len());
        for (position, &timestep) in timesteps.iter().enumerate() {
            let rises = levels.last().is_none_or(|&(before, _)| before < timestep);
            let Some(alpha_bar) = schedule.alpha_bar(timestep).filter(|_| rises) else {
                return Err(Error::KeptTimesteps { position, timestep, train_steps: schedule.num_steps() });
            };
            levels.push((timestep, alpha_bar));
        }
        Self::from_levels(&levels)
    }

    /// From noise levels ᾱ that fall strictly within (0, 1), each with the timestep the network is to be told.
    pub(crate) fn from_levels(kept_levels: &[(Timestep, f64)]) -> Result<Self> {
        if kept_levels.is_empty() {
            return Err(Error::EmptySchedule);
        }
        // ᾱ is multiplied up again from the new betas, as the original does: that moves it by roundings of one, below what fp32
        // can see, and where betas are near one it takes the same roundings to match.
        let mut levels: Vec<(Timestep, f64, f64)> = Vec::with_capacity(kept_levels.len());
        let (mut kept, mut product) = (1.0, 1.0);
        for (position, &(timestep, alpha_bar)) in kept_levels.iter().enumerate() {
            let beta = 1.0 - alpha_bar / kept;
            product *= 1.0 - beta;
            if product == 0.0 {
                return Err(Error::SignalVanishes { index: position });
            }
            kept = alpha_bar;
            levels.push((timestep, beta, product));
        }
        let mut steps: Vec<Step> = Vec::with_capacity(levels.len());
        let mut prev = 1.0;
        for (index, &(timestep, beta, alpha_bar)) in levels.iter().enumerate() {
            let next = levels.get(index + 1).map_or(0.0, |&(_, _, next)| next);
            steps.push(Step::new(StepIndex(index), timestep, beta, [prev, alpha_bar, next]));
            prev = alpha_bar;
        }
        // β̃₀ is zero; its logarithm is replaced by that of β̃₁ (Nichol & Dhariwal 2021), or of β₀ where nothing follows.
        let floor = steps.get(1).map(|one| one.posterior_variance).or(steps.first().map(|zero| zero.beta));
        if let (Some(floor), Some(first)) = (floor, steps.first_mut()) {
            first.posterior_log_variance = floor.ln();
            first.fixed_large_log_variance = floor.ln();
        }
        Ok(Self { steps })
    }

    /// The `steps` least noisy steps of it, with their coefficients as they are: the rest of a walk that begins at an intermediate
    /// level, as editing does.
    ///
    /// # Errors
    /// For none, or more than there are.
    pub fn least_noisy(&self, steps: usize) -> Result<Self> {
        match self.steps.get(..steps) {
            Some(kept) if steps > 0 => Ok(Self { steps: kept.to_vec() }),
            _ => Err(Error::StepOutOfRange { index: steps as i64 - 1, len: self.num_steps() }),
        }
    }

    /// The number of steps; at least 1.
    pub fn num_steps(&self) -> usize {
        self.steps.len()
    }

    /// All steps, from the least noisy.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// One step.
    ///
    /// # Errors
    /// Beyond the schedule.
    pub fn step(&self, index: StepIndex) -> Result<&Step> {
        self.steps.get(index.0).ok_or(Error::StepOutOfRange { index: index.0 as i64, len: self.num_steps() })
    }
}

/// One step i of a [`SampleSchedule`]: every coefficient a sampler or a loss asks for, in f64, and the [`Timestep`] the
/// network must see. "prev" is one step cleaner, "next" one step noisier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    index: StepIndex,
    timestep: Timestep,
    beta: f64,
    alpha_bar: f64,
    alpha_bar_prev: f64,
    alpha_bar_next: f64,
    posterior_variance: f64,
    posterior_log_variance: f64,
    fixed_large_log_variance: f64,
}

impl Step {
    fn new(index: StepIndex, timestep: Timestep, beta: f64, [prev, alpha_bar, next]: [f64; 3]) -> Self {
        let posterior_variance = beta * (1.0 - prev) / (1.0 - alpha_bar);
        Self {
            index,
            timestep,
            beta,
            alpha_bar,
            alpha_bar_prev: prev,
            alpha_bar_next: next,
            posterior_variance,
            posterior_log_variance: posterior_variance.ln(),
            fixed_large_log_variance: beta.ln(),
        }
    }

    /// Its position in the schedule.
    pub fn index(&self) -> StepIndex {
        self.index
    }

    /// What the network is told: the step's own, or the one nearest to a noise level between two of them.
    pub fn timestep(&self) -> Timestep {
        self.timestep
    }

    /// Whether this step ends in x₀: the last one of a denoising walk, which adds no noise.
    pub fn is_final(&self) -> bool {
        self.index == StepIndex(0)
    }

    /// βᵢ, the variance of the jump from step i − 1 to i.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// ᾱᵢ: the share of the signal's variance that is left.
    pub fn alpha_bar(&self) -> f64 {
        self.alpha_bar
    }

    /// ᾱᵢ₋₁; 1 at the final step.
    pub fn alpha_bar_prev(&self) -> f64 {
        self.alpha_bar_prev
    }

    /// √ᾱᵢ₋₁: the signal's scale where a denoising step ends.
    pub fn signal_prev(&self) -> f64 {
        self.alpha_bar_prev.sqrt()
    }

    /// √(1 − ᾱᵢ₋₁): the noise's scale there; 0 at the final step.
    pub fn noise_prev(&self) -> f64 {
        (1.0 - self.alpha_bar_prev).sqrt()
    }

    /// σ = √(1/ᾱᵢ₋₁ − 1) there; 0 at the final step.
    pub fn sigma_prev(&self) -> f64 {
        (1.0 / self.alpha_bar_prev - 1.0).sqrt()
    }

    /// λ = ½ ln(ᾱᵢ₋₁/(1 − ᾱᵢ₋₁)) there; infinite at the final step.
    pub fn lambda_prev(&self) -> f64 {
        0.5 * (self.alpha_bar_prev / (1.0 - self.alpha_bar_prev)).ln()
    }

    /// ᾱᵢ₊₁; 0 at the noisiest step.
    pub fn alpha_bar_next(&self) -> f64 {
        self.alpha_bar_next
    }

    /// √ᾱᵢ, the signal's scale: "α" of the DPM-Solver papers.
    pub fn signal(&self) -> f64 {
        self.alpha_bar.sqrt()
    }

    /// √(1 − ᾱᵢ), the noise's scale: "σ" of the DPM-Solver papers.
    pub fn noise(&self) -> f64 {
        (1.0 - self.alpha_bar).sqrt()
    }

    /// σ of Karras et al. 2022: noise over signal, √((1 − ᾱ)/ᾱ).
    pub fn sigma(&self) -> f64 {
        self.sqrt_recip_minus_one()
    }

    /// λ = ln(√ᾱ/√(1 − ᾱ)), half of the log signal-to-noise ratio: the time of DPM-Solver (Lu et al. 2022).
    pub fn lambda(&self) -> f64 {
        0.5 * self.log_snr()
    }

    /// ln(ᾱ/(1 − ᾱ)).
    pub fn log_snr(&self) -> f64 {
        (self.alpha_bar / (1.0 - self.alpha_bar)).ln()
    }

    /// √(1/ᾱ): the weight of x_t in x₀ = √(1/ᾱ) x_t − √(1/ᾱ − 1) ε.
    pub fn sqrt_recip(&self) -> f64 {
        (1.0 / self.alpha_bar).sqrt()
    }

    /// √(1/ᾱ − 1): the weight of ε there.
    pub fn sqrt_recip_minus_one(&self) -> f64 {
        (1.0 / self.alpha_bar - 1.0).sqrt()
    }

    /// The weight of x₀ in the mean of q(x_{t−1} | x_t, x₀). Ho et al. 2020, eq. 7.
    pub fn posterior_mean_x0(&self) -> f64 {
        self.beta * self.alpha_bar_prev.sqrt() / (1.0 - self.alpha_bar)
    }

    /// The weight of x_t there.
    pub fn posterior_mean_xt(&self) -> f64 {
        (1.0 - self.alpha_bar_prev) * (1.0 - self.beta).sqrt() / (1.0 - self.alpha_bar)
    }

    /// β̃ᵢ, the variance of q(x_{t−1} | x_t, x₀); 0 at the final step. Ho et al. 2020, eq. 7.
    pub fn posterior_variance(&self) -> f64 {
        self.posterior_variance
    }

    /// ln β̃ᵢ, where β̃₀ = 0 is replaced by β̃₁ (by β₀ in a schedule of one step): finite everywhere.
    pub fn posterior_log_variance(&self) -> f64 {
        self.posterior_log_variance
    }

    /// ln βᵢ: the upper end of the learned range.
    pub fn log_beta(&self) -> f64 {
        self.beta.ln()
    }

    /// The log-variance of [`Variance::FixedLarge`](crate::Variance::FixedLarge): ln βᵢ, but ln β̃₁ at the final step, which makes
    /// the likelihood there better (Ho et al. 2020, section 3.2).
    pub fn fixed_large_log_variance(&self) -> f64 {
        self.fixed_large_log_variance
    }
}
