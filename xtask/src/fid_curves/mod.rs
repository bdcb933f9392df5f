//! `cargo xtask fid-curves`: what guidance and the number of steps do to the FID of the demo's checkpoint.

mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

use crate::{
    measured::{Draw, Lab, LabArgs, Quality},
    page::with_part,
    ui,
    workspace::Workspace,
};

/// Measure the demo's samples over guidance scales, and over numbers of steps of samplers, and write docs/fid-curves.md
///
/// Two hours of one CPU core at 5,000 samples a point, most of them in the points of 100 and 250 steps. Interrupt it at any time:
/// the same command continues.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fid-curves
  cargo xtask fid-curves --per-class 50 --steps 10,20,50    # in minutes")]
pub struct Args {
    /// The checkpoint's file
    #[arg(long, value_name = "PATH", default_value = "weights/demo/dit-fashion.safetensors")]
    checkpoint: PathBuf,
    /// Samples of each of the ten classes, for each point
    #[arg(long, value_name = "N", default_value_t = 500)]
    per_class: u64,
    /// Guidance scales (20 steps of DPM-Solver++ 2M)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,1.5,2,3,4")]
    scales: Vec<f64>,
    /// Samplers whose steps are varied: also dpmpp-3m, dpmpp-2m-sde, heun and euler-ancestral (euler is ddim)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "ddim,dpmpp-2m,unipc,ddpm", value_parser = walk_of)]
    samplers: Vec<Walk>,
    /// Numbers of steps of each sampler (no guidance); of dpmpp-2m, dpmpp-3m, unipc and heun up to 50
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "10,20,50,100,250")]
    steps: Vec<u32>,
    /// Folder for records, to be continued from
    #[arg(long, value_name = "DIR", default_value = "target/fid-curves")]
    out: PathBuf,
    #[command(flatten)]
    lab: LabArgs,
}

/// What is written, below the root.
const PAGE: &str = "docs/fid-curves.md";
const GUIDANCE_CHART: &str = "docs/images/fid-guidance.svg";
const STEPS_CHART: &str = "docs/images/fid-steps.svg";
/// What begins the page's part.
const BEGIN: &str = "<!-- written by cargo xtask fid-curves -->";

/// A sampler on the chart of steps.
#[derive(Debug, Clone, Copy)]
struct Walk {
    sampler: &'static str,
    /// What `--steps` puts before a number of them: what it is at its best with.
    spacing: &'static str,
    /// The most steps that show something: beyond, a fast solver is where the flow ends, as far as samples tell.
    most: u32,
}

const fn walk(sampler: &'static str, spacing: &'static str, most: u32) -> Walk {
    Walk { sampler, spacing, most }
}

const DPMPP: Walk = walk("dpmpp-2m", "lambda", 50);
/// All but euler, which is ddim without noise.
const WALKS: [Walk; 8] = [
    walk("ddim", "", 1000),
    DPMPP,
    walk("dpmpp-3m", "lambda", 50),
    walk("dpmpp-2m-sde", "lambda", 1000),
    walk("unipc", "lambda", 50),
    walk("heun", "lambda", 50),
    walk("euler-ancestral", "", 1000),
    walk("ddpm", "", 1000),
];

fn walk_of(sampler: &str) -> Result<Walk, String> {
    let known = || WALKS.map(|walk| walk.sampler).join(", ");
    let found = WALKS.into_iter().find(|walk| walk.sampler == sampler);
    found.ok_or_else(|| format!("expected one of {}", known()))
}

/// A measured point.
pub struct Point {
    /// The sampler's name.
    pub sampler: &'static str,
    pub steps: u32,
    pub cfg_scale: f64,
    pub quality: Quality,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let root = workspace.root();
    ensure!(args.per_class >= 20, "--per-class {} is too few: the features are 128 wide", args.per_class);
    let binary = args.lab.binary(workspace)?;
    let checkpoint = root.join(&args.checkpoint);
    let lab = Lab::new(root, binary.as_deref(), root.join(&args.out), &args.lab.pictures, args.lab.threads)?;
    let floor = lab.pictures("test-pictures", &args.lab.test_pictures)?;
    let codec = lab.if_there(lab.reconstructions("test-pictures-reconstructed", &args.lab.test_pictures))?;
    let measure =
        |walk: Walk, steps: u32, cfg_scale: f64| measure(&lab, &checkpoint, args.per_class, walk, steps, cfg_scale);
    let mut guided = Vec::new();
    for scale in &args.scales {
        guided.extend(lab.if_there(measure(DPMPP, 20, *scale))?);
    }
    let mut plain = Vec::new();
    // All samplers at few steps first: what costs most comes last.
    for steps in &args.steps {
        for walk in args.samplers.iter().filter(|walk| *steps <= walk.most) {
            plain.extend(lab.if_there(measure(*walk, *steps, 1.0))?);
        }
    }
    let samples = args.per_class * crate::measured::CLASSES;
    let charts = [
        (GUIDANCE_CHART, report::guidance_chart(&guided, samples)?),
        (STEPS_CHART, report::steps_chart(&plain, samples)?),
    ];
    for (name, svg) in charts {
        fs::write(root.join(name), svg).with_context(|| format!("cannot write {name}"))?;
    }
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let sha256 = dit_weights::sha256_of(&[&checkpoint])?;
    let floor = report::Floor { pictures: floor, reconstructions: codec };
    let part = report::tables(&guided, &plain, &floor, samples, &sha256)?;
    fs::write(root.join(PAGE), with_part(&page, BEGIN, &part)?).with_context(|| format!("cannot write {PAGE}"))?;
    ui::say(format_args!("wrote {PAGE}, {GUIDANCE_CHART} and {STEPS_CHART}"));
    Ok(ExitCode::SUCCESS)
}

fn measure(
    lab: &Lab<'_>,
    checkpoint: &Path,
    per_class: u64,
    Walk { sampler, spacing, .. }: Walk,
    steps: u32,
    cfg_scale: f64,
) -> Result<Point> {
    let draw = Draw { per_class, sampler: sampler.to_owned(), steps: format!("{spacing}{steps}"), cfg_scale };
    let name = format!("{sampler}-{steps}-guidance{cfg_scale}");
    Ok(Point { sampler, steps, cfg_scale, quality: lab.samples(&name, checkpoint, &draw)? })
}
