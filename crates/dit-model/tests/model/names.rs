//! The variable stores of all configurations hold exactly the tensors that dit-config lists.

use crate::common::{Tensors, slow_tests};
use dit_model::{BlockDesign, Dit, DitConfig, Initialization, Size, StandardModel};
use tch::{Device, nn::VarStore};

#[track_caller]
fn check(config: &DitConfig) {
    let store = VarStore::new(Device::Cpu);
    let _dit = Dit::new(&store.root(), config, Initialization::Empty);
    let variables: Tensors = store.variables().into_iter().collect();

    let mut expected = config.tensors();
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    let shape = |extents: &[usize]| extents.iter().map(|&extent| extent as i64).collect::<Vec<_>>();
    let ours: Vec<_> = variables.iter().map(|(name, tensor)| (name.as_str(), tensor.size())).collect();
    let listed: Vec<_> = expected.iter().map(|spec| (spec.name.as_str(), shape(&spec.shape))).collect();
    assert_eq!(ours, listed, "{config}");

    let held: usize = variables.values().map(|tensor| tensor.numel()).sum();
    assert_eq!(held as u64, config.parameters(), "{config}");
    assert_eq!(store.trainable_variables().len(), expected.len() - 1, "{config}: all but pos_embed");
}

fn standard(model: StandardModel) -> DitConfig {
    DitConfig::standard(model, 256).unwrap()
}

#[test]
fn the_standard_models() {
    for model in StandardModel::ALL {
        match model.size {
            Size::S => check(&standard(model)),
            // Two blocks say as much as 28 where memory is dear; `full_size_models` builds the whole.
            Size::B | Size::L | Size::XL => check(&standard(model).with(|spec| spec.depth = 2).unwrap()),
        }
    }
}

#[test]
fn the_four_designs() {
    for design in BlockDesign::ALL {
        check(&"DiT-S/2".parse::<DitConfig>().unwrap().with(|spec| spec.block = design).unwrap());
    }
}

#[test]
fn full_size_models() {
    if slow_tests("all standard models at full depth, up to 2.7 GB each") {
        StandardModel::ALL.into_iter().for_each(|model| check(&standard(model)));
        for design in BlockDesign::ALL {
            check(&"DiT-XL/2".parse::<DitConfig>().unwrap().with(|spec| spec.block = design).unwrap());
        }
    }
}
