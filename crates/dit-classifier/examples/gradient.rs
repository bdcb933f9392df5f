//! How strongly a classifier pulls at every noise level:
//! `cargo run -p dit-classifier --example gradient -- weights/demo/classifier-fashion.safetensors`

use dit_classifier::Classifier;
use dit_diffusion::{LogProbGradient, Timestep};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let path = std::env::args_os().nth(1).ok_or("usage: gradient CLASSIFIER")?;
    let (classifier, about) = Classifier::load(path.as_ref(), Device::Cpu)?;
    let [height, width] = about.spec.latent.map(|extent| extent as i64);
    println!("{} classes, trained for {} steps", about.spec.num_classes, about.steps);
    let x = Tensor::randn([8, about.spec.in_channels as i64, height, width], (Kind::Float, Device::Cpu));
    let labels = Tensor::zeros([8], (Kind::Int64, Device::Cpu));
    for t in [0, 100, 300, 500, 700, 900, 999] {
        let gradient = classifier.towards(&labels).gradient(&x, Timestep(t))?;
        println!(
            "timestep {t:3}: rms of the gradient {:.4}",
            gradient.square().mean(Kind::Double).double_value(&[]).sqrt()
        );
    }
    Ok(())
}
