//! A folder of pictures to latents, without the command line:
//! `cargo run -p dit-precompute --example precompute -- DATA VAE OUT [SIZE]`.

use std::path::Path;

use dit_data::{
    CropRecipe, Source,
    shard::{
        Encoding, EncodingPrecision, Flips, FolderWriter, LatentFolder, Settings, SourceIdentity, Store, VaeIdentity,
    },
};
use dit_precompute::{RunOptions, SourceRecords, run};
use dit_vae::AutoencoderKl;
use dit_weights::VaeCheckpoint;
use tch::{Device, Kind};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, vae, out, size @ ..] = &arguments[..] else {
        return Err("usage: precompute DATA VAE OUT [SIZE]".into());
    };
    let image_size = size.first().map_or(Ok(256), |size| size.parse())?;
    let source = Source::open(Path::new(data))?;
    let checkpoint = VaeCheckpoint::open(vae)?;
    let settings = Settings {
        image_size,
        crop: CropRecipe::Adm,
        flips: Flips::Both,
        store: Store::F16,
        shard_size: 2048,
        vae: VaeIdentity {
            name: vae.clone(),
            sha256: checkpoint.sha256()?.to_owned(),
            config: checkpoint.config().clone(),
        },
        source: SourceIdentity { fingerprint: source.fingerprint(), records: source.len() as u64 },
        encoding: Encoding {
            device: "cpu".to_owned(),
            precision: EncodingPrecision::Fp32,
            threads: tch::get_num_threads().max(1) as usize,
            batch_size: 1,
        },
    };
    let writer = FolderWriter::open(Path::new(out), settings, source.class_names().to_vec())?;
    let codec = AutoencoderKl::load(&checkpoint, Device::Cpu, Kind::Float)?;
    let _no_grad = tch::no_grad_guard();
    let report = run(&SourceRecords::new(&source), &codec, writer, &RunOptions::default(), &mut |progress| {
        println!("{} of {}", progress.done, progress.total);
    })?;
    let latents = LatentFolder::open(out)?;
    println!("{} records in {} shards", latents.len(), report.manifest.shards.len());
    Ok(())
}
