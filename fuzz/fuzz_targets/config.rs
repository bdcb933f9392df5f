//! Any names and shapes: the answer comes at once, and is an error or a configuration whose tensors can be listed.
//!
//! Names and extents come from those of real checkpoints, so that the search starts behind the first refusals.
#![no_main]

use std::collections::BTreeMap;

use dit_config::{LatentSize, StandardModel};
use dit_weights::{Dtype, Error, Hints, TensorInfo, TensorSource, TensorView, infer_config, looks_like};
use libfuzzer_sys::{
    arbitrary::{Arbitrary, Result, Unstructured},
    fuzz_target,
};

const NAMES: [&str; 12] = [
    "pos_embed",
    "x_embedder.proj.weight",
    "y_embedder.embedding_table.weight",
    "blocks.0.mlp.fc1.weight",
    "blocks.0.adaLN_modulation.1.weight",
    "blocks.0.cross_attn.q.weight",
    "blocks.0.norm1.weight",
    "blocks.27.attn.qkv.weight",
    "blocks.18446744073709551615.attn.qkv.weight",
    "blocks.4095.x",
    "final_layer.linear.weight",
    "final_layer.norm_final.weight",
];
/// A DiT of width 1152 and patch 2, then extents that overflow.
const EXTENTS: [usize; 20] = [
    0,
    1,
    2,
    4,
    8,
    16,
    32,
    256,
    1000,
    1001,
    1152,
    4608,
    6912,
    1 << 14,
    1 << 16,
    1 << 20,
    1 << 28,
    1 << 32,
    1 << 63,
    usize::MAX,
];

#[derive(Debug)]
struct Input {
    infos: BTreeMap<String, TensorInfo>,
    /// What the position table's values are, if they can be read.
    table: Vec<u8>,
    hints: Hints,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let extent = |u: &mut Unstructured<'a>| if u.ratio(3, 4)? { Ok(*u.choose(&EXTENTS)?) } else { u.arbitrary() };
        let mut infos = BTreeMap::new();
        for _ in 0..u.int_in_range(0..=16)? {
            let name = if u.ratio(7, 8)? { (*u.choose(&NAMES)?).to_owned() } else { u.arbitrary()? };
            let shape = (0..u.int_in_range(0..=4)?).map(|_| extent(u)).collect::<Result<_>>()?;
            infos.insert(name, TensorInfo { dtype: *u.choose(&Dtype::ALL)?, shape });
        }
        let latent = if u.ratio(1, 4)? { Some(LatentSize { height: extent(u)?, width: extent(u)? }) } else { None };
        let hints = Hints {
            model: if u.ratio(1, 4)? { Some(*u.choose(&StandardModel::ALL)?) } else { None },
            heads: if u.ratio(1, 2)? { Some(extent(u)?) } else { None },
            num_classes: if u.ratio(1, 4)? { Some(extent(u)?) } else { None },
            latent,
            numerics: None,
        };
        Ok(Self { infos, table: u.arbitrary()?, hints })
    }
}

impl TensorSource for Input {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> std::result::Result<TensorView<'_>, Error> {
        let info = self.infos.get(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() })?;
        TensorView::new(info.dtype, info.shape.clone(), &self.table[..])
    }
}

fuzz_target!(|input: Input| {
    looks_like(&input);
    if let Ok(config) = infer_config(&input, &input.hints) {
        assert!(!config.tensors().is_empty());
    }
});
