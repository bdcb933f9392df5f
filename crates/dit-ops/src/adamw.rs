use dit_torch::lists::{self, AdamWStep};
use tch::{Device, Kind, TchError, Tensor};

use crate::OpsError;

/// AdamW's constants; the learning rate comes with each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of each parameter that a step takes off, times the learning rate.
    pub weight_decay: f64,
}

/// Adam with decoupled weight decay, as PyTorch's `AdamW` computes it: Loshchilov & Hutter 2019, algorithm 2, the second
/// moment's bias corrected before eps is added.
///
/// Its whole state can be read and put back, unlike that of tch's optimizers, so training continues exactly where it was.
/// One fused kernel, or one operator after another; the two differ by rounding.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    step: u64,
    exp_avg: Vec<Tensor>,
    exp_avg_sq: Vec<Tensor>,
    kernel: AdamWKernel,
}

/// Which implementation of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdamWKernel {
    /// One kernel over all parameters, where they are contiguous.
    Fused,
    /// One operator after another.
    Plain,
}

impl AdamW {
    /// An optimizer of parameters like these, fp32, that has taken no step.
    ///
    /// # Errors
    /// [`OpsError::Torch`], for want of memory.
    pub fn new(parameters: &[Tensor], options: AdamWOptions, kernel: AdamWKernel) -> Result<Self, OpsError> {
        let zeros = || -> Result<Vec<Tensor>, TchError> {
            parameters.iter().map(|parameter| parameter.detach().f_zeros_like()).collect()
        };
        Ok(Self { options, step: 0, exp_avg: zeros()?, exp_avg_sq: zeros()?, kernel })
    }

    /// Moves `parameters` against `gradients`, in place. Both are those of [`new`](Self::new), in its order and shapes; gradients
    /// may have any strides.
    ///
    /// # Errors
    /// [`OpsError::Parameters`] where their number is another; [`OpsError::Torch`].
    pub fn step(&mut self, parameters: &mut [Tensor], gradients: &[Tensor], lr: f64) -> Result<(), OpsError> {
        let known = self.exp_avg.len();
        if parameters.len() != known || gradients.len() != known {
            return Err(OpsError::Parameters { known, parameters: parameters.len(), gradients: gradients.len() });
        }
        if known == 0 {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        self.step += 1;
        match self.kernel {
            AdamWKernel::Fused if parameters.iter().all(Tensor::is_contiguous) => {
                let gradients: Vec<Tensor> = gradients.iter().map(Tensor::f_contiguous).collect::<Result<_, _>>()?;
                self.fused_step(parameters, &gradients, lr)
            }
            AdamWKernel::Fused | AdamWKernel::Plain => self.plain_step(parameters, gradients, lr),
        }
    }

    fn fused_step(&mut self, parameters: &mut [Tensor], gradients: &[Tensor], lr: f64) -> Result<(), OpsError> {
        let AdamWOptions { beta1, beta2, eps, weight_decay } = self.options;
        let device = parameters.first().map_or(Device::Cpu, Tensor::device);
        // f32 counts exactly to 2²⁴.
        let number = Tensor::f_full([], self.step as f64, (Kind::Float, device))?;
        let moments = [&mut self.exp_avg[..], &mut self.exp_avg_sq];
        Ok(lists::adamw(parameters, gradients, moments, &number, AdamWStep { lr, beta1, beta2, weight_decay, eps })?)
    }

    fn plain_step(&mut self, parameters: &mut [Tensor], gradients: &[Tensor], lr: f64) -> Result<(), OpsError> {
        let AdamWOptions { beta1, beta2, eps, weight_decay } = self.options;
        let corrected = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let (correction1, correction2) = (corrected(beta1), corrected(beta2));
        let moments = self.exp_avg.iter_mut().zip(&mut self.exp_avg_sq);
        for ((parameter, gradient), (mean, square)) in parameters.iter_mut().zip(gradients).zip(moments) {
            let _ = parameter.f_mul_scalar_(1.0 - lr * weight_decay)?;
            let _ = mean.f_lerp_(gradient, 1.0 - beta1)?;
            *square = square.f_mul_scalar_(beta2)?.f_addcmul_(&(gradient * (1.0 - beta2)), gradient)?;
            let root = square.f_sqrt()?.f_div_scalar_(correction2.sqrt())?.f_add_scalar_(eps)?;
            let _ = parameter.f_addcdiv_(&(&*mean * (-lr / correction1)), &root)?;
        }
        Ok(())
    }

    /// Steps taken.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// The means of gradients and of their squares, in the parameters' order.
    pub fn moments(&self) -> (&[Tensor], &[Tensor]) {
        (&self.exp_avg, &self.exp_avg_sq)
    }

    /// Puts back what [`steps_taken`](Self::steps_taken) and [`moments`](Self::moments) gave.
    ///
    /// # Errors
    /// [`OpsError::Parameters`] where there are fewer or more moments than parameters, [`OpsError::Shape`] where one has
    /// another shape; nothing has changed then. [`OpsError::Torch`].
    pub fn restore(&mut self, steps: u64, exp_avg: &[Tensor], exp_avg_sq: &[Tensor]) -> Result<(), OpsError> {
        let known = self.exp_avg.len();
        if exp_avg.len() != known || exp_avg_sq.len() != known {
            return Err(OpsError::Parameters { known, parameters: exp_avg.len(), gradients: exp_avg_sq.len() });
        }
        let pairs = || (self.exp_avg.iter().zip(exp_avg)).chain(self.exp_avg_sq.iter().zip(exp_avg_sq));
        if let Some((here, given)) = pairs().find(|(here, given)| here.size() != given.size()) {
            return Err(OpsError::Shape { what: "a moment", expected: here.size(), found: given.size() });
        }
        let _no_grad = tch::no_grad_guard();
        for (here, given) in self.exp_avg.iter_mut().zip(exp_avg).chain(self.exp_avg_sq.iter_mut().zip(exp_avg_sq)) {
            here.f_copy_(given)?;
        }
        self.step = steps;
        Ok(())
    }
}
