//! Conversion between formats, layouts and element types, one tensor in memory at a time.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use dit_config::{DitConfig, Process, TensorSpec, VaeSpec};

use dit_files::{AtomicFile, AtomicFolder};

use crate::{
    CastSource, Codec, Dtype, Error, Layout, Metadata, ModelConfig, Network, OpenOptions, Origin, TensorSource, folder,
    layout::{export_dit, inexpressible, position_table},
    metadata::is_reserved,
    torch_save,
    writer::write_safetensors_with,
};

/// What [`convert`] writes. The default keeps everything as it is.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// What the user says about the input.
    pub open: OpenOptions,
    /// The layout to write. By default a DiT's is the original's in a file and diffusers' in a folder; a VAE has only diffusers'.
    pub layout: Option<Layout>,
    /// The floating-point type of the weights; by default the input's. A DiT's frozen position table never becomes narrower.
    pub dtype: Option<Dtype>,
    /// A name for each class; by default the input's.
    pub class_names: Option<Vec<String>>,
    /// Where the weights came from; by default what the input says, else the input itself, whose SHA-256 is then computed.
    pub origin: Option<Origin>,
    /// The codec whose latents a transformer was trained on, where the input does not say.
    pub codec: Option<Codec>,
    /// More text for the metadata, under keys other than `format` and those that begin with `dit.`.
    pub metadata: BTreeMap<String, String>,
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of values written.
    pub written: u64,
    /// Bytes of values that there will be.
    pub total: u64,
}

/// What a conversion did.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The network.
    pub config: ModelConfig,
    /// The layout read.
    pub from: Layout,
    /// The layout written.
    pub to: Layout,
    /// The diffusion process that a transformer was trained on.
    pub process: Option<Process>,
    /// The files written.
    pub files: Vec<PathBuf>,
    /// Bytes of values written.
    pub bytes: u64,
}

