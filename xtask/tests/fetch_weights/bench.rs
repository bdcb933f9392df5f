//! A folder with a manifest, and the program run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dit_config::{DitConfig, LatentSize};
use dit_fetch::test_server::{Server, content};
use dit_weights::{TensorView, sha256_of, torch_save};
use serde_json::{Value, json};

/// Variables of the user's that must not reach the program.
const FOREIGN: [&str; 15] = [
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "DIT_WEIGHTS_DIR",
];

pub struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    pub fn new(checkpoints: &Value) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let manifest = json!({ "checkpoints": checkpoints }).to_string();
        std::fs::write(root.path().join("lab.json"), manifest).expect("a manifest");
        Bench { root }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn weights(&self) -> PathBuf {
        self.root.path().join("weights")
    }

    /// `cargo xtask fetch-weights --manifest … --dir … ARGS`, with few attempts.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        command
            .arg("fetch-weights")
            .args(["--attempts", "2"])
            .args(if args.contains(&"--timeout") { &[][..] } else { &["--timeout", "30"] })
            .arg("--manifest")
            .arg(self.root.path().join("lab.json"))
            .arg("--dir")
            .arg(self.weights())
            .args(args)
            .env("HOME", self.root.path())
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_with(args, &[])
    }

    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let output = self.command(args).envs(variables.iter().copied()).output().expect("the program runs");
        Outcome::of(&output)
    }
}

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(output: &Output) -> Self {
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn expect(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for text in said {
            assert!(
                self.stderr.contains(text) || self.stdout.contains(text),
                "`{text}` in {}{}",
                self.stdout,
                self.stderr
            );
        }
        self
    }
}

/// A DiT of a few hundred kilobytes in the original's layout, as a `.pt` file.
pub struct Tiny {
    pub config: DitConfig,
    pub file: Vec<u8>,
    pub sha256: String,
}

pub fn tiny_dit() -> Tiny {
    let standard: DitConfig = "DiT-S/8".parse().expect("a standard model");
    let config = standard
        .with(|spec| {
            (spec.hidden, spec.depth, spec.heads, spec.num_classes) = (64, 2, 4, 3);
            spec.latent = LatentSize::square(16);
        })
        .expect("a sound configuration");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.pt");
    write_random_weights(&config, &path);
    let sha256 = sha256_of(&[&path]).expect("a hash");
    Tiny { config, file: std::fs::read(path).expect("the file just written"), sha256 }
}

/// A plain state dict with weights that look random, written one tensor at a time.
pub fn write_random_weights(config: &DitConfig, path: &Path) {
    let tensors = config.tensors().into_iter().enumerate().map(|(i, spec)| {
        let values: Vec<f32> =
            content(spec.numel(), i as u64).iter().map(|&byte| (f32::from(byte) - 191.5) / 1000.0).collect();
        Ok((spec.name, TensorView::from_f32(spec.shape, &values)?))
    });
    torch_save::write_state_dict(path, tensors).expect("a checkpoint");
}

pub fn tiny_entry(server: &Server, tiny: &Tiny) -> Value {
    json!({"name": "tiny", "kind": "dit", "license": "CC-BY-NC-4.0", "config": {"num_heads": tiny.config.heads},
           "files": [{"path": "Tiny.pt", "urls": [server.url("/Tiny.pt")], "bytes": tiny.file.len(), "sha256": tiny.sha256}]})
}
