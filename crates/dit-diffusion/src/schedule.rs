use dit_config::{NoiseScheduleKind, Process};

use crate::{Error, Result, SampleSchedule, Spacing, Timestep};

/// The most training steps a schedule may have; a bound on memory, far above any use.
const MAX_STEPS: usize = 1_000_000;

/// The forward process that a network was trained on: β₀ … β_{T−1} and ᾱ_t = ∏ (1 − β_s).
///
/// Invariants, proved by every constructor: 1 ≤ T; each β lies in (0, 1); ᾱ falls strictly and stays positive. So 1 − ᾱ,
/// every ratio ᾱ_t/ᾱ_s and every logarithm that samplers take is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f64>,
    alpha_bars: Vec<f64>,
}

impl NoiseSchedule {
    /// The schedule of a described process.
    ///
    /// # Errors
    /// For numbers of steps that its kind cannot have.
    pub fn of(process: &Process) -> Result<Self> {
        match process.schedule {
            NoiseScheduleKind::Linear => Self::linear(process.steps),
            NoiseScheduleKind::Cosine => Self::cosine(process.steps),
        }
    }

    /// The linear schedule of Ho et al. 2020, from 10⁻⁴ to 0.02 at 1000 steps, scaled by 1000/T for other lengths. DiT's own.
    ///
    /// # Errors
    /// For zero steps, and for 2 to 20 steps, whose last beta would reach 1.
    pub fn linear(steps: usize) -> Result<Self> {
        check_len(steps)?;
        let scale = 1000.0 / steps as f64;
        let (first, last) = (1e-4 * scale, 0.02 * scale);
        if steps == 1 {
            return Self::from_betas(vec![first]);
        }
        if last >= 1.0 {
            return Err(Error::LinearTooShort { steps, last });
        }
        let stride = (last - first) / (steps - 1) as f64;
        let mut betas: Vec<f64> = (0..steps).map(|i| first + stride * i as f64).collect();
        // The end point is exact, whatever the stride was rounded to.
        if let Some(end) = betas.last_mut() {
            *end = last;
        }
        Self::from_betas(betas)
    }

    /// The cosine schedule: ᾱ(u) = cos²((u + 0.008)/1.008 · π/2), betas capped at 0.999. Nichol & Dhariwal 2021, eq. 17.
    ///
    /// # Errors
    /// For zero steps.
    pub fn cosine(steps: usize) -> Result<Self> {
        check_len(steps)?;
        let alpha_bar = |u: f64| ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        let at = |i: usize| alpha_bar(i as f64 / steps as f64);
        Self::from_betas((0..steps).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999)).collect())
    }

    /// A schedule of any betas.
    ///
    /// # Errors
    /// When the betas break an invariant of the type; the message names the first that does.
    pub fn from_betas(betas: Vec<f64>) -> Result<Self> {
        check_len(betas.len())?;
        let mut alpha_bars = Vec::with_capacity(betas.len());
        let mut product = 1.0;
        for (index, &beta) in betas.iter().enumerate() {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(Error::Beta { index, beta });
            }
            let next = product * (1.0 - beta);
            if next == 0.0 {
                return Err(Error::SignalVanishes { index });
            }
            if next >= product {
                return Err(Error::Beta { index, beta }); // a beta below the rounding of 1
            }
            product = next;
            alpha_bars.push(product);
        }
        Ok(Self { betas, alpha_bars })
    }

    /// T, the number of training steps; at least 1.
    pub fn num_steps(&self) -> usize {
        self.betas.len()
    }

    /// β_t for every t.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱ_t for every t, falling.
    pub fn alpha_bars(&self) -> &[f64] {
        &self.alpha_bars
    }

    /// ᾱ at one timestep; `None` beyond the schedule.
    pub fn alpha_bar(&self, t: Timestep) -> Option<f64> {
        self.alpha_bars.get(t.0 as usize).copied()
    }

    /// The view of this schedule that keeps only the timesteps, or noise levels, of `spacing`.
    ///
    /// # Errors
    /// When the spacing does not fit this many training steps.
    pub fn respaced(&self, spacing: &Spacing) -> Result<SampleSchedule> {
        SampleSchedule::from_levels(&spacing.levels(self)?)
    }

    /// The timestep whose noise level is nearest to this σ = √((1 − ᾱ)/ᾱ): ln σ is interpolated between timesteps, and the
    /// fractional timestep where it is met is rounded half to even. Beyond the schedule, its first or last; for NaN and negative numbers the first.
    pub fn nearest(&self, sigma: f64) -> Timestep {
        let above = self.alpha_bars.partition_point(|&alpha_bar| sigma_of(alpha_bar) < sigma);
        let last = self.num_steps() - 1; // there is one step at least
        let nearest = match above {
            0 => 0,
            _ if above > last => last,
            _ => {
                let (low, high) = (self.sigma(above - 1).ln(), self.sigma(above).ln());
                let fraction = (sigma.ln() - low) / (high - low);
                // Half to even of the whole timestep, not of its fraction.
                ((above - 1) as f64 + fraction).round_ties_even() as usize
            }
        };
        Timestep(nearest as u32) // schedules are far shorter than 2³²
    }

    /// σ_t; `t` is one of the schedule's.
    pub(crate) fn sigma(&self, t: usize) -> f64 {
        self.alpha_bars.get(t).map_or(f64::INFINITY, |&alpha_bar| sigma_of(alpha_bar))
    }

    /// The view that keeps exactly these timesteps, for spacings of the caller's own.
    ///
    /// # Errors
    /// When the list is empty, does not rise strictly, or leaves the schedule.
    pub fn keeping(&self, timesteps: &[Timestep]) -> Result<SampleSchedule> {
        SampleSchedule::new(self, timesteps)
    }
}

/// σ of Karras et al. 2022: noise over signal.
fn sigma_of(alpha_bar: f64) -> f64 {
    (1.0 / alpha_bar - 1.0).sqrt()
}

fn check_len(steps: usize) -> Result<()> {
    match steps {
        0 => Err(Error::EmptySchedule),
        1..=MAX_STEPS => Ok(()),
        _ => Err(Error::ScheduleTooLong { steps, max: MAX_STEPS }),
    }
}
