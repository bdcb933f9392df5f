use tch::{Device, Kind, Tensor};

use crate::{Draw, Error, LatentShape, Noise, Result};

/// Recorded noise, to repeat a walk that another program took: image i is row i of the recording.
#[derive(Debug)]
pub struct ReplayedNoise {
    initial: Tensor,       // (N, C, H, W)
    steps: Option<Tensor>, // (S, N, C, H, W)
}

impl ReplayedNoise {
    /// Initial latents alone, which is all that deterministic samplers need.
    ///
    /// # Shapes
    /// `initial` (N, C, H, W).
    ///
    /// # Errors
    /// When it is not floating, of another rank, or not finite.
    pub fn new(initial: &Tensor) -> Result<Self> {
        let initial = recorded("`z`", initial, "(N, C, H, W)", 4)?;
        Ok(Self { initial, steps: None })
    }

    /// Adds the noise of each step, in sampling order. That of the last step is never used and may be left out.
    ///
    /// # Shapes
    /// `steps` (S, N, C, H, W), all but the first axis as the initial latents.
    ///
    /// # Errors
    /// When it is not floating, of another shape, or not finite.
    pub fn with_steps(self, steps: &Tensor) -> Result<Self> {
        let steps = recorded("`steps`", steps, "(S, N, C, H, W)", 5)?;
        if steps.size().get(1..) != Some(&self.initial.size()) {
            return Err(Error::Replay(format!(
                "`steps` has shape {:?}, expected [S, …] over `z`'s {:?}",
                steps.size(),
                self.initial.size()
            )));
        }
        Ok(Self { steps: Some(steps), ..self })
    }

    /// The rows of these images.
    fn rows(&self, images: &[u64], shape: LatentShape) -> Result<Vec<i64>> {
        let recorded = self.initial.size();
        let sizes = shape.sizes();
        if recorded.get(1..) != Some(&sizes) {
            return Err(Error::Replay(format!("`z` has shape {recorded:?}, but each image's latent is {sizes:?}")));
        }
        let count = recorded.first().copied().unwrap_or(0);
        let row = |&image: &u64| match i64::try_from(image) {
            Ok(row) if row < count => Ok(row),
            _ => {
                Err(Error::Replay(format!("it holds {count} images; image {image}, counted from 0, is not among them")))
            }
        };
        images.iter().map(row).collect()
    }

    /// The recorded steps, and how many they are.
    fn steps(&self) -> Result<(&Tensor, i64)> {
        let missing = "it has no `steps`, which a sampler that adds noise needs; take ddim with eta 0, or record them";
        let steps = self.steps.as_ref().ok_or_else(|| Error::Replay(missing.to_owned()))?;
        Ok((steps, steps.size().first().copied().unwrap_or(0)))
    }
}

impl Noise for ReplayedNoise {
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor> {
        let rows = Tensor::from_slice(&self.rows(images, shape)?);
        let recorded = match at {
            Draw::Initial => self.initial.shallow_clone(),
            Draw::Step(number) => match self.steps()? {
                (steps, held) if i64::from(number) < held => steps.get(i64::from(number)),
                (_, held) => {
                    return Err(Error::Replay(format!(
                        "it holds {held} steps; step {number}, counted from 0, is not among them"
                    )));
                }
            },
        };
        Ok(recorded.index_select(0, &rows))
    }

    fn check(&self, images: &[u64], steps: usize, shape: LatentShape) -> Result<()> {
        self.rows(images, shape)?;
        let (_, held) = self.steps()?;
        // The last step adds no noise, so a recording may hold one fewer.
        match usize::try_from(held) {
            Ok(held) if held == steps || held + 1 == steps => Ok(()),
            _ => Err(Error::Replay(format!("it holds the noise of {held} steps, but the sampler takes {steps}"))),
        }
    }
}

fn recorded(name: &str, tensor: &Tensor, expected: &str, rank: usize) -> Result<Tensor> {
    if !tensor.is_floating_point() || tensor.dim() != rank || tensor.numel() == 0 {
        return Err(Error::Replay(format!(
            "{name} holds {:?} of shape {:?}, expected floating point {expected}, none of them zero",
            tensor.kind(),
            tensor.size()
        )));
    }
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float);
    match bool::try_from(tensor.isfinite().all()) {
        Ok(true) => Ok(tensor),
        _ => Err(Error::Replay(format!("{name} holds NaN or infinity"))),
    }
}
