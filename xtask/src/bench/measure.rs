//! One pair: both engines loaded, turn by turn, their results compared.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::binaries::Binaries;
use super::cases::{Case, Contender, Engine, Pair, Precision, Subject};
use super::engine::{Process, read_values};
use super::machine::{Machine, Moment, process_seconds};
use super::python::Peers;
use super::record::{NO_REFERENCE, PairRecord, Record, Side};
use super::statistics::{Summary, relative_difference};

pub struct Bench<'a> {
    /// Everything that is written.
    pub folder: &'a Path,
    pub root: &'a Path,
    pub binaries: &'a Binaries,
    pub peers: &'a Peers,
    pub threads: u16,
    pub device: &'a str,
    pub rounds: u32,
    pub at_most: Duration,
    pub machine: &'a Machine,
}

/// Why a pair was not measured.
pub enum Failure {
    Ours(String),
    Peer(String),
}

impl Failure {
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(reason) => write!(f, "our engine: {reason}"),
            Self::Peer(reason) => f.write_str(reason),
        }
    }
}

/// OpenMP's threads spin for a while after their work: long enough for that to end.
const PAUSE: Duration = Duration::from_millis(80);
/// Turns that each engine gets, however long they take.
const LEAST_ROUNDS: u32 = 3;

/// What results are compared with.
pub const REFERENCE: Contender = Contender { engine: Engine::Eager, precision: Precision::Fp32 };

/// A loaded engine and what its steps took.
struct Player {
    process: Process,
    steps: Vec<f64>,
    idle: f64,
    others_steps: f64,
}

impl Player {
    fn new(process: Process) -> Self {
        Self { process, steps: Vec::new(), idle: 0.0, others_steps: 0.0 }
    }

    /// A step, while the other is idle, or should be.
    fn turn(&mut self, other: &mut Self) -> Result<(), String> {
        thread::sleep(PAUSE);
        let before = process_seconds(other.process.id());
        let (seconds, _) = self.process.step()?;
        if let (Some(before), Some(after)) = (before, process_seconds(other.process.id())) {
            other.idle += after - before;
            other.others_steps += seconds;
        }
        self.steps.push(seconds);
        Ok(())
    }

    fn side(mut self, precision: Precision, difference: Option<f64>) -> Result<Side, String> {
        let memory = self.process.ask(&json!({ "do": "memory" }))?;
        let ready = self.process.ready();
        let seconds = |key: &str| ready.get(key).and_then(Value::as_f64);
        Ok(Side {
            engine: ready.get("engine").and_then(Value::as_str).unwrap_or("unnamed").to_owned(),
            precision: precision.name().to_owned(),
            seconds: Summary::of(&self.steps).ok_or("no step was taken")?,
            seconds_load: seconds("seconds_load"),
            seconds_prepare: seconds("seconds_prepare"),
            peak_rss_bytes: memory.get("peak_rss_bytes").and_then(Value::as_u64),
            idle_share: (self.others_steps > 0.0).then_some(self.idle / self.others_steps),
            steps: self.steps,
            difference,
        })
    }
}

