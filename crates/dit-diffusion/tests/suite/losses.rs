//! Training losses against the reference, and where their gradients go.

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

use crate::fixtures::{Fixture, close};

const DIT: Parameterization = Parameterization::DIT;
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn tables(spacing: &str) -> StepTables {
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&spacing.parse().unwrap()).unwrap();
    StepTables::new(&schedule, CPU)
}

/// The fixture's losses, each row at a step of its own, in one batch.
#[track_caller]
fn check(name: &str, spacing: &str, objective: Objective) {
    let fixture = Fixture::open("steps.safetensors");
    let tensor = |of: &str| fixture.tensor(&format!("{name}/{of}"));
    let batch =
        NoisedBatch::from_indices(&tables(spacing), &tensor("x0"), &tensor("noise"), &tensor("t_index")).unwrap();
    let terms = objective.terms(&batch, &tensor("model_output")).unwrap();
    for (of, ours) in [
        ("training_loss", Some(&terms.total)),
        ("training_mse", terms.mse.as_ref()),
        ("training_vb", terms.vlb.as_ref()),
    ] {
        match ours {
            Some(ours) if fixture.names().contains(&format!("{name}/{of}")) => {
                close(&format!("{name}/{of}"), ours, &tensor(of), 2e-5);
                // A norm hides the small entries behind the large: each sample by itself as well.
                // Below 10⁻⁷ bits a KL of nearly equal Gaussians is rounding, in the reference too.
                for (row, (a, b)) in values(ours).into_iter().zip(values(&tensor(of))).enumerate() {
                    assert!((a - b).abs() <= 2e-5 * b.abs() + 1e-7, "{name}/{of}[{row}]: {a} against {b}");
                }
            }
            Some(_) => assert_eq!((of, objective.kind), ("training_vb", LossKind::RescaledKl), "{name} lacks {of}"),
            None => assert!(!fixture.names().contains(&format!("{name}/{of}")), "{name} has {of}"),
        }
    }
}

fn values(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.to_kind(Kind::Double)).unwrap()
}

#[test]
fn losses_match_the_reference() {
    let fixed = |variance| Parameterization { mean: MeanTarget::Epsilon, variance };
    let x0 = Parameterization { mean: MeanTarget::X0, variance: Variance::LearnedRange };
    check("all", "all", Objective::DIT);
    check("250", "250", Objective::DIT);
    check("20", "20", Objective::DIT);
    check("fixed_large", "all", Objective { parameterization: fixed(Variance::FixedLarge), kind: LossKind::Mse });
    check("fixed_small", "all", Objective { parameterization: fixed(Variance::FixedSmall), kind: LossKind::Mse });
    check("predict_x0", "all", Objective { parameterization: x0, kind: LossKind::Mse });
    check("rescaled_mse", "all", Objective { parameterization: DIT, kind: LossKind::RescaledMse });
    check("kl", "all", Objective { parameterization: DIT, kind: LossKind::RescaledKl });
}

/// A batch of four at steps 0, 1, 100 and 249 of 250, and an output that wants gradients.
fn batch_and_output() -> (NoisedBatch, Tensor) {
    let source = SeededNoise::new(3);
    let shape = LatentShape { channels: 2, height: 4, width: 4 };
    let draw = |number| source.draw(&[0, 1, 2, 3], Draw::Step(number), shape).unwrap();
    let indices = [0, 1, 100, 249].map(StepIndex);
    let batch = NoisedBatch::new(&tables("250"), &draw(0), &draw(1), &indices).unwrap();
    let output = Tensor::cat(&[draw(2), draw(3)], 1).set_requires_grad(true);
    (batch, output)
}

fn gradient(of: &Tensor, output: &Tensor) -> (Tensor, Tensor) {
    let gradients = Tensor::run_backward(&[of.sum(Kind::Float)], &[output], true, false);
    (gradients[0].narrow(1, 0, 2), gradients[0].narrow(1, 2, 2))
}

fn per_sample(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.abs().flatten(1, -1).sum_dim_intlist(1, false, Kind::Double)).unwrap()
}

#[test]
fn the_bound_trains_the_variance_alone() {
    let (batch, output) = batch_and_output();
    for kind in [LossKind::Mse, LossKind::RescaledMse] {
        let terms = Objective { parameterization: DIT, kind }.terms(&batch, &output).unwrap();
        let (mean, range) = gradient(terms.vlb.as_ref().unwrap(), &output);
        assert_eq!(per_sample(&mean), [0.0; 4], "{kind:?}: the mean is frozen in the bound");
        assert!(per_sample(&range).iter().all(|&sum| sum > 0.0), "{kind:?}: every sample's variance is trained");
        let (mean, range) = gradient(terms.mse.as_ref().unwrap(), &output);
        assert!(per_sample(&mean).iter().all(|&sum| sum > 0.0));
        assert_eq!(per_sample(&range), [0.0; 4]);
    }
    for kind in [LossKind::Kl, LossKind::RescaledKl] {
        let terms = Objective { parameterization: DIT, kind }.terms(&batch, &output).unwrap();
        let (mean, range) = gradient(&terms.total, &output);
        for part in [mean, range] {
            // Step 0's likelihood is flat where the canned output is far off; the others pull.
            assert!(per_sample(&part)[1..].iter().all(|&sum| sum > 0.0), "{kind:?}");
            assert!(per_sample(&part).iter().all(|sum| sum.is_finite()));
        }
    }
}

