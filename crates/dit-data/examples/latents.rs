//! Reads batches as training does: `cargo run -p dit-data --example latents -- FOLDER [BATCH [BATCHES]]`.

use std::time::Instant;

use dit_data::shard::{BatchOptions, FlipChoice, Flips, LatentBatches, LatentFolder, PosteriorDraw, Share};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = LatentFolder::open(arguments.next().ok_or("usage: latents FOLDER [BATCH [BATCHES]]")?)?;
    let batch_size = arguments.next().map_or(Ok(256), |size| size.parse())?;
    let count: usize = arguments.next().map_or(Ok(20), |count| count.parse())?;
    let flip = match folder.layout().flips() {
        Flips::Both => FlipChoice::Random,
        Flips::None => FlipChoice::Never,
    };
    let draw = PosteriorDraw::Sample;
    let mut batches = LatentBatches::new(folder, BatchOptions { batch_size, seed: 0, share: Share::ALL, flip, draw })?;
    let start = Instant::now();
    for _ in 0..count {
        let batch = batches.next_batch()?;
        let mean = batch.latents.iter().sum::<f32>() / batch.latents.len() as f32;
        println!("{:?}, mean {mean:.4}, first classes {:?}", batch.shape, &batch.labels[..batch.labels.len().min(8)]);
    }
    let records = (count * batch_size) as f64;
    println!("{:.0} records/s; now at {:?}", records / start.elapsed().as_secs_f64(), batches.position());
    Ok(())
}
