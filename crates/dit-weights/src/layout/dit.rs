//! DiT checkpoints of either layout, as the original names them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Error, TensorSource,
    layout::{Layout, MappedSource, Names, split_index},
};

/// What the names of each layout begin with.
const ORIGINAL: [&str; 2] = ["blocks.", "x_embedder."];
const DIFFUSERS: [&str; 2] = ["transformer_blocks.", "pos_embed.proj."];

/// Where a tensor of diffusers' layout goes.
#[derive(Debug, PartialEq)]
enum Place {
    /// It is this tensor.
    Whole(String),
    /// It is one third, 0 to 2, of this tensor.
    Third(String, usize),
    /// It is this block's copy of this tensor.
    Copy(String, usize),
}

/// The layout that `names` are of, if they are those of a DiT.
pub(crate) fn detect(names: &Names) -> Option<Layout> {
    if names.any_starts_with(&DIFFUSERS) {
        Some(Layout::Diffusers)
    } else if names.any_starts_with(&ORIGINAL) {
        Some(Layout::Original)
    } else {
        None
    }
}

/// `inner`'s tensors with the original's names. Tensors of no known place keep their names.
///
/// # Errors
/// [`Error::NotDit`] where no name is a DiT's, [`Error::CopiesDiffer`] where the blocks' embedders are not copies of one,
/// [`Error::Parts`] where query, key and value do not stack.
pub(crate) fn canonical_dit<S: TensorSource>(inner: S, names: &Names) -> Result<(MappedSource<S>, Layout), Error> {
    let layout = detect(names).ok_or_else(|| Error::NotDit {
        problem: if super::is_vae(names) { "they are a VAE's".to_owned() } else { names.sample() },
    })?;
    let mut mapped = MappedSource::new(inner, &names.prefix);
    match layout {
        Layout::Original | Layout::DiffusersOld => {
            for (name, full) in &names.plain {
                mapped.add(name.clone(), full)?;
            }
        }
        Layout::Diffusers => map_diffusers(&mut mapped, names)?,
    }
    Ok((mapped, layout))
}

fn map_diffusers<S: TensorSource>(mapped: &mut MappedSource<S>, names: &Names) -> Result<(), Error> {
    let mut thirds: BTreeMap<String, [Option<String>; 3]> = BTreeMap::new();
    let mut copies: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    let mut blocks = BTreeSet::new();
    for (name, full) in &names.plain {
        if let Some((block, _)) = name.strip_prefix("transformer_blocks.").and_then(split_index) {
            blocks.insert(block);
        }
        match place(name) {
            Some(Place::Whole(canonical)) => mapped.add(canonical, full)?,
            Some(Place::Third(canonical, third)) => {
                thirds.entry(canonical).or_default()[third] = Some(full.clone());
            }
            Some(Place::Copy(canonical, block)) => {
                copies.entry(canonical).or_default().insert(block, full.clone());
            }
            None => mapped.add(name.clone(), full)?,
        }
    }
    for (canonical, parts) in thirds {
        match parts {
            [Some(q), Some(k), Some(v)] => mapped.add_stack(canonical, vec![q, k, v])?,
            parts => {
                let absent: Vec<_> =
                    ["to_q", "to_k", "to_v"].into_iter().zip(&parts).filter(|(_, part)| part.is_none()).collect();
                let absent: Vec<_> = absent.into_iter().map(|(name, _)| name).collect();
                mapped.add_absent(canonical, format!("its {} is not there", absent.join(" and ")));
            }
        }
    }
    for (canonical, copies) in copies {
        match blocks.iter().find(|block| !copies.contains_key(block)) {
            Some(block) => mapped.add_absent(canonical, format!("the copy of block {block} is not there")),
            None => merge(mapped, canonical, &copies)?,
        }
    }
    Ok(())
}

