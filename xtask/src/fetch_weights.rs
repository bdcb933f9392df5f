//! `fetch-weights`: the pretrained checkpoints. What it does is dit-fetch's; here are its flags and what a person sees.

mod view;

use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use dit_catalog::{Catalog, Entry, MANIFEST, PREFERRED, WEIGHTS_DIR_VARIABLE};
use dit_fetch::{
    Cancel, Checked, EXIT_DAMAGED, FetchError, Fetched, Fetcher, Finding, Network, Originals, RetryPolicy, Settings,
    Timeouts, list, table,
};

use self::view::View;
use crate::ui::say;
use crate::workspace::Workspace;

/// Time for the threads to end by themselves after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);
/// Exit code after Ctrl-C, as shells give it.
const EXIT_INTERRUPTED: u8 = 130;

/// Fetch pretrained checkpoints: download, verify, convert to safetensors
///
/// Without names: DiT-XL/2 for 256 px and the VAE that it was trained with.
/// Interrupted at any moment, the same command goes on where it stopped.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fetch-weights --list
  cargo xtask fetch-weights dit-xl-2-512 sd-vae-ft-ema
  cargo xtask fetch-weights --all --mirror https://mirror.example/dit

Variables: HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE; HTTPS_PROXY,
HTTP_PROXY, ALL_PROXY, NO_PROXY; SSL_CERT_FILE, SSL_CERT_DIR;
DIT_WEIGHTS_DIR. Exit codes: docs/fetch-weights.md.")]
pub struct Args {
    /// Checkpoints to fetch, as --list names them
    #[arg(value_name = "NAME", conflicts_with_all = ["all", "list"])]
    names: Vec<String>,
    /// Fetch every checkpoint of the manifest
    #[arg(long, conflicts_with = "list")]
    all: bool,
    /// Show name, size, licence and state of each checkpoint
    #[arg(long, conflicts_with = "verify")]
    list: bool,
    /// Hash again everything that is there; exit code 24 if any of it is damaged
    #[arg(long)]
    verify: bool,
    /// Where checkpoints are put [default: weights/]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The list of checkpoints [default: DIR/manifest.json, else weights/manifest.json]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Ask this address first: URL/NAME/FILE, or the path that the file has at its own host
    #[arg(long, value_name = "URL", conflicts_with = "offline")]
    mirror: Option<String>,
    /// Use no network: only what is in DIR and in the Hugging Face cache
    #[arg(long)]
    offline: bool,
    /// Files transferred at a time
    #[arg(long, value_name = "N", default_value = "4")]
    jobs: NonZeroUsize,
    /// Keep .pt and .bin files after conversion
    #[arg(long)]
    keep_original: bool,
    /// Longest silence of a server before the transfer is tried again
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Attempts without progress before an address is given up
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    attempts: u32,
}

/// Runs the command. Failures of dit-fetch are shown here, because each has an exit code of its own.
pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    match act(workspace, args) {
        Ok(code) => Ok(code),
        Err(error) => match error.downcast::<FetchError>() {
            Ok(error) => {
                say(format_args!("error: {error}"));
                Ok(ExitCode::from(error.exit_code()))
            }
            Err(other) => Err(other),
        },
    }
}

