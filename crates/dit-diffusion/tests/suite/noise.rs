//! Seeded noise is normal, independent, portable and blind to its batch; replayed noise is what was recorded.

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

use crate::fixtures::close;

const SHAPE: LatentShape = LatentShape { channels: 4, height: 8, width: 8 };

fn values(x: &Tensor) -> Vec<f32> {
    Vec::try_from(x.flatten(0, -1)).unwrap()
}

fn seeded(seed: u64, images: &[u64], at: Draw) -> Tensor {
    SeededNoise::new(seed).draw(images, at, SHAPE).unwrap()
}

#[test]
fn the_values_are_those_of_the_written_definition() {
    // Computed in Python from the definition in `SeededNoise`'s documentation. They change only if every old seed's picture may.
    for (seed, image, at, expected) in [
        (0, 0, Draw::Initial, [-1.6992191_f32, -0.20589784, 0.543084, 0.8410609, -0.13254562, -1.0978237]),
        (0, 1, Draw::Initial, [0.13216007, 1.5373197, -0.6618058, 0.1975569, -1.0611293, -0.9967524]),
        (7, 3, Draw::Step(4), [0.11663884, -0.9581162, 1.0509497, 1.0506748, -0.3796917, -1.1780413]),
        (
            u64::MAX,
            u64::MAX,
            Draw::Step(249),
            [-0.15414453, 0.5347111, -0.035565443, -0.32234183, 0.13048641, 0.840476],
        ),
    ] {
        let ours = values(&seeded(seed, &[image], at));
        assert_eq!(ours[..6], expected, "seed {seed}, image {image}, {at:?}");
    }
}

#[test]
fn an_image_s_noise_does_not_depend_on_its_batch() {
    for at in [Draw::Initial, Draw::Step(0), Draw::Step(249)] {
        let together = seeded(1, &[5, 0, 900, 5], at);
        for (row, image) in [5, 0, 900, 5].into_iter().enumerate() {
            assert_eq!(values(&together.get(row as i64)), values(&seeded(1, &[image], at)), "image {image}");
        }
    }
}

#[test]
fn it_is_normal() {
    let n = 400 * 256;
    let images: Vec<u64> = (0..400).collect();
    let z = seeded(42, &images, Draw::Step(3)).to_kind(Kind::Double);
    let moment = |power: i64| z.pow_tensor_scalar(power).mean(Kind::Double).double_value(&[]);
    // Within five standard errors of 0, 1, 0, 3: the k-th moment's variance is (E z²ᵏ − (E zᵏ)²)/n.
    for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        let allowed = 5.0 * (variance / n as f64).sqrt();
        let found = moment(power);
        assert!((found - expected).abs() < allowed, "moment {power} is {found}, expected {expected} ± {allowed}");
    }
    // Its distribution function, at a few points.
    for (point, below) in [(-2.0, 0.0227501), (-1.0, 0.1586553), (0.0, 0.5), (0.5, 0.6914625), (2.5, 0.9937903)] {
        let share = z.le(point).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        let allowed = 5.0 * (below * (1.0 - below) / n as f64).sqrt();
        assert!((share - below).abs() < allowed, "P(z ≤ {point}) is {share}");
    }
}

#[test]
fn seeds_images_moments_and_elements_are_independent() {
    let images: Vec<u64> = (0..200).collect();
    let base = seeded(9, &images, Draw::Initial);
    let shifted: Vec<u64> = (1..201).collect();
    let n = base.numel() as f64;
    for (what, other) in [
        ("seed", seeded(10, &images, Draw::Initial)),
        ("image", seeded(9, &shifted, Draw::Initial)),
        ("first step", seeded(9, &images, Draw::Step(0))),
        ("neighbouring elements", base.roll(1, 3)),
        ("the two of a pair", base.flip([3])),
    ] {
        for power in [1, 2] {
            // Squares too: a pair of one radius would be uncorrelated, and dependent.
            let centred = |x: &Tensor| x.pow_tensor_scalar(power) - if power == 2 { 1.0 } else { 0.0 };
            let correlation =
                (centred(&base) * centred(&other)).mean(Kind::Double).double_value(&[]) / f64::from(power as i32);
            assert!(correlation.abs() < 6.0 / n.sqrt(), "{what}, power {power}: {correlation}");
        }
    }
}

#[test]
fn replayed_noise_is_the_recording() {
    let z = seeded(0, &[0, 1, 2], Draw::Initial);
    let steps: Vec<Tensor> = (0..5).map(|number| seeded(0, &[0, 1, 2], Draw::Step(number))).collect();
    let replay = ReplayedNoise::new(&z).unwrap().with_steps(&Tensor::stack(&steps, 0)).unwrap();
    close("z", &replay.draw(&[2, 0], Draw::Initial, SHAPE).unwrap(), &seeded(0, &[2, 0], Draw::Initial), 0.0);
    close("step", &replay.draw(&[1], Draw::Step(4), SHAPE).unwrap(), &seeded(0, &[1], Draw::Step(4)), 0.0);
    // The last step's noise is never used: five recorded steps serve walks of five and six.
    for (walk, served) in [(4, false), (5, true), (6, true), (7, false)] {
        assert_eq!(replay.check(&[0], walk, SHAPE).is_ok(), served, "{walk} steps");
    }
}

#[test]
fn a_replayed_walk_is_the_seeded_one() {
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&"6".parse().unwrap()).unwrap();
    let parameterization = Parameterization { mean: MeanTarget::X0, variance: Variance::FixedSmall };
    let sampler = Sampler { schedule: &schedule, parameterization, clip: ClipX0::No };
    let images = [0, 1, 2];
    let source = SeededNoise::new(8);
    let steps: Vec<Tensor> = (0..5).map(|number| source.draw(&images, Draw::Step(number), SHAPE).unwrap()).collect();
    let initial = source.draw(&images, Draw::Initial, SHAPE).unwrap();
    let replay = ReplayedNoise::new(&initial).unwrap().with_steps(&Tensor::stack(&steps, 0)).unwrap();
    let walk = |source: &dyn Noise| {
        let noise = BatchNoise::new(source, &images);
        let start = noise.initial(SHAPE, Device::Cpu).unwrap();
        let denoiser = from_fn(|x, _| Ok(x.tanh()));
        sampler.run(&denoiser, &mut Ddpm, noise, &start, &mut |_| std::ops::ControlFlow::Continue(())).unwrap()
    };
    close("latents", &walk(&replay), &walk(&source), 0.0);
}
