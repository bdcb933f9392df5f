//! Conversions there and back, and those that must leave nothing behind.

use std::{collections::BTreeMap, fs, path::Path};

use dit_weights::{
    BlockDesign, Checkpoint, ConvertOptions, Converted, Dtype, Error, LatentSize, Layout, MemorySource, Metadata,
    ModelConfig, Network, NoiseScheduleKind, Numerics, Origin, Predict, Process, Progress, SafetensorsFile,
    TensorSource, TensorView, VaeCheckpoint, WriteError, convert, sha256_of, write_safetensors,
};
use half::{bf16, f16};

use crate::common::{fixed_sigma_options, fixture, tiny, weights_of, with_heads};

fn heads(heads: usize) -> ConvertOptions {
    ConvertOptions { open: with_heads(heads), ..ConvertOptions::default() }
}

fn run(input: &Path, output: &Path, options: &ConvertOptions) -> Result<Converted, Error> {
    convert(input, output, options, &mut |_| {})
}

#[track_caller]
fn check_same_tensors(a: &dyn TensorSource, b: &dyn TensorSource) {
    assert_eq!(a.infos(), b.infos());
    for name in a.infos().keys() {
        assert_eq!(a.read(name).unwrap(), b.read(name).unwrap(), "{name}");
    }
}

/// Names of what is in `folder`, hidden files included.
fn listing(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn to_diffusers_and_back_gives_the_same_bytes() {
    let safetensors = fixture("dit-learned-sigma/model.safetensors");
    let inputs = tempfile::tempdir().unwrap();
    let pickle = inputs.path().join("model.pt");
    run(&safetensors, &pickle, &heads(4)).unwrap();
    for input in [&pickle, &safetensors] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let first = run(input, &at("first.safetensors"), &heads(4)).unwrap();
        assert_eq!((first.from, first.to), (Layout::Original, Layout::Original));
        // From here on the file says everything itself.
        let plain = ConvertOptions::default();
        let out = run(&at("first.safetensors"), &at("exported"), &plain).unwrap();
        assert_eq!((out.from, out.to), (Layout::Original, Layout::Diffusers));
        assert_eq!(listing(&at("exported")), ["config.json", "diffusion_pytorch_model.safetensors"]);
        let back = run(&at("exported"), &at("back.safetensors"), &plain).unwrap();
        assert_eq!((back.from, back.to), (Layout::Diffusers, Layout::Original));
        assert_eq!(fs::read(at("first.safetensors")).unwrap(), fs::read(at("back.safetensors")).unwrap());

        run(&at("back.safetensors"), &at("plain.pt"), &plain).unwrap();
        let source = Checkpoint::open(&safetensors, &with_heads(4)).unwrap();
        let plain = Checkpoint::open(at("plain.pt"), &with_heads(4)).unwrap();
        check_same_tensors(&source, &plain);
        assert_eq!(listing(folder.path()), ["back.safetensors", "exported", "first.safetensors", "plain.pt"]);
    }
}

#[test]
fn a_diffusers_checkpoint_comes_back_tensor_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours.safetensors"), folder.path().join("theirs"));
    let original = fixture("dit-diffusers");
    run(&original, &ours, &ConvertOptions::default()).unwrap();
    run(&ours, &theirs, &ConvertOptions::default()).unwrap();
    let open = |folder: &Path| SafetensorsFile::open(folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    check_same_tensors(&open(&original), &open(&theirs));
    let config = |folder: &Path| -> serde_json::Value {
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
        // diffusers' default is 1e-5, which only its own arithmetic needs.
        config.as_object_mut().unwrap().remove("norm_eps").unwrap();
        config
    };
    assert_eq!(config(&original), config(&theirs));
}

#[test]
fn the_exported_epsilon_follows_the_arithmetic() {
    let folder = tempfile::tempdir().unwrap();
    for (numerics, epsilon) in [(Numerics::Original, 1e-6), (Numerics::Diffusers, 1e-5)] {
        let mut options = ConvertOptions::default();
        options.open.numerics = Some(numerics);
        let output = folder.path().join(format!("{numerics:?}"));
        run(&fixture("dit-diffusers"), &output, &options).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(output.join("config.json")).unwrap()).unwrap();
        assert_eq!(json["norm_eps"], epsilon);
        let again = Checkpoint::open(&output, &Default::default()).unwrap();
        assert_eq!(again.config().numerics, numerics);
    }
}

