//! What `cargo xtask bench` measures of this toolkit: one process that loads a case, and computes a step of it whenever it is
//! told to. `prepare` writes the cases, with random weights, that every engine computes. The protocol is described in
//! `bench/dit/protocol.py`.

mod case;
mod decode;
mod prepare;
mod random;
mod rate;
mod sample;
mod serve;
mod training;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use tch::{Cuda, Device, Kind};

use crate::case::{Case, Task};

#[derive(Parser)]
#[command(about = "This toolkit as an engine of `cargo xtask bench`", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a case: weights, inputs and a description
    Prepare(prepare::Args),
    /// Load a case, then answer on stdout what is asked on stdin
    Serve(ServeArgs),
}

#[derive(clap::Args)]
struct ServeArgs {
    /// What `prepare` wrote
    #[arg(long)]
    case: PathBuf,
    /// Arithmetic of the network
    #[arg(long, value_enum)]
    precision: Precision,
    /// CPU threads
    #[arg(long)]
    threads: u16,
    /// cpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    Fp32,
    Bf16,
    /// The large Linears in int8, all else in bf16.
    Int8,
}

impl Precision {
    fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 | Self::Int8 => Kind::BFloat16,
        }
    }
}

/// Something that computes the same step again and again.
trait Engine {
    /// Floating-point operations of a step's matrix products, where they are known.
    fn flop(&self) -> Option<f64>;

    /// One step. A training step tells its loss.
    fn step(&mut self) -> Result<Option<f64>>;

    /// The last step's result.
    fn output(&self) -> Result<Vec<f32>>;
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Prepare(args) => prepare::run(&args),
        Command::Serve(args) => {
            tch::set_num_threads(i32::from(args.threads));
            let device = device(&args.device)?;
            let case = Case::read(&args.case)?;
            let precision = args.precision;
            match &case.task {
                Task::Sample(task) => {
                    serve::run(device, || Ok(Box::new(sample::Guided::load(&case, task, device, precision)?)))
                }
                Task::Decode if precision == Precision::Int8 => bail!("int8 is for sampling"),
                Task::Decode => serve::run(device, || Ok(Box::new(decode::Decoder::load(&case, device, precision)?))),
                Task::Train(task) => training::serve(&case, task, device, precision),
            }
        }
    }
}

fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" if Cuda::is_available() => {
            // fp32 is fp32, as in `dit-cli` and in the peers.
            dit_ops::allow_tf32(false)?;
            Ok(Device::Cuda(0))
        }
        "cuda" => bail!("no CUDA device can be used; build against `cargo xtask libtorch --cuda`"),
        other => bail!("unknown device {other}: cpu or cuda"),
    }
}
