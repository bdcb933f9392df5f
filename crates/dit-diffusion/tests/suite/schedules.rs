//! Schedules and spacings against the reference, and what must hold for any of them.

use dit_diffusion::{
    NoiseSchedule, NoiseScheduleKind, Parameterization, Process, SampleSchedule, Sigma, Spacing, Step, Timestep,
};

use crate::fixtures::Fixture;

const SPACINGS: [&str; 10] = ["all", "250", "50", "20", "7", "21", "ddim50", "ddim25", "10,15,20", "100,50"];

fn linear() -> NoiseSchedule {
    NoiseSchedule::linear(1000).unwrap()
}

fn cosine() -> NoiseSchedule {
    NoiseSchedule::cosine(1000).unwrap()
}

fn kept(spacing: &str) -> Vec<u32> {
    let spacing: Spacing = spacing.parse().unwrap();
    spacing.timesteps(&linear()).unwrap().into_iter().map(|Timestep(t)| t).collect()
}

/// Within 10⁻¹²: absolute where the value is below one, relative above.
#[track_caller]
fn check_table(fixture: &Fixture, name: &str, ours: &[f64]) {
    let reference = fixture.f64s(name);
    assert_eq!(ours.len(), reference.len(), "{name}");
    for (i, (a, b)) in ours.iter().zip(&reference).enumerate() {
        let error = (a - b).abs() / b.abs().max(1.0);
        assert!(error <= 1e-12, "{name}[{i}] is {a:e}, reference {b:e}: {error:.1e} apart");
    }
}

