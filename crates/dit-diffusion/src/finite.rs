use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result, Step, StepIndex, Timestep};

/// How many tensors of a walk on a GPU wait to be asked about together.
const PATIENCE: usize = 16;

/// Finds NaN and infinity, and hands the images that hold them to `failed`.
pub(crate) fn check_finite(x: &Tensor, images: &[u64], failed: impl FnOnce(Vec<u64>) -> Error) -> Result<()> {
    let unfinished = |source| Error::Unfinished { device: x.device(), source };
    if bool::try_from(x.isfinite().all()).map_err(unfinished)? {
        return Ok(());
    }
    let finite = Vec::<bool>::try_from(x.flatten(1, -1).isfinite().all_dim(1, false)).map_err(unfinished)?;
    Err(failed(images.iter().zip(finite).filter(|(_, finite)| !finite).map(|(&image, _)| image).collect()))
}

/// The watch for NaN and infinity over a walk.
///
/// Whoever asks a GPU waits for all that it was given to do, and it stands still until it is given more. So there a walk asks only once in
/// a while, about all that it has seen since, and is told of the first tensor that was not finite some steps later.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) images: &'a [u64],
    patience: usize,
    /// With (N,) each: zero where an image's values are finite, NaN where not.
    waiting: RefCell<Vec<(Suspect, Tensor)>>,
}

/// What may hold something that is not finite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect {
    /// What the network, or a classifier, said; none for where the step led.
    said: Option<&'static str>,
    step: StepIndex,
    timestep: Timestep,
}

impl Suspect {
    pub(crate) fn said(what: &'static str, step: &Step) -> Self {
        Self { said: Some(what), step: step.index(), timestep: step.timestep() }
    }

    pub(crate) fn result(step: &Step) -> Self {
        Self { said: None, step: step.index(), timestep: step.timestep() }
    }

    fn failed(self, images: Vec<u64>) -> Error {
        let Self { said, step, timestep } = self;
        match said {
            Some(what) => Error::NonFinite { what, step, timestep, images },
            None => Error::NonFiniteResult { step, timestep, images },
        }
    }
}

impl<'a> Watch<'a> {
    /// Over a walk of these images on `device`.
    pub(crate) fn new(images: &'a [u64], device: Device) -> Self {
        Self::patient(images, if device == Device::Cpu { 1 } else { PATIENCE })
    }

    fn patient(images: &'a [u64], patience: usize) -> Self {
        Self { images, patience, waiting: RefCell::default() }
    }

    /// Sees `x` (N, …).
    ///
    /// # Errors
    /// The first that was not finite of all that was asked about now.
    pub(crate) fn see(&self, suspect: Suspect, x: &Tensor) -> Result<()> {
        if self.patience == 1 {
            return check_finite(x, self.images, |images| suspect.failed(images));
        }
        let marks = (x * 0.0).flatten(1, -1).sum_dim_intlist(1, false, Kind::Float); // (N,)
        self.waiting.borrow_mut().push((suspect, marks));
        if self.waiting.borrow().len() < self.patience { Ok(()) } else { self.ask() }
    }

    /// Asks about all that was seen and not asked about.
    ///
    /// # Errors
    /// The first that was not finite.
    pub(crate) fn ask(&self) -> Result<()> {
        let waiting = self.waiting.take();
        let Some((_, first)) = waiting.first() else { return Ok(()) };
        let device = first.device();
        let marks: Vec<&Tensor> = waiting.iter().map(|(_, marks)| marks).collect();
        let read = || {
            Vec::<Vec<f64>>::try_from(Tensor::f_stack(&marks, 0)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)
        };
        let rows = read().map_err(|source| Error::Unfinished { device, source })?; // (tensors, N)
        for ((suspect, _), marks) in waiting.iter().zip(rows) {
            let images: Vec<u64> =
                self.images.iter().zip(marks).filter(|(_, mark)| *mark != 0.0).map(|(&image, _)| image).collect();
            if !images.is_empty() {
                return Err(suspect.failed(images));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoiseSchedule;

    const IMAGES: [u64; 3] = [7, 8, 9];

    fn finite() -> Tensor {
        Tensor::from_slice(&[1e38_f32, -1e38, 0.0, -0.0, 1e-40, 3.0]).view([3, 2, 1, 1])
    }

    fn with(value: f32, image: i64) -> Tensor {
        let x = finite();
        let _ = x.get(image).fill_(f64::from(value));
        x
    }

    /// What a watch of each patience says of a walk that sees these tensors and ends.
    fn told(seen: &[Tensor], patience: usize) -> Result<()> {
        let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&"ddim50".parse().unwrap()).unwrap();
        let watch = Watch::patient(&IMAGES, patience);
        for (number, x) in seen.iter().enumerate() {
            let step = &schedule.steps()[number / 2];
            let suspect = if number % 2 == 0 { Suspect::said("the output", step) } else { Suspect::result(step) };
            watch.see(suspect, x)?;
        }
        watch.ask()
    }

    #[track_caller]
    fn check(seen: &[Tensor], expected: Option<&str>) {
        for patience in [1, 2, 3, 16] {
            let told = told(seen, patience).map_err(|error| error.to_string());
            match expected {
                None => told.unwrap(),
                Some(expected) => {
                    let told = told.unwrap_err();
                    assert!(told.contains(expected), "patience {patience}: {told}");
                    assert_eq!(Err(told), self::told(seen, 1).map_err(|error| error.to_string()), "{patience}");
                }
            }
        }
    }

    #[test]
    fn what_is_finite_is_let_through() {
        check(&[], None);
        check(&[finite(), finite(), finite(), finite(), finite()], None);
    }

    #[test]
    fn the_first_that_is_not_is_told_whenever_it_is_asked_about() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            check(&[with(value, 1)], Some("8"));
            check(&[finite(), with(value, 2), finite()], Some("9"));
            check(&[finite(), finite(), finite(), with(value, 0), with(value, 2)], Some("7"));
        }
    }
}
