use std::cell::RefCell;

use dit_ops::{refused, tf32_setting};
use dit_torch::{Graph, grad_is_enabled};
use tch::{Kind, TchError, Tensor};

use crate::{Dit, shelf::Shelf};

/// A [`Dit`] for sampling, whose passes on a GPU are recorded as CUDA graphs and replayed: one launch where operator by operator there
/// are hundreds.
///
/// Inputs of another shape are another graph. The first pass of a shape is computed as ever, which sets up what cannot be recorded; so is the
/// second, and then recorded, and replayed, and what that gives is compared: where it is something else, or where recording fails, passes of that
/// shape stay as they were. A few graphs are kept, of the shapes that were asked for last; they share the memory of their activations.
///
/// On a CPU, with a libtorch of another version, where gradients are recorded, and with `DIT_NO_CUDA_GRAPHS` in the environment (not empty and
/// not 0), it is [`Dit::forward`].
///
/// A graph reads the weights where they lay when it was recorded. So the model is kept here, and nobody can
/// [`optimize`](Dit::optimize) it any more. A variable store that is still there may change values in place, but must not change its kind.
#[derive(Debug)]
pub struct GraphedDit {
    graphs: RefCell<Shelf<Shape, Passes>>,
    /// After the graphs, which read it.
    dit: Dit,
    wanted: bool,
}

/// What makes a pass another one.
#[derive(Debug, PartialEq)]
struct Shape {
    x: Vec<i64>,
    kind: Kind,
    labels: Vec<i64>,
    tf32: Option<bool>,
}

/// By how much results may differ, in parts of the largest value, where libtorch chooses other kernels; as a rule they do not at all. What comes
/// from the wrong memory is off by as much as it is large.
fn bound(model: Kind, tf32: Option<bool>) -> f64 {
    match model {
        Kind::Float if tf32 == Some(true) => 5e-3,
        Kind::Float | Kind::Double => 1e-3,
        _ => 2e-2,
    }
}

/// How passes of a shape are computed.
#[derive(Debug)]
enum Passes {
    /// As ever, and the next one is recorded.
    ToBeRecorded,
    /// As ever.
    Eager,
    Replayed(Pass),
}

impl GraphedDit {
    /// Takes a model whose weights will not change.
    pub fn new(dit: Dit) -> Self {
        let graphs = Shelf::new(|passes| matches!(passes, Passes::Replayed(_)));
        Self { graphs: RefCell::new(graphs), dit, wanted: !refused("DIT_NO_CUDA_GRAPHS") }
    }

    /// The model.
    pub fn dit(&self) -> &Dit {
        &self.dit
    }

    /// How many graphs there are at the moment.
    pub fn graphs(&self) -> usize {
        self.graphs.borrow().large()
    }

    /// [`Dit::forward`] with all samples at timestep `t`.
    ///
    /// # Shapes
    /// `x` (N, C, H, W), `labels` (N,) → (N, C_out, H, W).
    ///
    /// # Errors
    /// libtorch's reason, as where the device has no memory for the timesteps.
    ///
    /// # Panics
    /// As [`Dit::forward`].
    pub fn forward(&self, x: &Tensor, t: i64, labels: &Tensor) -> Result<Tensor, TchError> {
        if !self.is_recorded(x, labels) {
            if !Graph::is_supported(self.dit.device()) {
                // Where a recording has spoiled the others, nobody needs their memory any more.
                self.graphs.borrow_mut().clear();
            }
            return self.eager(x, t, labels);
        }
        let shape = Shape { x: x.size(), kind: x.kind(), labels: labels.size(), tf32: tf32_setting() };
        let mut graphs = self.graphs.borrow_mut();
        let Some(passes) = graphs.get(&shape) else {
            graphs.put(shape, Passes::ToBeRecorded);
            return self.eager(x, t, labels);
        };
        match passes {
            Passes::Eager => self.eager(x, t, labels),
            Passes::Replayed(pass) => match pass.replay(x, t, labels) {
                Ok(output) => Ok(output),
                Err(error) => {
                    *passes = Passes::Eager;
                    self.give_up(&shape, &error.to_string());
                    self.eager(x, t, labels)
                }
            },
            Passes::ToBeRecorded => {
                let expected = self.eager(x, t, labels)?;
                if !is_finite(&expected)? {
                    // It tells nothing of a replay.
                    return Ok(expected);
                }
                // Before there is one more.
                graphs.make_room();
                // At another timestep, so that one that stayed in the recording would be seen.
                let recorded = Pass::record(&self.dit, x, if t == 0 { 1 } else { 0 }, labels).and_then(|mut pass| {
                    let replayed = pass.replay(x, t, labels)?;
                    is_alike(&replayed, &expected, bound(self.dit.kind(), shape.tf32))
                        .map(|alike| alike.then_some(pass))
                });
                let passes = match recorded {
                    Ok(Some(pass)) => Passes::Replayed(pass),
                    Ok(None) => {
                        self.give_up(&shape, "a replay gave something else than what was recorded");
                        Passes::Eager
                    }
                    Err(error) => {
                        self.give_up(&shape, &error.to_string());
                        Passes::Eager
                    }
                };
                graphs.put(shape, passes);
                Ok(expected)
            }
        }
    }

