//! How a run is run, beside its recipe: what is typed, and where it continues, what it had before. The number of threads and the
//! device decide the last bits of results, so that a run continues with its own unless it is told otherwise.

use std::{path::PathBuf, thread};

use anyhow::{Context, Result};
use dit_args::TrainArgs;
use dit_train::watch::Session;
use tch::Device;

use crate::{
    machine,
    speak::{counted, say},
};

/// What is typed, completed by the last start of the run that continues.
pub struct Settings {
    /// The folder of latents.
    pub data: Option<PathBuf>,
    /// The codec of pictures, where it is not the latents' by its own name.
    pub vae: Option<String>,
    /// Whether a run that does not seem to fit is only warned of.
    pub ignore_memory: bool,
    device: Option<String>,
    threads: Option<usize>,
    before: Option<Session>,
}

impl Settings {
    pub fn of(args: &TrainArgs) -> Self {
        let before = args.out.as_deref().filter(|_| args.resume).and_then(Session::last);
        let had = before.as_ref();
        Self {
            data: args.data.clone().or_else(|| Some(had?.data.folder.clone())),
            vae: args.vae.clone().or_else(|| had?.vae.clone()),
            ignore_memory: args.ignore_memory || had.is_some_and(|before| before.ignore_memory),
            device: args.machine.device.clone(),
            threads: args.machine.threads,
            before,
        }
    }

    /// Where it computes.
    pub fn open_device(&self) -> Result<Device> {
        match (&self.device, &self.before) {
            (None, Some(before)) => machine::open_device(&before.machine.device).with_context(|| {
                format!("the run was on {}; to continue it elsewhere, pass --device", before.machine.device)
            }),
            (device, _) => machine::open_device(device.as_deref().unwrap_or("auto")),
        }
    }

    /// Sets libtorch's threads, and tells of their number where nobody typed it.
    pub fn set_threads(&self) -> Result<usize> {
        let (None, Some(before)) = (self.threads, &self.before) else { return machine::set_threads(self.threads) };
        let threads = machine::set_threads(Some(before.machine.threads))?;
        let cores = thread::available_parallelism().map_or(threads, usize::from);
        if threads != cores {
            say(format_args!(
                "note: it continues with {}, as before, where {} could be used: --threads N changes that, and the last bits of what is \
                 computed",
                counted(threads, "thread"),
                counted(cores, "core"),
            ));
        }
        Ok(threads)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use dit_args::{Cli, Command};
    use dit_train::watch::{DataIdentity, Machine, Program};

    use super::*;

    fn session(folder: &std::path::Path) -> Session {
        Session {
            started: 1,
            from_step: 0,
            program: Program { version: "1".to_owned(), git_commit: None, libtorch: None },
            command: Vec::new(),
            working_folder: folder.to_owned(),
            machine: Machine { cpu: None, device: "cpu".to_owned(), threads: 3, system: "here".to_owned() },
            data: DataIdentity {
                folder: "/latents".into(),
                records: 5,
                codec: "none".to_owned(),
                manifest_sha256: "abc".to_owned(),
            },
            vae: Some("/codec".to_owned()),
            ignore_memory: true,
        }
    }

    /// What is typed after `train --out FOLDER`, and the latents, codec, memory, device and threads that come of it.
    #[track_caller]
    fn check(typed: &[&str], data: Option<&str>, vae: Option<&str>, ignore_memory: bool, threads: Option<usize>) {
        let folder = tempfile::tempdir().unwrap();
        session(folder.path()).append(folder.path()).unwrap();
        let out = folder.path().to_str().unwrap();
        let words = ["dit-cli", "train", "--out", out].into_iter().chain(typed.iter().copied());
        let Command::Train(args) = Cli::parse_from(words).command else { panic!("{typed:?}") };
        let settings = Settings::of(&args);
        assert_eq!(settings.data.as_deref(), data.map(std::path::Path::new), "{typed:?}");
        assert_eq!((settings.vae.as_deref(), settings.ignore_memory), (vae, ignore_memory), "{typed:?}");
        let had = settings.before.as_ref().map(|before| before.machine.threads);
        assert_eq!(settings.threads.or(had), threads, "{typed:?}");
    }

    #[test]
    fn a_run_continues_as_it_was_run_unless_it_is_told_otherwise() {
        check(&[], None, None, false, None);
        check(&["--threads", "2", "--vae", "v", "--data", "d"], Some("d"), Some("v"), false, Some(2));
        check(&["--resume"], Some("/latents"), Some("/codec"), true, Some(3));
        check(&["--resume", "--threads", "2", "--vae", "v", "--data", "d"], Some("d"), Some("v"), true, Some(2));
    }
}
