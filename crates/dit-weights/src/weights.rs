//! From a path to plain tensors: which format, which of a training checkpoint's dictionaries, what is said beside them.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use dit_config::StandardModel;

use crate::{
    Error, Metadata, SafetensorsFile, TensorSource, TorchFile, Value, WeightsKind,
    digest::Digest,
    hints::Hints,
    layout::{Names, detect, is_vae},
    sharded::ShardedSource,
};

/// Where checkpoints keep each kind of weights; the first is what the original writes.
const EMA: [&str; 3] = ["ema", "ema_model", "model_ema"];
const RAW: [&str; 4] = ["model", "state_dict", "model_state_dict", "module"];

/// The tensors of one network and what their file says about them.
pub(crate) struct Weights {
    pub(crate) source: Box<dyn TensorSource>,
    pub(crate) names: Names,
    pub(crate) metadata: Metadata,
    /// What a training checkpoint's arguments say.
    pub(crate) hints: Hints,
    /// The files that the tensors lie in: these, whatever is put in their places meanwhile.
    pub(crate) digest: Digest,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("tensors", &self.names.plain.len()).field("metadata", &self.metadata).finish()
    }
}

/// Reads the descriptions of the weights in `paths`: one file, or shards of one model.
///
/// # Errors
/// What opening a file of its format meets, [`Error::NoSuchWeights`], or [`Error::NotCheckpoint`] where no dictionary in it
/// has a network's tensors.
pub(crate) fn open_weights(paths: &[PathBuf], kind: Option<WeightsKind>) -> Result<Weights, Error> {
    let digest = Digest::open(paths.to_vec())?;
    if let ([path], Some(file)) = (paths, digest.files().next()) {
        return match sniff(path, file)? {
            Format::Safetensors => from_safetensors(SafetensorsFile::map(path, file)?, path, kind, &digest),
            Format::Torch => from_torch(TorchFile::map(path, file)?, path, kind, &digest),
        };
    }
    let mut shards: Vec<Box<dyn TensorSource>> = Vec::with_capacity(paths.len());
    for (path, file) in paths.iter().zip(digest.files()) {
        shards.push(match sniff(path, file)? {
            Format::Safetensors => Box::new(SafetensorsFile::map(path, file)?),
            Format::Torch => Box::new(TorchFile::map(path, file)?.state_dict("")?),
        });
    }
    let source: Box<dyn TensorSource> = Box::new(ShardedSource::new(shards)?);
    let names = Names::of(&source, "")?;
    Ok(Weights { source, names, metadata: Metadata::default(), hints: Hints::default(), digest })
}

enum Format {
    Safetensors,
    Torch,
}

/// The format by the file's first bytes; names lie. What is neither is left to the reader of PyTorch's, which tells more kinds
/// apart.
fn sniff(path: &Path, file: &File) -> Result<Format, Error> {
    let mut start = Vec::new();
    file.take(16).read_to_end(&mut start).map_err(Error::io("read", path))?;
    let named_so = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"));
    Ok(match start[..] {
        // The length of a header below 4 GB, then JSON.
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Format::Safetensors,
        [b'P', b'K', ..] | [b'<', ..] | [0x80, ..] | [b'v', ..] => Format::Torch,
        _ if named_so && !start.is_empty() => Format::Safetensors,
        _ => Format::Torch,
    })
}

/// Whether these are the names of a network that this crate knows.
fn is_network(names: &Names) -> bool {
    detect(names).is_some() || is_vae(names)
}

fn from_safetensors(
    file: SafetensorsFile,
    path: &Path,
    kind: Option<WeightsKind>,
    digest: &Digest,
) -> Result<Weights, Error> {
    let metadata = Metadata::from_map(path, file.metadata())?;
    let nested = |keys: &'static [&'static str]| keys.iter().map(|key| format!("{key}."));
    let plain = Names::of(&file, "")?;
    let mut choices = Choices::default();
    if is_network(&plain) {
        choices.plain = Some((metadata.weights, plain));
    } else {
        for (keys, slot) in [(&EMA[..], &mut choices.ema), (&RAW[..], &mut choices.raw)] {
            for prefix in nested(keys) {
                let names = Names::of(&file, &prefix)?;
                if slot.is_none() && is_network(&names) {
                    *slot = Some(names);
                }
            }
        }
    }
    let (weights, names) = choices.choose(path, kind, || Names::of(&file, "").map(|names| names.sample()))?;
    let metadata = Metadata { weights, ..metadata };
    Ok(Weights { source: Box::new(file), names, metadata, hints: Hints::default(), digest: digest.clone() })
}