    fn is_recorded(&self, x: &Tensor, labels: &Tensor) -> bool {
        let device = self.dit.device();
        self.wanted
            && Graph::is_supported(device)
            && x.device() == device
            && labels.device() == device
            && !grad_is_enabled()
    }

    fn eager(&self, x: &Tensor, t: i64, labels: &Tensor) -> Result<Tensor, TchError> {
        Ok(self.dit.forward(x, &timesteps(x, t)?, labels))
    }

    fn give_up(&self, shape: &Shape, why: &str) {
        let why = why.trim_start_matches("Internal torch error: ");
        tracing::warn!(rows = ?shape.x.first(), why, "no CUDA graph; sampling goes on operator by operator");
    }
}

/// (N,) for `x` (N, …).
fn timesteps(x: &Tensor, t: i64) -> Result<Tensor, TchError> {
    Tensor::f_full([x.size()[0]], t, (Kind::Int64, x.device()))
}

/// A pass, and the tensors that it was recorded over.
#[derive(Debug)]
struct Pass {
    graph: Graph,
    x: Tensor,
    t: Tensor,
    labels: Tensor,
}

impl Pass {
    /// Of inputs like these, at timestep `t`.
    fn record(dit: &Dit, x: &Tensor, t: i64, labels: &Tensor) -> Result<Self, TchError> {
        let (x, t, labels) = (x.f_zeros_like()?, timesteps(x, t)?, labels.f_zeros_like()?);
        let graph = Graph::record(dit.device(), || dit.forward(&x, &t, &labels))?;
        Ok(Self { graph, x, t, labels })
    }

    fn replay(&mut self, x: &Tensor, t: i64, labels: &Tensor) -> Result<Tensor, TchError> {
        self.x.f_copy_(x)?;
        let _ = self.t.f_fill_(t)?;
        self.labels.f_copy_(labels)?;
        self.graph.replay()
    }
}

fn is_finite(x: &Tensor) -> Result<bool, TchError> {
    bool::try_from(x.f_isfinite()?.f_all()?)
}