#[test]
fn what_is_written_says_where_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.safetensors");
    let input = fixture("dit-fixed-sigma/model.pt");
    let names: Vec<String> = (0..7).map(|i| format!("class {i}")).collect();
    let open = ConvertOptions { open: fixed_sigma_options(), ..ConvertOptions::default() };
    let options = ConvertOptions {
        class_names: Some(names.clone()),
        metadata: BTreeMap::from([("license".to_owned(), "MIT".to_owned())]),
        ..open.clone()
    };
    let mut steps = Vec::new();
    let converted = convert(&input, &output, &options, &mut |progress| steps.push(progress)).unwrap();
    let expected = Metadata {
        config: Some(converted.config.clone()),
        class_names: Some(names),
        origin: Some(Origin { name: "model.pt".to_owned(), sha256: sha256_of(&[&input]).unwrap() }),
        other: BTreeMap::from([("license".to_owned(), "MIT".to_owned())]),
        ..Metadata::default()
    };
    let written = Checkpoint::open(&output, &Default::default()).unwrap();
    assert_eq!(written.metadata(), &expected);
    assert_eq!(steps.last(), Some(&Progress { written: converted.bytes, total: converted.bytes }));
    assert!(steps.is_sorted_by_key(|step| step.written));
    assert_eq!(steps.len(), written.infos().len());

    let wrong = ConvertOptions { class_names: Some(vec!["one".to_owned()]), ..open };
    let error = run(&input, &folder.path().join("x.safetensors"), &wrong).unwrap_err();
    assert!(error.to_string().contains("1 class names for 7 classes"), "{error}");
}

#[test]
fn every_weight_is_rounded_as_half_rounds_it_and_the_table_stays_exact() {
    let folder = tempfile::tempdir().unwrap();
    let input = fixture("dit-learned-sigma/model.safetensors");
    let source = Checkpoint::open(&input, &with_heads(4)).unwrap();
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let output = folder.path().join(format!("{dtype}.safetensors"));
        run(&input, &output, &ConvertOptions { dtype: Some(dtype), ..heads(4) }).unwrap();
        let converted = Checkpoint::open(&output, &Default::default()).unwrap();
        for (name, info) in converted.infos() {
            let before = source.read(name).unwrap().to_f32().unwrap();
            let after = converted.read(name).unwrap();
            let expected: Vec<u8> = match dtype {
                _ if name == "pos_embed" => before.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Dtype::BF16 => before.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
                Dtype::F16 => before.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
                _ => before.iter().flat_map(|v| v.to_le_bytes()).collect(),
            };
            assert_eq!(info.dtype, if name == "pos_embed" { Dtype::F32 } else { dtype }, "{name}");
            assert_eq!(after.data(), expected, "{name} as {dtype}");
        }
    }
}

#[test]
fn weights_become_no_integers() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.safetensors");
    for dtype in Dtype::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
        let options = ConvertOptions { dtype: Some(dtype), ..heads(4) };
        let error = run(&fixture("dit-learned-sigma/model.safetensors"), &output, &options).unwrap_err();
        assert!(matches!(error, Error::IntegerTarget { dtype: told } if told == dtype), "{error}");
    }
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn a_vae_keeps_its_configuration_in_a_file_and_in_a_folder() {
    for name in ["vae-small", "vae-f8"] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let options = ConvertOptions::default();
        let converted = run(&fixture(name), &at("single.safetensors"), &options).unwrap();
        assert!(matches!(converted.config, ModelConfig::Vae(_)));
        run(&at("single.safetensors"), &at("vae"), &options).unwrap();
        let source = VaeCheckpoint::open(fixture(name)).unwrap();
        for copy in [at("single.safetensors"), at("vae")] {
            let copy = VaeCheckpoint::open(copy).unwrap();
            assert_eq!(copy.config(), source.config());
            check_same_tensors(&source, &copy);
        }
        // The folder's config.json alone is enough for other programs' files.
        fs::copy(
            fixture(name).join("diffusion_pytorch_model.safetensors"),
            at("vae").join("diffusion_pytorch_model.safetensors"),
        )
        .unwrap();
        assert_eq!(VaeCheckpoint::open(at("vae")).unwrap().config(), source.config());
        let network = Network::open(at("vae"), &Default::default()).unwrap();
        assert!(matches!(network, Network::Vae(_)));
    }
}

