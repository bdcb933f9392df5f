//! A DiT's configuration from the names and shapes of its tensors.

use dit_config::{BlockDesign, DitConfig, DitSpec, LatentSize, Numerics, Sigma, Size, StandardModel};

use crate::{
    Error, TensorSource,
    hints::{Hints, agree},
    layout::{position, split_index},
};

/// Label dropout of the original, assumed where there is a null class.
const LABEL_DROPOUT: f64 = 0.1;
/// Most tokens of a latent: the largest that `DitConfig` allows has this many.
const MAX_TOKENS: usize = 1 << 28;

/// What the shapes say by themselves.
struct Shapes {
    hidden: usize,
    depth: usize,
    patch: usize,
    in_channels: usize,
    label_rows: usize,
    mlp_hidden: usize,
    /// Rows of the final Linear.
    final_rows: usize,
    block: BlockDesign,
}

/// The configuration of the DiT whose tensors, in the original's layout, are `source`. Only names and shapes count, and, where
/// the number of tokens allows several latents, the position table's last token. Hostile shapes cost nothing but an error.
///
/// Depth, width, patch, channels, MLP width, block design and sigma are in the shapes. Heads are not: they come from `hints`, or
/// from the standard model that has this width and depth. The label table has one row more than classes, unless
/// `hints.num_classes` says that it has none for the null class.
///
/// # Errors
/// [`Error::NotDit`] where the tensors that tell are missing or of impossible shapes, [`Error::HeadsUnknown`],
/// [`Error::LatentUnknown`], [`Error::Conflict`] between `hints` and the shapes, [`Error::Config`] where the values make no DiT.
pub fn infer_config(source: &dyn TensorSource, hints: &Hints) -> Result<DitConfig, Error> {
    let shapes = Shapes::of(source)?;
    let model_heads = hints.model.map(|model| model.size.heads());
    let heads = agree("attention heads", ("--num-heads", hints.heads), ("the model's name", model_heads))?;
    let heads = heads.or_else(|| standard_size(shapes.hidden, shapes.depth).map(Size::heads));
    // A model that is named decides; where the tensors are not its, the comparison that follows lists every difference.
    let (hidden, depth, patch) = match hints.model {
        Some(model) => (model.size.hidden(), model.size.depth(), model.patch),
        None => (shapes.hidden, shapes.depth, shapes.patch),
    };
    let heads = heads.ok_or(Error::HeadsUnknown { hidden, depth })?;
    let sigma = sigma(&shapes)?;
    let (num_classes, label_dropout) = classes(shapes.label_rows, hints.num_classes)?;
    let config = DitConfig::new(DitSpec {
        block: shapes.block,
        hidden,
        depth,
        heads,
        patch,
        mlp_ratio: exact_ratio(shapes.mlp_hidden, shapes.hidden),
        in_channels: shapes.in_channels,
        latent: latent(source, patch, hints.latent)?,
        num_classes,
        label_dropout,
        sigma,
        numerics: hints.numerics.unwrap_or(Numerics::Original),
    })?;
    Ok(config)
}

/// The standard model that the tensors' width, depth and patch are, in the original's layout.
pub fn looks_like(source: &dyn TensorSource) -> Option<StandardModel> {
    let [hidden, _, patch, _] = *shape(source, "x_embedder.proj.weight")? else { return None };
    let depth = depth(source);
    StandardModel::ALL
        .into_iter()
        .find(|model| (model.size.hidden(), model.size.depth(), model.patch) == (hidden, depth, patch))
}

fn standard_size(hidden: usize, depth: usize) -> Option<Size> {
    Size::ALL.into_iter().find(|size| (size.hidden(), size.depth()) == (hidden, depth))
}

fn shape<'a>(source: &'a dyn TensorSource, name: &str) -> Option<&'a [usize]> {
    source.infos().get(name).map(|info| &info.shape[..])
}

