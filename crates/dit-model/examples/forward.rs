//! A small model from scratch, its shapes and its cost: `cargo run -p dit-model --example forward`.

use dit_model::{Dit, DitConfig, Initialization};
use tch::{Device, Kind, Tensor, nn::VarStore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = "DiT-S/8".parse::<DitConfig>()?.with(|spec| spec.depth = 3)?;
    let store = VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 });
    println!("{config}: {} parameters, {:.3} GMACs per sample", config.parameters(), config.macs() as f64 / 1e9);

    let x = Tensor::randn([2, 4, 32, 32], (Kind::Float, Device::Cpu));
    let t = Tensor::from_slice(&[999_i64, 12]);
    let labels = Tensor::from_slice(&[207_i64, 1000]);
    dit.check_input(&x, &t, &labels)?;

    // `dit.forward(&x, &t, &labels)`, step by step.
    let _no_grad = tch::no_grad_guard();
    let c = dit.condition(&t, &labels);
    println!("conditioning   {:?}", c.size());
    let mut sequence = dit.embed(&x, &c);
    println!("patch tokens   {:?}", sequence.size());
    for (i, block) in dit.blocks().iter().enumerate() {
        sequence = block.forward(&sequence, &c);
        println!("after block {i}  {:?}", sequence.size());
    }
    let tokens = dit.final_tokens(&sequence, &c);
    println!("output tokens  {:?}", tokens.size());
    let output = dit.unpatchify(&tokens);
    println!(
        "output         {:?}, all zero before training: {}",
        output.size(),
        output.count_nonzero(None).int64_value(&[]) == 0
    );
    Ok(())
}
