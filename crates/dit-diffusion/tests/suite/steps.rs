//! Single sampling steps against the reference, on canned network outputs.

use dit_diffusion::*;
use tch::Tensor;

use crate::fixtures::{Fixture, close};

const TOLERANCE: f64 = 2e-5;

const FIXED_LARGE: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedLarge };
const FIXED_SMALL: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };
const X0: Parameterization = Parameterization { mean: MeanTarget::X0, variance: Variance::LearnedRange };

/// The groups of the fixture: name, spacing, parameterization.
const GROUPS: [(&str, &str, Parameterization); 8] = [
    ("all", "all", Parameterization::DIT),
    ("250", "250", Parameterization::DIT),
    ("20", "20", Parameterization::DIT),
    ("fixed_large", "all", FIXED_LARGE),
    ("fixed_small", "all", FIXED_SMALL),
    ("predict_x0", "all", X0),
    ("rescaled_mse", "all", Parameterization::DIT),
    ("kl", "all", Parameterization::DIT),
];

/// A group, row by row: each row is at a step of its own.
struct Group {
    fixture: Fixture,
    name: &'static str,
    schedule: SampleSchedule,
    parameterization: Parameterization,
}

impl Group {
    fn all() -> impl Iterator<Item = Self> {
        GROUPS.into_iter().map(|(name, spacing, parameterization)| Self {
            fixture: Fixture::open("steps.safetensors"),
            name,
            schedule: NoiseSchedule::linear(1000).unwrap().respaced(&spacing.parse().unwrap()).unwrap(),
            parameterization,
        })
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.fixture.tensor(&format!("{}/{name}", self.name))
    }

    fn has(&self, name: &str) -> bool {
        self.fixture.names().contains(&format!("{}/{name}", self.name))
    }

    /// `of(row, step)` for every row, stacked.
    fn by_row(&self, of: impl Fn(i64, StepIndex) -> Tensor) -> Tensor {
        let indices = self.fixture.i64s(&format!("{}/t_index", self.name));
        let rows: Vec<Tensor> =
            indices.iter().enumerate().map(|(row, &index)| of(row as i64, StepIndex(index as usize))).collect();
        Tensor::cat(&rows, 0)
    }

    fn predict(&self, clip: ClipX0, of: impl Fn(Prediction) -> Tensor) -> Tensor {
        let (output, x) = (self.tensor("model_output"), self.tensor("x"));
        self.by_row(|row, index| {
            let at = self.schedule.step(index).unwrap().into();
            let row = |all: &Tensor| all.narrow(0, row, 1);
            of(self.parameterization.interpret(&row(&output), &row(&x), &at, clip).unwrap())
        })
    }

    /// One step of a solver from `x`.
    fn step(&self, solver: &dyn Fn() -> Box<dyn Solver>) -> Tensor {
        let (output, x, recorded) = (self.tensor("model_output"), self.tensor("x"), Canned(self.tensor("noise")));
        let sampler = Sampler { schedule: &self.schedule, parameterization: self.parameterization, clip: ClipX0::No };
        self.by_row(|row, index| {
            let denoiser = from_fn(|_, _| Ok(output.narrow(0, row, 1)));
            let images = [row as u64];
            let noise = BatchNoise::new(&recorded, &images);
            sampler.step(&denoiser, &mut *solver(), noise, index, &x.narrow(0, row, 1)).unwrap()
        })
    }

    #[track_caller]
    fn check(&self, name: &str, ours: impl FnOnce() -> Tensor) -> usize {
        if !self.has(name) {
            return 0;
        }
        close(&format!("{}/{name}", self.name), &ours(), &self.tensor(name), TOLERANCE);
        1
    }
}

/// The same noise for an image at every moment.
struct Canned(Tensor);

impl Noise for Canned {
    fn draw(&self, images: &[u64], _: Draw, _: LatentShape) -> Result<Tensor> {
        let rows: Vec<i64> = images.iter().map(|&image| image as i64).collect();
        Ok(self.0.index_select(0, &Tensor::from_slice(&rows)))
    }
}

#[test]
fn every_step_matches_the_reference() {
    let mut compared = 0;
    for group in Group::all() {
        compared += group.check("mean", || group.predict(ClipX0::No, |p| p.mean));
        compared += group.check("log_variance", || group.predict(ClipX0::No, |p| p.log_variance));
        compared += group.check("pred_xstart", || group.predict(ClipX0::No, |p| p.x0));
        compared += group.check("pred_xstart_clipped", || group.predict(ClipX0::ToUnit, |p| p.x0));
        compared += group.check("mean_clipped", || group.predict(ClipX0::ToUnit, |p| p.mean));
        compared += group.check("p_sample", || group.step(&|| Box::new(Ddpm)));
        compared += group.check("ddim_eta_0.0", || group.step(&|| Box::new(Ddim::deterministic())));
        compared += group.check("ddim_eta_0.5", || group.step(&|| Box::new(Ddim::new(0.5).unwrap())));
        compared += group.check("ddim_eta_1.0", || group.step(&|| Box::new(Ddim::new(1.0).unwrap())));
        compared += group.check("ddim_reverse", || group.step(&|| Box::new(DdimReverse)));
        compared += group.check("q_sample", || {
            let (x0, noise) = (group.tensor("x0"), group.tensor("noise"));
            group.by_row(|row, index| {
                let at = Coefficients::from(group.schedule.step(index).unwrap());
                at.q_sample(&x0.narrow(0, row, 1), &noise.narrow(0, row, 1))
            })
        });
    }
    // 11 for each of the three spacings, 3 for each of the five settings; the losses have a test of their own.
    assert_eq!(compared, 3 * 11 + 5 * 3);
}