#[test]
fn a_conversion_that_fails_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = tiny(BlockDesign::AdaLnZero).with(|spec| spec.latent = LatentSize::square(4)).unwrap();
    let mut source = weights_of(&config);
    // The last tensor of the file does not fit f16.
    let (name, shape) = ("y_embedder.embedding_table.weight", vec![6, 16]);
    source.insert(name, TensorView::from_f32(shape, &[1e6; 96]).unwrap());
    let metadata = Metadata { config: Some(ModelConfig::Dit(config)), ..Metadata::default() };
    write_safetensors(at("in.safetensors"), &source, &metadata.to_map()).unwrap();
    fs::write(at("old.safetensors"), "old").unwrap();
    fs::create_dir(at("old")).unwrap();
    fs::write(at("old").join("config.json"), "old").unwrap();
    let before = listing(folder.path());
    let options = ConvertOptions { dtype: Some(Dtype::F16), ..ConvertOptions::default() };
    for output in ["new.safetensors", "old.safetensors", "new.pt", "new", "old"] {
        let error = run(&at("in.safetensors"), &at(output), &options).unwrap_err();
        let named = if matches!(output, "new" | "old") { "embedding_table.weight" } else { name };
        assert!(
            matches!(&error, Error::OutOfRange { name, value: 1e6, dtype: Dtype::F16 } if name.ends_with(named)),
            "{output}: {error}"
        );
        assert_eq!(listing(folder.path()), before, "{output}");
    }
    assert_eq!(listing(&at("old")), ["config.json"]);
    assert_eq!(fs::read(at("old.safetensors")).unwrap(), b"old");
    assert_eq!(fs::read(at("old").join("config.json")).unwrap(), b"old");

    for output in ["x.safetensors", "x"] {
        let nowhere = at("no such folder").join(output);
        let error = run(&at("in.safetensors"), &nowhere, &ConvertOptions::default()).unwrap_err();
        let Error::Write(WriteError::MissingFolder { path, .. }) = &error else { panic!("{error}") };
        assert_eq!(*path, nowhere);
    }
}

/// A source that describes a tensor it then cannot give.
struct Broken(MemorySource);

impl TensorSource for Broken {
    fn infos(&self) -> &BTreeMap<String, dit_weights::TensorInfo> {
        self.0.infos()
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        match name {
            "b" => TensorView::from_f32(vec![3], &[0.0; 3]),
            _ => self.0.read(name),
        }
    }
}

#[test]
fn a_tensor_that_is_not_as_described_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = || TensorView::from_f32(vec![2], &[1.0, 2.0]).unwrap();
    let source = Broken(MemorySource::from_iter([("a", tensor()), ("b", tensor())]));
    let error = write_safetensors(folder.path().join("x"), &source, &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, Error::DataLength { actual: 12, .. }), "{error}");
    assert_eq!(listing(folder.path()), Vec::<String>::new());
}

#[track_caller]
fn check_given(output: &str, names: bool, key: Option<&str>, refused: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let options = ConvertOptions {
        class_names: names.then(|| (0..7).map(|i| format!("class {i}")).collect()),
        metadata: key.map(|key| (key.to_owned(), "v".to_owned())).into_iter().collect(),
        ..ConvertOptions { open: fixed_sigma_options(), ..ConvertOptions::default() }
    };
    let result = run(&fixture("dit-fixed-sigma/model.pt"), &folder.path().join(output), &options);
    match (result, refused) {
        (Ok(_), None) => {}
        (Err(error @ (Error::Unwritable { .. } | Error::ReservedKey { .. })), Some(says)) => {
            assert!(error.to_string().contains(says), "{error}");
            assert!(listing(folder.path()).is_empty());
        }
        (result, _) => panic!("{output}: {result:?}, expected {refused:?}"),
    }
}

#[test]
fn what_is_given_for_the_metadata_is_written_or_refused() {
    check_given("x.pt", false, None, None);
    check_given("x.pt", true, None, Some("a .pt file has no place for class names"));
    check_given("x.pth", false, Some("license"), Some("a .pt file has no place for metadata"));
    for output in ["x.safetensors", "x.pt"] {
        check_given(output, false, Some("dit.step"), Some("\"dit.step\" cannot be given"));
        check_given(output, false, Some("dit.of a later version"), Some("cannot be given"));
        check_given(output, false, Some("format"), Some("\"format\" cannot be given"));
    }
    check_given("x.safetensors", true, Some("dit"), None);
}

