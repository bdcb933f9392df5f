//! What a request may bring beside checkpoint and codec: a weaker checkpoint, a classifier, a picture.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use dit_catalog::Kind;
use dit_classifier::{About, Classifier};
use dit_data::{Limits, adm_crop, decode};
use dit_image::Picture;
use dit_model::Dit;
use dit_sample::{Pipeline, Plan, Precision, Source};
use dit_weights::{Checkpoint, Digest};
use tch::Device;

use super::{files::Files, hashes::unhashed, request::Request};
use crate::{
    open::{Library, Located},
    recorded::source_of,
    run_folder,
    speak::say,
    usage::wrong_usage,
};

/// Opened and checked, the networks not yet loaded.
pub struct Beside {
    weaker: Option<(Checkpoint, Located)>,
    classifier: Option<(PathBuf, Classifier)>,
    init: Option<(PathBuf, Picture)>,
}

impl Beside {
    pub fn open(request: &Request, files: &Files, plan: &Plan) -> Result<Self> {
        let weaker = match &request.weaker {
            Some(text) => {
                let at =
                    Library::discover()?.locate(text, Kind::Dit).with_context(|| request.hint("--autoguidance"))?;
                let checkpoint = Checkpoint::open(&at.path, &at.options).context("--autoguidance")?;
                plan.check_weaker(&checkpoint.process())?;
                check_weakers_codec((&checkpoint, &at), (&files.checkpoint, &files.dit_at))?;
                run_folder::start_check(&checkpoint).context("--autoguidance")?;
                Some((checkpoint, at))
            }
            None => None,
        };
        let classifier = match &request.classifier {
            Some(path) => {
                let (classifier, about) =
                    Classifier::load(path, Device::Cpu).with_context(|| request.hint("--classifier"))?;
                check_codec(&about, files)?;
                Some((path.clone(), classifier))
            }
            None => None,
        };
        let init = match (&request.init, files.picture_size()) {
            (Some(path), Some(size)) => {
                let picture = read_picture(path, size).map_err(|error| match request.hint("--init") {
                    hint if hint == "--init" => error, // which names it already
                    hint => error.context(hint),
                });
                Some((path.clone(), picture?))
            }
            (Some(_), None) => wrong_usage!("--init needs the VAE, which encodes the picture; leave --vae none out"),
            (None, _) => None,
        };
        Ok(Self { weaker, classifier, init })
    }

    /// The weaker checkpoint's files, which no output may replace.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.weaker.iter().flat_map(|(checkpoint, _)| checkpoint.files()).map(PathBuf::as_path)
    }

    pub fn weaker_source(&self) -> Option<Source> {
        self.weaker.as_ref().map(|(_, at)| unhashed(at))
    }

    pub fn weaker_digest(&self) -> Option<&Digest> {
        self.weaker.as_ref().map(|(checkpoint, _)| checkpoint.digest())
    }

    pub fn classifier_source(&self) -> Result<Option<Source>> {
        self.classifier.as_ref().map(|(path, _)| source_of(path)).transpose()
    }

    pub fn init_source(&self) -> Result<Option<Source>> {
        self.init.as_ref().map(|(path, _)| source_of(path)).transpose()
    }

    /// The pipeline with all of it.
    pub fn join(self, pipeline: Pipeline, device: Device, precision: Precision) -> Result<Pipeline> {
        let mut pipeline = pipeline;
        if let Some((checkpoint, _)) = &self.weaker {
            let weaker = Dit::load_with(checkpoint, device, precision.kind(), precision.kernels())?;
            run_folder::check(checkpoint).context("--autoguidance")?;
            pipeline = pipeline.with_weaker(weaker)?;
        }
        if let Some((path, classifier)) = self.classifier {
            // It was opened on the CPU, where it can be checked before anything large is loaded.
            let classifier = if device == Device::Cpu { classifier } else { Classifier::load(&path, device)?.0 };
            pipeline = pipeline.with_classifier(classifier)?;
        }
        if let Some((_, picture)) = &self.init {
            let latents = pipeline.encode(picture)?;
            pipeline = pipeline.with_init(latents)?;
        }
        Ok(pipeline)
    }
}

/// Where both are known to be of a codec's latents, it must be the same: by the hash that they tell, else by the manifest's names.
fn check_weakers_codec(weaker: (&Checkpoint, &Located), dit: (&Checkpoint, &Located)) -> Result<()> {
    let hash = |checkpoint: &Checkpoint| {
        checkpoint.metadata().codec.as_ref().map(|codec| format!("the codec of SHA-256 {}", codec.sha256))
    };
    let codecs = match (hash(weaker.0), hash(dit.0)) {
        (Some(weakers), Some(dits)) => Some((weakers, dits)),
        _ => weaker.1.pairs_with.clone().zip(dit.1.pairs_with.clone()),
    };
    match codecs {
        Some((weakers, dits)) if weakers != dits => bail!(
            "--autoguidance {}: its latents are those of {weakers}, and {}'s those of {dits}\n  \
             help: take a weaker checkpoint of the same latents",
            weaker.1.name,
            dit.1.name
        ),
        _ => Ok(()),
    }
}

/// A classifier of another codec's latents would be fooled without a word.
fn check_codec(about: &About, files: &Files) -> Result<()> {
    let Some(vae) = files.vae_source()? else { return Ok(()) };
    if vae.sha256 != about.vae_sha256 {
        bail!(
            "the classifier was trained on the latents of another VAE (SHA-256 {}) than {}\n  \
             help: train one on latents that precompute-latents made with this VAE",
            about.vae_sha256,
            vae.name
        );
    }
    Ok(())
}

/// The picture at the model's size: as it is if it has that, else cropped as training pictures are.
fn read_picture(path: &PathBuf, (width, height): (u32, u32)) -> Result<Picture> {
    let bytes = fs::read(path).with_context(|| format!("--init {}", path.display()))?;
    let picture = decode(&bytes, &Limits::default()).with_context(|| format!("--init {}", path.display()))?;
    let found = (picture.width() as u32, picture.height() as u32);
    let picture = if found == (width, height) {
        picture
    } else if width == height {
        say(format_args!("--init: {} x {} pixels, scaled and cropped to {width} x {height}", found.0, found.1));
        adm_crop(picture, width as usize)?
    } else {
        bail!(
            "--init {}: {} x {} pixels, the model makes {width} x {height}; scale it first",
            path.display(),
            found.0,
            found.1
        )
    };
    Ok(Picture::from_rgb(picture.pixels().to_vec(), width, height)?)
}
