//! Convolutions of inference on a CPU, with what stands before and after them done on the way.
//!
//! 3×3 convolutions of stride 1 are computed as F(2×2, 3×3) of Winograd's minimal filtering (Lavin & Gray 2015, section 4.1):
//! four pixels of a result take 16 products for each pair of channels instead of 36. Sums stay in fp32; with products of bf16
//! the transformed pixels and the transformed weights are what is rounded. A nearest-neighbour doubling before the convolution
//! makes seven of the sixteen products vanish, as their transformed pixels are differences of equal ones; they are left out.
//! Every other convolution is a matrix product over gathered pixels.
//!
//! Normalisation, SiLU, doubling and padding happen where pixels are gathered, bias and skip connection where results are
//! written; there the sums are gathered too that the next normalisation needs. So nothing passes through memory twice.

use tch::{Device, Kind, Tensor};

use crate::{
    cpu::Cpu,
    element::{Bf16, Element, allocate, needs_gradient, values},
    error::OpsError,
    memory::ask_for_huge_pages,
    parallel::Destination,
};

mod direct;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod kernels;
mod normalization;
mod packed;
mod statistics;
mod winograd;

pub use normalization::{GroupNorm, Normalization};
pub use statistics::Statistics;

use packed::Packed;
use statistics::Parts;

/// What two numbers are before they are multiplied; sums, and everything else, are fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// fp32.
    Fp32,
    /// Rounded to bf16: with AMX and fast AVX-512 BF16 twice as many a cycle, or more; with other AVX-512 and AVX2 as many, from half the memory; with
    /// Arm's matrix instructions four times as many, without them as many.
    Bf16,
}

/// Where a convolution's window goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Pixels from one window to the next, in both directions.
    pub stride: usize,
    /// Zeros before the first row and the first column.
    pub before: usize,
    /// Zeros after the last row and the last column.
    pub after: usize,
}

/// What is done to a convolution's input on the way in.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Nothing.
    Plain,
    /// Each channel is normalised; zeros of the padding stay zeros.
    Normalized(&'a Normalization),
    /// Height and width are doubled, every pixel four times.
    Doubled,
}

/// What is added to a convolution's results.
#[derive(Debug)]
pub enum Skip<'a> {
    /// Nothing.
    Nothing,
    /// A tensor, which is only read.
    Kept(&'a Tensor),
    /// A tensor that nobody needs any more: results are written over it where it is of their kind, so that no memory is asked
    /// for and less is moved. Whoever shares its storage sees them.
    Replaced(Tensor),
}

/// A convolution's result and what a normalisation after it needs to know.
#[derive(Debug)]
pub struct Measured {
    /// (N, C_out, H', W').
    pub result: Tensor,
    /// Of the result, before any rounding to bf16.
    pub statistics: Statistics,
}

/// A 2-D convolution with packed weights.
///
/// Tensors are fp32 or bf16, (N, C, H, W) with channels innermost in memory ("channels last"); others are copied to be so.
/// It records no gradients.
#[derive(Debug)]
pub struct Convolution {
    weights: Packed,
    bias: Vec<f32>,
    kernel: usize,
    inputs: usize,
    outputs: usize,
    geometry: Geometry,
    products: Products,
    method: Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Winograd,
    Direct,
}

/// The sizes of one call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    images: usize,
    /// Of the input, before any doubling.
    height: usize,
    width: usize,
    /// Of the result.
    out_height: usize,
    out_width: usize,
}

/// Pixels as they lie in memory.
#[derive(Clone, Copy)]
enum Pixels<'a> {
    Fp32(&'a [f32]),
    Bf16(&'a [Bf16]),
}

/// Where results go.
#[derive(Clone, Copy)]
enum Results {
    Fp32(Destination<f32>),
    Bf16(Destination<Bf16>),
}

/// One call's data, as every thread sees it.
#[derive(Clone, Copy)]
struct Call<'a> {
    sizes: Sizes,
    x: Pixels<'a>,
    input: Input<'a>,
    /// Of the kind of the results, and perhaps the same memory; a thread reads an element right before it writes the result
    /// there. Never written through.
    skip: Option<Results>,
    out: Results,
    parts: Option<Parts>,
}

impl Convolution {
    /// Whether this CPU has kernels for `products`: AVX2, AVX-512 or NEON.
    pub fn is_supported(products: Products) -> bool {
        products.words().supported(Cpu::detect())
    }

