use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{CropArg, MachineArgs};

/// Measure samples against a reference: FID, sFID, Inception score, precision and recall, KID
///
/// Either side: an npz with `arr_0` (uint8 N,H,W,3), a folder or tar of pictures, class folders, IDX files; the
/// reference also an npz of statistics (`mu sigma mu_s sigma_s`).
/// Interrupt it at any time: features are kept beside the pictures, and the same command continues (but with --no-cache).
#[derive(Args)]
#[command(after_help = "Examples:
  dit-cli evaluate samples.npz VIRTUAL_imagenet256_labeled.npz
  dit-cli evaluate samples.npz fashion-mnist/ --features demo --image-size 32 --crop pad --json
  dit-cli evaluate --stats imagenet/train --image-size 256 --out imagenet-256.npz")]
pub struct EvaluateArgs {
    /// Pictures to measure
    #[arg(value_name = "SAMPLES", requires = "reference")]
    pub samples: Option<PathBuf>,
    /// Pictures or statistics to compare with
    #[arg(value_name = "REFERENCE")]
    pub reference: Option<PathBuf>,
    /// Make a reference of these pictures instead
    #[arg(long, value_name = "DATA", conflicts_with_all = ["samples", "metrics", "json", "seed", "reconstruct"], requires = "out")]
    pub stats: Option<PathBuf>,
    /// Statistics to write
    #[arg(long, value_name = "STATS.npz", requires = "stats")]
    pub out: Option<PathBuf>,
    /// Feature network: `inception` (as the ADM evaluator and torch-fidelity), `inception-pytorch-fid` (that package's
    /// resizing), `demo` (Fashion-MNIST, 32 px), or a file of weights: of `demo`'s or `inception`'s, and with
    /// `inception-pytorch-fid:` before it of that
    #[arg(long, value_name = "NAME|PATH", default_value = "inception")]
    pub features: String,
    /// Measure what this VAE makes of SAMPLES, encoded and decoded: rFID. A name of weights/manifest.json, a file or a folder
    #[arg(long, value_name = "VAE")]
    pub reconstruct: Option<String>,
    /// What to measure [default: all that both sides have]
    #[arg(long, value_delimiter = ',', ignore_case = true)]
    pub metrics: Vec<MetricArg>,
    /// Side in pixels that pictures from folders, archives and IDX files are brought to [default: as they are]
    #[arg(long, value_name = "PX")]
    pub image_size: Option<usize>,
    /// How they become square [default: adm]
    #[arg(long)]
    pub crop: Option<CropArg>,
    /// Pictures in the network at once, at most 1024
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch_size)]
    pub batch_size: usize,
    /// Seed of whatever is drawn: intervals' blocks, the Inception score's splits, KID's subsets, pictures of a large reference
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder to keep features in, 20 kB a picture with Inception [default: the pictures' path with .features appended]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Keep no features of --stats: a run that is interrupted begins anew
    #[arg(long, requires = "stats", conflicts_with = "cache")]
    pub no_cache: bool,
    /// Where it computes
    #[command(flatten)]
    pub machine: MachineArgs,
    /// A machine-readable record on stdout; everything else is on stderr
    #[arg(long)]
    pub json: bool,
}

/// Pictures that may be in the feature network at once.
pub const LARGEST_BATCH: usize = 1024;

fn batch_size(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=LARGEST_BATCH).contains(count));
    count.ok_or_else(|| format!("expected 1 to {LARGEST_BATCH}"))
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricArg {
    /// Fréchet distance
    Fid,
    /// Fréchet distance of spatial features
    Sfid,
    /// Inception score
    #[value(alias = "inception_score")]
    Is,
    /// Precision and recall
    #[value(aliases = ["precision", "recall"])]
    Pr,
    /// Kernel distance
    Kid,
}

impl MetricArg {
    /// All of them, in the order of a record.
    pub const ALL: [Self; 5] = [Self::Fid, Self::Sfid, Self::Is, Self::Pr, Self::Kid];
}
