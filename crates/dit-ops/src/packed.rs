use std::{fmt, mem::MaybeUninit};

use tch::{Device, Kind, Tensor};

use crate::{
    cpu::Cpu,
    element::{Bf16, Element, allocate, values},
    gemm::{self, Activation, Dequantize, Epilogue, Left, Line, Output, Panels, WIDTH, Words, to_whole_panels},
    parallel::Destination,
    quantize::quantize_rows,
    stored::{Packed, StoredWeight, pack},
};

/// The longest sum of int8 products that is sure to fit into 32 bits: 2³¹ / (255 · 127).
const LONGEST_INT8_SUM: usize = 66_000;

/// A Linear's weights in the order in which the AVX2, AVX-512, AMX and NEON kernels of this crate read them.
///
/// It holds the only copy: what was given to [`pack`](Self::pack) can be dropped.
pub struct PackedLinear {
    words: Words,
    /// Kind of the results, and of the activations.
    kind: Kind,
    inputs: usize,
    outputs: usize,
    lines: Vec<Line>,
    /// To whole panels, as all that goes by outputs.
    bias: Vec<f32>,
    /// int8 only: each output's step, and its sum of weights.
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedLinear({} → {}, {:?})", self.inputs, self.outputs, self.words)
    }
}

impl PackedLinear {
    /// Packs `weight`, fp32 or bf16, for activations of the same kind; `None` where there is no kernel for it: another kind,
    /// another device, another CPU, or an odd number of bf16 inputs.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), `bias` (outputs).
    pub fn pack(weight: &Tensor, bias: Option<&Tensor>) -> Option<Self> {
        let kind = weight.kind();
        Self::of_tensor(weight, bias, words_of(kind)?)
    }

    /// Rounds `weight` to int8, with a step for each output, for activations of its kind, fp32 or bf16, that are rounded to
    /// unsigned 8 bits on the way, with a step and a zero point for each row. `None` where there is no kernel for it: another
    /// kind, another device, a CPU that has none of [`Kernels::Int8`](crate::Kernels::is_supported), or inputs that are no multiple of 4.
    ///
    /// # Shapes
    /// As [`pack`](Self::pack).
    pub fn quantize(weight: &Tensor, bias: Option<&Tensor>) -> Option<Self> {
        Self::of_tensor(weight, bias, Words::Int8)
    }

    fn of_tensor(weight: &Tensor, bias: Option<&Tensor>, words: Words) -> Option<Self> {
        let &[outputs, inputs] = weight.size().as_slice() else { return None };
        if weight.device() != Device::Cpu {
            return None;
        }
        let weight = weight.detach().contiguous();
        let stored = |bytes| StoredWeight::new(weight.kind(), bytes, outputs.try_into().ok()?, inputs.try_into().ok()?);
        let stored = match weight.kind() {
            Kind::Float => stored(bytes_of(values::<f32>(&weight)))?,
            Kind::BFloat16 => stored(bytes_of(values::<Bf16>(&weight)))?,
            _ => return None,
        };
        Self::of_stored(stored, bias, weight.kind(), words).map(|(packed, _)| packed)
    }

    /// As [`pack`](Self::pack) and [`quantize`](Self::quantize) of `weight` as a tensor of `kind`, without making one. Also tells
    /// how many of its values are NaN or infinite: what is packed then is of no use. `None` where `bias` is of another shape, too.
    pub(crate) fn of_stored(
        weight: StoredWeight<'_>,
        bias: Option<&Tensor>,
        kind: Kind,
        words: Words,
    ) -> Option<(Self, usize)> {
        let (outputs, inputs) = weight.sizes();
        let fits = outputs > 0 && inputs > 0 && inputs.is_multiple_of(words.elements());
        let fits = fits && (words != Words::Int8 || inputs <= LONGEST_INT8_SUM) && words_of(kind).is_some();
        if !fits || !words.supported(Cpu::detect()) {
            return None;
        }
        let bias = bias_values(bias, outputs)?;
        let Packed { lines, steps, sums, non_finite } = pack(weight, words, kind);
        let (scales, sums) = (to_whole_panels(steps), to_whole_panels(sums));
        Some((Self { words, kind, inputs, outputs, lines, bias, scales, sums }, non_finite))
    }

