//! How variables are named and how they start.

use dit_ops::Linear;
use dit_random::box_muller;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use tch::{Tensor, nn};

use crate::load::Loader;

/// How a new model's weights start. The position table is not a weight: it is computed either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialization {
    /// As the paper's models started: Xavier-uniform Linears and patch convolution, zero biases, N(0, 0.02) timestep
    /// Linears and label table, LayerNorms at one and zero, a zero output Linear; adaLN-Zero's modulation is zero too.
    ///
    /// Every tensor's values follow from `seed` and the tensor's name alone, on any device and in any order of
    /// construction; libtorch's global generator is neither read nor moved.
    Reference {
        /// Any number; the same number gives the same weights.
        seed: u64,
    },
    /// All zero, to be overwritten by a checkpoint: spares drawing hundreds of millions of numbers.
    Empty,
}

/// The initial distribution of one tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Distribution {
    Zeros,
    Ones,
    /// U(−a, a), a = √(6 / (fan_in + fan_out)): Glorot & Bengio 2010, equation 16. A convolution counts as the Linear
    /// that its flattened kernel is.
    XavierUniform,
    /// N(0, std²).
    Normal {
        std: f64,
    },
}

/// A place in the variable store, with what initialises the variables made there.
///
/// Each layer spells its part of the checkpoint's names here, once.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    origin: Origin<'a>,
    /// Dotted, from the model's root (not the store's: a copy under another prefix starts with the same values).
    name: String,
}

/// Where a model's tensors come from.
#[derive(Debug)]
enum Origin<'a> {
    /// They are made here, and can be trained.
    Store { path: nn::Path<'a>, initialization: Initialization },
    /// They are a checkpoint's.
    File(&'a Loader<'a>),
}

impl<'a> Scope<'a> {
    pub(crate) fn root(path: &nn::Path<'a>, initialization: Initialization) -> Self {
        Self { origin: Origin::Store { path: path.clone(), initialization }, name: String::new() }
    }

    /// A model of a checkpoint, without a variable store: [`Loader::finish`] tells whether it is one.
    pub(crate) fn of_file(loader: &'a Loader<'a>) -> Self {
        Self { origin: Origin::File(loader), name: String::new() }
    }

    pub(crate) fn sub(&self, name: impl ToString) -> Self {
        let name = name.to_string();
        let origin = match &self.origin {
            Origin::Store { path, initialization } => {
                Origin::Store { path: path.sub(&name), initialization: *initialization }
            }
            Origin::File(loader) => Origin::File(loader),
        };
        Self { origin, name: self.full_name(&name) }
    }

    /// `weight` (outputs, inputs) and a zero `bias` (outputs).
    pub(crate) fn linear(&self, inputs: usize, outputs: usize, weight: Distribution) -> Linear {
        let linear = match &self.origin {
            Origin::Store { .. } => self.new_linear(inputs, outputs, weight),
            Origin::File(loader) => loader.linear(&self.name, inputs, outputs, loader.kernels),
        };
        linear.named(&self.name)
    }

    /// A Linear that 8 bits would harm.
    pub(crate) fn sensitive_linear(&self, inputs: usize, outputs: usize, weight: Distribution) -> Linear {
        let linear = match &self.origin {
            Origin::Store { .. } => self.new_linear(inputs, outputs, weight),
            Origin::File(loader) => loader.linear(&self.name, inputs, outputs, loader.kernels.sensitive()),
        };
        // Of a checkpoint it stays marked: whoever loaded it plain may still choose other kernels.
        linear.sensitive().named(&self.name)
    }

    fn new_linear(&self, inputs: usize, outputs: usize, weight: Distribution) -> Linear {
        let weight = self.variable("weight", &[outputs, inputs], weight);
        Linear::new(weight, Some(self.variable("bias", &[outputs], Distribution::Zeros)))
    }

    /// A new trainable variable; of a checkpoint, its tensor, which is not.
    pub(crate) fn variable(&self, name: &str, shape: &[usize], distribution: Distribution) -> Tensor {
        let (path, initialization) = match &self.origin {
            Origin::Store { path, initialization } => (path, initialization),
            Origin::File(loader) => return loader.tensor(&self.full_name(name), shape),
        };
        let dims: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
        let mut variable = path.zeros(name, &dims);
        if let Initialization::Reference { seed } = *initialization {
            let values = draw(distribution, shape, seed, &self.full_name(name));
            let _no_grad = tch::no_grad_guard();
            variable.copy_(&Tensor::from_slice(&values).view(dims.as_slice()));
        }
        variable
    }

    /// A variable that is part of the state dict but never trained: `value`, or what a checkpoint has in its place.
    pub(crate) fn frozen(&self, name: &str, value: &Tensor) -> Tensor {
        match &self.origin {
            Origin::Store { path, .. } => path.add(name, value.to_kind(path.kind()).to_device(path.device()), false),
            Origin::File(loader) => {
                let shape: Vec<usize> = value.size().into_iter().map(|extent| extent as usize).collect();
                loader.tensor(&self.full_name(name), &shape)
            }
        }
    }

    /// What is computed and no part of the state dict, on the model's device.
    pub(crate) fn constant(&self, name: &str, value: &Tensor) -> Tensor {
        match &self.origin {
            Origin::Store { path, .. } => value.to_device(path.device()),
            Origin::File(loader) => loader.constant(&self.full_name(name), value),
        }
    }

    fn full_name(&self, name: &str) -> String {
        if self.name.is_empty() { name.to_owned() } else { format!("{}.{name}", self.name) }
    }
}

/// One value per element, row-major.
fn draw(distribution: Distribution, shape: &[usize], seed: u64, name: &str) -> Vec<f32> {
    let numel: usize = shape.iter().product();
    let mut rng = generator(seed, name);
    match distribution {
        Distribution::Zeros => vec![0.0; numel],
        Distribution::Ones => vec![1.0; numel],
        Distribution::XavierUniform => {
            let fan_out = shape.first().copied().unwrap_or(1);
            let fan_in = numel / fan_out;
            let bound = (6.0 / (fan_in + fan_out) as f64).sqrt();
            (0..numel).map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32).collect()
        }
        Distribution::Normal { std } => (0..numel).map(|_| (std * normal(&mut rng)) as f32).collect(),
    }
}

/// One ChaCha key per seed, one of its streams per tensor name.
fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(fnv1a(name));
    rng
}

/// 64-bit FNV-1a: unlike the standard library's hash, the same on every version and platform.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Uniform in (0, 1): the middle of one of 2³² equal intervals.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0
}

/// Standard normal; the same on every platform.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let u = unit(rng);
    box_muller(u, unit(rng))[0]
}