/// One more than the highest block index; a gap shows in the comparison with what the configuration asks for.
fn depth(source: &dyn TensorSource) -> usize {
    let blocks = source.infos().keys().filter_map(|name| name.strip_prefix("blocks."));
    blocks.filter_map(split_index).map(|(index, _)| index.saturating_add(1)).max().unwrap_or(0)
}

impl Shapes {
    fn of(source: &dyn TensorSource) -> Result<Self, Error> {
        let mut absent = Vec::new();
        let mut find = |name: &str| {
            let found = shape(source, name);
            if found.is_none() {
                let why = source.why_missing(name).map(|why| format!(" ({why})")).unwrap_or_default();
                absent.push(format!("{name}{why}"));
            }
            found.unwrap_or_default()
        };
        let patchify = find("x_embedder.proj.weight");
        let labels = find("y_embedder.embedding_table.weight");
        let fc1 = find("blocks.0.mlp.fc1.weight");
        let final_linear = find("final_layer.linear.weight");
        if !absent.is_empty() {
            return Err(Error::NotDit { problem: format!("{} not there", absent.join(", ")) });
        }
        let &[hidden, in_channels, patch, patch_width] = patchify else {
            return Err(unexpected("x_embedder.proj.weight", patchify, "(width, channels, patch, patch)"));
        };
        if patch != patch_width || hidden == 0 || patch == 0 || in_channels == 0 {
            return Err(unexpected("x_embedder.proj.weight", patchify, "(width, channels, patch, patch)"));
        }
        let &[label_rows, _] = labels else {
            return Err(unexpected("y_embedder.embedding_table.weight", labels, "(classes, width)"));
        };
        let &[mlp_hidden, _] = fc1 else {
            return Err(unexpected("blocks.0.mlp.fc1.weight", fc1, "(MLP width, width)"));
        };
        let &[final_rows, _] = final_linear else {
            return Err(unexpected("final_layer.linear.weight", final_linear, "(patch² · channels, width)"));
        };
        let block = block_design(source, hidden)?;
        let depth = depth(source);
        Ok(Self { hidden, depth, patch, in_channels, label_rows, mlp_hidden, final_rows, block })
    }
}

fn unexpected(name: &str, found: &[usize], expected: &str) -> Error {
    Error::NotDit { problem: format!("{name} is {found:?}, expected {expected}") }
}

/// The design, from which modules the first block has.
fn block_design(source: &dyn TensorSource, hidden: usize) -> Result<BlockDesign, Error> {
    const MODULATION: &str = "blocks.0.adaLN_modulation.1.weight";
    if let Some(modulation) = shape(source, MODULATION) {
        let rows = modulation.first().copied().unwrap_or(0);
        return [BlockDesign::AdaLnZero, BlockDesign::AdaLn]
            .into_iter()
            .find(|design| hidden.checked_mul(design.modulation_chunks()) == Some(rows))
            .ok_or_else(|| unexpected(MODULATION, modulation, "6 (adaLN-Zero) or 4 (adaLN) times the width in rows"));
    }
    if shape(source, "blocks.0.cross_attn.q.weight").is_some() {
        Ok(BlockDesign::CrossAttention)
    } else if shape(source, "blocks.0.norm1.weight").is_some() {
        Ok(BlockDesign::InContext)
    } else {
        Err(Error::NotDit { problem: format!("{MODULATION} not there, nor another design's modules") })
    }
}

/// Number of classes and label dropout for a table of `rows`.
fn classes(rows: usize, told: Option<usize>) -> Result<(usize, f64), Error> {
    match told {
        Some(classes) if classes == rows => Ok((classes, 0.0)),
        Some(classes) if classes.checked_add(1) == Some(rows) => Ok((classes, LABEL_DROPOUT)),
        Some(classes) => Err(Error::Conflict {
            what: "classes",
            first: "the label table",
            first_value: format!("{rows} rows, the null class included or not"),
            second: "the option or config",
            second_value: classes.to_string(),
            help: "give the number of classes that it was trained with",
        }),
        // A single row cannot be the null class alone.
        None if rows == 1 => Ok((1, 0.0)),
        None => Ok((rows.saturating_sub(1), LABEL_DROPOUT)),
    }
}

