//! Checks that stand between a caller's tensors and libtorch, which would panic, or on a GPU read out of bounds.

use tch::{Kind, Tensor};

use crate::{Dit, ModelError, dit::is_float};

impl Dit {
    /// Whether [`forward`](Dit::forward) accepts these arguments. Timesteps beyond the training schedule pass: the model does not know
    /// it. Reads the values of `t` and `labels`: on a GPU this waits
    /// for all queued work, so check once per run rather than at every step.
    ///
    /// # Errors
    /// [`ModelError::Input`] lists every misfit; [`ModelError::Gradient`] where gradients are recorded that packed weights do not give.
    pub fn check_input(&self, x: &Tensor, t: &Tensor, labels: &Tensor) -> Result<(), ModelError> {
        if self.loses_gradients() {
            return Err(ModelError::Gradient);
        }
        let mut problems = Vec::new();
        for (name, tensor) in [("x", x), ("t", t), ("labels", labels)] {
            check_layout(name, tensor, &mut problems);
        }
        if !problems.is_empty() {
            return Err(self.misfit(problems)); // libtorch would refuse every other question about them
        }
        self.check_latents(x, &mut problems);
        let samples = x.size().first().copied().unwrap_or(0);
        self.check_timesteps(t, samples, &mut problems)?;
        self.check_labels(labels, samples, &mut problems)?;
        for (name, tensor) in [("x", x), ("t", t), ("labels", labels)] {
            if tensor.device() != self.device() {
                problems.push(format!("{name} is on {:?}, the model on {:?}", tensor.device(), self.device()));
            }
        }
        // Packed weights do not follow the variable store.
        let (kind, packed) = (self.kind(), self.timestep_embedder().kind());
        if kind != packed {
            problems
                .push(format!("the variable store is of kind {kind:?} by now, and weights were packed in {packed:?}"));
        }
        if problems.is_empty() { Ok(()) } else { Err(self.misfit(problems)) }
    }

    fn misfit(&self, problems: Vec<String>) -> ModelError {
        ModelError::Input { model: self.config().to_string(), problems }
    }

    fn check_latents(&self, x: &Tensor, problems: &mut Vec<String>) {
        let config = self.config();
        let (c, h, w) = (config.in_channels, config.latent.height, config.latent.width);
        let shape = x.size();
        if shape.get(1..) != Some(&[c as i64, h as i64, w as i64]) {
            problems.push(format!("x is {shape:?}, expected [N, {c}, {h}, {w}]"));
        } else if shape[0] == 0 {
            problems.push("x holds no sample".to_owned());
        }
        if !is_float(x.kind()) {
            problems.push(format!("x is of kind {:?}, expected a floating-point kind", x.kind()));
        }
    }

    fn check_timesteps(&self, t: &Tensor, samples: i64, problems: &mut Vec<String>) -> Result<(), ModelError> {
        check_vector("t", t, samples, problems);
        if matches!(t.kind(), Kind::Bool | Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble) {
            problems.push(format!("t is of kind {:?}, expected integers or floats", t.kind()));
        } else if !bool::try_from(t.f_isfinite()?.f_all()?)? {
            problems.push("t holds NaN or infinity".to_owned());
        } else if t.numel() > 0 {
            let least = f64::try_from(t.f_min()?)?;
            if least < 0.0 {
                problems.push(format!("timestep {least} is out of range, expected 0 or more"));
            }
        }
        Ok(())
    }

    fn check_labels(&self, labels: &Tensor, samples: i64, problems: &mut Vec<String>) -> Result<(), ModelError> {
        check_vector("labels", labels, samples, problems);
        if labels.kind() != Kind::Int64 {
            problems.push(format!("labels are of kind {:?}, expected Int64", labels.kind()));
        } else if labels.numel() > 0 {
            let last = self.config().label_rows() as i64 - 1;
            let least = i64::try_from(labels.f_min()?)?;
            let most = i64::try_from(labels.f_max()?)?;
            let null = if self.config().null_class().is_some() { " (the null class)" } else { "" };
            if least < 0 {
                problems.push(format!("label {least} is out of range, expected 0 to {last}{null}"));
            }
            if most > last {
                problems.push(format!("label {most} is out of range, expected 0 to {last}{null}"));
            }
        }
        Ok(())
    }
}

/// Whether there is a tensor, and its elements lie in memory as layers expect: not sparse, nor in a layout of oneDNN.
fn check_layout(name: &str, tensor: &Tensor, problems: &mut Vec<String>) {
    if !tensor.defined() {
        problems.push(format!("{name} is an undefined tensor"));
    } else if tensor.f_view(tensor.size().as_slice()).is_err() {
        problems.push(format!("{name} is sparse or of another special layout, expected a dense tensor"));
    }
}

fn check_vector(name: &str, tensor: &Tensor, samples: i64, problems: &mut Vec<String>) {
    let shape = tensor.size();
    if shape != [samples] {
        problems.push(format!("{name} is {shape:?}, expected [{samples}], one for each sample of x"));
    }
}
