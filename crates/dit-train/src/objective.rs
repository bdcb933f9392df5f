//! From the recipe's words to the loss of a batch.

use dit_diffusion::{
    LossKind, LossTerms, MeanTarget, NoiseSchedule, NoisedBatch, Objective, Parameterization, Spacing, StepTables,
};
use dit_recipe::{DiffusionSection, Loss, Weighting};
use tch::{Device, Kind, Tensor};

use crate::TrainError;

/// What is minimised, and the process that it is minimised over.
#[derive(Debug)]
pub(crate) struct TrainingObjective {
    objective: Objective,
    tables: StepTables,
    /// Of the squared error, per timestep; none where all are 1.
    mse_weights: Option<Vec<f64>>,
}

impl TrainingObjective {
    pub(crate) fn new(section: &DiffusionSection, device: Device) -> Result<Self, TrainError> {
        let process = section.process();
        let schedule = NoiseSchedule::of(&process)?;
        let parameterization = Parameterization::of(&process);
        let kind = match section.loss {
            Loss::Mse => LossKind::Mse,
            Loss::RescaledMse => LossKind::RescaledMse,
            Loss::Kl => LossKind::Kl,
            Loss::RescaledKl => LossKind::RescaledKl,
        };
        let mse_weights = match section.weighting {
            Weighting::Uniform => None,
            Weighting::MinSnr(gamma) => {
                Some(schedule.alpha_bars().iter().map(|&a| min_snr(parameterization.mean, gamma, a)).collect())
            }
        };
        let tables = StepTables::new(&schedule.respaced(&Spacing::All)?, (Kind::Float, device));
        Ok(Self { objective: Objective { parameterization, kind }, tables, mse_weights })
    }

    /// T.
    pub(crate) fn timesteps(&self) -> usize {
        self.tables.num_steps()
    }

    pub(crate) fn tables(&self) -> &StepTables {
        &self.tables
    }

    /// What the squared error of each sample counts, fp32 (N), on the CPU; none where all count alike.
    pub(crate) fn mse_weights(&self, timesteps: &[usize]) -> Option<Tensor> {
        let weights = self.mse_weights.as_ref()?;
        let weights: Vec<f32> = timesteps.iter().map(|&t| weights.get(t).copied().unwrap_or(1.0) as f32).collect();
        Some(Tensor::from_slice(&weights))
    }

    /// The loss of each sample; `mse_weights` are those of the batch's timesteps, on the output's device.
    ///
    /// # Shapes
    /// `output` (N, C_out, H, W) → (N) in each term.
    pub(crate) fn terms(
        &self,
        batch: &NoisedBatch,
        mse_weights: Option<&Tensor>,
        output: &Tensor,
    ) -> Result<LossTerms, TrainError> {
        let terms = self.objective.terms(batch, output)?;
        let Some(weights) = mse_weights else { return Ok(terms) };
        let LossTerms { mse, vlb, total } = terms;
        let total = match (&mse, &vlb) {
            (Some(mse), vlb) => {
                let weighted = mse * weights;
                vlb.as_ref().map_or_else(|| weighted.shallow_clone(), |vlb| &weighted + vlb)
            }
            (None, _) => total,
        };
        Ok(LossTerms { mse, vlb, total })
    }
}

/// The weight that makes a squared error one of x₀ times min(SNR, γ), SNR = ᾱ/(1 − ᾱ): Hang et al. 2023, section 3.4.
/// An error of ε is SNR times smaller than it looks there, one of v SNR + 1 times.
fn min_snr(target: MeanTarget, gamma: f64, alpha_bar: f64) -> f64 {
    let snr = alpha_bar / (1.0 - alpha_bar);
    match target {
        MeanTarget::X0 => snr.min(gamma),
        MeanTarget::Epsilon => snr.min(gamma) / snr,
        MeanTarget::V => snr.min(gamma) / (snr + 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_the_same_loss_under_min_snr() {
        // With x_t = √ᾱ x₀ + √(1−ᾱ) ε, an error d of x₀ is one of −√ᾱ/√(1−ᾱ)·d of ε, and of −d/√(1−ᾱ) of v.
        for alpha_bar in [0.999, 0.9, 0.5, 0.1, 1e-4_f64] {
            let snr = alpha_bar / (1.0 - alpha_bar);
            let x0 = min_snr(MeanTarget::X0, 5.0, alpha_bar);
            let epsilon = min_snr(MeanTarget::Epsilon, 5.0, alpha_bar) * snr;
            let v = min_snr(MeanTarget::V, 5.0, alpha_bar) / (1.0 - alpha_bar);
            assert!((x0 - epsilon).abs() < 1e-9 * x0 && (x0 - v).abs() < 1e-9 * x0, "{alpha_bar}: {x0} {epsilon} {v}");
            assert_eq!(x0, snr.min(5.0));
        }
    }
}
