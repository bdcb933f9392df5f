//! `cargo xtask blocks`: the paper's comparison of block designs in miniature.

mod curves;
mod quality;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Error, Result, ensure};
use dit_config::BlockDesign;

use self::{curves::Curve, quality::RunQuality};
use crate::{
    measured::{Lab, LabArgs},
    page::with_part,
    training::{Wanted, train},
    ui,
    workspace::Workspace,
};

/// Train the four block designs, two seeds each, measure their samples, and write docs/blocks.md
///
/// Same size, data, steps and seeds; the recipes in configs/blocks differ in the block alone. Then 10,000 samples of each run
/// without guidance and with guidance 2, and 2,000 of each kept checkpoint, are measured against the training pictures. About two
/// hours of one CPU core with AVX-512, three with AVX2. Interrupt it at any time: the same command continues; after recipes or
/// latents have changed, it asks for another --out.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask blocks --data target/train-demo/latents\n  cargo xtask blocks --data target/train-demo/latents --jobs 4"
)]
pub struct Args {
    /// Latents of Fashion-MNIST, as `cargo xtask train-demo` or `dit-cli precompute-latents` makes them
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the runs, to be continued from
    #[arg(long, value_name = "DIR", default_value = "target/blocks")]
    out: PathBuf,
    /// Runs that are trained, or measured, at once, each on its own --threads; what several say goes to files beside them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    #[command(flatten)]
    lab: LabArgs,
}

/// Each design is trained with these.
const SEEDS: [u64; 2] = [0, 1];
/// What is written, below the root.
const PAGE: &str = "docs/blocks.md";
const LOSS_CHART: &str = "docs/images/blocks.svg";
const FID_CHART: &str = "docs/images/blocks-fid.svg";
/// What begins the page's tables.
const LOSSES: &str = "<!-- losses, written by cargo xtask blocks -->";
const QUALITIES: &str = "<!-- qualities, written by cargo xtask blocks -->";

/// One design's runs.
pub struct Trained {
    pub design: BlockDesign,
    /// One for each seed.
    pub curves: Vec<Curve>,
    /// One for each seed.
    pub qualities: Vec<RunQuality>,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let root = workspace.root();
    let out = std::path::absolute(root.join(&args.out))?;
    let binary = args.lab.binary(workspace)?;
    if let Some(binary) = &binary {
        ensure!(args.data.is_dir(), "{} is no folder of latents", args.data.display());
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        for_each_run(args.jobs, &|design, seed| {
            ui::say(format_args!("{design}, seed {seed}"));
            train_one(root, binary, args, &out, design, seed)
        })?;
    }
    let lab = Lab::new(root, binary.as_deref(), out.join("quality"), &args.lab.pictures, args.lab.threads)?;
    let floor = lab.pictures("test-pictures", &args.lab.test_pictures)?;
    if binary.is_some() {
        for_each_run(args.jobs, &|design, seed| {
            quality::measure(&lab, &run_of(&out, design, seed), &format!("{design}-seed{seed}")).map(|_| ())
        })?;
    }
    let mut all = Vec::new();
    for design in BlockDesign::ALL {
        let mut trained = Trained { design, curves: Vec::new(), qualities: Vec::new() };
        for seed in SEEDS {
            let run = run_of(&out, design, seed);
            trained.curves.push(Curve::read(&run)?);
            trained.qualities.push(quality::measure(&lab, &run, &format!("{design}-seed{seed}"))?);
        }
        all.push(trained);
    }
    for (name, svg) in [(LOSS_CHART, report::loss_chart(&all)?), (FID_CHART, report::fid_chart(&all)?)] {
        fs::write(root.join(name), svg).with_context(|| format!("cannot write {name}"))?;
    }
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let page = with_part(&page, LOSSES, &report::loss_table(&all)?)?;
    let page = with_part(&page, QUALITIES, &report::quality_table(&all, &floor)?)?;
    fs::write(root.join(PAGE), page).with_context(|| format!("cannot write {PAGE}"))?;
    ui::say(format_args!("wrote {PAGE}, {LOSS_CHART} and {FID_CHART}"));
    Ok(ExitCode::SUCCESS)
}

/// Has `of` do every run, `jobs` at a time, seed by seed, so that one seed of all four is there first. After an error none is begun any
/// more, and the first is what comes of it.
fn for_each_run(jobs: u8, of: &(dyn Fn(BlockDesign, u64) -> Result<()> + Sync)) -> Result<()> {
    let runs: Vec<_> = SEEDS.iter().flat_map(|&seed| BlockDesign::ALL.map(|design| (design, seed))).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None::<Error>));
    let failure = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while failure().is_none()
                    && let Some(&(design, seed)) = runs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = of(design, seed) {
                        failure().get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn run_of(out: &Path, design: BlockDesign, seed: u64) -> PathBuf {
    out.join(format!("{design}-seed{seed}"))
}

fn train_one(root: &Path, binary: &Path, args: &Args, out: &Path, design: BlockDesign, seed: u64) -> Result<()> {
    let recipe = root.join(format!("configs/blocks/{design}.toml"));
    let (data, run) = (std::path::absolute(&args.data)?, run_of(out, design, seed));
    let overrides = vec![format!("train.seed={seed}")];
    let log = (args.jobs > 1).then(|| out.join(format!("{design}-seed{seed}.log")));
    train(
        binary,
        &Wanted { recipe: &recipe, overrides, data: &data, run: &run, threads: Some(args.lab.threads), log },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_done_once_and_none_after_an_error() {
        for jobs in [1, 3, 8] {
            let done = Mutex::new(Vec::new());
            let note = |design: BlockDesign, seed| {
                done.lock().unwrap().push(format!("{design}-{seed}"));
                Ok(())
            };
            for_each_run(jobs, &note).unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort();
            done.dedup();
            assert_eq!(done.len(), 8, "{done:?}");
        }
        let begun = AtomicUsize::new(0);
        let fail = |design: BlockDesign, seed| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err(anyhow::anyhow!("{design}, {seed}"))
        };
        let error = for_each_run(1, &fail).unwrap_err();
        assert_eq!((begun.into_inner(), error.to_string()), (1, "in-context, 0".to_owned()));
    }
}
