//! From the original's layout to diffusers'.

use dit_config::{BlockDesign, DitConfig};

use crate::{Error, TensorSource, layout::MappedSource};

/// `inner`, a checked DiT of `config` in the original's layout, as diffusers names and cuts it: embedders copied into every
/// block, query, key and value apart, no position table.
///
/// # Errors
/// [`Error::NotDit`] where `inner` lacks a tensor of `config`.
pub(crate) fn export_dit<S: TensorSource>(inner: S, config: &DitConfig) -> Result<MappedSource<S>, Error> {
    let mut mapped = MappedSource::new(inner, "");
    for parameter in ["weight", "bias"] {
        let mut add = |to: String, from: &str| mapped.add(format!("{to}.{parameter}"), &format!("{from}.{parameter}"));
        add("pos_embed.proj".to_owned(), "x_embedder.proj")?;
        add("proj_out_1".to_owned(), "final_layer.adaLN_modulation.1")?;
        add("proj_out_2".to_owned(), "final_layer.linear")?;
        for i in 0..config.depth {
            let block = |module: &str| format!("transformer_blocks.{i}.{module}");
            let own = |module: &str| format!("blocks.{i}.{module}");
            add(block("norm1.emb.timestep_embedder.linear_1"), "t_embedder.mlp.0")?;
            add(block("norm1.emb.timestep_embedder.linear_2"), "t_embedder.mlp.2")?;
            add(block("norm1.linear"), &own("adaLN_modulation.1"))?;
            add(block("attn1.to_out.0"), &own("attn.proj"))?;
            add(block("ff.net.0.proj"), &own("mlp.fc1"))?;
            add(block("ff.net.2"), &own("mlp.fc2"))?;
        }
        for i in 0..config.depth {
            for (third, linear) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
                let name = format!("transformer_blocks.{i}.attn1.{linear}.{parameter}");
                mapped.add_part(name, &format!("blocks.{i}.attn.qkv.{parameter}"), third, 3)?;
            }
        }
    }
    for i in 0..config.depth {
        let name = format!("transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight");
        mapped.add(name, "y_embedder.embedding_table.weight")?;
    }
    Ok(mapped)
}

/// What of `config` diffusers' DiTTransformer2DModel cannot express.
pub(crate) fn inexpressible(config: &DitConfig) -> Vec<String> {
    let mut problems = Vec::new();
    if config.block != BlockDesign::AdaLnZero {
        problems.push(format!("its blocks are {}, diffusers has only adaln-zero", config.block));
    }
    if config.mlp_ratio != 4.0 {
        problems.push(format!("its MLP ratio is {}, diffusers has only 4", config.mlp_ratio));
    }
    if config.latent.height != config.latent.width {
        problems.push(format!("its latent is {}, diffusers has only square ones", config.latent));
    }
    if config.label_rows() < 2 {
        problems.push("it has a single label row, diffusers counts one for the null class".to_owned());
    }
    problems
}