#[test]
fn rescaled_losses_scale_by_the_number_of_steps() {
    let (batch, output) = batch_and_output();
    let terms = |kind| Objective { parameterization: DIT, kind }.terms(&batch, &output).unwrap();
    let (mse, rescaled) = (terms(LossKind::Mse), terms(LossKind::RescaledMse));
    close("mse", rescaled.mse.as_ref().unwrap(), mse.mse.as_ref().unwrap(), 0.0);
    close("vlb", &(rescaled.vlb.as_ref().unwrap() * 4.0), mse.vlb.as_ref().unwrap(), 1e-6);
    close("sum", &rescaled.total, &(rescaled.mse.unwrap() + rescaled.vlb.unwrap()), 0.0);
    let (kl, rescaled) = (terms(LossKind::Kl), terms(LossKind::RescaledKl));
    close("kl", &(kl.total * 250.0), &rescaled.total, 1e-6);
    close("the bound is the same", kl.vlb.as_ref().unwrap(), mse.vlb.as_ref().unwrap(), 1e-6);
    assert!(kl.mse.is_none() && rescaled.mse.is_none());
}

#[test]
fn a_perfect_network_loses_nothing() {
    for mean in [MeanTarget::Epsilon, MeanTarget::X0, MeanTarget::V] {
        let parameterization = Parameterization { mean, variance: Variance::LearnedRange };
        let tables = tables("all");
        let source = SeededNoise::new(5);
        let shape = LatentShape { channels: 2, height: 4, width: 4 };
        let (x0, noise) = (
            source.draw(&[0, 1, 2], Draw::Step(0), shape).unwrap(),
            source.draw(&[0, 1, 2], Draw::Step(1), shape).unwrap(),
        );
        let indices = [1, 300, 999].map(StepIndex);
        let batch = NoisedBatch::new(&tables, &x0, &noise, &indices).unwrap();
        let target = parameterization.target(&x0, &noise, &tables.at(&indices).unwrap());
        // v = −1 is the posterior's own variance.
        let output = Tensor::cat(&[&target, &target.full_like(-1.0)], 1);
        let terms = Objective { parameterization, kind: LossKind::Mse }.terms(&batch, &output).unwrap();
        assert_eq!(values(&terms.mse.unwrap()), [0.0; 3], "{mean:?}");
        assert!(values(&terms.vlb.unwrap()).iter().all(|bits| bits.abs() < 1e-4), "{mean:?}");

        let fixed = Parameterization { mean, variance: Variance::FixedSmall };
        let terms = Objective { parameterization: fixed, kind: LossKind::Kl }.terms(&batch, &target).unwrap();
        assert!(values(&terms.total).iter().all(|bits| bits.abs() < 1e-4), "{mean:?}, fixed variance");
    }
}

#[test]
fn the_network_sees_the_training_timesteps() {
    let (batch, _) = batch_and_output();
    assert_eq!(Vec::<i64>::try_from(batch.timesteps()).unwrap(), [0, 4, 401, 999]);
    assert_eq!(batch.x_t().size(), [4, 2, 4, 4]);
}

#[test]
fn half_precision_outputs_are_compared_in_fp32() {
    let (batch, output) = batch_and_output();
    let rounded = output.detach().to_kind(Kind::BFloat16);
    let ours = Objective::DIT.terms(&batch, &rounded).unwrap();
    let exact = Objective::DIT.terms(&batch, &rounded.to_kind(Kind::Float)).unwrap();
    assert_eq!(ours.total.kind(), Kind::Float);
    close("total", &ours.total, &exact.total, 0.0);
}

#[test]
fn nan_goes_through_into_the_loss() {
    let zeros = Tensor::zeros([2, 4, 2, 2], CPU);
    let spoilt = zeros.copy();
    let _ = spoilt.get(1).get(0).get(0).get(0).fill_(f64::NAN);
    let output = Tensor::zeros([2, 8, 2, 2], CPU);
    for (x0, noise) in [(&spoilt, &zeros), (&zeros, &spoilt)] {
        let batch = NoisedBatch::new(&tables("10"), x0, noise, &[StepIndex(3), StepIndex(4)]).unwrap();
        let total = values(&Objective::DIT.terms(&batch, &output).unwrap().total);
        assert!(total[0].is_finite() && total[1].is_nan(), "{total:?}");
    }
}
