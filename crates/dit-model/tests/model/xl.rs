//! DiT-XL/2 at its real size, from a `.pt` file, against float64.

use std::{path::PathBuf, process::Command};

use dit_model::Dit;
use dit_weights::{Checkpoint, OpenOptions};
use tch::{Device, Kind, Tensor};

use crate::common::{Tensors, check_close, fixture, slow_tests};

/// `DIT_XL_CASE` names a folder that `make_dit_xl.py` wrote; without it the script is run (by `DIT_PYTHON`, or `python3`, which
/// needs PyTorch and safetensors).
#[test]
fn xl_2_from_a_pickle() {
    if !slow_tests("a random DiT-XL/2 from a .pt file; 3 GB of disk, 6 GB of memory") {
        return;
    }
    let made = tempfile::tempdir().unwrap();
    let folder = match std::env::var_os("DIT_XL_CASE") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let python = std::env::var_os("DIT_PYTHON").unwrap_or_else(|| "python3".into());
            let status = Command::new(python).arg(fixture("make_dit_xl.py")).arg(made.path()).status();
            assert!(status.is_ok_and(|status| status.success()), "make_dit_xl.py failed");
            made.path().to_owned()
        }
    };
    let checkpoint = Checkpoint::open(folder.join("model.pt"), &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.config().to_string(), "DiT-XL/2");
    let io: Tensors = Tensor::read_safetensors(folder.join("io.safetensors")).unwrap().into_iter().collect();

    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
    let c = dit.condition(&io["t"], &io["y"]);
    check_close("conditioning", &c, &io["conditioning"], 2e-5);
    let mut sequence = dit.embed(&io["x"], &c);
    check_close("patch_tokens", &sequence, &io["patch_tokens"], 2e-5);
    for (i, block) in dit.blocks().iter().enumerate() {
        sequence = block.forward(&sequence, &c);
        if let Some(expected) = io.get(&format!("after_block_{i}")) {
            check_close(&format!("after_block_{i}"), &sequence, expected, 2e-5);
        }
    }
    check_close("final_tokens", &dit.final_tokens(&sequence, &c), &io["final_tokens"], 2e-5);
    check_close("output", &dit.forward(&io["x"], &io["t"], &io["y"]), &io["output"], 2e-5);
    drop(dit);

    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::BFloat16).unwrap();
    check_close("output in bf16", &dit.forward(&io["x"], &io["t"], &io["y"]), &io["output"], 5e-2);
}
