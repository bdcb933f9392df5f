use std::{fmt, str::FromStr};

use crate::{Error, NoiseSchedule, Result, Timestep};

/// Which of the training timesteps, or which noise levels, a sampler visits. The first four are written as the original's
/// scripts write them:
///
/// | text | meaning |
/// |---|---|
/// | `all` | every training step |
/// | `250` | 250 steps, evenly spaced, both ends kept |
/// | `10,15,20` | equal sections of the training steps, the noisiest last; 10 steps from the first, 15 from the second, … |
/// | `ddim50` | every k-th step from 0, k the first integer that gives exactly 50 |
/// | `trailing20` | 20 steps down from the noisiest at the stride T/20, which need not be whole |
/// | `karras20` | 20 noise levels, evenly spaced in σ^(1/7) |
/// | `lambda20` | 20 noise levels, evenly spaced in λ = −ln σ; `exponential20` is the same |
///
/// The last two choose noise levels σ = √((1 − ᾱ)/ᾱ) between the training schedule's ends. The sampler walks exactly these
/// levels, and the network is told the nearest training timestep ([`NoiseSchedule::nearest`]), since it was trained on whole
/// ones only; where the levels lie closer than training steps do, two steps may be told the same. "Exponential" (evenly
/// spaced in ln σ) and "uniform λ" are two names for one spacing, because λ = −ln σ holds for every
/// variance-preserving schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// Every training step.
    All,
    /// This many steps from each of as many equal sections; one section is an even spacing.
    Sections(Vec<usize>),
    /// This many steps at a fixed integer stride (Song et al. 2021).
    Ddim(usize),
    /// This many steps at the stride T/count, from T − 1 down: t = round(T − i·T/count) − 1, half to even. The noisiest step,
    /// where walks start from pure noise, is always among them (Lin et al. 2023, table 2).
    Trailing(usize),
    /// This many noise levels, evenly spaced in σ^(1/ρ) with ρ = 7: short steps near the data. Karras et al. 2022, eq. 5.
    Karras(usize),
    /// This many noise levels, evenly spaced in λ = −ln σ, the time of DPM-Solver (Lu et al. 2022).
    UniformLambda(usize),
}

/// ρ of Karras et al. 2022: their choice for sampling, and everyone's since.
const KARRAS_RHO: f64 = 7.0;

/// A spacing of a count.
type OfCount = fn(usize) -> Spacing;

/// Spacings that are written as a name and a count.
const NAMED: [(&str, OfCount); 5] = [
    ("ddim", Spacing::Ddim),
    ("trailing", Spacing::Trailing),
    ("karras", Spacing::Karras),
    ("lambda", Spacing::UniformLambda),
    ("exponential", Spacing::UniformLambda),
];

impl Spacing {
    /// `count` steps, evenly spaced.
    pub fn even(count: usize) -> Self {
        Self::Sections(vec![count])
    }

    /// The timesteps the network is told, rising; strictly but for the spacings of noise levels.
    ///
    /// # Errors
    /// When a count is zero or more than its section spans, and when no stride gives a `ddimN`.
    pub fn timesteps(&self, schedule: &NoiseSchedule) -> Result<Vec<Timestep>> {
        Ok(self.levels(schedule)?.into_iter().map(|(timestep, _)| timestep).collect())
    }

    /// The timesteps and their ᾱ, which falls strictly.
    pub(crate) fn levels(&self, schedule: &NoiseSchedule) -> Result<Vec<(Timestep, f64)>> {
        // Schedules are far shorter than 2³², so the casts below keep every value.
        let train_steps = schedule.num_steps();
        let timesteps = match self {
            Self::All => (0..train_steps as u32).map(Timestep).collect(),
            Self::Sections(counts) => self.sections(counts, train_steps)?,
            Self::Ddim(count) => self.strided(*count, train_steps)?,
            Self::Trailing(count) => self.trailing(*count, train_steps)?,
            Self::Karras(count) => {
                let root = 1.0 / KARRAS_RHO;
                return self.spread(*count, schedule, |sigma| sigma.powf(root), |root| root.powf(KARRAS_RHO));
            }
            Self::UniformLambda(count) => return self.spread(*count, schedule, f64::ln, f64::exp),
        };
        let level = |timestep| schedule.alpha_bar(timestep).map(|alpha_bar| (timestep, alpha_bar));
        Ok(timesteps.into_iter().filter_map(level).collect()) // every one is the schedule's
    }

    fn trailing(&self, count: usize, train_steps: usize) -> Result<Vec<Timestep>> {
        self.check_count(count, train_steps)?;
        let stride = train_steps as f64 / count as f64; // 1 or more, so no two steps are rounded to one
        let timestep = |i: usize| (train_steps as f64 - i as f64 * stride).round_ties_even() as u32 - 1;
        Ok((0..count).rev().map(|i| Timestep(timestep(i))).collect())
    }

