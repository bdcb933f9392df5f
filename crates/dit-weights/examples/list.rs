//! Lists the tensors of a checkpoint as the toolkit names them, and what the network is.
//!
//! `cargo run -p dit-weights --example list -- FILE [--num-heads N]`

use std::{env, error::Error, process::ExitCode};

use dit_weights::{ModelConfig, Network, OpenOptions};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (path, heads) = match &arguments[..] {
        [path] => (path, None),
        [path, flag, heads] if flag == "--num-heads" => (path, Some(heads.parse()?)),
        _ => return Err("usage: list FILE [--num-heads N]".into()),
    };
    let network = Network::open(path, &OpenOptions { heads, ..OpenOptions::default() })?;
    for (name, info) in network.tensors().infos() {
        println!("{:5} {:20} {name}", info.dtype.name(), format!("{:?}", info.shape));
    }
    match network.config() {
        ModelConfig::Dit(config) => println!("\n{config}, {} parameters", config.parameters()),
        ModelConfig::Vae(config) => println!("\nAutoencoderKL, {} parameters", config.parameters()),
    }
    println!("layout in the file: {}", network.source_layout());
    Ok(())
}