    /// Packs `weight`, (C_out, C_in, k, k), and `bias`, (C_out), of any floating-point kind, for this CPU.
    ///
    /// # Errors
    /// [`OpsError::Unsupported`] where [`is_supported`](Self::is_supported) says no; [`OpsError::Shape`] where the shapes are
    /// not such or the stride is 0.
    pub fn new(weight: &Tensor, bias: &Tensor, geometry: Geometry, products: Products) -> Result<Self, OpsError> {
        if !Self::is_supported(products) {
            return Err(OpsError::Unsupported { what: "a packed convolution" });
        }
        let size = weight.size();
        let [outputs, inputs, kernel, width] = size[..] else {
            return Err(OpsError::Shape { what: "weight", expected: vec![-1; 4], found: size });
        };
        if kernel != width || size.contains(&0) || geometry.stride == 0 {
            let expected = vec![outputs.max(1), inputs.max(1), kernel.max(1), kernel.max(1)];
            return Err(OpsError::Shape { what: "weight", expected, found: size });
        }
        if bias.size() != [outputs] {
            return Err(OpsError::Shape { what: "bias", expected: vec![outputs], found: bias.size() });
        }
        let method = match (kernel, geometry) {
            (3, Geometry { stride: 1, before: 1, after: 1 }) => Method::Winograd,
            _ => Method::Direct,
        };
        let plain = |x: &Tensor| x.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let (weight, bias) = (plain(weight), plain(bias));
        let weights = match method {
            Method::Winograd => winograd::pack(values(&weight), outputs as usize, inputs as usize, products),
            Method::Direct => {
                direct::pack(values(&weight), outputs as usize, inputs as usize, kernel as usize, products)
            }
        };
        Ok(Self {
            weights,
            bias: values::<f32>(&bias).to_vec(),
            kernel: kernel as usize,
            inputs: inputs as usize,
            outputs: outputs as usize,
            geometry,
            products,
            method,
        })
    }

    /// What it multiplies.
    pub fn products(&self) -> Products {
        self.products
    }

    /// The convolution of `x`, plus `skip`, in fp32.
    ///
    /// # Shapes
    /// `x`: (N, C_in, H, W); result, and `skip`: (N, C_out, H', W').
    ///
    /// # Errors
    /// [`OpsError::Shape`] where a shape does not fit, or a doubled input meets anything but a 3×3 convolution of stride 1.
    pub fn forward(&self, x: &Tensor, input: Input<'_>, skip: Skip<'_>) -> Result<Tensor, OpsError> {
        self.run(x, input, skip, Kind::Float, None)
    }

    /// The same with statistics of the result, which is stored as `store` says. Normalised next and rounded for its products
    /// then, it loses little by being stored in bf16.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); [`OpsError::Unsupported`] for results in bf16 of [`Products::Fp32`].
    pub fn forward_measured(
        &self,
        x: &Tensor,
        input: Input<'_>,
        skip: Skip<'_>,
        store: Products,
    ) -> Result<Measured, OpsError> {
        let kind = match store {
            Products::Fp32 => Kind::Float,
            Products::Bf16 if self.products == Products::Bf16 => Kind::BFloat16,
            Products::Bf16 => return Err(OpsError::Unsupported { what: "results in bf16 of products in fp32" }),
        };
        let sizes = self.sizes(x, input)?;
        let counts = match self.method {
            Method::Winograd => winograd::part_sizes(&sizes),
            Method::Direct => direct::part_sizes(&sizes),
        };
        let mut statistics = Statistics::unset(sizes.images, self.outputs, counts);
        let result = self.run(x, input, skip, kind, Some(statistics.parts()))?;
        Ok(Measured { result, statistics })
    }

