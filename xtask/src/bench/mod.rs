//! `cargo xtask bench`: our engine and its peers, side by side in one run.
//!
//! Pairwise: two long-lived processes at a time take turns at the same step of the same random weights, so that a busy machine is
//! busy for both and no model is loaded twice. What is compared in speed is compared in value too.

mod binaries;
mod cases;
mod engine;
mod kernels;
mod machine;
mod measure;
mod python;
mod record;
mod report;
mod startup;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use self::binaries::Binaries;
use self::cases::{Engine, Pair, Scale, Subject};
use self::machine::Machine;
use self::measure::Bench;
use self::python::Peers;
use self::record::Records;
use crate::libtorch::{self, Wanted};
use crate::ui;
use crate::workspace::Workspace;

/// Measure this toolkit beside PyTorch, OpenVINO and candle, and write a table
///
/// Makes a Python environment for the peers in the cache folder (PyTorch, diffusers, OpenVINO: 3 GB to download), random weights
/// below target/bench, and release builds. Every pair's record is kept in target/bench/records as JSON (of a GPU, in records-cuda);
/// `report` shows all of a device's.
/// An interrupted run is continued with --resume.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench --quick                     # everything, with small models: does it work here?
  cargo xtask bench sample --only xl2-256       # DiT-XL/2 at 256 px beside all its peers
  cargo xtask bench --only bf16/compile         # one kind of pair
  cargo xtask bench --resume                    # what is still missing
  cargo xtask bench train --device cuda         # DiT-B/2 and DiT-XL/2 in bf16 beside torch.compile
  cargo xtask bench report                      # the table of everything measured so far

Measure on a machine that does nothing else: what others took of its processors is measured too, and shown.")]
pub struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all", value_name = "WHAT")]
    what: Vec<What>,
    /// Turns of each engine in a pair, at most
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Stop a pair after this many seconds, if each engine has had three turns
    #[arg(long, default_value_t = 90, value_name = "SECONDS")]
    at_most: u64,
    /// CPU threads of every engine [default: all cores this process may use]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Small models and three turns
    #[arg(long)]
    quick: bool,
    /// cpu or cuda (where nothing of it has been run yet: no GPU was at hand)
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "cuda"])]
    device: String,
    /// Only pairs whose name holds this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Leave out what this commit has a record of
    #[arg(long)]
    resume: bool,
    /// A Python of your own that has the peers, in place of an environment made for them
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Measure only this toolkit: no Python and no candle is set up
    #[arg(long)]
    ours_only: bool,
    /// Measure the release builds that are there, whatever has changed since
    #[arg(long)]
    no_build: bool,
    /// Name the pairs and stop
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// A guided step of the transformer
    Sample,
    /// Latents to pictures
    Vae,
    /// A step of the optimiser
    Train,
    /// Time to the first step, memory
    Startup,
    /// The kernels' Criterion benches
    Kernels,
    All,
    /// Measure nothing: the table of all records of the device
    Report,
}

impl Args {
    fn wants(&self, what: What) -> bool {
        self.what.iter().any(|&wanted| wanted == what || wanted == What::All)
    }

    fn pairs(&self) -> Vec<Pair> {
        let scale = match (self.device.as_str(), self.quick) {
            (_, true) => Scale::Quick,
            ("cuda", false) => Scale::Cuda,
            _ => Scale::Cpu,
        };
        let subject = |pair: &Pair| match pair.case.subject {
            Subject::Sample => What::Sample,
            Subject::Decode => What::Vae,
            Subject::Train => What::Train,
        };
        let named = |pair: &Pair| self.only.as_ref().is_none_or(|text| pair.name().contains(text.as_str()));
        let allowed = |pair: &Pair| !self.ours_only || pair.peer.engine == Engine::Ours;
        let pairs = cases::pairs(scale).into_iter();
        let pairs = pairs.filter(|pair| self.wants(subject(pair)) && named(pair) && allowed(pair));
        pairs.filter(|pair| self.device == "cpu" || pair.runs_on_cuda()).collect()
    }
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let folder = workspace.root().join("target/bench");
    let records = Records::open(&folder, &args.device, args.quick)?;
    if args.what.contains(&What::Report) {
        print!("{}", report::table(&records.all()?));
        return Ok(ExitCode::SUCCESS);
    }
    let pairs = args.pairs();
    if args.list {
        for pair in &pairs {
            println!("{}", pair.name());
        }
        return Ok(ExitCode::SUCCESS);
    }

    libtorch::ensure(workspace, if args.device == "cuda" { Wanted::cuda() } else { Wanted::any() })?;
    if !args.no_build {
        ui::say("building release binaries");
    }
    let startup = args.wants(What::Startup) && args.device == "cpu" && args.only.is_none();
    let built = binaries::Wanted {
        dit_cli: startup,
        candle: pairs.iter().any(|pair| pair.has(Engine::Candle)),
        anew: !args.no_build,
    };
    let binaries = Binaries::build(workspace, built)?;
    let needs_python = pairs.iter().any(|pair| pair.peer.engine.is_python());
    let peers = if needs_python { Peers::find(workspace, args.python.as_deref())? } else { Peers::not_needed() };
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, |count| count.get() as u16),
    };
    let machine = Machine::of_this_run(workspace, threads, args.device == "cuda");
    let bench = Bench {
        folder: &folder,
        root: workspace.root(),
        binaries: &binaries,
        peers: &peers,
        threads,
        device: &args.device,
        rounds: if args.quick { args.rounds.min(3) } else { args.rounds },
        at_most: Duration::from_secs(args.at_most),
        machine: &machine,
    };

    let mut measured = Vec::new();
    let mut missing = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for pair in &pairs {
        if args.resume && records.has(&pair.name(), &machine) {
            ui::say(format_args!("{}: recorded already", pair.name()));
            continue;
        }
        ui::say(format_args!("{} …", pair.name()));
        match bench.pair(pair) {
            Ok(record) => {
                ui::say(format_args!("  {}", report::line(&record)));
                records.keep(&record)?;
                measured.push(record);
            }
            // A peer that cannot be had leaves a gap, and says why; ours must work.
            Err(failure) => {
                ui::say(format_args!("  not measured: {failure}"));
                code = if failure.is_ours() { ExitCode::FAILURE } else { code };
                missing.push((pair.name(), failure));
            }
        }
    }
    if startup {
        let record = startup::measure(&bench, args.quick)?;
        records.keep(&record)?;
        measured.push(record);
    }
    if args.wants(What::Kernels) && args.device == "cpu" && args.only.is_none() {
        let record = kernels::measure(workspace, &machine, args.quick)?;
        records.keep(&record)?;
        measured.push(record);
    }

    let mut table = report::table(&measured);
    for (pair, reason) in &missing {
        table.push_str(&format!("\nNot measured: {pair}: {reason}.\n"));
    }
    println!("{table}");
    records.keep_table(&table)?;
    ui::say(format_args!("records and tables: {}", folder.display()));
    Ok(code)
}
