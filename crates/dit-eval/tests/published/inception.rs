//! Every layer of the network with weights that both languages draw.

use dit_eval::{FeatureNetwork, Inception, Preprocessing};
use dit_weights::{MemorySource, SafetensorsFile, TensorView};
use tch::{Device, Tensor};

use crate::{fixture, relative_error, tensor};

/// As `tests/fixtures/inception_weights.py`: splitmix64 of the name's FNV-1a hash, 24 bits.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let fold = |key: u64, byte: u8| (key ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let key = name.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    (1..=count as u64).map(move |index| {
        let mut z = key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
    })
}

fn draw(name: &str, shape: &[usize]) -> TensorView<'static> {
    let fan_in: usize = shape.iter().skip(1).product();
    let scale = |u: f64| match name {
        _ if name.ends_with("bn.weight") || name.ends_with("bn.running_var") => 0.75 + 0.5 * u,
        _ if name.ends_with("bn.bias") || name.ends_with("bn.running_mean") || name.ends_with("fc.bias") => {
            0.4 * (u - 0.5)
        }
        _ => (2.0 * u - 1.0) * (6.0 / fan_in as f64).sqrt(),
    };
    let values: Vec<f32> = uniform(name, shape.iter().product()).map(|u| scale(u) as f32).collect();
    TensorView::from_f32(shape.to_vec(), &values).unwrap()
}

fn weights() -> MemorySource {
    let specs = Inception::specs().unwrap();
    specs
        .into_iter()
        .map(|spec| {
            let values = draw(&spec.name, &spec.shape);
            (spec.name, values)
        })
        .collect()
}

fn network(preprocessing: Preprocessing) -> Inception {
    Inception::of_source(&weights(), preprocessing, Device::Cpu, String::new()).unwrap()
}

/// The values of a layer that the fixture has.
fn sample(x: &Tensor) -> Tensor {
    let flat = x.contiguous().flatten(0, -1);
    let index: Vec<i64> = (0..96).map(|i| (i * 7919) % flat.numel() as i64).collect();
    flat.index_select(0, &Tensor::from_slice(&index))
}

/// Folding the normalisations and joining poolings with projections moves values by rounding: 2e-6 seen.
const TOLERANCE: f64 = 1e-5;

/// Every layer's output, against the fixture's under `recorded`.
#[track_caller]
fn check_layers(file: &SafetensorsFile, network: &Inception, recorded: &str) {
    let mut seen = 0;
    let last = network
        .walk(&network.prepare(&tensor(file, "pictures")).unwrap(), &mut |layer, x| {
            let error = relative_error(&sample(x), &tensor(file, &format!("{recorded}.{layer}")));
            assert!(error < TOLERANCE, "{recorded}.{layer}: {error}");
            seen += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!((seen, last.size()), (16, vec![2, 2048, 8, 8]));
}

#[test]
fn every_layer_is_torch_fidelitys() {
    let file = SafetensorsFile::open(fixture("inception.safetensors")).unwrap();
    let network = network(Preprocessing::TensorFlow);
    check_layers(&file, &network, "layer");
    let features = network.extract(&tensor(&file, "pictures")).unwrap();
    for (name, found) in [("pooled", Some(features.pooled)), ("spatial", features.spatial), ("logits", features.logits)]
    {
        let error = relative_error(&found.unwrap(), &tensor(&file, name));
        assert!(error < TOLERANCE, "{name}: {error}");
    }
}

#[test]
fn every_layer_after_the_other_preprocessing_is_pytorch_fids() {
    let file = SafetensorsFile::open(fixture("inception.safetensors")).unwrap();
    let network = network(Preprocessing::PytorchFid);
    check_layers(&file, &network, "pytorch_fid");
    let found = network.extract(&tensor(&file, "pictures")).unwrap().pooled;
    let error = relative_error(&found, &tensor(&file, "pytorch_fid_pooled"));
    assert!(error < TOLERANCE, "{error}");
    // The two ways do differ.
    assert!(relative_error(&found, &tensor(&file, "pooled")) > 100.0 * TOLERANCE);
}

#[test]
fn weights_are_checked_strictly() {
    let mut source = weights();
    source.remove("Mixed_6c.branch7x7_2.bn.bias");
    source.insert("AuxLogits.fc.bias", TensorView::from_f32(vec![1], &[0.0]).unwrap());
    source.insert("fc.bias", TensorView::from_f32(vec![1000], &[0.0; 1000]).unwrap());
    // Not weights: ignored.
    source.insert("Mixed_5b.branch1x1.bn.num_batches_tracked", TensorView::from_f32(vec![], &[1.0]).unwrap());
    let error = Inception::of_source(&source, Preprocessing::TensorFlow, Device::Cpu, String::new()).unwrap_err();
    let message = error.to_string();
    for part in [
        "1 missing, 1 unexpected, 1 of another shape",
        "Mixed_6c.branch7x7_2.bn.bias",
        "AuxLogits.fc.bias",
        "fc.bias is [1000]",
    ] {
        assert!(message.contains(part), "no '{part}' in {message}");
    }
}
