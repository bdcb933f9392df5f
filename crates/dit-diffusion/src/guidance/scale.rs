use std::f64::consts::PI;

use crate::{Error, NoiseSchedule, Result, Timestep};

/// How the strength of guidance changes over a walk, from pure noise (u = 1) to data (u = 0), with u = t/(T − 1). Each shape has
/// the same mean over u. Wang et al. 2024 (Analysis of classifier-free guidance weight schedulers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleShape {
    /// The same everywhere.
    Constant,
    /// 2 (1 − u): none at first, twice as much at the end.
    Linear,
    /// 1 + cos πu: the same ends, with more of the walk near them.
    Cosine,
}

/// A guidance scale as a function of the timestep: s(t) = 1 + (s − 1)·shape(t) within an interval of noise levels, and 1, which is
/// no guidance and a single pass, outside.
///
/// Invariants: the scale is finite; the interval holds at least one timestep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuidanceScale {
    scale: f64,
    shape: ScaleShape,
    last_timestep: f64,
    interval: [Timestep; 2],
}

impl GuidanceScale {
    /// `scale` at every timestep. 1 is no guidance.
    ///
    /// # Errors
    /// When the scale is NaN or infinite.
    pub fn constant(scale: f64) -> Result<Self> {
        if !scale.is_finite() {
            return Err(Error::GuidanceScale { scale });
        }
        let interval = [Timestep(0), Timestep(u32::MAX)];
        Ok(Self { scale, shape: ScaleShape::Constant, last_timestep: 0.0, interval })
    }

    /// The scale's distance from 1 follows `shape` over the timesteps of `schedule`, the one the network was trained on.
    pub fn shaped(self, shape: ScaleShape, schedule: &NoiseSchedule) -> Self {
        Self { shape, last_timestep: (schedule.num_steps() - 1) as f64, ..self }
    }

    /// Guides only where σ = √((1 − ᾱ)/ᾱ) is in \[low, high\]: too strong at high noise guidance narrows what is drawn, at low
    /// noise it changes nothing (Kynkäänniemi et al. 2024). The level that counts is that of the timestep the network is told.
    ///
    /// # Errors
    /// When no timestep of `schedule` lies there.
    pub fn within(self, schedule: &NoiseSchedule, low: f64, high: f64) -> Result<Self> {
        let inside = |&t: &usize| (low..=high).contains(&schedule.sigma(t));
        let last = schedule.num_steps() - 1;
        let mut timesteps = (0..=last).filter(inside).map(|t| Timestep(t as u32));
        match timesteps.next() {
            Some(first) => Ok(Self { interval: [first, timesteps.next_back().unwrap_or(first)], ..self }),
            None => Err(Error::GuidanceInterval { low, high, least: schedule.sigma(0), most: schedule.sigma(last) }),
        }
    }

    /// The scale at a timestep.
    pub fn at(&self, t: Timestep) -> f64 {
        let [first, last] = self.interval;
        if t < first || last < t {
            return 1.0;
        }
        let u = if self.last_timestep == 0.0 { 0.0 } else { f64::from(t.0) / self.last_timestep };
        let share = match self.shape {
            ScaleShape::Constant => return self.scale, // without the rounding of (s − 1) + 1
            ScaleShape::Linear => 2.0 * (1.0 - u),
            ScaleShape::Cosine => 1.0 + (PI * u).cos(),
        };
        1.0 + (self.scale - 1.0) * share
    }
}
