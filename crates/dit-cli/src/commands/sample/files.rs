//! The checkpoints of a request.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dit_catalog::Kind;
use dit_classes::{ClassNames, Problem};
use dit_model::Dit;
use dit_sample::{Pipeline, Precision, Source};
use dit_vae::AutoencoderKl;
use dit_weights::{Checkpoint, Codec, VaeCheckpoint};
use tch::Device;

use super::request::Request;
use crate::{
    open::{Library, Located, told},
    recorded::name_of,
    run_folder,
    usage::{Usage, wrong_usage},
};

/// The checkpoints of a request, opened: descriptions only.
pub struct Files {
    pub dit_at: Located,
    pub checkpoint: Checkpoint,
    pub vae: Option<(VaeCheckpoint, Located)>,
    /// Nobody asked for this codec: it must be the one that the checkpoint knows.
    must_be: Option<Codec>,
}

impl Files {
    pub fn open(request: &Request) -> Result<Self> {
        let library = Library::discover()?;
        let dit_at = match &request.checkpoint {
            Some(text) => library.locate(text, Kind::Dit).with_context(|| request.hint("--ckpt"))?,
            None => library.default_checkpoint()?,
        };
        let opened_as = &request.opened_as;
        let options = told(dit_at.options.clone(), opened_as.model.as_deref(), opened_as.num_heads)?;
        let checkpoint = Checkpoint::open(&dit_at.path, &options)
            .with_context(|| format!("cannot sample from {}", dit_at.path.display()))?;
        // Beside loading, after which it is checked.
        run_folder::start_check(&checkpoint)?;
        let codec = checkpoint.metadata().codec.as_ref();
        let mut must_be = None;
        let vae = match locate_vae(&library, request, &dit_at, &checkpoint)? {
            Some(at) => {
                let vae = VaeCheckpoint::open(&at.path)
                    .with_context(|| format!("cannot decode with {}", at.path.display()))?;
                if let (Some(codec), None) = (codec, &request.vae) {
                    // So is the codec compared.
                    vae.digest().start();
                    must_be = Some(codec.clone());
                }
                Some((vae, at))
            }
            None => None,
        };
        Ok(Self { dit_at, checkpoint, vae, must_be })
    }

    /// Whether the codec is the one that the checkpoint was trained on, where nobody asked for another. Waits for its hash.
    pub fn check_codec(&self) -> Result<()> {
        match (&self.must_be, &self.vae) {
            (Some(codec), Some((vae, at))) => check_trained_on(codec, vae, at, &self.dit_at),
            _ => Ok(()),
        }
    }

    /// Width and height of the pictures in pixels, where there is a codec.
    pub fn picture_size(&self) -> Option<(u32, u32)> {
        let factor = self.vae.as_ref()?.0.config().downsampling() as u32;
        let latent = self.checkpoint.config().latent;
        Some((latent.width as u32 * factor, latent.height as u32 * factor))
    }

    /// Files that no output may replace.
    pub fn inputs<'a>(&'a self, request: &'a Request) -> Vec<&'a Path> {
        let vae = self.vae.iter().flat_map(|(vae, _)| vae.files());
        let given = request.noise.iter().chain(&request.from_png).chain(&request.init).chain(&request.classifier);
        self.checkpoint.files().iter().chain(vae).chain(given).map(PathBuf::as_path).collect()
    }

    /// An error about class names, with what helps: the classes that there are.
    pub fn explain(&self, error: &anyhow::Error, names: &ClassNames) -> Usage {
        let mut text = format!("{error:#}");
        let mut help = |line: String| text.push_str(&format!("\n  help: {line}"));
        let name = &self.dit_at.name;
        let listed: Vec<&str> = (0..names.len().min(20)).filter_map(|class| names.name(class)).collect();
        if names.len() == 1 {
            help(format!("{name} has a single class, 0: it was trained without labels"));
        } else if listed.len() as u32 == names.len() && !listed.is_empty() {
            help(format!("the classes of {name} are {}", listed.join(", ")));
        }
        if *name == dit_catalog::DEMO && error.downcast_ref().is_some_and(asks_for_imagenet) {
            help("ImageNet's classes need DiT-XL/2: `cargo xtask fetch-weights`".to_owned());
        }
        Usage(text)
    }

    pub fn vae_source(&self) -> Result<Option<Source>> {
        let source = |(vae, at): &(VaeCheckpoint, Located)| -> Result<Source> {
            Ok(Source { name: name_of(&at.name), sha256: vae.sha256()?.to_owned() })
        };
        self.vae.as_ref().map(source).transpose()
    }

    pub fn load(&self, device: Device, precision: Precision) -> Result<Pipeline> {
        let kind = precision.kind();
        let vae = self.vae.as_ref().map(|(vae, _)| AutoencoderKl::load(vae, device, kind)).transpose()?;
        Ok(Pipeline::new(Dit::load_with(&self.checkpoint, device, kind, precision.kernels())?, vae)?)
    }
}

/// Whether something that names no class here names one of ImageNet's.
fn asks_for_imagenet(error: &dit_classes::Error) -> bool {
    let dit_classes::Error::List(problems) = error else { return false };
    problems.iter().any(|problem| match problem {
        Problem::Unknown { item, .. } | Problem::OutOfRange { item, .. } => {
            ClassNames::imagenet().parse_list(item).is_ok()
        }
        _ => false,
    })
}

fn locate_vae(library: &Library, request: &Request, dit: &Located, checkpoint: &Checkpoint) -> Result<Option<Located>> {
    let known = dit.pairs_with.clone().or_else(|| beside(&dit.path));
    match (request.vae.as_deref(), known, &checkpoint.metadata().codec) {
        (Some("none"), ..) => Ok(None),
        (Some(text), ..) => Ok(Some(library.locate(text, Kind::Vae).with_context(|| request.hint("--vae"))?)),
        (None, Some(known), _) => Ok(Some(library.locate(&known, Kind::Vae)?)),
        (None, None, Some(Codec { name, sha256 })) => {
            let about = || {
                let dit = &dit.name;
                format!(
                    "{dit} was trained on the latents of {name} (SHA-256 {sha256})\n  \
                     help: pass --vae with that codec, or put it beside the checkpoint"
                )
            };
            Ok(Some(library.locate_codec(name, &dit.path).with_context(about)?))
        }
        (None, None, None) => match library.codec_of_copy(checkpoint)? {
            Some(codec) => Ok(Some(library.locate(codec, Kind::Vae)?)),
            None => wrong_usage!(
                "which VAE decodes {}?\n  help: pass --vae with its folder, file or name, or --vae none with --latents",
                dit.name
            ),
        },
    }
}

/// That a codec which nobody asked for is the one that the checkpoint knows.
fn check_trained_on(codec: &Codec, vae: &VaeCheckpoint, at: &Located, dit: &Located) -> Result<()> {
    let found = vae.sha256()?;
    if found == codec.sha256 {
        return Ok(());
    }
    bail!(
        "{} is not the codec that {} was trained on: its SHA-256 is {found}, not {}\n  \
         help: pass --vae with the right one, or with this one to decode with it nonetheless",
        at.name,
        dit.name,
        codec.sha256
    )
}

/// The codec of a diffusers pipeline folder: `vae/` in it, or beside its `transformer/`.
fn beside(dit: &Path) -> Option<String> {
    let folders = [Some(dit), dit.parent()];
    let vae =
        folders.into_iter().flatten().map(|folder| folder.join("vae")).find(|vae| vae.join("config.json").is_file())?;
    vae.to_str().map(str::to_owned)
}