    /// Noise levels evenly spaced in `rule(σ)`, both ends of the training schedule among them; a single one is the noisiest.
    fn spread(
        &self,
        count: usize,
        schedule: &NoiseSchedule,
        rule: impl Fn(f64) -> f64,
        inverse: impl Fn(f64) -> f64,
    ) -> Result<Vec<(Timestep, f64)>> {
        let train_steps = schedule.num_steps();
        self.check_count(count, train_steps)?;
        let ends = [0, train_steps - 1].map(|t| rule(schedule.sigma(t)));
        let last = count - 1;
        let level = |i: usize| {
            let end = |t: usize| (Timestep(t as u32), schedule.alpha_bars().get(t).copied().unwrap_or(1.0));
            // Both ends exactly, whatever the rule and its inverse round.
            if i == last {
                return end(train_steps - 1);
            } else if i == 0 {
                return end(0);
            }
            let share = i as f64 / last as f64;
            let sigma = inverse(ends[0] + share * (ends[1] - ends[0]));
            (schedule.nearest(sigma), 1.0 / (1.0 + sigma * sigma))
        };
        Ok((0..count).map(level).collect())
    }

    fn check_count(&self, count: usize, train_steps: usize) -> Result<()> {
        match count {
            0 => Err(Error::ZeroSteps { text: self.to_string() }),
            _ if count > train_steps => Err(Error::TooManySteps { text: self.to_string(), count, train_steps }),
            _ => Ok(()),
        }
    }

    fn sections(&self, counts: &[usize], train_steps: usize) -> Result<Vec<Timestep>> {
        if counts.is_empty() || counts.contains(&0) {
            return Err(Error::ZeroSteps { text: self.to_string() });
        }
        if let [count] = *counts {
            self.check_count(count, train_steps)?;
        }
        let (base, longer) = (train_steps / counts.len(), train_steps % counts.len());
        let mut kept = Vec::new();
        let mut start = 0;
        for (section, &count) in counts.iter().enumerate() {
            let size = base + usize::from(section < longer); // the remainder goes to the first sections
            if count > size {
                return Err(Error::SectionTooSmall {
                    text: self.to_string(),
                    section: section + 1,
                    sections: counts.len(),
                    count,
                    size,
                    train_steps,
                });
            }
            let stride = if count == 1 { 1.0 } else { (size - 1) as f64 / (count - 1) as f64 };
            // Accumulated, not multiplied, and rounded half to even: the released models were sampled on these very steps,
            // and either other reading moves some of them for many counts.
            let mut position = 0.0_f64;
            for _ in 0..count {
                kept.push(Timestep((start + position.round_ties_even() as usize) as u32));
                position += stride;
            }
            start += size;
        }
        Ok(kept)
    }

    fn strided(&self, count: usize, train_steps: usize) -> Result<Vec<Timestep>> {
        if count == 0 {
            return Err(Error::ZeroSteps { text: self.to_string() });
        }
        let length = |stride: usize| train_steps.div_ceil(stride);
        match (1..train_steps).find(|&stride| length(stride) == count) {
            Some(stride) => Ok((0..train_steps as u32).step_by(stride).map(Timestep).collect()),
            None => {
                let fewer = (1..train_steps).map(length).find(|&n| n < count);
                let more = (1..train_steps).rev().map(length).find(|&n| n > count);
                let named: Vec<String> = [fewer, more].into_iter().flatten().map(|n| format!("`ddim{n}`")).collect();
                let nearest = if named.is_empty() { "`all`".to_owned() } else { named.join(" and ") };
                Err(Error::NoSuchStride { count, train_steps, nearest })
            }
        }
    }
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let syntax = || Error::SpacingSyntax { text: text.to_owned() };
        let count = |digits: &str| match digits.trim().parse::<usize>() {
            // `parse` takes a leading plus, which nobody means.
            Ok(_) if digits.contains('+') => Err(syntax()),
            Ok(0) => Err(Error::ZeroSteps { text: text.to_owned() }),
            Ok(n) => Ok(n),
            Err(_) => Err(syntax()),
        };
        if text == "all" {
            Ok(Self::All)
        } else if let Some((digits, spacing)) =
            NAMED.iter().find_map(|(name, spacing)| Some((text.strip_prefix(name)?, spacing)))
        {
            Ok(spacing(count(digits)?))
        } else {
            Ok(Self::Sections(text.split(',').map(count).collect::<Result<_>>()?))
        }
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Ddim(count) => write!(f, "ddim{count}"),
            Self::Trailing(count) => write!(f, "trailing{count}"),
            Self::Karras(count) => write!(f, "karras{count}"),
            Self::UniformLambda(count) => write!(f, "lambda{count}"),
            Self::Sections(counts) => {
                let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
                f.write_str(&counts.join(","))
            }
        }
    }
}
