//! A package outside the workspace that depends on two of its crates by path.

use std::{fs, process::Command};

use dit_tests::root;

const MAIN: &str = r#"
use dit_diffusion::{ClassConditional, ClassifierFree, ClipX0, Ddim, GuidedChannels, NoiseSchedule, Parameterization,
    BatchNoise, LatentShape, Sampler, SeededNoise};
use dit_model::{Dit, DitConfig, Initialization};
use std::ops::ControlFlow;
use tch::{Device, Kind, Tensor, nn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = "DiT-S/8".parse::<DitConfig>()?.with(|spec| spec.depth = 1)?;
    let store = nn::VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 });
    let forward = |x: &Tensor, t: dit_diffusion::Timestep, y: &Tensor| {
        let t = Tensor::full([x.size()[0]], i64::from(t.0), (Kind::Int64, Device::Cpu));
        Ok(dit.try_forward(x, &t, y)?)
    };
    let labels = Tensor::from_slice(&[207_i64, 360]);
    let guided = ClassifierFree::new(ClassConditional::new(forward, &labels, 1000)?, 4.0, GuidedChannels::First(3))?;
    let schedule = NoiseSchedule::linear(1000)?.respaced(&"ddim5".parse()?)?;
    let sampler = Sampler { schedule: &schedule, parameterization: Parameterization::DIT, clip: ClipX0::No };
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[0, 1]);
    let start = noise.initial(LatentShape { channels: 4, height: 32, width: 32 }, Device::Cpu)?;
    let latents = sampler.run(&guided, &mut Ddim::DETERMINISTIC, noise, &start, &mut |_| ControlFlow::Continue(()))?;
    println!("{:?}", latents.size());
    Ok(())
}
"#;

#[test]
fn an_outside_package_builds_and_runs() {
    // Below the workspace's folder, so that cargo finds where libtorch is; a workspace of its own all the same.
    let folder = root().join("target/outside-package");
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // The same profiles, so that tch need not be compiled a second time.
    let profiles = manifest.find("[profile.dev]").map_or("", |start| &manifest[start..]);
    let package = "[package]\nname = \"outside-package\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n";
    let dependencies = "[dependencies]\ndit-diffusion = { path = \"../../crates/dit-diffusion\" }\n\
        dit-model = { path = \"../../crates/dit-model\" }\ntch = \"=0.24.0\"\n\n";
    fs::write(folder.join("Cargo.toml"), format!("{package}{dependencies}{profiles}")).unwrap();
    fs::write(folder.join("src/main.rs"), MAIN).unwrap();
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--target-dir"])
        .arg(root().join("target"))
        .current_dir(&folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[2, 4, 32, 32]", "{stderr}");
}