/// Whether two results differ by no more than `bound` times the largest value.
fn is_alike(found: &Tensor, expected: &Tensor, bound: f64) -> Result<bool, TchError> {
    let (found, expected) = (found.f_to_kind(Kind::Float)?, expected.f_to_kind(Kind::Float)?);
    let largest = |x: &Tensor| x.f_abs()?.f_max();
    let room = largest(&expected)?.f_mul_scalar(bound)?.f_sub(&largest(&found.f_sub(&expected)?)?)?;
    // NaN is not.
    Ok(f64::try_from(room)? >= 0.0)
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;
    use crate::{DitConfig, Initialization};

    #[test]
    fn on_a_cpu_it_is_the_model() {
        let config = "DiT-S/8".parse::<DitConfig>().unwrap().with(|spec| spec.depth = 1).unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        let graphed = GraphedDit::new(Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 }));
        let _no_grad = tch::no_grad_guard();
        let x = Tensor::rand([2, 4, 32, 32], (Kind::Float, Device::Cpu));
        let labels = Tensor::from_slice(&[1_i64, 2]);
        for t in [0, 999, 999] {
            let expected = graphed.dit().forward(&x, &Tensor::from_slice(&[t, t]), &labels);
            assert_eq!(graphed.forward(&x, t, &labels).unwrap(), expected);
        }
        assert_eq!(graphed.graphs(), 0);
    }

    /// More shapes than are kept, so that graphs are recorded again in memory that others have left.
    #[test]
    fn on_a_gpu_passes_are_replayed() {
        if !tch::Cuda::is_available() {
            eprintln!("SKIPPED: no GPU");
            return;
        }
        let gpu = Device::Cuda(0);
        let config = "DiT-S/4".parse::<DitConfig>().unwrap().with(|spec| spec.depth = 2).unwrap();
        for kind in [Kind::Float, Kind::BFloat16] {
            let mut store = nn::VarStore::new(gpu);
            let mut dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 });
            store.freeze();
            let _no_grad = tch::no_grad_guard();
            // Zero gates would make every block the identity.
            let waves = |shape: &[i64], length: f64| {
                let values = shape.iter().product::<i64>();
                (Tensor::arange(values, (Kind::Float, Device::Cpu)) * length).sin().view(shape)
            };
            for (_, mut variable) in store.variables() {
                variable.copy_(&(waves(&variable.size(), 1.7) * 0.05));
            }
            if kind == Kind::BFloat16 {
                store.bfloat16();
            }
            dit.optimize(crate::Kernels::Fused);
            let graphed = GraphedDit::new(dit);
            for (samples, t) in (0..3).flat_map(|_| (1..=6).flat_map(|samples| [0, 500, 999].map(|t| (samples, t)))) {
                let x = waves(&[samples, 4, 32, 32], 0.3 + t as f64).to_device(gpu);
                let labels = Tensor::full([samples], t, (Kind::Int64, gpu));
                let expected = graphed.dit().forward(&x, &timesteps(&x, t).unwrap(), &labels);
                let found = graphed.forward(&x, t, &labels).unwrap();
                assert!(is_alike(&found, &expected, bound(kind, None)).unwrap(), "{kind:?}, {samples} samples at {t}");
                let passes = &mut graphed.graphs.borrow_mut();
                let shape = Shape { x: x.size(), kind: x.kind(), labels: labels.size(), tf32: tf32_setting() };
                let passes = passes.get(&shape);
                assert!(t == 0 || !graphed.wanted || matches!(passes, Some(Passes::Replayed(_))), "{passes:?}");
            }
        }
    }

    #[test]
    fn rounding_is_alike_and_all_else_is_not() {
        let values = Tensor::from_slice(&[1.0_f32, -2.0, 0.0]);
        let alike = |found: &[f32], kind| {
            let (found, expected) = (Tensor::from_slice(found).to_kind(kind), values.to_kind(kind));
            is_alike(&found, &expected, bound(kind, None)).unwrap()
        };
        for kind in [Kind::Float, Kind::BFloat16] {
            assert!(alike(&[1.0, -2.0, 0.0], kind));
            assert!(alike(&[1.0, -2.0, 1e-3], kind));
            assert!(!alike(&[1.0, -2.0, 0.1], kind));
            assert!(!alike(&[1.0, 2.0, 0.0], kind));
            assert!(!alike(&[1.0, -2.0, f32::NAN], kind));
            assert!(!alike(&[1.0, -2.0, f32::INFINITY], kind));
        }
        // A model whose last layer is zero.
        let zeros = values.zeros_like();
        assert!(is_alike(&zeros, &zeros, 1e-3).unwrap() && !is_alike(&values, &zeros, 1e-3).unwrap());
    }
}