fn from_torch(file: TorchFile, path: &Path, kind: Option<WeightsKind>, digest: &Digest) -> Result<Weights, Error> {
    let find = |key: &str| -> Result<Option<_>, Error> {
        if !file.state_dicts().any(|at| at == key) {
            return Ok(None);
        }
        let state_dict = file.state_dict(key)?;
        let names = Names::of(&state_dict, "")?;
        Ok(is_network(&names).then_some((state_dict, names)))
    };
    let mut choices = Choices::default();
    if let Some(found) = find("")? {
        choices.plain = Some((None, found));
    } else {
        for (keys, slot) in [(&EMA[..], &mut choices.ema), (&RAW[..], &mut choices.raw)] {
            for key in keys {
                if slot.is_none() {
                    *slot = find(key)?;
                }
            }
        }
    }
    let describe = || {
        // An error of its own where there are no tensors, or the root is an object that Python would have to make.
        let root = file.state_dict("").and_then(|root| Names::of(&root, ""));
        match (root, file.state_dicts().next()) {
            (Ok(names), _) => Ok(names.sample()),
            (Err(_), Some(_)) => {
                let places: Vec<_> = file.state_dicts().take(8).map(|place| format!("{place:?}")).collect();
                Ok(format!("it has tensors at {}", places.join(", ")))
            }
            (Err(error), None) => Err(error),
        }
    };
    let (weights, (source, names)) = choices.choose(path, kind, describe)?;
    let hints = file.root().get("args").map(training_hints).unwrap_or_default();
    let metadata = Metadata { weights, step: training_step(&file), ..Metadata::default() };
    Ok(Weights { source: Box::new(source), names, metadata, hints, digest: digest.clone() })
}

/// The sets of weights in a file.
struct Choices<T> {
    /// Not nested, and the kind if the file says so.
    plain: Option<(Option<WeightsKind>, T)>,
    ema: Option<T>,
    raw: Option<T>,
}

impl<T> Default for Choices<T> {
    fn default() -> Self {
        Self { plain: None, ema: None, raw: None }
    }
}

impl<T> Choices<T> {
    /// The weights asked for; by default the EMA's where there are any.
    fn choose(
        self,
        path: &Path,
        asked: Option<WeightsKind>,
        describe: impl FnOnce() -> Result<String, Error>,
    ) -> Result<(Option<WeightsKind>, T), Error> {
        let absent =
            |asked, found: &str| Error::NoSuchWeights { path: path.to_owned(), asked, found: found.to_owned() };
        match (asked, self.plain, self.ema, self.raw) {
            (None, Some(plain), _, _) => Ok(plain),
            (Some(asked), Some((Some(kind), plain)), _, _) if asked == kind => Ok((Some(kind), plain)),
            (Some(asked), Some((Some(kind), _)), _, _) => {
                Err(absent(asked, &format!("it says that its weights are {kind}")))
            }
            (Some(asked), Some((None, _)), _, _) => {
                Err(absent(asked, "it is a plain state dict, which does not say; leave the option out to use it"))
            }
            (None | Some(WeightsKind::Ema), None, Some(ema), _) => Ok((Some(WeightsKind::Ema), ema)),
            (None | Some(WeightsKind::Raw), None, _, Some(raw)) => Ok((Some(WeightsKind::Raw), raw)),
            (Some(asked @ WeightsKind::Ema), None, None, Some(_)) => Err(absent(asked, "it has raw ones")),
            (Some(asked @ WeightsKind::Raw), None, Some(_), None) => Err(absent(asked, "it has EMA ones")),
            (_, None, None, None) => Err(Error::NotCheckpoint {
                path: path.to_owned(),
                problem: format!("{}; none of them is a DiT's or an AutoencoderKL's", describe()?),
                help: "check that this is the right file",
            }),
        }
    }
}

/// What the arguments of the original's training script say: `--model DiT-XL/2 --num-classes 1000`. Its `image_size` is left
/// alone: which latent that is depends on the VAE.
fn training_hints(args: Value<'_>) -> Hints {
    let classes = args.get("num_classes").and_then(Value::as_i64);
    Hints {
        model: args.get("model").and_then(Value::as_str).and_then(|name| name.parse::<StandardModel>().ok()),
        num_classes: classes.and_then(|classes| usize::try_from(classes).ok()),
        ..Hints::default()
    }
}

/// How many steps the optimizer beside the weights has taken. Parameters that are not trained have no state, such as the first.
fn training_step(file: &TorchFile) -> Option<u64> {
    let place = file.state_dicts().find(|place| place.starts_with("opt.state."))?;
    let step = file.state_dict(place).ok()?.read("step").ok()?.to_f32().ok()?;
    let whole = step.first().copied().filter(|step| *step >= 0.0 && step.fract() == 0.0)?;
    Some(whole as u64)
}