/// Reads the checkpoint at `input`, a DiT or a VAE in any format and layout, and writes it to `output`: a `.safetensors` or `.pt`
/// file, or a diffusers folder (`config.json` and weights) where the name is that of a folder. Memory holds one tensor at a time,
/// and the output appears whole or not at all. `progress` is called as tensors are written.
///
/// Converting to diffusers' layout and back gives the same bytes. A `.pt` file holds tensors alone: what else the input says (the
/// number of heads, class names, whose arithmetic, the codec, the origin, all other metadata) is lost, and whoever opens the file
/// gives [`OpenOptions::heads`] again.
///
/// # Errors
/// Whatever opening `input` meets; [`Error::Unwritable`] where `output`'s format or layout cannot hold the network, or the class
/// names and metadata of `options`; [`Error::ReservedKey`] where that metadata has a key which is written anyway;
/// [`Error::OutOfRange`] where a weight does not fit the element type, [`Error::IntegerTarget`] where that is no floating-point
/// one; [`Error::Io`].
pub fn convert(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Converted, Error> {
    convert_paths(input.as_ref(), output.as_ref(), options, progress)
}

fn convert_paths(
    input: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Converted, Error> {
    if let Some(dtype) = options.dtype.filter(|dtype| !dtype.is_float()) {
        return Err(Error::IntegerTarget { dtype });
    }
    let format = Format::of(output)?;
    refuse_given(output, format, options)?;
    let network = Network::open(input, &options.open)?;
    refuse_own_input(&network, output)?;
    let to = layout(&network, output, format, options.layout)?;
    let metadata = metadata(&network, output, options)?;
    let exported;
    let tensors: &dyn TensorSource = match (&network, to) {
        (Network::Dit(dit), Layout::Diffusers) => {
            exported = export_dit(&**dit, dit.config())?;
            &exported
        }
        (network, _) => network.tensors(),
    };
    let cast;
    let tensors: &dyn TensorSource = match options.dtype {
        Some(dtype) => {
            cast = CastSource::with_exact(tensors, dtype, &["pos_embed"]);
            &cast
        }
        None => tensors,
    };
    let total = tensors.infos().values().filter_map(|info| info.byte_len()).map(|bytes| bytes as u64).sum();
    let mut report = |written| progress(Progress { written, total });
    let files = match format {
        Format::Safetensors => {
            write_safetensors_with(output, tensors, &metadata.to_map(), &mut report)?;
            vec![output.to_owned()]
        }
        Format::Torch => {
            write_torch(output, tensors, &network.config(), &mut report)?;
            vec![output.to_owned()]
        }
        Format::Folder => write_folder(output, tensors, &metadata, &network.config(), &mut report)?,
    };
    let process = match &network {
        Network::Dit(dit) => Some(dit.process()),
        Network::Vae(_) => None,
    };
    Ok(Converted { config: network.config(), from: network.source_layout(), to, process, files, bytes: total })
}

/// The kinds of output, told by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Safetensors,
    Torch,
    Folder,
}

impl Format {
    fn of(output: &Path) -> Result<Self, Error> {
        let extension = output.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match Self::of_ending(extension) {
            _ if output.is_dir() => Ok(Self::Folder),
            Some(Some(format)) => Ok(format),
            Some(None) => Err(Error::Unwritable {
                path: output.to_owned(),
                problem: format!("a .{extension} file is not among the formats"),
                help: "name a .safetensors or .pt file, or a folder",
            }),
            None => Ok(Self::Folder),
        }
    }

    /// Of a file of this ending; none of files of other kinds. Any other dot may well be in a folder's name.
    fn of_ending(ending: &str) -> Option<Option<Self>> {
        match ending.to_ascii_lowercase().as_str() {
            "safetensors" => Some(Some(Self::Safetensors)),
            "pt" | "pth" => Some(Some(Self::Torch)),
            "bin" | "ckpt" | "npz" | "onnx" | "gguf" | "json" | "zip" => Some(None),
            _ => None,
        }
    }
}

/// Whether [`convert`] takes what ends so, without the dot, for a file, be it one of another kind, which it refuses; all else is a folder.
pub fn is_file_ending(ending: &str) -> bool {
    Format::of_ending(ending).is_some()
}

/// What was given for the metadata is written, or refused.
fn refuse_given(output: &Path, format: Format, options: &ConvertOptions) -> Result<(), Error> {
    if let Some(key) = options.metadata.keys().find(|key| is_reserved(key)) {
        return Err(Error::ReservedKey { key: key.clone() });
    }
    let what = match format {
        Format::Torch if options.class_names.is_some() => "class names",
        Format::Torch if !options.metadata.is_empty() => "metadata",
        _ => return Ok(()),
    };
    Err(Error::Unwritable {
        path: output.to_owned(),
        problem: format!("a .pt file has no place for {what}"),
        help: "name a .safetensors file or a folder",
    })
}

/// Writing over a file that is being read would lose it where the conversion is not exact.
fn refuse_own_input(network: &Network, output: &Path) -> Result<(), Error> {
    let Ok(output_path) = output.canonicalize() else { return Ok(()) };
    let same = |file: &PathBuf| {
        file.canonicalize().is_ok_and(|file| file == output_path || file.parent() == Some(&output_path))
    };
    if network.files().iter().any(same) {
        return Err(Error::Unwritable {
            path: output.to_owned(),
            problem: "it is the input".to_owned(),
            help: "give the output another name",
        });
    }
    Ok(())
}

/// The layout to write, if the network and the format can have it.
fn layout(network: &Network, output: &Path, format: Format, asked: Option<Layout>) -> Result<Layout, Error> {
    let unwritable = |problem: String, help| Error::Unwritable { path: output.to_owned(), problem, help };
    let default = match (network, format) {
        (Network::Vae(_), _) | (_, Format::Folder) => Layout::Diffusers,
        (Network::Dit(_), Format::Safetensors | Format::Torch) => Layout::Original,
    };
    let layout = asked.unwrap_or(default);
    match (network, layout, format) {
        (_, Layout::DiffusersOld, _) => {
            Err(unwritable("the old spelling of VAEs is read, not written".to_owned(), "write layout diffusers"))
        }
        (Network::Vae(_), Layout::Original, _) => {
            Err(unwritable("a VAE has only diffusers' layout".to_owned(), "leave the layout out"))
        }
        (Network::Vae(_), _, Format::Torch) => Err(unwritable(
            "a .pt file has no place for the VAE's configuration".to_owned(),
            "name a .safetensors file or a folder",
        )),
        (Network::Dit(dit), Layout::Original, Format::Torch) if !dit.process().is_original() => Err(unwritable(
            format!("a .pt file cannot say how it was trained ({}); it would be sampled wrongly", dit.process()),
            "name a .safetensors file",
        )),
        (_, Layout::Original, Format::Folder) => {
            Err(unwritable("a folder holds diffusers' layout".to_owned(), "name a .safetensors or .pt file"))
        }
        (_, Layout::Diffusers, Format::Torch) => {
            Err(unwritable("a .pt file holds the original's layout".to_owned(), "name a .safetensors file or a folder"))
        }
        (Network::Dit(dit), Layout::Diffusers, _) => {
            let mut problems = inexpressible(dit.config());
            if !has_computed_table(&**dit, dit.config())? {
                problems.push("its position table is not the one that diffusers computes".to_owned());
            }
            if problems.is_empty() {
                Ok(layout)
            } else {
                Err(unwritable(problems.join("; "), "write the original's layout"))
            }
        }
        _ => Ok(layout),
    }
}

/// Whether the position table of `dit` is the sine-cosine one, as far as bf16 tells: diffusers does not store it.
fn has_computed_table(dit: &dyn TensorSource, config: &DitConfig) -> Result<bool, Error> {
    const TOLERANCE: f32 = 4e-3;
    let stored = dit.read("pos_embed")?.to_f32()?;
    let computed = position_table(config.grid(), config.hidden);
    Ok(stored.iter().zip(computed).all(|(a, b)| (a - b).abs() <= TOLERANCE))
}

/// What the output says about itself.
fn metadata(network: &Network, output: &Path, options: &ConvertOptions) -> Result<Metadata, Error> {
    let mut metadata = network.metadata().clone();
    if let Some(names) = &options.class_names {
        let classes = match network {
            Network::Dit(dit) => dit.config().num_classes,
            Network::Vae(_) => 0,
        };
        if names.len() != classes {
            return Err(Error::Unwritable {
                path: output.to_owned(),
                problem: format!("{} class names for {classes} classes", names.len()),
                help: "give one name for each class, in order",
            });
        }
        metadata.class_names = Some(names.clone());
    }
    metadata.codec = metadata.codec.or_else(|| options.codec.clone());
    metadata.origin = match (&options.origin, metadata.origin) {
        (Some(origin), _) => Some(origin.clone()),
        (None, Some(origin)) => Some(origin),
        (None, None) => Some(Origin { name: origin_name(network.files()), sha256: network.sha256()?.to_owned() }),
    };
    metadata.other.extend(options.metadata.clone());
    Ok(metadata)
}

fn origin_name(files: &[PathBuf]) -> String {
    let name = files.first().and_then(|file| file.file_name());
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Writes a state dict in the order in which the modules are defined.
fn write_torch(
    output: &Path,
    tensors: &dyn TensorSource,
    config: &ModelConfig,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let specs: Vec<TensorSpec> = match config {
        ModelConfig::Dit(config) => config.tensors(),
        ModelConfig::Vae(config) => config.tensors(),
    };
    let mut written = 0;
    let mut previous: Option<String> = None;
    let views = specs.into_iter().map(|TensorSpec { name, .. }| {
        if let Some(previous) = previous.replace(name.clone()) {
            tensors.release(&previous);
        }
        tensors.prefetch(&name);
        let view = tensors.read(&name)?;
        written += view.data().len() as u64;
        progress(written);
        Ok((name, view))
    });
    torch_save::write_state_dict(output, views)
}

/// Writes a diffusers folder: whole if it did not exist, else file by file.
fn write_folder(
    output: &Path,
    tensors: &dyn TensorSource,
    metadata: &Metadata,
    config: &ModelConfig,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<PathBuf>, Error> {
    let config_json = match config {
        ModelConfig::Dit(config) => folder::dit_config_json(config),
        ModelConfig::Vae(config) => format!("{:#}\n", serde_json::json!(VaeSpec::from(config.clone()))),
    };
    let mut write_into = |folder: &Path| {
        write_safetensors_with(&folder.join(folder::WEIGHTS), tensors, &metadata.to_map(), progress)?;
        write_text(&folder.join(folder::CONFIG), &config_json)
    };
    if output.is_dir() {
        write_into(output)?;
    } else {
        let temporary = AtomicFolder::create(output)?;
        write_into(temporary.path()).map_err(|error| at_destination(error, temporary.path(), output))?;
        temporary.commit().map_err(Error::writing(output))?;
    }
    Ok([folder::WEIGHTS, folder::CONFIG].map(|name| output.join(name)).to_vec())
}

/// `error` with the path that the file would have had, not the temporary one, which is gone by the time it is read.
fn at_destination(error: Error, temporary: &Path, output: &Path) -> Error {
    match error {
        Error::Io { action, path, source } => {
            let path = path.strip_prefix(temporary).map_or_else(|_| path.clone(), |file| output.join(file));
            Error::Io { action, path, source }
        }
        Error::Write(error) => Error::Write(error.moved(temporary, output)),
        other => other,
    }
}

fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = AtomicFile::create(path)?;
    file.file_mut().write_all(text.as_bytes()).map_err(Error::writing(path))?;
    file.commit().map_err(Error::writing(path))
}
