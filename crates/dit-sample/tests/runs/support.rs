//! Runs of the demo model, small.

use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path};

use dit_model::Dit;
use dit_sample::{
    LabelPolicy, LateProvenance, OpenedAs, OutputPaths, Outputs, Pipeline, Plan, Provenance, RunProgress, SamplerKind,
    Settings, SharedOutputs, Shows, Source, SourceHashes, Spacing,
};
use dit_vae::AutoencoderKl;
use dit_weights::{Checkpoint, OpenOptions, VaeCheckpoint};
use tch::{Device, Kind};

pub fn pipeline() -> Pipeline {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/demo");
    let dit = Checkpoint::open(weights.join("dit-fashion.safetensors"), &OpenOptions::default()).unwrap();
    let vae = VaeCheckpoint::open(weights.join("vae-fashion")).unwrap();
    let dit = Dit::load(&dit, Device::Cpu, Kind::Float).unwrap();
    Pipeline::new(dit, Some(AutoencoderKl::load(&vae, Device::Cpu, Kind::Float).unwrap())).unwrap()
}

/// Six pictures in three batches of two steps.
pub fn plan(pipeline: &Pipeline) -> Plan {
    let settings = Settings {
        sampler: SamplerKind::Ddim { eta: 0.0 },
        steps: Spacing::even(2),
        cfg_scale: 1.0,
        ..Settings::default()
    };
    Plan::new(pipeline.dit().config(), settings, 0, (0..6).collect(), 2).unwrap()
}

/// Of what is sampled with these settings.
pub fn provenance(settings: Settings) -> Provenance {
    let source = |name: &str| Source { name: name.to_owned(), sha256: "00".repeat(32) };
    Provenance {
        software: "dit-rs 0".to_owned(),
        checkpoint: source("dit"),
        opened_as: OpenedAs::default(),
        vae: Some(source("vae")),
        settings,
        noise: None,
        weaker: None,
        classifier: None,
        init: None,
        labels: LabelPolicy::Balanced,
        device: "cpu".to_owned(),
        threads: 1,
        batch_size: 2,
    }
}

pub fn open(paths: &OutputPaths, plan: &Plan, hashes: impl SourceHashes + 'static) -> SharedOutputs {
    let provenance = LateProvenance::new(provenance(plan.settings().clone()), hashes);
    let outputs = SharedOutputs::default();
    fs::create_dir_all(paths.dir.as_deref().unwrap_or(Path::new("."))).unwrap();
    let create =
        || Outputs::create(paths.clone(), plan, Some((32, 32)), [4, 8, 8], provenance, BTreeMap::new(), Shows::Grid);
    outputs.open(create).unwrap();
    outputs
}

pub fn go_on(_: RunProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
