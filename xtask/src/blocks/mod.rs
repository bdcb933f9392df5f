//! `cargo xtask blocks`: the paper's comparison of block designs in miniature.

mod curves;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use dit_config::BlockDesign;

use self::curves::Curve;
use crate::{
    demo,
    libtorch::{self, Wanted},
    training::train,
    ui,
    workspace::Workspace,
};

/// Train the four block designs, two seeds each, and write docs/blocks.md
///
/// Same size, data, steps and seeds; the recipes in configs/blocks differ in the block alone. About an hour of one CPU core.
/// Interrupt it at any time: the same command continues.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask blocks --data target/train-demo/latents")]
pub struct Args {
    /// Latents of Fashion-MNIST, as `cargo xtask train-demo` or `dit-cli precompute-latents` makes them
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the runs, to be continued from
    #[arg(long, value_name = "DIR", default_value = "target/blocks")]
    out: PathBuf,
    /// CPU threads of each run
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Write the page from the runs that are there, and train nothing
    #[arg(long)]
    report_only: bool,
}

/// Each design is trained with these.
const SEEDS: [u64; 2] = [0, 1];
/// What is written, below the root.
const PAGE: &str = "docs/blocks.md";
const CHART: &str = "docs/images/blocks.svg";

/// One design's runs.
pub struct Trained {
    pub design: BlockDesign,
    /// One for each seed.
    pub curves: Vec<Curve>,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let root = workspace.root();
    let out = std::path::absolute(root.join(&args.out))?;
    let runs = || BlockDesign::ALL.into_iter().flat_map(|design| SEEDS.map(|seed| (design, seed)));
    if !args.report_only {
        ensure!(args.data.is_dir(), "{} is no folder of latents", args.data.display());
        libtorch::ensure(workspace, Wanted::any())?;
        let binary = demo::build(workspace)?;
        // Seed by seed, so that one seed of all four is there first.
        let mut ordered: Vec<(BlockDesign, u64)> = runs().collect();
        ordered.sort_by_key(|(_, seed)| *seed);
        for (design, seed) in ordered {
            ui::say(format_args!("{design}, seed {seed}"));
            train_one(root, &binary, args, &out, design, seed)?;
        }
    }
    let mut all = Vec::new();
    for design in BlockDesign::ALL {
        let curves: Result<Vec<Curve>> = SEEDS.iter().map(|seed| Curve::read(&run_of(&out, design, *seed))).collect();
        all.push(Trained { design, curves: curves? });
    }
    let chart = root.join(CHART);
    fs::write(&chart, report::chart(&all)?).with_context(|| format!("cannot write {}", chart.display()))?;
    let page = root.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let text = report::with_table(&text, &report::table(&all)?)?;
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))?;
    ui::say(format_args!("wrote {PAGE} and {CHART}"));
    Ok(ExitCode::SUCCESS)
}

fn run_of(out: &Path, design: BlockDesign, seed: u64) -> PathBuf {
    out.join(format!("{design}-seed{seed}"))
}

fn train_one(root: &Path, binary: &Path, args: &Args, out: &Path, design: BlockDesign, seed: u64) -> Result<()> {
    let recipe = root.join(format!("configs/blocks/{design}.toml"));
    let more = [format!("--set=train.seed={seed}"), format!("--threads={}", args.threads)];
    train(binary, &recipe, &std::path::absolute(&args.data)?, &run_of(out, design, seed), &more)?;
    Ok(())
}
