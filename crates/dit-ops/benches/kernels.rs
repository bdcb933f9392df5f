//! The kernels at the sizes of a guided step of DiT-XL/2 at 256 px, each beside libtorch's operators.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use dit_ops::{
    PackedLinear, add_gated, layer_norm_modulate, merge_heads, plain_add_gated, plain_attention,
    plain_layer_norm_modulate, self_attention, split_heads,
};
use tch::{Device, Kind, Tensor};

const SAMPLES: i64 = 2;
const TOKENS: i64 = 256;
const WIDTH: i64 = 1152;
const HIDDEN: i64 = 4608;
const HEADS: i64 = 16;
const EPS: f64 = 1e-6;
const KINDS: [(&str, Kind); 2] = [("fp32", Kind::Float), ("bf16", Kind::BFloat16)];

fn normal(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, compute: impl Fn() -> Tensor) {
    group.bench_function(name, |bencher| bencher.iter(|| black_box(compute())));
}

/// The MLP's first Linear with its GELU; throughput in floating-point operations.
fn linear_gelu(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear+gelu 512 × 1152 → 4608");
    group.throughput(Throughput::Elements((2 * SAMPLES * TOKENS * WIDTH * HIDDEN) as u64));
    for (name, kind) in KINDS {
        let x = normal(&[SAMPLES, TOKENS, WIDTH], kind);
        let (weight, bias) = (normal(&[HIDDEN, WIDTH], kind), normal(&[HIDDEN], kind));
        measure(&mut group, &format!("{name} libtorch"), || x.linear(&weight, Some(&bias)).gelu("tanh"));
        if let Some(packed) = PackedLinear::pack(&weight, Some(&bias)) {
            measure(&mut group, name, || packed.forward_gelu(&x));
        }
        if let Some(rounded) = PackedLinear::quantize(&weight, Some(&bias)) {
            measure(&mut group, &format!("int8 of {name}"), || rounded.forward_gelu(&x));
        }
    }
}

fn between_linears(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("2 × 256 tokens of 1152");
    for (name, kind) in KINDS {
        let [x, y] = [0, 1].map(|_| normal(&[SAMPLES, TOKENS, WIDTH], kind));
        let [shift, scale] = [0, 1].map(|_| normal(&[SAMPLES, 1, WIDTH], kind));
        let named = |what: &str| format!("{what} {name}");
        measure(&mut group, &named("norm+modulate"), || layer_norm_modulate(&x, &shift, &scale, EPS));
        measure(&mut group, &named("norm+modulate libtorch"), || plain_layer_norm_modulate(&x, &shift, &scale, EPS));
        measure(&mut group, &named("gate"), || add_gated(&x, &scale, &y));
        measure(&mut group, &named("gate libtorch"), || plain_add_gated(&x, &scale, &y));
    }
}

/// Attention over the tokens of 256 and of 512 pixels; throughput in floating-point operations of its two products.
fn attention(criterion: &mut Criterion) {
    for tokens in [TOKENS, 4 * TOKENS] {
        let mut group = criterion.benchmark_group(format!("attention, 2 × {tokens} tokens, 16 heads of 72"));
        group.throughput(Throughput::Elements((4 * SAMPLES * tokens * tokens * WIDTH) as u64));
        for (name, kind) in KINDS {
            let qkv = normal(&[SAMPLES, tokens, 3 * WIDTH], kind);
            measure(&mut group, name, || self_attention(&qkv, HEADS));
            measure(&mut group, &format!("libtorch {name}"), || {
                let [q, k, v] = split_heads(&qkv, HEADS);
                merge_heads(&plain_attention(&q, &k, &v))
            });
        }
    }
}

/// What adaLN-Zero regresses in all blocks, for a guided pair: bound by reading the weights from memory; throughput in their bytes.
fn modulations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("28 Linears 2 × 1152 → 6912");
    for (name, kind) in KINDS {
        let c = normal(&[SAMPLES, WIDTH], kind);
        let pack = |_| PackedLinear::pack(&normal(&[6 * WIDTH, WIDTH], kind), Some(&normal(&[6 * WIDTH], kind)));
        let Some(linears) = (0..28).map(pack).collect::<Option<Vec<_>>>() else { continue };
        let bytes = if kind == Kind::Float { 4 } else { 2 };
        group.throughput(Throughput::Bytes((28 * 6 * WIDTH * WIDTH * bytes) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| linears.iter().for_each(|linear| drop(black_box(linear.forward(&c)))))
        });
    }
}

criterion_group!(kernels, linear_gelu, between_linears, attention, modulations);
criterion_main!(kernels);
