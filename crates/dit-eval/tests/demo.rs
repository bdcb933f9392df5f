//! The demo's feature network, as it is in the repository.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use dit_data::Source;
use dit_eval::{DemoFeatures, GreyPictures, demo_accuracy};
use tch::Device;

/// What the documentation promises.
const LEAST_ACCURACY: f64 = 0.91;
const MOST_BYTES: u64 = 2_000_000;

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/demo/features-fashion.safetensors")
}

#[test]
fn the_file_is_small_and_says_how_good_it_is() {
    assert!(fs::metadata(file()).unwrap().len() <= MOST_BYTES);
    let network = DemoFeatures::load(&file(), Device::Cpu).unwrap();
    let accuracy = network.test_accuracy().unwrap();
    assert!((LEAST_ACCURACY..1.0).contains(&accuracy), "{accuracy}");
    assert_eq!(network.class_names().len(), 10);
}

#[test]
fn it_is_as_good_as_it_says() {
    // Where Debian's package dataset-fashion-mnist puts it, unless a variable says another place.
    let debian = "/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz";
    let test_set = env::var_os("DIT_FASHION_MNIST_TEST").unwrap_or(debian.into());
    if !Path::new(&test_set).is_file() {
        eprintln!("SKIPPED: {} is not there; DIT_FASHION_MNIST_TEST may name it", test_set.display());
        return;
    }
    let pictures = GreyPictures::load(&Source::open(Path::new(&test_set)).unwrap()).unwrap();
    let network = DemoFeatures::load(&file(), Device::Cpu).unwrap();
    let found = demo_accuracy(&network, &pictures).unwrap();
    // Rounding may decide about a picture that two classes fit alike.
    let told = network.test_accuracy().unwrap();
    assert!((found - told).abs() < 3.5 / pictures.len() as f64, "{found}, and the file says {told}");
    assert!(found >= LEAST_ACCURACY, "{found}");
}
