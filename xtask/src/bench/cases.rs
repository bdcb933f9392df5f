//! What is compared with what, and what issue's target a pair answers to.

/// The same work for all engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: &'static str,
    /// As a table shows it.
    pub title: &'static str,
    pub subject: Subject,
    /// As `dit-bench-engine prepare` names it.
    pub model: &'static str,
    pub image_size: u32,
    /// Pictures, or samples in training; guidance makes two rows of each.
    pub pictures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Sample,
    Decode,
    Train,
}

impl Subject {
    /// As `dit-bench-engine prepare` names it.
    pub fn task(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Decode => "decode",
            Self::Train => "train",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Ours,
    /// PyTorch as it comes.
    Eager,
    /// torch.compile, on a CPU with frozen weights.
    Compile,
    OpenVino,
    Candle,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Eager => "eager",
            Self::Compile => "compile",
            Self::OpenVino => "openvino",
            Self::Candle => "candle",
        }
    }

    pub fn is_python(self) -> bool {
        matches!(self, Self::Eager | Self::Compile | Self::OpenVino)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Fp32,
    Bf16,
    Int8,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    pub engine: Engine,
    pub precision: Precision,
}

impl Contender {
    pub fn name(self) -> String {
        format!("{}-{}", self.engine.name(), self.precision.name())
    }
}

/// Two contenders on one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub case: Case,
    pub ours: Precision,
    pub peer: Contender,
    /// How many times as fast as the peer we want to be.
    pub target: Option<f64>,
}

impl Pair {
    /// `xl2-256/bf16/compile-bf16`.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.case.name, self.ours.name(), self.peer.name())
    }

    pub fn ours(&self) -> Contender {
        Contender { engine: Engine::Ours, precision: self.ours }
    }

    pub fn has(&self, engine: Engine) -> bool {
        self.peer.engine == engine
    }

    pub fn runs_on_cuda(&self) -> bool {
        !matches!(self.peer.engine, Engine::OpenVino | Engine::Candle) && self.ours != Precision::Int8
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Small models: whether everything works.
    Quick,
    Cpu,
    Cuda,
}

use Engine::{Candle, Compile, Eager, OpenVino, Ours};
use Precision::{Bf16, Fp32, Int8};

/// Our precision, the peer, and the target at the paper's size.
type Row = (Precision, Engine, Precision, f64);

const SAMPLE: &[Row] = &[
    (Fp32, Eager, Fp32, 2.0),
    (Fp32, Compile, Fp32, 2.0),
    (Fp32, OpenVino, Fp32, 1.0),
    (Fp32, Candle, Fp32, 2.8),
    (Bf16, Eager, Bf16, 1.9),
    (Bf16, Compile, Bf16, 1.15),
    (Bf16, OpenVino, Bf16, 1.15),
    (Bf16, Candle, Bf16, 2.8),
    (Int8, Ours, Bf16, 1.5),
];
/// At 512 px and in large batches: the contest that matters, within a tenth of the same ratios.
const SAMPLE_LARGE: &[Row] = &[
    (Fp32, Eager, Fp32, 1.8),
    (Fp32, OpenVino, Fp32, 0.9),
    (Bf16, Eager, Bf16, 1.71),
    (Bf16, Compile, Bf16, 1.035),
    (Bf16, OpenVino, Bf16, 1.035),
    (Int8, Ours, Bf16, 1.35),
];
const DECODE: &[Row] = &[(Fp32, Eager, Fp32, 1.4), (Bf16, Eager, Fp32, 2.5), (Bf16, Eager, Bf16, 1.0)];
const TRAIN: &[Row] =
    &[(Fp32, Eager, Fp32, 1.5), (Fp32, Compile, Fp32, 1.5), (Bf16, Eager, Bf16, 1.3), (Bf16, Compile, Bf16, 1.3)];
const CUDA: &[Row] = &[(Fp32, Eager, Fp32, 1.0), (Bf16, Eager, Bf16, 1.0), (Bf16, Compile, Bf16, 1.0)];
/// Within a twentieth.
const CUDA_TRAIN: &[Row] = &[(Bf16, Compile, Bf16, 0.95)];

const fn case(
    name: &'static str,
    title: &'static str,
    subject: Subject,
    model: &'static str,
    image_size: u32,
    pictures: u32,
) -> Case {
    Case { name, title, subject, model, image_size, pictures }
}

