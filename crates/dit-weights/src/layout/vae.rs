//! AutoencoderKL checkpoints of either spelling, as diffusers names them now.

use crate::{
    Error, TensorSource,
    layout::{Layout, MappedSource, Names},
};

/// Former and present names of the attention's Linears.
const ATTENTION: [(&str, &str); 4] = [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];

/// Whether `names` are those of an AutoencoderKL.
pub(crate) fn is_vae(names: &Names) -> bool {
    names.any_starts_with(&["encoder.conv_in.", "decoder.conv_in."])
}

/// `inner`'s tensors with diffusers' present names. Tensors of no known place keep their names.
///
/// # Errors
/// [`Error::NotVae`] where no name is an AutoencoderKL's; [`Error::DuplicateTensor`] where both spellings are there.
pub(crate) fn canonical_vae<S: TensorSource>(inner: S, names: &Names) -> Result<(MappedSource<S>, Layout), Error> {
    if !is_vae(names) {
        return Err(Error::NotVae { problem: names.sample() });
    }
    let mut layout = Layout::Diffusers;
    let mut mapped = MappedSource::new(inner, &names.prefix);
    for (name, full) in &names.plain {
        match attention_linear(name) {
            Some((present, former)) => {
                if former {
                    layout = Layout::DiffusersOld;
                }
                // A 1×1 convolution, (C, C, 1, 1), in the oldest files.
                mapped.add_flattened(present, full)?;
            }
            None => mapped.add(name.clone(), full)?,
        }
    }
    Ok((mapped, layout))
}

/// The present name of `name` if it is one of the attention's Linears, and whether it was spelled the former way.
fn attention_linear(name: &str) -> Option<(String, bool)> {
    let (module, parameter) = name.rsplit_once('.')?;
    for (former, present) in ATTENTION {
        for (spelling, is_former) in [(former, true), (present, false)] {
            if let Some(attention) = module.strip_suffix(spelling)
                && attention.ends_with(".attentions.0.")
            {
                return Some((format!("{attention}{present}.{parameter}"), is_former));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_become_the_present_one() {
        for (name, expected) in [
            ("encoder.mid_block.attentions.0.query.weight", Some(("encoder.mid_block.attentions.0.to_q.weight", true))),
            (
                "decoder.mid_block.attentions.0.proj_attn.bias",
                Some(("decoder.mid_block.attentions.0.to_out.0.bias", true)),
            ),
            ("decoder.mid_block.attentions.0.to_v.bias", Some(("decoder.mid_block.attentions.0.to_v.bias", false))),
            (
                "decoder.mid_block.attentions.0.to_out.0.bias",
                Some(("decoder.mid_block.attentions.0.to_out.0.bias", false)),
            ),
            ("decoder.mid_block.attentions.0.group_norm.bias", None),
            ("decoder.query.weight", None),
        ] {
            let expected = expected.map(|(name, former)| (name.to_owned(), former));
            assert_eq!(attention_linear(name), expected, "{name}");
        }
    }
}
