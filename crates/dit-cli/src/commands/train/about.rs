//! What the run's folder will say about this start of it.

use std::{env, fs};

use anyhow::Result;
use dit_data::shard::LatentFolder;
use dit_ops::libtorch_version;
use dit_train::watch::{DataIdentity, Machine, Program, Session};
use dit_weights::sha256_of;
use tch::Device;

use crate::machine;

/// The commit that this program was built from, with a + where its sources were changed since; none outside a repository.
const COMMIT: Option<&str> = option_env!("DIT_GIT_COMMIT");

/// Gathers it, for a run that begins.
pub fn session(data: &LatentFolder, device: Device, threads: usize) -> Result<Session> {
    let folder = data.path();
    Ok(Session {
        started: Session::now(),
        from_step: 0,
        program: Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: COMMIT.map(str::to_owned),
            libtorch: libtorch_version(),
        },
        command: env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        working_folder: env::current_dir()?,
        machine: Machine {
            cpu: cpu(),
            device: machine::device_name(device),
            threads,
            system: format!("{} {}", env::consts::OS, env::consts::ARCH),
        },
        data: DataIdentity {
            folder: folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
            records: data.len(),
            codec: data.manifest().settings.vae.name.clone(),
            manifest_sha256: sha256_of(&[folder.join("manifest.json")])?,
        },
        vae: None,
        ignore_memory: false,
    })
}

fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
}