const QUICK_CASES: &[(Case, &[Row])] = &[
    (case("quick-sample", "DiT-S/4, 256 px, a guided step", Subject::Sample, "DiT-S/4", 256, 1), SAMPLE),
    (case("quick-decode", "a narrow VAE, 64 px", Subject::Decode, "tiny", 64, 1), DECODE),
    (case("quick-train", "DiT-S/8, training, batch 4", Subject::Train, "DiT-S/8", 256, 4), TRAIN),
];
const CPU_CASES: &[(Case, &[Row])] = &[
    (case("xl2-256", "DiT-XL/2, 256 px, a guided step", Subject::Sample, "DiT-XL/2", 256, 1), SAMPLE),
    (case("xl2-512", "DiT-XL/2, 512 px, a guided step", Subject::Sample, "DiT-XL/2", 512, 1), SAMPLE_LARGE),
    (case("xl2-256-batch16", "DiT-XL/2, 256 px, 16 rows", Subject::Sample, "DiT-XL/2", 256, 8), SAMPLE_LARGE),
    (case("vae-256", "SD VAE, decoding 256 px", Subject::Decode, "sd", 256, 1), DECODE),
    (case("train-s2", "DiT-S/2, training, batch 16", Subject::Train, "DiT-S/2", 256, 16), TRAIN),
];
const CUDA_CASES: &[(Case, &[Row])] = &[
    (case("xl2-256-batch8", "DiT-XL/2, 256 px, 8 rows", Subject::Sample, "DiT-XL/2", 256, 4), CUDA),
    (case("xl2-256-batch64", "DiT-XL/2, 256 px, 64 rows", Subject::Sample, "DiT-XL/2", 256, 32), CUDA),
    (case("xl2-512-batch8", "DiT-XL/2, 512 px, 8 rows", Subject::Sample, "DiT-XL/2", 512, 4), CUDA),
    (case("xl2-512-batch64", "DiT-XL/2, 512 px, 64 rows", Subject::Sample, "DiT-XL/2", 512, 32), CUDA),
    (case("vae-256", "SD VAE, decoding 256 px", Subject::Decode, "sd", 256, 1), CUDA),
    // Batches of which a card of 80 GB holds two: both engines are loaded.
    (case("train-b2", "DiT-B/2, training, batch 128", Subject::Train, "DiT-B/2", 256, 128), CUDA_TRAIN),
    (case("train-xl2", "DiT-XL/2, training, batch 32", Subject::Train, "DiT-XL/2", 256, 32), CUDA_TRAIN),
];

/// All pairs, those of one case together, the fp32 reference first.
pub fn pairs(scale: Scale) -> Vec<Pair> {
    let cases = match scale {
        Scale::Quick => QUICK_CASES,
        Scale::Cpu => CPU_CASES,
        Scale::Cuda => CUDA_CASES,
    };
    let of_case = |&(case, rows): &(Case, &'static [Row])| {
        rows.iter().map(move |&(ours, engine, precision, target)| Pair {
            case,
            ours,
            peer: Contender { engine, precision },
            // Small models say nothing about the targets.
            target: (scale != Scale::Quick).then_some(target),
        })
    };
    cases.iter().flat_map(of_case).collect()
}

/// Where a pair of this name stands among all; those of earlier versions come last.
pub fn position(name: &str) -> usize {
    let names = [Scale::Cpu, Scale::Cuda, Scale::Quick].into_iter().flat_map(pairs).map(|pair| pair.name());
    names.enumerate().find(|(_, known)| known == name).map_or(usize::MAX, |(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[track_caller]
    fn check(scale: Scale) -> Vec<Pair> {
        let pairs = pairs(scale);
        let names: BTreeSet<String> = pairs.iter().map(Pair::name).collect();
        assert_eq!(names.len(), pairs.len(), "a record would overwrite another");
        // The reference that differences are taken from; training has none.
        for pair in pairs.iter().filter(|pair| pair.case.subject != Subject::Train) {
            let first = pairs.iter().find(|other| other.case == pair.case).unwrap();
            assert_eq!((first.peer.engine, first.peer.precision), (Eager, Fp32), "{}", pair.name());
        }
        pairs
    }

    #[test]
    fn every_case_begins_with_its_reference_and_every_pair_has_a_name() {
        for scale in [Scale::Quick, Scale::Cpu, Scale::Cuda] {
            check(scale);
        }
    }

    #[test]
    fn names_say_who_meets_whom() {
        let names: Vec<String> = check(Scale::Cpu).iter().map(Pair::name).collect();
        assert!(names.contains(&"xl2-256/bf16/compile-bf16".to_owned()), "{names:?}");
        assert!(names.contains(&"xl2-256/int8/ours-bf16".to_owned()), "{names:?}");
        assert!(position("xl2-256/fp32/eager-fp32") < position("xl2-256/int8/ours-bf16"));
        assert!(position("train-s2/bf16/compile-bf16") < position("from an earlier version"));
        let cuda = check(Scale::Cuda);
        assert!(cuda.iter().all(Pair::runs_on_cuda));
        for name in ["train-b2/bf16/compile-bf16", "train-xl2/bf16/compile-bf16"] {
            let target = cuda.iter().find(|pair| pair.name() == name).and_then(|pair| pair.target);
            assert_eq!(target, Some(0.95), "{name}");
        }
    }
}