/// Adds `canonical`, of which every block has a copy, if all are equal byte for byte.
fn merge<S: TensorSource>(
    mapped: &mut MappedSource<S>,
    canonical: String,
    copies: &BTreeMap<usize, String>,
) -> Result<(), Error> {
    let Some((&first, first_name)) = copies.first_key_value() else { return Ok(()) };
    let reference = mapped.inner().read(first_name)?;
    for (&other, name) in copies {
        let copy = mapped.inner().read(name)?;
        if copy != reference {
            return Err(Error::CopiesDiffer { name: canonical, first, other });
        }
        drop(copy);
        mapped.inner().release(name);
    }
    drop(reference);
    mapped.add(canonical, first_name)
}

/// Where the tensor `name` of diffusers' layout goes.
fn place(name: &str) -> Option<Place> {
    let (module, parameter) = name.rsplit_once('.')?;
    if !matches!(parameter, "weight" | "bias") {
        return (name == "pos_embed.pos_embed").then(|| Place::Whole("pos_embed".to_owned()));
    }
    let whole = |canonical: &str| Some(Place::Whole(format!("{canonical}.{parameter}")));
    let Some(in_block) = module.strip_prefix("transformer_blocks.") else {
        return match module {
            "pos_embed.proj" => whole("x_embedder.proj"),
            "proj_out_1" => whole("final_layer.adaLN_modulation.1"),
            "proj_out_2" => whole("final_layer.linear"),
            _ => None,
        };
    };
    let (block, module) = split_index(in_block)?;
    let own = |module: &str| whole(&format!("blocks.{block}.{module}"));
    let third = |index| Some(Place::Third(format!("blocks.{block}.attn.qkv.{parameter}"), index));
    let copy = |module: &str| Some(Place::Copy(format!("{module}.{parameter}"), block));
    match module {
        "norm1.emb.timestep_embedder.linear_1" => copy("t_embedder.mlp.0"),
        "norm1.emb.timestep_embedder.linear_2" => copy("t_embedder.mlp.2"),
        "norm1.emb.class_embedder.embedding_table" => copy("y_embedder.embedding_table"),
        "norm1.linear" => own("adaLN_modulation.1"),
        "attn1.to_q" => third(0),
        "attn1.to_k" => third(1),
        "attn1.to_v" => third(2),
        "attn1.to_out.0" => own("attn.proj"),
        "ff.net.0.proj" => own("mlp.fc1"),
        "ff.net.2" => own("mlp.fc2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_diffusers_name_has_its_place() {
        let whole = |name: &str| Some(Place::Whole(name.to_owned()));
        for (name, expected) in [
            ("pos_embed.proj.weight", whole("x_embedder.proj.weight")),
            ("pos_embed.pos_embed", whole("pos_embed")),
            ("proj_out_1.bias", whole("final_layer.adaLN_modulation.1.bias")),
            ("proj_out_2.weight", whole("final_layer.linear.weight")),
            ("transformer_blocks.7.norm1.linear.bias", whole("blocks.7.adaLN_modulation.1.bias")),
            ("transformer_blocks.7.attn1.to_k.bias", Some(Place::Third("blocks.7.attn.qkv.bias".to_owned(), 1))),
            ("transformer_blocks.11.attn1.to_out.0.weight", whole("blocks.11.attn.proj.weight")),
            ("transformer_blocks.0.ff.net.0.proj.weight", whole("blocks.0.mlp.fc1.weight")),
            ("transformer_blocks.0.ff.net.2.weight", whole("blocks.0.mlp.fc2.weight")),
            (
                "transformer_blocks.3.norm1.emb.timestep_embedder.linear_2.weight",
                Some(Place::Copy("t_embedder.mlp.2.weight".to_owned(), 3)),
            ),
            (
                "transformer_blocks.3.norm1.emb.class_embedder.embedding_table.weight",
                Some(Place::Copy("y_embedder.embedding_table.weight".to_owned(), 3)),
            ),
            ("transformer_blocks.03.norm1.linear.bias", None),
            ("transformer_blocks.3.norm1.linear.scale", None),
            ("transformer_blocks.3.attn2.to_q.weight", None),
            ("weight", None),
        ] {
            assert_eq!(place(name), expected, "{name}");
        }
    }
}
