//! Pictures a second through the Inception network: `cargo run --release -p dit-eval --example speed -- WEIGHTS [BATCH] [SIDE]`.

use std::{path::Path, time::Instant};

use dit_eval::{FeatureNetwork, Inception, Preprocessing};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let weights = arguments.next().ok_or("usage: speed WEIGHTS [BATCH] [SIDE]")?;
    let batch: i64 = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let side: i64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let network = Inception::load(Path::new(&weights), Preprocessing::TensorFlow, Device::Cpu)?;
    let pictures = Tensor::randint(256, [batch, side, side, 3], (Kind::Uint8, Device::Cpu));
    network.extract(&pictures)?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        network.extract(&pictures)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{:.2}", batch as f64 / best);
    Ok(())
}