impl Bench<'_> {
    pub fn pair(&self, pair: &Pair) -> Result<Record, Failure> {
        let case = self.prepare(&pair.case).map_err(Failure::Ours)?;
        // First what can be missing.
        let peers_command = self.command(pair.peer, &case).map_err(Failure::Peer)?;
        let (reference_name, reference) = self.reference(pair, &case)?;

        let ours = self.command(pair.ours(), &case).and_then(|command| self.start(command, pair.ours()));
        let mut ours = Player::new(ours.map_err(Failure::Ours)?);
        let mut peer = Player::new(self.start(peers_command, pair.peer).map_err(Failure::Peer)?);
        let mut linear_bf16 = vec![rate(&mut ours.process).map_err(Failure::Ours)?];

        let engines = [ours.process.id(), peer.process.id()];
        let before = Moment::now(&engines);
        let started = Instant::now();
        for round in 0..self.rounds {
            if round >= LEAST_ROUNDS && started.elapsed() > self.at_most {
                break;
            }
            // Whoever comes first finds the caches of another: take turns at that too.
            if round % 2 == 0 {
                ours.turn(&mut peer).map_err(Failure::Ours)?;
                peer.turn(&mut ours).map_err(Failure::Peer)?;
            } else {
                peer.turn(&mut ours).map_err(Failure::Peer)?;
                ours.turn(&mut peer).map_err(Failure::Ours)?;
            }
        }
        let after = Moment::now(&engines);
        linear_bf16.push(rate(&mut ours.process).map_err(Failure::Ours)?);

        let scratch = self.folder.join("output.f32");
        let our_result = ours.process.output(&scratch).map_err(Failure::Ours)?;
        let peers_result = peer.process.output(&scratch).map_err(Failure::Peer)?;
        let reference = match reference {
            Some(values) => values,
            None => self.keep_reference(&pair.case, REFERENCE, &peers_result).map_err(Failure::Peer)?,
        };
        let ratios: Vec<f64> = peer.steps.iter().zip(&ours.steps).map(|(peer, ours)| peer / ours).collect();
        let flop = ours.process.ready().get("flop").and_then(Value::as_f64);
        let our_difference = relative_difference(&our_result, &reference);
        let peers_difference = relative_difference(&peers_result, &reference);
        Ok(Record::Pair(Box::new(PairRecord {
            name: pair.name(),
            title: pair.case.title.to_owned(),
            device: self.device.to_owned(),
            ours: ours.side(pair.ours, our_difference).map_err(Failure::Ours)?,
            peer: peer.side(pair.peer.precision, peers_difference).map_err(Failure::Peer)?,
            ratio: Summary::of(&ratios).ok_or_else(|| Failure::Ours("no round was finished".to_owned()))?,
            target: pair.target,
            flop,
            linear_bf16,
            taken_by_others: before.zip(after).map(|(before, after)| before.taken_by_others(after, self.machine.cores)),
            reference: reference_name,
            machine: self.machine.clone(),
        })))
    }

    /// The case's files; its description's path. Weights are written once for all cases.
    pub fn prepare(&self, case: &Case) -> Result<PathBuf, String> {
        let path = self.folder.join("cases").join(format!("{}.json", case.name));
        let mut command = Command::new(&self.binaries.engine);
        command.args(["prepare", "--task", case.subject.task(), "--model", case.model]);
        command.args(["--image-size", &case.image_size.to_string(), "--pictures", &case.pictures.to_string()]);
        command.arg("--weights").arg(self.folder.join("weights")).arg("--case").arg(&path);
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(path)
        } else {
            Err(format!("the case cannot be prepared: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
    }

    /// What results are compared with: PyTorch's in fp32, computed once a case; where there is no PyTorch and never was, our own. None if
    /// the pair's own peer is about to compute it.
    fn reference(&self, pair: &Pair, case: &Path) -> Result<(String, Option<Vec<f32>>), Failure> {
        if pair.case.subject == Subject::Train {
            // Our runs draw their own noise and timesteps; that a step equals PyTorch's is a test of dit-train.
            return Ok((NO_REFERENCE.to_owned(), Some(Vec::new())));
        }
        let command = self.command(REFERENCE, case);
        let contender = match command.is_ok() || self.reference_path(&pair.case, REFERENCE).exists() {
            true => REFERENCE,
            false => Contender { engine: Engine::Ours, precision: Precision::Fp32 },
        };
        let path = self.reference_path(&pair.case, contender);
        if path.exists() {
            return Ok((contender.name(), Some(read_values(&path).map_err(Failure::Peer)?)));
        }
        if contender == pair.peer {
            return Ok((contender.name(), None));
        }
        let command = command.or_else(|_| self.command(contender, case)).map_err(Failure::Ours)?;
        let compute = || -> Result<Vec<f32>, String> {
            let mut process = self.start(command, contender)?;
            let values = process.output(&self.folder.join("output.f32"))?;
            self.keep_reference(&pair.case, contender, &values)
        };
        Ok((contender.name(), Some(compute().map_err(Failure::Peer)?)))
    }

    fn reference_path(&self, case: &Case, contender: Contender) -> PathBuf {
        let device = if self.device == "cpu" { "" } else { "-cuda" };
        self.folder.join("references").join(format!("{}{device}.{}.f32", case.name, contender.name()))
    }

    fn keep_reference(&self, case: &Case, contender: Contender, values: &[f32]) -> Result<Vec<f32>, String> {
        let path = self.reference_path(case, contender);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let folder = path.parent().unwrap_or(self.folder);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, bytes));
        written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        Ok(values.to_vec())
    }

    /// How to start a contender on a case; or why it cannot be.
    fn command(&self, contender: Contender, case: &Path) -> Result<Command, String> {
        let threads = self.threads.to_string();
        let mut command = match contender.engine {
            Engine::Ours => {
                let mut command = Command::new(&self.binaries.engine);
                command.args(["serve", "--threads", &threads, "--device", self.device]);
                // As `dit-cli` starts its engine.
                if ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"].iter().all(|name| std::env::var_os(name).is_none()) {
                    command.env("GOMP_SPINCOUNT", "3000");
                }
                command
            }
            Engine::Candle => Command::new(self.binaries.candle.as_ref().map_err(Clone::clone)?),
            Engine::Eager | Engine::Compile | Engine::OpenVino => {
                let mut command = Command::new(self.peers.python()?);
                command.arg(self.root.join("bench/dit/peer.py")).args(["--engine", contender.engine.name()]);
                command.args(["--threads", &threads, "--device", self.device]);
                command.arg("--scratch").arg(self.folder.join("scratch"));
                command
            }
        };
        command.arg("--case").arg(case).args(["--precision", contender.precision.name()]);
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(name, &threads);
        }
        // LLVM's and Intel's OpenMP spin for 200 ms otherwise, into the other's turn.
        command.env("KMP_BLOCKTIME", "20").env("PYTHONWARNINGS", "ignore");
        Ok(command)
    }

    fn start(&self, command: Command, contender: Contender) -> Result<Process, String> {
        for folder in ["logs", "scratch"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        }
        Process::start(command, &self.folder.join("logs").join(format!("{}.log", contender.name())))
    }
}

/// libtorch's own bf16 Linear, as our engine measures it.
fn rate(ours: &mut Process) -> Result<f64, String> {
    let rates = ours.ask(&json!({ "do": "rate" }))?;
    rates.get("bf16").and_then(Value::as_f64).ok_or_else(|| "no rate in its answer".to_owned())
}