    /// The sizes of a call, if everything fits.
    fn sizes(&self, x: &Tensor, input: Input<'_>) -> Result<Sizes, OpsError> {
        let found = x.size();
        let [n, c, h, w] = found[..] else {
            return Err(OpsError::Shape { what: "x", expected: vec![-1, self.inputs as i64, -1, -1], found });
        };
        let times = if matches!(input, Input::Doubled) { 2 } else { 1 };
        let padding = self.geometry.before + self.geometry.after;
        let extent = |side: i64| (times * side as usize + padding).checked_sub(self.kernel);
        let (Some(rows), Some(columns)) = (extent(h), extent(w)) else {
            let side = self.kernel as i64;
            return Err(OpsError::Shape { what: "x", expected: vec![n, self.inputs as i64, side, side], found });
        };
        if c != self.inputs as i64 || found.contains(&0) || (times == 2 && self.method == Method::Direct) {
            return Err(OpsError::Shape {
                what: "x",
                expected: vec![n.max(1), self.inputs as i64, h.max(1), w.max(1)],
                found,
            });
        }
        if let Input::Normalized(normalization) = input
            && normalization.len() != (n * c) as usize
        {
            let found = vec![normalization.len() as i64];
            return Err(OpsError::Shape { what: "normalization", expected: vec![n * c], found });
        }
        Ok(Sizes {
            images: n as usize,
            height: h as usize,
            width: w as usize,
            out_height: rows / self.geometry.stride + 1,
            out_width: columns / self.geometry.stride + 1,
        })
    }

    fn run(
        &self,
        x: &Tensor,
        input: Input<'_>,
        skip: Skip<'_>,
        kind: Kind,
        parts: Option<Parts>,
    ) -> Result<Tensor, OpsError> {
        let sizes = self.sizes(x, input)?;
        let shape = [sizes.images, sizes.out_height, sizes.out_width, self.outputs].map(|extent| extent as i64);
        let x = match x.kind() {
            Kind::BFloat16 => channels_innermost(x, Kind::BFloat16), // (N, H, W, C_in)
            _ => channels_innermost(x, Kind::Float),                 // (N, H, W, C_in)
        };
        let skip = match &skip {
            Skip::Nothing => None,
            Skip::Kept(skip) => Some((channels_innermost(skip, kind), false)), // (N, H', W', C_out)
            Skip::Replaced(skip) => Some((channels_innermost(skip, kind), true)),
        };
        if let Some((skip, _)) = &skip
            && skip.size() != shape
        {
            return Err(OpsError::Shape { what: "skip", expected: shape.to_vec(), found: skip.size() });
        }
        let out = match &skip {
            // Windows overlap, so what is read must not be written.
            Some((skip, true)) if !overlap(skip, &x) => skip.shallow_clone(),
            _ => Self::fresh(&shape, kind),
        };
        let results = |x: &Tensor| match kind {
            Kind::BFloat16 => Results::Bf16(Destination::new(x.data_ptr().cast())),
            _ => Results::Fp32(Destination::new(x.data_ptr().cast())),
        };
        let pixels = match x.kind() {
            Kind::BFloat16 => Pixels::Bf16(values(&x)),
            _ => Pixels::Fp32(values(&x)),
        };
        let skip = skip.as_ref().map(|(skip, _)| results(skip));
        let call = Call { sizes, x: pixels, input, skip, out: results(&out), parts };
        match self.method {
            Method::Winograd => winograd::run(self, &call),
            Method::Direct => direct::run(self, &call),
        }
        Ok(out.permute([0, 3, 1, 2])) // (N, C_out, H', W')
    }

    /// A new tensor, its elements unset.
    fn fresh(shape: &[i64], kind: Kind) -> Tensor {
        fn with_large_pages<E: Element>(shape: &[i64]) -> Tensor {
            let (tensor, start) = allocate::<E>(shape);
            ask_for_huge_pages(start.cast(), tensor.numel() * size_of::<E>());
            tensor
        }
        match kind {
            Kind::BFloat16 => with_large_pages::<Bf16>(shape),
            _ => with_large_pages::<f32>(shape),
        }
    }
}

/// Whether two contiguous tensors share memory.
fn overlap(one: &Tensor, other: &Tensor) -> bool {
    let range = |x: &Tensor| (x.data_ptr() as usize, x.data_ptr() as usize + x.numel() * x.kind().elt_size_in_bytes());
    let (one, other) = (range(one), range(other));
    one.0 < other.1 && other.0 < one.1
}

/// Whether libtorch would record a gradient of an operator on `x`.
pub fn records_gradient(x: &Tensor) -> bool {
    needs_gradient(&[x])
}

/// (N, C, H, W) as contiguous (N, H, W, C) of `kind` on the CPU; a copy only where it is not so already.
fn channels_innermost(x: &Tensor, kind: Kind) -> Tensor {
    x.detach().to_device(Device::Cpu).to_kind(kind).permute([0, 2, 3, 1]).contiguous()
}

#[cfg(test)]
mod tests;
