use std::{fmt, str::FromStr};

use crate::{Error, Result, Timestep};

/// Which of the training timesteps a sampler visits. Written as the original's scripts write it:
///
/// | text | meaning |
/// |---|---|
/// | `all` | every training step |
/// | `250` | 250 steps, evenly spaced, both ends kept |
/// | `10,15,20` | equal sections of the training steps, the noisiest last; 10 steps from the first, 15 from the second, … |
/// | `ddim50` | every k-th step from 0, k the first integer that gives exactly 50 |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// Every training step.
    All,
    /// This many steps from each of as many equal sections; one section is an even spacing.
    Sections(Vec<usize>),
    /// This many steps at a fixed integer stride (Song et al. 2021).
    Ddim(usize),
}

impl Spacing {
    /// `count` steps, evenly spaced.
    pub fn even(count: usize) -> Self {
        Self::Sections(vec![count])
    }

    /// The timesteps kept out of `train_steps`, rising.
    ///
    /// # Errors
    /// When a count is zero or more than its section spans, and when no stride gives a `ddimN`.
    pub fn timesteps(&self, train_steps: usize) -> Result<Vec<Timestep>> {
        // Schedules are far shorter than 2³², so the casts below keep every value.
        let too_long = || Error::ScheduleTooLong { steps: train_steps, max: u32::MAX as usize };
        u32::try_from(train_steps).map_err(|_| too_long())?;
        if train_steps == 0 {
            return Err(Error::EmptySchedule);
        }
        match self {
            Self::All => Ok((0..train_steps as u32).map(Timestep).collect()),
            Self::Sections(counts) => self.sections(counts, train_steps),
            Self::Ddim(count) => self.strided(*count, train_steps),
        }
    }

    fn sections(&self, counts: &[usize], train_steps: usize) -> Result<Vec<Timestep>> {
        if counts.is_empty() || counts.contains(&0) {
            return Err(Error::ZeroSteps { text: self.to_string() });
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
        } else if let Some(digits) = text.strip_prefix("ddim") {
            Ok(Self::Ddim(count(digits)?))
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
            Self::Sections(counts) => {
                let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
                f.write_str(&counts.join(","))
            }
        }
    }
}
