use std::{cell::RefCell, ops::Range};

use tch::{Device, Kind, Tensor};

use super::moved;
use crate::{BatchNoise, Draw, Error, LatentShape, Result};

/// For how many steps noise is brought to a GPU at once, at most.
const AHEAD: u32 = 8;
/// How many bytes of it, unless a step has more.
const BYTES_AHEAD: u64 = 64 << 20;

/// The noise of a walk's steps.
///
/// Whoever brings something to a GPU waits for all that it was given to do; so there it is brought for several steps at once.
#[derive(Debug)]
pub(crate) struct WalkNoise<'a> {
    batch: BatchNoise<'a>,
    shape: LatentShape,
    /// Steps of the walk.
    steps: u32,
    ahead: u32,
    brought: RefCell<Option<Brought>>,
}

#[derive(Debug)]
struct Brought {
    steps: Range<u32>,
    /// (steps, N, C, H, W).
    noise: Tensor,
}

impl<'a> WalkNoise<'a> {
    /// For a walk of `steps` steps on `device`.
    pub(crate) fn new(batch: BatchNoise<'a>, shape: LatentShape, steps: u32, device: Device) -> Self {
        let bytes: i64 = shape.sizes().iter().product::<i64>().saturating_mul(4 * batch.images().len() as i64);
        let ahead = match device {
            Device::Cpu => 1,
            _ => (BYTES_AHEAD / bytes.max(1) as u64).clamp(1, u64::from(AHEAD)) as u32,
        };
        Self { batch, shape, steps, ahead, brought: RefCell::default() }
    }

    /// That of the n-th step: (N, C, H, W).
    ///
    /// # Errors
    /// What the source says, of this step or of one that is brought with it.
    pub(crate) fn step(&self, number: u32, (kind, device): (Kind, Device)) -> Result<Tensor> {
        let draw = |number| self.batch.draw(Draw::Step(number), self.shape);
        if self.ahead == 1 {
            return Ok(moved(&draw(number)?, device)?.to_kind(kind));
        }
        let mut brought = self.brought.borrow_mut();
        let there = brought.take().filter(|brought| brought.steps.contains(&number));
        let there = match there {
            Some(there) => there,
            None => {
                let steps = number..number.saturating_add(self.ahead).min(self.steps).max(number + 1);
                let noise = steps.clone().map(draw).collect::<Result<Vec<Tensor>>>()?;
                let noise = Tensor::f_stack(&noise, 0).map_err(|source| Error::Device { device, source })?;
                Brought { steps, noise: moved(&noise, device)? }
            }
        };
        let noise = there.noise.get(i64::from(number - there.steps.start)).to_kind(kind);
        *brought = Some(there);
        Ok(noise)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{Noise, SeededNoise};

    /// Counts how often it is asked.
    struct Counted(SeededNoise, Cell<usize>);

    impl Noise for Counted {
        fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor> {
            self.1.set(self.1.get() + 1);
            self.0.draw(images, at, shape)
        }
    }

    #[test]
    fn what_is_brought_ahead_is_what_each_step_would_have_been_given() {
        let shape = LatentShape { channels: 2, height: 3, width: 4 };
        let images = [5, 0];
        for (ahead, steps, asked) in [(1, 20, 20), (3, 20, 20), (8, 20, 20), (8, 3, 3)] {
            let source = Counted(SeededNoise::new(3), Cell::new(0));
            let batch = BatchNoise::new(&source, &images);
            let walk = WalkNoise { ahead, ..WalkNoise::new(batch, shape, steps, Device::Cpu) };
            for number in 0..steps {
                let expected = source.0.draw(&images, Draw::Step(number), shape).unwrap();
                let found = walk.step(number, (Kind::Double, Device::Cpu)).unwrap();
                assert_eq!((found.kind(), found.size()), (Kind::Double, expected.size()));
                assert!(found.equal(&expected.to_kind(Kind::Double)), "{ahead}: step {number}");
            }
            assert_eq!(source.1.get(), asked, "each step's is drawn once");
        }
    }

    #[test]
    fn steps_may_be_left_out_and_come_back() {
        let shape = LatentShape { channels: 1, height: 2, width: 2 };
        let source = SeededNoise::new(1);
        let walk = WalkNoise { ahead: 4, ..WalkNoise::new(BatchNoise::new(&source, &[1]), shape, 9, Device::Cpu) };
        for number in [0, 2, 8, 1, 7] {
            let expected = source.draw(&[1], Draw::Step(number), shape).unwrap();
            assert!(walk.step(number, (Kind::Float, Device::Cpu)).unwrap().equal(&expected), "{number}");
        }
    }

    #[test]
    fn less_is_brought_of_large_batches() {
        let ahead = |images: usize, side: u32| {
            let (source, images) = (SeededNoise::new(0), vec![0; images]);
            let shape = LatentShape { channels: 4, height: side, width: side };
            WalkNoise::new(BatchNoise::new(&source, &images), shape, 50, Device::Cuda(0)).ahead
        };
        assert_eq!([ahead(8, 32), ahead(512, 32), ahead(1000, 64), ahead(0, 32)], [8, 8, 1, 8]);
    }
}
