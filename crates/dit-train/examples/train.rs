//! Trains a small network on a folder of latents: `train LATENTS RUN [RECIPE] [resume]`.

use std::{env, error::Error, fs, path::Path};

use dit_recipe::Recipe;
use dit_train::{Event, Observer, ObserverError, Run, StopRequest};
use tch::Device;

struct Printer;

impl Observer for Printer {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Window(report) => println!("{report:?}"),
            Event::Step(_) | Event::SamplesDue { .. } => {}
            other => println!("{other:?}"),
        }
        Ok(())
    }
}

const RECIPE: &str = "
[model]
hidden = 192
depth = 6
heads = 6
patch = 2
[train]
steps = 200
batch_size = 128
log_every = 20
";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let recipe = match arguments.get(3) {
        Some(path) => fs::read_to_string(path)?,
        None => RECIPE.to_owned(),
    };
    let recipe = Recipe::from_toml(&recipe, &[])?;
    let (data, folder) = (Path::new(&arguments[1]), Path::new(&arguments[2]));
    let mut run = match arguments.get(4) {
        Some(_) => Run::resume(&recipe, data, folder, Device::Cpu)?,
        None => Run::start(&recipe, data, folder, Device::Cpu)?,
    };
    println!("{:?}", run.train(&mut Printer, &StopRequest::new())?);
    Ok(())
}
