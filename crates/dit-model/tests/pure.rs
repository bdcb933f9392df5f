//! Alone in its program: libtorch's random generator is one per process.

use dit_model::{Dit, DitConfig, Initialization};
use tch::{Device, Kind, Tensor, nn::VarStore};

#[test]
fn neither_building_nor_running_touches_the_global_generator() {
    let options = (Kind::Float, Device::Cpu);
    tch::manual_seed(11);
    let expected = Tensor::randn([8], options);

    tch::manual_seed(11);
    let config = "DiT-S/8".parse::<DitConfig>().unwrap().with(|spec| spec.depth = 1).unwrap();
    let store = VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 });
    let (x, t, labels) =
        (Tensor::ones([1, 4, 32, 32], options), Tensor::from(7.5).view(1), Tensor::from(3_i64).view(1));
    dit.try_forward(&x, &t, &labels).unwrap().sum(None).backward();
    assert_eq!(Tensor::randn([8], options), expected);
}
