//! Metrics of given features.

use std::fs;

use dit_eval::{FrechetReference, InceptionScore, KidOptions, Moments, kernel_distance, precision_recall};
use dit_weights::SafetensorsFile;
use serde_json::Value;
use tch::Tensor;

use crate::{fixture, tensor};

fn moments(x: &Tensor) -> Moments {
    let mut moments = Moments::new(x.size()[1] as usize).unwrap();
    x.split(37, 0).iter().for_each(|part| moments.push(part).unwrap());
    moments
}

#[track_caller]
fn check(case: &str, metric: &str, found: f64, expected: &Value, tolerance: f64) {
    let expected = expected[case][metric].as_f64().unwrap();
    let error = (found - expected).abs() / expected.abs();
    assert!(error < tolerance, "{case}: {metric} is {found}, expected {expected}: {error:e}");
}

#[test]
fn metrics_are_the_published_packages() {
    let expected: Value = serde_json::from_str(&fs::read_to_string(fixture("metrics.json")).unwrap()).unwrap();
    let file = SafetensorsFile::open(fixture("metrics.safetensors")).unwrap();
    // scipy's root of a singular matrix is not exact: of the few samples' product, whose rank is 17 of 48, it gives 4e-8 too much.
    for (case, frechet) in [("plenty", 1e-9), ("few", 1e-6), ("constant", 1e-6)] {
        let [samples, reference, logits] =
            ["samples", "reference", "logits"].map(|name| tensor(&file, &format!("{case}.{name}")));
        let to = FrechetReference::new(moments(&reference).gaussian().unwrap()).unwrap();
        check(case, "fid", to.distance(&moments(&samples).gaussian().unwrap()).unwrap(), &expected, frechet);

        let least = samples.size()[0].min(reference.size()[0]);
        if least >= 20 {
            let options = KidOptions { subsets: 1, size: least as usize, seed: 0 };
            let (a, b) = (samples.narrow(0, 0, least), reference.narrow(0, 0, least));
            check(case, "kid", kernel_distance(&a, &b, options).unwrap().value, &expected, 1e-9);
        }

        // Theirs are fp32 means of ones and zeros.
        let found = precision_recall(&samples, &reference, 0).unwrap();
        check(case, "precision", found.precision.value, &expected, 1e-6);
        check(case, "recall", found.recall.value, &expected, 1e-6);

        let count = logits.size()[0] as usize;
        for (metric, split) in [("inception_score", count), ("inception_score_2_splits", count / 2)] {
            let mut score = InceptionScore::in_order(count, split, 0);
            score.push(&logits).unwrap();
            check(case, metric, score.estimate().unwrap().value, &expected, 1e-9);
        }
    }
}
