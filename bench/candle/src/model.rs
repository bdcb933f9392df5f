//! A DiT with adaLN-Zero blocks on candle's operators, written from the paper (Peebles & Xie 2023).

use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, VarBuilder, embedding, linear, ops::softmax_last_dim};

/// Of the configuration, what is needed here.
#[derive(serde::Deserialize)]
pub struct Spec {
    hidden: usize,
    depth: usize,
    heads: usize,
    patch: usize,
    mlp_ratio: f64,
    in_channels: usize,
    latent: [usize; 2],
    num_classes: usize,
}

pub struct Dit {
    patch_weight: Tensor,
    patch_bias: Tensor,
    positions: Tensor,
    t_in: Linear,
    t_out: Linear,
    labels: Embedding,
    blocks: Vec<Block>,
    final_conditioner: Linear,
    final_linear: Linear,
    norm: LayerNorm,
    frequencies: Tensor,
    patch: usize,
    dtype: DType,
}

struct Block {
    norm: LayerNorm,
    conditioner: Linear,
    qkv: Linear,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

/// Features of a timestep: half cosines, half sines.
const FEATURES: usize = 256;

impl Dit {
    pub fn new(spec: &Spec, vb: &VarBuilder) -> Result<Self> {
        let (d, patch, channels) = (spec.hidden, spec.patch, spec.in_channels);
        let tokens = spec.latent[0] / patch * (spec.latent[1] / patch);
        let norm = plain_norm(d, vb.dtype())?;
        let block = |i| Block::new(spec, &norm, &vb.pp("blocks").pp(i));
        let frequency = |i: usize| (-(10_000f32.ln()) * i as f32 / (FEATURES / 2) as f32).exp();
        let frequencies: Vec<f32> = (0..FEATURES / 2).map(frequency).collect();
        Ok(Self {
            patch_weight: vb.get((d, channels, patch, patch), "x_embedder.proj.weight")?.flatten_from(1)?.t()?,
            patch_bias: vb.get(d, "x_embedder.proj.bias")?,
            positions: vb.get((1, tokens, d), "pos_embed")?,
            t_in: linear(FEATURES, d, vb.pp("t_embedder.mlp.0"))?,
            t_out: linear(d, d, vb.pp("t_embedder.mlp.2"))?,
            labels: embedding(spec.num_classes + 1, d, vb.pp("y_embedder").pp("embedding_table"))?,
            blocks: (0..spec.depth).map(block).collect::<Result<_>>()?,
            final_conditioner: linear(d, 2 * d, vb.pp("final_layer.adaLN_modulation.1"))?,
            final_linear: linear(d, patch * patch * 2 * channels, vb.pp("final_layer.linear"))?,
            frequencies: Tensor::new(frequencies, &Device::Cpu)?,
            dtype: vb.dtype(),
            norm,
            patch,
        })
    }

    /// `x` (N, C, H, W), `t` and `labels` (N,) int64 → (N, 2C, H, W).
    pub fn forward(&self, x: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let angles = t.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&self.frequencies.unsqueeze(0)?)?;
        let features = Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?.to_dtype(self.dtype)?; // (N, 256)
        let t = self.t_out.forward(&self.t_in.forward(&features)?.silu()?)?;
        let c = (t + self.labels.forward(labels)?)?.silu()?; // (N, D), as every conditioner takes it

        let (n, channels, height, width) = x.dims4()?;
        let (p, rows, columns) = (self.patch, height / self.patch, width / self.patch);
        let patches = x.to_dtype(self.dtype)?.reshape(vec![n, channels, rows, p, columns, p])?;
        let patches = patches.permute(vec![0, 2, 4, 1, 3, 5])?.reshape((n, rows * columns, channels * p * p))?;
        let x = patches.broadcast_matmul(&self.patch_weight)?.broadcast_add(&self.patch_bias)?;
        let mut x = x.broadcast_add(&self.positions)?; // (N, T, D)
        for block in &self.blocks {
            x = block.forward(&x, &c)?;
        }
        let [shift, scale] = chunks(&self.final_conditioner.forward(&c)?)?;
        let x = self.final_linear.forward(&modulate(&self.norm.forward(&x)?, &shift, &scale)?)?;
        let out = 2 * channels;
        let x = x.reshape(vec![n, rows, columns, p, p, out])?.permute(vec![0, 5, 1, 3, 2, 4])?;
        x.reshape((n, out, height, width))
    }
}

impl Block {
    fn new(spec: &Spec, norm: &LayerNorm, vb: &VarBuilder) -> Result<Self> {
        let (d, mlp) = (spec.hidden, (spec.hidden as f64 * spec.mlp_ratio) as usize);
        Ok(Self {
            norm: norm.clone(),
            conditioner: linear(d, 6 * d, vb.pp("adaLN_modulation.1"))?,
            qkv: linear(d, 3 * d, vb.pp("attn.qkv"))?,
            proj: linear(d, d, vb.pp("attn.proj"))?,
            fc1: linear(d, mlp, vb.pp("mlp.fc1"))?,
            fc2: linear(mlp, d, vb.pp("mlp.fc2"))?,
            heads: spec.heads,
        })
    }

    fn forward(&self, x: &Tensor, c: &Tensor) -> Result<Tensor> {
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] = chunks(&self.conditioner.forward(c)?)?;
        let attended = self.attention(&modulate(&self.norm.forward(x)?, &shift, &scale)?)?;
        let x = (x + attended.broadcast_mul(&gate)?)?;
        let inner = self.fc1.forward(&modulate(&self.norm.forward(&x)?, &mlp_shift, &mlp_scale)?)?.gelu()?;
        &x + self.fc2.forward(&inner)?.broadcast_mul(&mlp_gate)?
    }

    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (n, tokens, d) = x.dims3()?;
        let qkv = self.qkv.forward(x)?.reshape((n, tokens, 3, self.heads, d / self.heads))?;
        let part = |i| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous(); // (N, H, T, D / H)
        let (q, k, v) = ((part(0)? * (d as f64 / self.heads as f64).powf(-0.5))?, part(1)?, part(2)?);
        let mixed = softmax_last_dim(&q.matmul(&k.transpose(D::Minus1, D::Minus2)?)?)?.matmul(&v)?;
        self.proj.forward(&mixed.transpose(1, 2)?.reshape((n, tokens, d))?)
    }
}

fn plain_norm(width: usize, dtype: DType) -> Result<LayerNorm> {
    let (ones, zeros) = (Tensor::ones(width, dtype, &Device::Cpu)?, Tensor::zeros(width, dtype, &Device::Cpu)?);
    Ok(LayerNorm::new(ones, zeros, 1e-6))
}

/// (N, K·D) → K times (N, 1, D).
fn chunks<const K: usize>(x: &Tensor) -> Result<[Tensor; K]> {
    let parts = x.unsqueeze(1)?.chunk(K, 2)?;
    parts.try_into().map_err(|_| candle_core::Error::Msg(format!("no {K} chunks in {:?}", x.shape())))
}

fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift)
}
