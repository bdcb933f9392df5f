//! How classifier guidance moves what an independent classifier sees.

use std::{fmt::Write, fs, path::Path};

use dit_eval::DemoFeatures;
use dit_image::Picture;
use dit_sample::{Guidance, SamplerKind, Settings};
use tch::{Device, Kind, Tensor};

use crate::{
    Result,
    studio::{Studio, quick},
};

/// Pictures of each class.
const EACH: usize = 20;

pub fn make(studio: &Studio, weights: &Path, docs: &Path) -> Result<()> {
    let judge = DemoFeatures::load(&weights.join("features-fashion.safetensors"), Device::Cpu)?;
    let classes: Vec<u32> = (0..10).flat_map(|class| [class; EACH]).collect();
    let mut table = "| classifier scale | DPM-Solver++ 2M, lambda20 | DDPM, 100 |\n|---|---|---|\n".to_owned();
    for scale in [0.0, 1.0, 2.0, 4.0, 8.0] {
        let mut cells = Vec::new();
        for (sampler, steps) in [(SamplerKind::DpmPlusPlus2M, "lambda20"), (SamplerKind::Ddpm, "100")] {
            let guidance = Guidance { classifier_scale: Some(scale), ..Guidance::default() };
            let settings = Settings { sampler, steps: steps.parse()?, cfg_scale: 1.0, guidance, ..quick() };
            let right = accuracy(&judge, &studio.pictures(settings, &classes)?, &classes)?;
            println!("classifier scale {scale}, {sampler}: {:.1} % right", 100.0 * right);
            cells.push(format!("{:.1} %", 100.0 * right));
        }
        writeln!(table, "| {scale} | {} |", cells.join(" | "))?;
    }
    fs::write(docs.join("classifier-table.md"), table)?;
    Ok(())
}

/// The share of the pictures that are recognised as what they should be.
fn accuracy(judge: &DemoFeatures, pictures: &[Picture], classes: &[u32]) -> Result<f64> {
    let first = pictures.first().ok_or("no pictures")?;
    let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.rgb().to_vec()).collect();
    let shape = [pictures.len() as i64, i64::from(first.height()), i64::from(first.width()), 3];
    let pixels = Tensor::from_slice(&bytes).view(shape).permute([0, 3, 1, 2]); // (N, 3, H, W)
    let _no_grad = tch::no_grad_guard();
    let pixels = pixels.to_kind(Kind::Float) / 127.5 - 1.0;
    let found = judge.logits(&judge.features(&pixels)?)?.argmax(1, false);
    let labels: Vec<i64> = classes.iter().map(|&class| i64::from(class)).collect();
    Ok(found.eq_tensor(&Tensor::from_slice(&labels)).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
}