fn act(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let dir = weights_dir(workspace, args);
    let manifest = manifest(workspace, args, &dir);
    let catalog = Catalog::load(&manifest).map_err(FetchError::from)?;
    if args.list {
        print_out(table(&list(&catalog, &dir)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = settings(args, &dir)?;
    let cancel = Cancel::new();
    stop_on_signals(&cancel)?;
    let view = View::new();
    let fetcher = Fetcher::new(&catalog, &manifest, &settings, &view, &cancel);
    if args.verify {
        let checked = fetcher.verify(&names_to_verify(args, &catalog, &dir))?;
        view.finish();
        return report_hashes(&catalog, &checked, !args.names.is_empty());
    }
    let names = names_to_fetch(args, &catalog)?;
    let outcome = fetcher.fetch(&names);
    view.finish();
    report(&catalog, &dir, &outcome?);
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output. A reader that has seen enough (`| head -1`) is no failure.
fn print_out(text: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

fn weights_dir(workspace: &Workspace, args: &Args) -> PathBuf {
    let variable = || std::env::var_os(WEIGHTS_DIR_VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    args.dir.clone().or_else(variable).unwrap_or_else(|| workspace.root().join("weights"))
}

fn manifest(workspace: &Workspace, args: &Args, dir: &Path) -> PathBuf {
    let own = Some(dir.join(MANIFEST)).filter(|path| path.is_file());
    args.manifest.clone().or(own).unwrap_or_else(|| workspace.root().join("weights").join(MANIFEST))
}

fn settings(args: &Args, dir: &Path) -> Result<Settings, FetchError> {
    let mut settings = Settings::from_env(dir)?;
    settings.jobs = args.jobs;
    settings.network = if args.offline { Network::Offline } else { Network::Online };
    settings.originals = if args.keep_original { Originals::Keep } else { Originals::Delete };
    settings.timeouts = Timeouts { read: Duration::from_secs(args.timeout), ..Timeouts::default() };
    settings.retry = RetryPolicy { attempts: args.attempts, ..RetryPolicy::default() };
    if let Some(mirror) = &args.mirror {
        settings.set_mirror(mirror)?;
    }
    Ok(settings)
}

/// Ctrl-C ends the transfers; if that takes too long (a conversion is under way), the process. Every file on the disk is
/// whole or a `.part` at any moment, so that nothing is lost either way.
fn stop_on_signals(cancel: &Cancel) -> Result<()> {
    let cancel = cancel.clone();
    ctrlc::set_handler(move || {
        cancel.cancel();
        std::thread::sleep(GRACE);
        say(format_args!("error: {}", FetchError::Interrupted));
        std::process::exit(i32::from(EXIT_INTERRUPTED));
    })
    .context("cannot catch Ctrl-C")
}

fn names_to_fetch(args: &Args, catalog: &Catalog) -> Result<Vec<String>, FetchError> {
    if args.all {
        return Ok(remote(catalog).map(|entry| entry.name().to_owned()).collect());
    }
    if !args.names.is_empty() {
        return Ok(args.names.clone());
    }
    let preferred = catalog.get(PREFERRED)?;
    let pair = preferred.pairs_with().map(str::to_owned);
    Ok([preferred.name().to_owned()].into_iter().chain(pair).collect())
}

/// The names given, or whatever is there.
fn names_to_verify(args: &Args, catalog: &Catalog, dir: &Path) -> Vec<String> {
    if !args.names.is_empty() {
        return args.names.clone();
    }
    let there = |entry: &&Entry| args.all || entry.results_in(dir).iter().any(|path| path.is_file());
    catalog.entries().iter().filter(there).map(|entry| entry.name().to_owned()).collect()
}

fn remote(catalog: &Catalog) -> impl Iterator<Item = &Entry> {
    catalog.entries().iter().filter(|entry| entry.is_remote())
}

fn report(catalog: &Catalog, dir: &Path, fetched: &Fetched) {
    let mut advice = Vec::new();
    for name in fetched.ready.iter().chain(&fetched.installed) {
        let Ok(entry) = catalog.get(name) else { continue };
        say(format_args!("ready: {name} ({})", entry.path_in(dir).display()));
        let missing_pair = entry
            .pairs_with()
            .and_then(|pair| catalog.get(pair).ok())
            .filter(|pair| pair.is_remote() && pair.missing_in(dir).is_some());
        advice.extend(
            missing_pair.map(|pair| format!("{name} needs a VAE to make pictures: also fetch {}", pair.name())),
        );
    }
    for line in advice {
        say(line);
    }
}

/// One line per file; the code tells whether everything asked for is there and right.
fn report_hashes(catalog: &Catalog, checked: &[Checked], named: bool) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    if checked.is_empty() {
        say("nothing has been fetched yet: nothing to verify");
    }
    let mut lines = String::new();
    for Checked { name, path, finding } in checked {
        let path = path.display();
        lines.push_str(&match finding {
            Finding::Good => format!("verified  {name}  {path}\n"),
            Finding::Unknown => format!("unknown   {name}  {path}: no hash is recorded; fetch it to have one\n"),
            Finding::Missing => format!("missing   {name}  {path}\n"),
            Finding::PutAside { now } => {
                format!("damaged   {name}  {path}: now {}; fetch {name} again\n", now.display())
            }
            Finding::Damaged if catalog.get(name).is_ok_and(Entry::is_remote) => {
                format!("damaged   {name}  {path}: still there, for the folder is read-only; do not use it\n")
            }
            Finding::Damaged => format!("damaged   {name}  {path}: `git checkout -- {path}` brings it back\n"),
        });
        let damaged = matches!(finding, Finding::Damaged | Finding::PutAside { .. });
        if damaged || named && *finding == Finding::Missing {
            code = ExitCode::from(EXIT_DAMAGED);
        }
    }
    print_out(lines)?;
    Ok(code)
}