    /// x·Wᵀ + b.
    ///
    /// # Shapes
    /// (…, inputs) → (…, outputs), of the kind of the weights that were packed.
    ///
    /// # Panics
    /// If `x` is of another kind or device, or its rows of another length. (It is not differentiated: see [`Linear`](crate::Linear).)
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.apply(x, Activation::Identity)
    }

    /// [`forward`](Self::forward), then GELU in its tanh form.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_gelu(&self, x: &Tensor) -> Tensor {
        self.apply(x, Activation::GeluTanh)
    }

    fn apply(&self, x: &Tensor, activation: Activation) -> Tensor {
        match self.kind {
            Kind::Float => self.apply_to::<f32>(x, activation, Output::F32),
            _ => self.apply_to::<Bf16>(x, activation, Output::Bf16),
        }
    }

    fn apply_to<E: Element>(
        &self,
        x: &Tensor,
        activation: Activation,
        output: impl Fn(Destination<MaybeUninit<E>>) -> Output,
    ) -> Tensor {
        let mut shape = x.size();
        let last = shape.last_mut().filter(|inputs| **inputs == self.inputs as i64);
        *last.unwrap_or_else(|| panic!("{self:?} cannot be applied to {:?}", x.size())) = self.outputs as i64;
        let x = on_word_boundary::<E>(x.contiguous());
        let rows = x.numel() / self.inputs;
        let (result, start) = allocate::<E>(&shape);
        let right = Panels { kind: self.words, lines: &self.lines, columns: self.outputs, depth: self.depth() };
        let output = output(Destination::new(start));
        let epilogue = Epilogue { bias: &self.bias, activation, ..Epilogue::plain() };
        if self.words == Words::Int8 {
            let quantized = quantize_rows(values::<E>(&x), self.inputs);
            let left = Left { words: quantized.words(), rows, stride: self.depth() };
            let dequantize = Some(Dequantize { rows: &quantized.scales, columns: &self.scales, sums: &self.sums });
            gemm::multiply(left, right, Epilogue { dequantize, ..epilogue }, output);
        } else {
            let left = Left { words: as_words(values::<E>(&x)), rows, stride: self.depth() };
            gemm::multiply(left, right, epilogue, output);
        }
        result
    }

    /// Words of the inner dimension.
    fn depth(&self) -> usize {
        self.inputs / self.words.elements()
    }

    /// Kind of the activations that it takes and gives.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Length of a row that comes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of a row that goes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Weight (outputs, inputs) and bias (outputs) as they were given to [`pack`](Self::pack); of a quantised Linear, what the
    /// rounding made of them.
    pub fn unpack(&self) -> (Tensor, Option<Tensor>) {
        let words = unpack_words(&self.lines, self.outputs, self.depth());
        let shape = [self.outputs as i64, self.inputs as i64];
        let weight = match self.words {
            Words::F32 => {
                let values: Vec<f32> = words.into_iter().map(f32::from_bits).collect();
                Tensor::from_slice(&values)
            }
            Words::Bf16 => {
                let halves = words.into_iter().flat_map(|word| [word & 0xffff, word >> 16]);
                let values: Vec<f32> = halves.map(|half| Bf16(half as u16).to_f32()).collect();
                Tensor::from_slice(&values).to_kind(Kind::BFloat16)
            }
            Words::Int8 => {
                let steps = self.scales.iter().flat_map(|&step| std::iter::repeat_n(step, self.inputs));
                let codes = words.into_iter().flat_map(u32::to_le_bytes).map(u8::cast_signed);
                let values: Vec<f32> = codes.zip(steps).map(|(code, step)| f32::from(code) * step).collect();
                Tensor::from_slice(&values).to_kind(self.kind)
            }
        };
        let bias = self.bias.get(..self.outputs).map(|bias| Tensor::from_slice(bias).to_kind(self.kind));
        (weight.view(shape), bias)
    }
}

/// The words of weights of `kind` that are not rounded.
pub(crate) fn words_of(kind: Kind) -> Option<Words> {
    match kind {
        Kind::Float => Some(Words::F32),
        Kind::BFloat16 => Some(Words::Bf16),
        _ => None,
    }
}

pub(crate) fn bytes_of<E: Element>(values: &[E]) -> &[u8] {
    // SAFETY: `E` is fp32 or bf16, without padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

pub(crate) fn bias_values(bias: Option<&Tensor>, outputs: usize) -> Option<Vec<f32>> {
    let Some(bias) = bias else { return Some(Vec::new()) };
    let bias = bias.detach().to_kind(Kind::Float).contiguous();
    (bias.size() == [outputs as i64]).then(|| to_whole_panels(values::<f32>(&bias).to_vec()))
}

/// A contiguous tensor itself, or a copy where it is a view that begins between two words.
pub(crate) fn on_word_boundary<E: Element>(tensor: Tensor) -> Tensor {
    if values::<E>(&tensor).as_ptr().addr().is_multiple_of(4) { tensor } else { tensor.copy() }
}

/// Elements that begin on a word, as words.
pub(crate) fn as_words<E: Element>(values: &[E]) -> &[u32] {
    // SAFETY: any bits are a u32; `E` is fp32 or bf16, without padding.
    let (before, words, _rest) = unsafe { values.align_to::<u32>() };
    assert!(before.is_empty(), "the values begin between two words");
    words
}

/// Panels back into rows of `depth` words.
fn unpack_words(lines: &[Line], columns: usize, depth: usize) -> Vec<u32> {
    let mut rows = Vec::with_capacity(columns * depth);
    for column in 0..columns {
        let (panel, column) = (column / WIDTH, column % WIDTH);
        let panel = &lines[panel * depth * (WIDTH / 16)..];
        rows.extend((0..depth).map(|word| panel[word * (WIDTH / 16) + column / 16].0[column % 16]));
    }
    rows
}
