//! Converts a checkpoint: to safetensors, to a PyTorch state dict, or to a diffusers folder, by the output's name.
//!
//! `cargo run -p dit-weights --example convert -- INPUT OUTPUT [--num-heads N]`

use std::{env, error::Error, process::ExitCode};

use dit_weights::{ConvertOptions, OpenOptions, convert};

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
    let (input, output, heads) = match &arguments[..] {
        [input, output] => (input, output, None),
        [input, output, flag, heads] if flag == "--num-heads" => (input, output, Some(heads.parse()?)),
        _ => return Err("usage: convert INPUT OUTPUT [--num-heads N]".into()),
    };
    let open = OpenOptions { heads, ..OpenOptions::default() };
    let options = ConvertOptions { open, ..ConvertOptions::default() };
    let converted = convert(input, output, &options, &mut |_| {})?;
    println!("{} to {}: {} bytes of weights", converted.from, converted.to, converted.bytes);
    for file in converted.files {
        println!("{}", file.display());
    }
    Ok(())
}