/// A ratio whose product with `hidden` is `mlp_hidden` without a fraction.
fn exact_ratio(mlp_hidden: usize, hidden: usize) -> f64 {
    let ratio = mlp_hidden as f64 / hidden as f64;
    let candidates = [ratio, ratio.next_up(), ratio.next_down()];
    candidates.into_iter().find(|ratio| ratio * hidden as f64 == mlp_hidden as f64).unwrap_or(ratio)
}

fn sigma(shapes: &Shapes) -> Result<Sigma, Error> {
    let Shapes { patch, in_channels, final_rows, .. } = *shapes;
    let fixed = patch.checked_mul(patch).and_then(|area| area.checked_mul(in_channels));
    if fixed == Some(final_rows) {
        Ok(Sigma::Fixed)
    } else if fixed.and_then(|rows| rows.checked_mul(2)) == Some(final_rows) {
        Ok(Sigma::Learned)
    } else {
        let problem = format!(
            "final_layer.linear.weight has {final_rows} rows, expected patch² · channels ({patch}² · {in_channels}) or twice that"
        );
        Err(Error::NotDit { problem })
    }
}

/// The latent, from the hint or the position table.
fn latent(source: &dyn TensorSource, patch: usize, hint: Option<LatentSize>) -> Result<LatentSize, Error> {
    let unknown = |problem: String| Error::LatentUnknown { problem };
    let Some(table) = shape(source, "pos_embed") else {
        return hint.ok_or_else(|| unknown("it has no pos_embed".to_owned()));
    };
    let &[1, tokens, hidden] = table else {
        return Err(unexpected("pos_embed", table, "(1, tokens, width)"));
    };
    if tokens == 0 || tokens > MAX_TOKENS {
        return Err(unexpected("pos_embed", table, "(1, tokens, width)"));
    }
    if let Some(latent) = hint {
        let told = (latent.height / patch).checked_mul(latent.width / patch);
        if told != Some(tokens) {
            return Err(Error::Conflict {
                what: "latent",
                first: "the position table",
                first_value: format!("{tokens} patches"),
                second: "the option or config",
                second_value: format!("{latent} in patches of {patch}"),
                help: "give the latent size that it was trained with",
            });
        }
        return Ok(latent);
    }
    let grid = match matching_grid(source, tokens, hidden) {
        Some(grid) => grid,
        None if tokens.isqrt().pow(2) == tokens => LatentSize::square(tokens.isqrt()),
        None => {
            return Err(unknown(format!("its {tokens} patches make no square, its position table is none of ours")));
        }
    };
    let extent = |patches: usize| {
        patches.checked_mul(patch).ok_or_else(|| unknown(format!("{patches} patches of {patch} are too large")))
    };
    Ok(LatentSize { height: extent(grid.height)?, width: extent(grid.width)? })
}

/// The grid of `tokens` patches whose position table ends as the stored one does, if any.
fn matching_grid(source: &dyn TensorSource, tokens: usize, hidden: usize) -> Option<LatentSize> {
    /// Half of a step of bf16 below 1, in which tables may be stored.
    const TOLERANCE: f32 = 4e-3;
    if hidden == 0 || !hidden.is_multiple_of(4) {
        return None;
    }
    let stored = source.read("pos_embed").ok()?.to_f32().ok()?;
    let last = stored.get(stored.len().checked_sub(hidden)?..)?;
    let root = tokens.isqrt();
    let shorter = (1..=root).rev().filter(|side| tokens.is_multiple_of(*side));
    let grids = shorter.flat_map(|side| [(side, tokens / side), (tokens / side, side)]);
    grids.map(|(height, width)| LatentSize { height, width }).find(|grid| {
        let expected = position(grid.height - 1, grid.width - 1, hidden);
        last.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE)
    })
}