#[track_caller]
fn check_unwritable(input: &Path, output: &Path, layout: Option<Layout>, says: &str) {
    let options = ConvertOptions { layout, ..ConvertOptions::default() };
    let error = run(input, output, &options).unwrap_err();
    assert!(matches!(error, Error::Unwritable { .. }) && error.to_string().contains(says), "{error}");
}

#[test]
fn what_an_output_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (dit, vae) = (fixture("dit-diffusers"), fixture("vae-small"));
    check_unwritable(&dit, &at("x.bin"), None, ".bin file is not among the formats");
    check_unwritable(&dit, &at("x"), Some(Layout::Original), "a folder holds diffusers' layout");
    check_unwritable(&dit, &at("x.pt"), Some(Layout::Diffusers), "a .pt file holds the original's layout");
    check_unwritable(&vae, &at("x.pt"), None, "no place for the VAE's configuration");
    check_unwritable(&vae, &at("x.safetensors"), Some(Layout::Original), "a VAE has only diffusers' layout");
    check_unwritable(&vae, &at("x.safetensors"), Some(Layout::DiffusersOld), "read, not written");
    check_unwritable(&dit, &dit, None, "it is the input");

    for (block, change, says) in [
        (BlockDesign::InContext, 4.0, "its blocks are in-context"),
        (BlockDesign::AdaLnZero, 2.0, "its MLP ratio is 2"),
    ] {
        let config = tiny(block).with(|spec| spec.mlp_ratio = change).unwrap();
        let metadata = Metadata { config: Some(ModelConfig::Dit(config.clone())), ..Metadata::default() };
        write_safetensors(at("in.safetensors"), &weights_of(&config), &metadata.to_map()).unwrap();
        check_unwritable(&at("in.safetensors"), &at("x"), None, says);
        check_unwritable(&at("in.safetensors"), &at("x"), None, "its latent is 4x12");
        // The same file in the original's layout is fine.
        run(&at("in.safetensors"), &at("out.safetensors"), &ConvertOptions::default()).unwrap();
    }

    // A table that is not the computed one, trained for instance, would be lost.
    let config = tiny(BlockDesign::AdaLnZero).with(|spec| spec.latent = LatentSize::square(4)).unwrap();
    let metadata = Metadata { config: Some(ModelConfig::Dit(config.clone())), ..Metadata::default() };
    let mut source = weights_of(&config);
    let mut table = source.read("pos_embed").unwrap().to_f32().unwrap();
    table[5] += 0.01;
    source.insert("pos_embed", TensorView::from_f32(vec![1, 4, 16], &table).unwrap());
    write_safetensors(at("in.safetensors"), &source, &metadata.to_map()).unwrap();
    check_unwritable(&at("in.safetensors"), &at("x"), None, "its position table is not the one");
    assert_eq!(listing(folder.path()), ["in.safetensors", "out.safetensors"]);
}

#[test]
fn the_process_is_kept_where_it_can_be_and_nowhere_lost() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = tiny(BlockDesign::AdaLnZero).with(|spec| spec.latent = LatentSize::square(4)).unwrap();
    let weights = &weights_of(&config);
    let original = Process::original(config.sigma);
    let cosine = Process { schedule: NoiseScheduleKind::Cosine, steps: 500, predict: Predict::V, ..original };
    for process in [original, cosine] {
        let config = Some(ModelConfig::Dit(config.clone()));
        let metadata = Metadata { config, process: Some(process), ..Metadata::default() };
        write_safetensors(at("in.safetensors"), &weights, &metadata.to_map()).unwrap();
        let plain = ConvertOptions::default();
        for (from, to) in [("in.safetensors", "a.safetensors"), ("a.safetensors", "hub"), ("hub", "b.safetensors")] {
            let converted = run(&at(from), &at(to), &plain).unwrap();
            assert_eq!(converted.process, Some(process));
            assert_eq!(Checkpoint::open(at(to), &Default::default()).unwrap().process(), process, "{to}");
        }
        match run(&at("a.safetensors"), &at("c.pt"), &plain) {
            Ok(_) => assert!(process.is_original()),
            Err(error) => {
                assert_eq!(process, cosine);
                let text = error.to_string();
                assert!(text.contains("cosine schedule of 500 steps") && text.contains(".safetensors"), "{text}");
            }
        }
        fs::remove_dir_all(at("hub")).unwrap();
    }
}