#[test]
fn tables_match_the_reference() {
    type Column = (&'static str, fn(&Step) -> f64);
    const COLUMNS: [Column; 8] = [
        ("betas", Step::beta),
        ("alphas_cumprod", Step::alpha_bar),
        ("sqrt_recip_alphas_cumprod", Step::sqrt_recip),
        ("sqrt_recipm1_alphas_cumprod", Step::sqrt_recip_minus_one),
        ("posterior_mean_coef1", Step::posterior_mean_x0),
        ("posterior_mean_coef2", Step::posterior_mean_xt),
        ("posterior_variance", Step::posterior_variance),
        ("posterior_log_variance_clipped", Step::posterior_log_variance),
    ];
    let fixture = Fixture::open("schedules.safetensors");
    let mut compared = 0;
    for (name, schedule) in [("linear", linear()), ("squaredcos_cap_v2", cosine())] {
        for spacing in SPACINGS {
            let view = schedule.respaced(&spacing.parse().unwrap()).unwrap();
            let timesteps: Vec<i64> = view.steps().iter().map(|step| step.timestep().0.into()).collect();
            assert_eq!(timesteps, fixture.i64s(&format!("{name}/{spacing}/timesteps")), "{name}/{spacing}");
            compared += 1;
            for (column, value) in COLUMNS {
                let ours: Vec<f64> = view.steps().iter().map(value).collect();
                check_table(&fixture, &format!("{name}/{spacing}/{column}"), &ours);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, fixture.names().len(), "every table of the fixture is compared");
}

#[test]
fn published_check_values() {
    let schedule = linear();
    let steps = schedule.respaced(&Spacing::All).unwrap();
    let at = |i: usize| steps.steps()[i];
    for (ours, published) in [
        (at(0).alpha_bar(), 0.9999),
        (at(499).alpha_bar(), 0.0785872429),
        (at(999).alpha_bar(), 4.03582977e-5),
        (at(1).posterior_variance(), 5.45318766e-5),
        (at(0).posterior_log_variance(), -9.816725),
        (at(1).posterior_log_variance(), -9.816725),
    ] {
        assert!((ours / published - 1.0_f64).abs() < 1e-7, "{ours} against {published}");
    }
}

#[test]
fn all_thousand_even_spacings_are_exact() {
    let table = Fixture::open("even_spacings_of_1000.safetensors").tensor("kept"); // (1000, 125) bits, lowest first
    assert_eq!(table.size(), [1000, 125]);
    for count in 1..=1000_i64 {
        let bits: Vec<u8> = Vec::try_from(table.get(count - 1)).unwrap();
        let reference: Vec<u32> = (0..1000).filter(|&t| bits[t as usize / 8] >> (t % 8) & 1 == 1).collect();
        assert_eq!(kept(&count.to_string()), reference, "{count} steps");
    }
}

#[test]
fn sections_split_the_training_steps() {
    // Seven sections of 1000: six of 143 (the remainder goes first), one of 142.
    let counts = [3, 1, 143, 20, 2, 7, 142];
    let text = counts.map(|count: usize| count.to_string()).join(",");
    let timesteps = kept(&text);
    assert_eq!(timesteps.len(), counts.iter().sum::<usize>());
    assert!(timesteps.is_sorted_by(|a, b| a < b), "{timesteps:?}");
    let mut rest = &timesteps[..];
    let mut start = 0;
    for (section, count) in counts.into_iter().enumerate() {
        let size = if section < 6 { 143 } else { 142 };
        let (of_section, after) = rest.split_at(count);
        assert_eq!(of_section.first(), Some(&start), "section {section} starts at its first step");
        if count > 1 {
            assert_eq!(of_section.last(), Some(&(start + size - 1)), "section {section} ends at its last step");
        }
        (rest, start) = (after, start + size);
    }
    assert_eq!(start, 1000);
}

#[test]
fn strides_are_whole() {
    for (spacing, stride, count) in
        [("ddim50", 20, 50), ("ddim25", 40, 25), ("ddim2", 500, 2), ("ddim1000", 1, 1000), ("ddim63", 16, 63)]
    {
        let timesteps = kept(spacing);
        let expected: Vec<u32> = (0..count).map(|i| i * stride).collect();
        assert_eq!(timesteps, expected, "{spacing}");
    }
}

#[test]
fn trailing_steps_end_at_the_noisiest() {
    // round(1000 − i·1000/n) − 1: 1000/7 = 142.86, 1000/16 = 62.5 with its halves to even.
    assert_eq!(kept("trailing7"), [142, 285, 428, 570, 713, 856, 999]);
    assert_eq!(kept("trailing16")[..4], [61, 124, 187, 249]);
    for count in 1..=1000 {
        let timesteps = kept(&format!("trailing{count}"));
        assert_eq!((timesteps.len(), timesteps.last()), (count, Some(&999)), "{count} steps");
        assert!(timesteps.is_sorted_by(|a, b| a < b), "{count} steps: {timesteps:?}");
    }
}

#[test]
fn noise_levels_are_evenly_spaced_under_their_rule() {
    fn seventh_root(step: &Step) -> f64 {
        step.sigma().powf(1.0 / 7.0)
    }
    type Rule = fn(&Step) -> f64;
    for (name, rule) in [("karras", seventh_root as Rule), ("lambda", Step::lambda), ("exponential", Step::lambda)] {
        for schedule in [linear(), cosine()] {
            for count in [1, 2, 5, 20, 1000] {
                let view: SampleSchedule = schedule.respaced(&format!("{name}{count}").parse().unwrap()).unwrap();
                let what = format!("{name}, {count} levels");
                assert_eq!(view.num_steps(), count, "{what}");
                let values: Vec<f64> = view.steps().iter().map(rule).collect();
                let (first, last) = (values[0], values[count - 1]);
                for (i, value) in values.iter().enumerate() {
                    let expected = first + (last - first) * i as f64 / (count - 1).max(1) as f64;
                    assert!((value - expected).abs() < 1e-9 * expected.abs().max(1.0), "{what}: {i}");
                }
                let noisiest = Timestep(schedule.num_steps() as u32 - 1);
                assert_eq!(view.steps()[count - 1].timestep(), noisiest, "{what}");
                if count > 1 {
                    assert_eq!(view.steps()[0].timestep(), Timestep(0), "{what}");
                }
                // The network is told the nearest timestep: no neighbour's level is closer.
                for step in view.steps() {
                    let sigma = |t: u32| (1.0 / schedule.alpha_bar(Timestep(t)).unwrap() - 1.0).sqrt().ln();
                    let distance = |t: u32| (sigma(t) - step.sigma().ln()).abs();
                    let told = step.timestep().0;
                    let neighbours = [told.saturating_sub(1), (told + 1).min(noisiest.0)];
                    assert!(neighbours.iter().all(|&t| distance(told) <= distance(t) + 1e-9), "{what}: {step:?}");
                }
            }
        }
    }
}

#[test]
fn every_timestep_is_nearest_to_its_own_level() {
    for schedule in [linear(), cosine(), NoiseSchedule::from_betas(vec![0.3]).unwrap()] {
        for (t, alpha_bar) in schedule.alpha_bars().iter().enumerate() {
            assert_eq!(schedule.nearest((1.0 / alpha_bar - 1.0).sqrt()), Timestep(t as u32));
        }
        let last = Timestep(schedule.num_steps() as u32 - 1);
        assert_eq!((schedule.nearest(0.0), schedule.nearest(f64::INFINITY)), (Timestep(0), last));
    }
}

#[test]
fn spacings_read_as_they_are_written() {
    for text in SPACINGS.into_iter().chain(["trailing20", "karras7", "lambda1"]) {
        assert_eq!(text.parse::<Spacing>().unwrap().to_string(), text);
    }
    assert_eq!("exponential20".parse::<Spacing>().unwrap(), Spacing::UniformLambda(20));
    assert_eq!(" 10, 15,20 ".parse::<Spacing>().unwrap(), Spacing::Sections(vec![10, 15, 20]));
    assert_eq!(Spacing::even(250), "250".parse().unwrap());
}

#[test]
fn respacing_keeps_the_noise_levels_and_a_valid_chain() {
    for schedule in
        [linear(), cosine(), NoiseSchedule::linear(21).unwrap(), NoiseSchedule::from_betas(vec![0.3]).unwrap()]
    {
        for count in [1, 2, 5, schedule.num_steps()].into_iter().filter(|&count| count <= schedule.num_steps()) {
            let view = schedule.respaced(&Spacing::even(count)).unwrap();
            let mut product = 1.0;
            for step in view.steps() {
                let trained = schedule.alpha_bar(step.timestep()).unwrap();
                assert!((step.alpha_bar() - trained).abs() < 1e-14, "the level is the training schedule's");
                product *= 1.0 - step.beta();
                assert_eq!(product, step.alpha_bar(), "the betas multiply to it");
                let numbers = [
                    step.lambda(),
                    step.sigma(),
                    step.log_beta(),
                    step.posterior_log_variance(),
                    step.fixed_large_log_variance(),
                    step.posterior_mean_x0(),
                    step.posterior_mean_xt(),
                ];
                assert!(numbers.iter().all(|number| number.is_finite()), "{step:?}");
                assert!((step.lambda() + step.sigma().ln()).abs() < 1e-9, "λ = −ln σ");
                assert!((step.signal().powi(2) + step.noise().powi(2) - 1.0).abs() < 1e-15);
            }
            assert_eq!(view.steps()[0].alpha_bar_prev(), 1.0);
            assert_eq!(view.steps()[count - 1].alpha_bar_next(), 0.0);
        }
    }
}

#[test]
fn cosine_is_the_paper_s_curve_until_its_cap() {
    let schedule = cosine();
    let curve = |u: f64| ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    for t in 0..998 {
        let expected = curve((t + 1) as f64 / 1000.0) / curve(0.0);
        assert!((schedule.alpha_bars()[t] - expected).abs() < 1e-12, "at {t}");
    }
    assert_eq!(schedule.betas().last(), Some(&0.999));
}

#[test]
fn linear_ends_where_it_should() {
    for steps in [21, 100, 999, 1000, 4000] {
        let schedule = NoiseSchedule::linear(steps).unwrap();
        let scale = 1000.0 / steps as f64;
        assert_eq!((schedule.betas()[0], schedule.betas()[steps - 1]), (1e-4 * scale, 0.02 * scale));
    }
}

#[test]
fn a_described_process_needs_no_other_crate() {
    let process = Process::original(Sigma::Learned);
    assert_eq!(Parameterization::of(&process), Parameterization::DIT);
    assert_eq!(NoiseSchedule::of(&process).unwrap(), NoiseSchedule::linear(1000).unwrap());
    let cosine = Process { schedule: NoiseScheduleKind::Cosine, ..process };
    assert_eq!(NoiseSchedule::of(&cosine).unwrap(), NoiseSchedule::cosine(1000).unwrap());
}

#[test]
fn no_sigma_is_beyond_the_nearest_timestep() {
    let schedule = NoiseSchedule::linear(1000).unwrap();
    for (sigma, t) in [(f64::NAN, 0), (-1.0, 0), (0.0, 0), (1e9, 999), (f64::INFINITY, 999)] {
        assert_eq!(schedule.nearest(sigma), Timestep(t), "{sigma}");
    }
}
