//! DiT-XL/2 and Stable Diffusion's VAE at their real size, with random weights, laid out as `fetch-weights` leaves them: inspected,
//! and one guided step sampled with no flag that names them. Slow; set DIT_SLOW_TESTS=1.

use std::{collections::BTreeMap, fs, path::Path};

use dit_config::{DitConfig, TensorSpec, VaeConfig, VaeSpec};
use dit_tests::{dit_cli, root, slow_tests};
use dit_weights::{MemorySource, Metadata, ModelConfig, TensorView, write_safetensors};
use serde_json::{Value, json};

/// Uniform within ±0.04: small enough for finite pictures, nowhere zero.
fn random_weights(specs: &[TensorSpec]) -> MemorySource {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.08
    };
    let tensor = |spec: &TensorSpec, next: &mut dyn FnMut() -> f32| {
        let values: Vec<f32> = (0..spec.numel()).map(|_| next()).collect();
        (spec.name.clone(), TensorView::from_f32(spec.shape.clone(), &values).unwrap())
    };
    specs.iter().map(|spec| tensor(spec, &mut next)).collect()
}

fn json_of(weights: &Path, args: &[&str]) -> Value {
    let output = dit_cli().env("DIT_WEIGHTS_DIR", weights).current_dir(weights).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn xl_is_inspected_and_sampled_where_fetching_leaves_it() {
    if !slow_tests() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path();
    fs::copy(root().join("weights/manifest.json"), weights.join("manifest.json")).unwrap();
    let config: DitConfig = "DiT-XL/2".parse().unwrap();
    let metadata = Metadata { config: Some(ModelConfig::Dit(config.clone())), ..Metadata::default() };
    let dit = weights.join("dit-xl-2-256.safetensors");
    write_safetensors(&dit, &random_weights(&config.tensors()), &metadata.to_map()).unwrap();
    let vae = VaeConfig::new(VaeSpec::default()).unwrap();
    fs::create_dir(weights.join("sd-vae-ft-ema")).unwrap();
    fs::write(weights.join("sd-vae-ft-ema/config.json"), json!(VaeSpec::from(vae.clone())).to_string()).unwrap();
    let vae_file = weights.join("sd-vae-ft-ema/diffusion_pytorch_model.safetensors");
    write_safetensors(&vae_file, &random_weights(&vae.tensors()), &BTreeMap::new()).unwrap();

    let report = json_of(weights, &["inspect", "dit-xl-2-256", "--json"]);
    assert_eq!(report["parameters"], 675_129_632);
    for (precision, element) in [("fp32", 4), ("bf16", 2)] {
        let args = ["sample", "--steps", "1", "--class", "golden retriever", "--precision", precision, "--json"];
        let run = json_of(weights, &args);
        let seconds = |key: &str| run[key].as_f64().unwrap();
        let peak = run["peak_rss_bytes"].as_u64().unwrap();
        eprintln!(
            "{precision}: load {:.1} s, step {:.1} s, decode {:.1} s, peak {} MB",
            seconds("seconds_load"),
            seconds("seconds_per_step"),
            seconds("seconds_decode"),
            peak / 1_000_000
        );
        assert_eq!(run["checkpoint"]["name"], "dit-xl-2-256");
        // The weights once, the VAE, and activations; a second copy of the weights would show.
        let parameters = config.parameters() + vae.parameters();
        assert!(peak < parameters * element * 13 / 10 + 800_000_000, "{precision}: peak {peak}");
        assert!(weights.join("sample.png").exists());
    }
}
