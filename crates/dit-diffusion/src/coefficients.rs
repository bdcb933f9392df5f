use tch::{Device, Kind, Tensor};

use crate::{Error, Result, SampleSchedule, Step, StepIndex, noise::moved};

const COUNT: usize = 9;

/// The order of the rows of [`StepTables`], and of the fields of [`Coefficients`].
const ROWS: [fn(&Step) -> f64; COUNT] = [
    Step::signal,
    Step::noise,
    Step::sqrt_recip,
    Step::sqrt_recip_minus_one,
    Step::posterior_mean_x0,
    Step::posterior_mean_xt,
    Step::posterior_log_variance,
    Step::fixed_large_log_variance,
    Step::log_beta,
];

/// The coefficients of one step, or of one step per sample, as tensors that broadcast against (N, C, H, W).
///
/// One step gives scalars, which tensor arithmetic casts to the other operand's kind; so the same formulas serve sampling (one
/// step for the whole batch) and losses (a step for every sample).
#[derive(Debug)]
pub struct Coefficients {
    pub(crate) signal: Tensor,
    pub(crate) noise: Tensor,
    pub(crate) sqrt_recip: Tensor,
    pub(crate) sqrt_recip_minus_one: Tensor,
    pub(crate) posterior_mean_x0: Tensor,
    pub(crate) posterior_mean_xt: Tensor,
    pub(crate) posterior_log_variance: Tensor,
    pub(crate) fixed_large_log_variance: Tensor,
    pub(crate) log_beta: Tensor,
}

impl Coefficients {
    fn new(rows: [Tensor; COUNT]) -> Self {
        let [
            signal,
            noise,
            sqrt_recip,
            sqrt_recip_minus_one,
            posterior_mean_x0,
            posterior_mean_xt,
            posterior_log_variance,
            fixed_large_log_variance,
            log_beta,
        ] = rows;
        Self {
            signal,
            noise,
            sqrt_recip,
            sqrt_recip_minus_one,
            posterior_mean_x0,
            posterior_mean_xt,
            posterior_log_variance,
            fixed_large_log_variance,
            log_beta,
        }
    }

    /// A draw of q(x_t | x₀) = N(√ᾱ x₀, (1 − ᾱ) I), given its standard normal `noise`. Ho et al. 2020, eq. 4.
    ///
    /// # Shapes
    /// `x0` and `noise` (N, C, H, W) → (N, C, H, W).
    ///
    /// # Panics
    /// In libtorch, where shapes do not broadcast; others that do are not refused.
    pub fn q_sample(&self, x0: &Tensor, noise: &Tensor) -> Tensor {
        &self.signal * x0 + &self.noise * noise
    }

    /// Mean of q(x_{t−1} | x_t, x₀). Ho et al. 2020, eq. 7.
    ///
    /// # Shapes
    /// `x0` and `x_t` (N, C, H, W) → (N, C, H, W).
    ///
    /// # Panics
    /// In libtorch, where shapes do not broadcast; others that do are not refused.
    pub fn posterior_mean(&self, x0: &Tensor, x_t: &Tensor) -> Tensor {
        &self.posterior_mean_x0 * x0 + &self.posterior_mean_xt * x_t
    }
}

impl From<&Step> for Coefficients {
    /// One step for a whole batch: scalars in f64.
    fn from(step: &Step) -> Self {
        Self::new(ROWS.map(|row| Tensor::from(row(step))))
    }
}

/// A [`SampleSchedule`]'s coefficients on a device, to pick one step per sample from. Computed in f64, cast once.
#[derive(Debug)]
pub struct StepTables {
    rows: Tensor,      // (COUNT, S)
    timesteps: Tensor, // (S), int64
    num_steps: usize,
}

impl StepTables {
    /// Tables of `kind` (fp32, as the original casts them, unless more is wanted) on `device`.
    pub fn new(schedule: &SampleSchedule, (kind, device): (Kind, Device)) -> Self {
        let steps = schedule.steps();
        let rows: Vec<f64> = ROWS.iter().flat_map(|row| steps.iter().map(row)).collect();
        let timesteps: Vec<i64> = steps.iter().map(|step| i64::from(step.timestep().0)).collect();
        Self {
            rows: Tensor::from_slice(&rows).view([COUNT as i64, -1]).to_kind(kind).to_device(device),
            timesteps: Tensor::from_slice(&timesteps).to_device(device),
            num_steps: steps.len(),
        }
    }

    /// The number of steps.
    pub fn num_steps(&self) -> usize {
        self.num_steps
    }

    /// The coefficients of one step per sample, as (N, 1, 1, 1).
    ///
    /// # Errors
    /// When an index is beyond the schedule.
    pub fn at(&self, indices: &[StepIndex]) -> Result<Coefficients> {
        Ok(self.gather(&self.indices(indices)?))
    }

    /// Checked indices on the tables' device, (N) int64.
    pub(crate) fn indices(&self, indices: &[StepIndex]) -> Result<Tensor> {
        if let Some(bad) = indices.iter().find(|index| index.0 >= self.num_steps) {
            return Err(Error::StepOutOfRange { index: bad.0 as i64, len: self.num_steps });
        }
        let indices: Vec<i64> = indices.iter().map(|index| index.0 as i64).collect();
        moved(&Tensor::from_slice(&indices), self.rows.device())
    }

    /// The same for indices that are in a tensor already; looks at their extremes, so it waits for the device.
    pub(crate) fn checked(&self, indices: &Tensor) -> Result<Tensor> {
        if indices.kind() != Kind::Int64 {
            return Err(Error::Kind { what: "the step indices", expected: "int64", found: indices.kind() });
        }
        if indices.dim() != 1 || indices.numel() == 0 {
            return Err(Error::Shape {
                what: "the step indices",
                expected: "(N), N at least 1".to_owned(),
                found: indices.size(),
            });
        }
        for extreme in [indices.min(), indices.max()] {
            let index = extreme.int64_value(&[]);
            if index < 0 || index >= self.num_steps as i64 {
                return Err(Error::StepOutOfRange { index, len: self.num_steps });
            }
        }
        Ok(indices.to_device(self.rows.device()))
    }

    /// Coefficients at indices that [`StepTables::indices`] or [`StepTables::checked`] passed.
    pub(crate) fn gather(&self, indices: &Tensor) -> Coefficients {
        let picked = self.rows.index_select(1, indices); // (COUNT, N)
        Coefficients::new(std::array::from_fn(|row| picked.get(row as i64).view([-1, 1, 1, 1])))
    }

    /// The timesteps the network must see at such indices, (N) int64.
    pub(crate) fn timesteps(&self, indices: &Tensor) -> Tensor {
        self.timesteps.index_select(0, indices)
    }
}
