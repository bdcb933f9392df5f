//! How fast pictures are read, decoded and cropped:
//! `cargo run --release -p dit-data --example throughput -- PATH [SIZE [THREADS]]`.

use std::path::Path;
use std::time::Instant;

use dit_data::{Limits, Source, adm_crop};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: throughput PATH [SIZE [THREADS]]")?;
    let size = arguments.next().map_or(Ok(256), |size| size.parse())?;
    let threads = arguments.next().map_or(Ok(1), |threads| threads.parse())?;
    let source = Source::open(Path::new(&path))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let start = Instant::now();
    let crop = |index| {
        let picture = source.read(index).ok()?.decode(&Limits::default()).ok()?;
        adm_crop(picture, size).ok()
    };
    let cropped = pool.install(|| (0..source.len()).into_par_iter().filter_map(crop).count());
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}: {cropped} of {} pictures cropped to {size} on {threads} threads in {seconds:.2} s: {:.0} images/s",
        source.kind(),
        source.len(),
        cropped as f64 / seconds
    );
    Ok(())
}
