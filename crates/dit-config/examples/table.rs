//! The paper's table 1 and table 4 from the configurations alone: `cargo run -p dit-config --example table`.

use dit_config::{BlockDesign, ConfigError, DitConfig, StandardModel};

fn main() -> Result<(), ConfigError> {
    for model in StandardModel::ALL {
        print_row(&DitConfig::standard(model, 256)?);
    }
    for design in BlockDesign::ALL {
        print_row(&"DiT-XL/2".parse::<DitConfig>()?.with(|spec| spec.block = design)?);
    }
    Ok(())
}

fn print_row(config: &DitConfig) {
    println!(
        "{:24} {:>12} parameters {:>8.2} GMACs",
        config.to_string(),
        config.parameters(),
        config.macs() as f64 / 1e9
    );
}
