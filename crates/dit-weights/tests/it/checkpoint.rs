//! Checkpoints of every format and layout, whole and broken.

use std::{collections::BTreeMap, path::Path};

use crate::common::{fixed_sigma_options, fixture, tiny, weights_of, with_heads};
use dit_weights::{
    BlockDesign, CastSource, Checkpoint, DitConfig, DitSpec, Dtype, Error, LatentSize, Layout, MemorySource, Metadata,
    ModelConfig, OpenOptions, Process, SafetensorsFile, Sigma, StandardModel, TensorSource, TensorView, TorchFile,
    VaeCheckpoint, VaeConfig, WeightsKind, find_non_finite, position_table, torch_save, write_safetensors,
};

fn learned_sigma() -> DitConfig {
    DitConfig::new(DitSpec {
        block: BlockDesign::AdaLnZero,
        hidden: 48,
        depth: 3,
        heads: 4,
        patch: 2,
        mlp_ratio: 4.0,
        in_channels: 4,
        latent: LatentSize::square(8),
        num_classes: 10,
        label_dropout: 0.1,
        sigma: Sigma::Learned,
        numerics: Default::default(),
    })
    .unwrap()
}

fn fixed_sigma() -> DitConfig {
    learned_sigma()
        .with(|spec| {
            *spec = DitSpec {
                hidden: 32,
                depth: 2,
                heads: 2,
                patch: 4,
                mlp_ratio: 2.0,
                in_channels: 3,
                latent: LatentSize::square(16),
                num_classes: 7,
                label_dropout: 0.0,
                sigma: Sigma::Fixed,
                ..spec.clone()
            };
        })
        .unwrap()
}

#[track_caller]
fn check(name: &str, options: &OpenOptions, expected: &DitConfig, layout: Layout) {
    let checkpoint = Checkpoint::open(fixture(name), options).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(checkpoint.config(), expected, "{name}");
    assert_eq!(checkpoint.source_layout(), layout, "{name}");
    assert_eq!(checkpoint.infos().len(), expected.tensors().len(), "{name}");
    assert_eq!(find_non_finite(&checkpoint).unwrap(), [], "{name}");
}

#[test]
fn the_fixtures_open_as_what_they_are() {
    check("dit-learned-sigma/model.safetensors", &with_heads(4), &learned_sigma(), Layout::Original);
    for format in ["pt", "safetensors"] {
        check(&format!("dit-fixed-sigma/model.{format}"), &fixed_sigma_options(), &fixed_sigma(), Layout::Original);
    }
    let diffusers = learned_sigma()
        .with(|spec| {
            spec.hidden = 32;
            spec.depth = 2;
            spec.num_classes = 1000;
        })
        .unwrap();
    for name in ["dit-diffusers", "dit-diffusers/diffusion_pytorch_model.safetensors"] {
        check(name, &OpenOptions::default(), &diffusers, Layout::Diffusers);
    }
}

#[test]
fn pickle_and_safetensors_hold_the_same_values() {
    let open = |file: &str| Checkpoint::open(fixture("dit-fixed-sigma").join(file), &fixed_sigma_options()).unwrap();
    let (pickle, safetensors) = (open("model.pt"), open("model.safetensors"));
    for name in pickle.infos().keys() {
        assert_eq!(pickle.read(name).unwrap(), safetensors.read(name).unwrap(), "{name}");
    }
}

#[test]
fn the_position_table_is_the_one_in_the_checkpoint_to_the_bit() {
    for (folder, config) in [("dit-learned-sigma", learned_sigma()), ("dit-fixed-sigma", fixed_sigma())] {
        let file = SafetensorsFile::open(fixture(folder).join("model.safetensors")).unwrap();
        let stored = file.read("pos_embed").unwrap().to_f32().unwrap();
        assert_eq!(stored, position_table(config.grid(), config.hidden), "{folder}");
    }
}

#[test]
fn diffusers_tensors_become_the_originals() {
    let raw = SafetensorsFile::open(fixture("dit-diffusers/diffusion_pytorch_model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(fixture("dit-diffusers"), &OpenOptions::default()).unwrap();
    let values = |source: &dyn TensorSource, name: &str| source.read(name).unwrap().to_f32().unwrap();
    for i in 0..2 {
        for parameter in ["weight", "bias"] {
            let third = |linear: &str| values(&raw, &format!("transformer_blocks.{i}.attn1.{linear}.{parameter}"));
            let expected = [third("to_q"), third("to_k"), third("to_v")].concat();
            assert_eq!(values(&checkpoint, &format!("blocks.{i}.attn.qkv.{parameter}")), expected);
            for (ours, theirs) in [
                ("attn.proj", "attn1.to_out.0"),
                ("mlp.fc1", "ff.net.0.proj"),
                ("mlp.fc2", "ff.net.2"),
                ("adaLN_modulation.1", "norm1.linear"),
            ] {
                let expected = values(&raw, &format!("transformer_blocks.{i}.{theirs}.{parameter}"));
                assert_eq!(values(&checkpoint, &format!("blocks.{i}.{ours}.{parameter}")), expected);
            }
        }
    }
    let config = checkpoint.config();
    assert_eq!(values(&checkpoint, "pos_embed"), position_table(config.grid(), config.hidden));
}

/// A copy of the tensors of `source`, changed, as a safetensors file beside `config_json`.
fn changed(source: &dyn TensorSource, config_json: Option<&Path>, change: impl FnOnce(&mut MemorySource)) -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = MemorySource::copy_of(source).unwrap();
    change(&mut tensors);
    write_safetensors(folder.path().join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    if let Some(config) = config_json {
        std::fs::copy(config, folder.path().join("config.json")).unwrap();
    }
    Folder(folder)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("model.safetensors")
    }

    fn open(&self, options: &OpenOptions) -> Result<Checkpoint, Error> {
        Checkpoint::open(self.file(), options)
    }
}

fn diffusers() -> (SafetensorsFile, std::path::PathBuf) {
    let raw = SafetensorsFile::open(fixture("dit-diffusers/diffusion_pytorch_model.safetensors")).unwrap();
    (raw, fixture("dit-diffusers/config.json"))
}

#[test]
fn embedders_that_differ_between_blocks_are_refused() {
    let (raw, config) = diffusers();
    for (tensor, canonical) in [
        ("timestep_embedder.linear_1.weight", "t_embedder.mlp.0.weight"),
        ("timestep_embedder.linear_2.bias", "t_embedder.mlp.2.bias"),
        ("class_embedder.embedding_table.weight", "y_embedder.embedding_table.weight"),
    ] {
        let name = format!("transformer_blocks.1.norm1.emb.{tensor}");
        let folder = changed(&raw, Some(&config), |tensors| {
            let copy = tensors.remove(&name).unwrap();
            let mut data = copy.data().to_vec();
            *data.last_mut().unwrap() ^= 1;
            tensors.insert(&name, TensorView::new(copy.dtype(), copy.shape().to_vec(), data).unwrap());
        });
        let error = folder.open(&OpenOptions::default()).unwrap_err();
        assert!(
            matches!(&error, Error::CopiesDiffer { name, first: 0, other: 1 } if name == canonical),
            "{tensor}: {error}"
        );
    }
}

#[test]
fn a_missing_part_of_the_diffusers_layout_is_named() {
    let (raw, config) = diffusers();
    for (name, says) in [
        ("transformer_blocks.1.attn1.to_k.weight", "blocks.1.attn.qkv.weight [96, 32]: its to_k is not there"),
        (
            "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias",
            "t_embedder.mlp.0.bias [32]: the copy of block 1 is not there",
        ),
        ("transformer_blocks.0.ff.net.2.bias", "missing: blocks.0.mlp.fc2.bias [32]"),
    ] {
        let folder = changed(&raw, Some(&config), |tensors| drop(tensors.remove(name).unwrap()));
        let error = folder.open(&OpenOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Mismatch(_)) && error.to_string().contains(says), "{error}");
    }
    let folder = changed(&raw, Some(&config), |tensors| {
        let name = "transformer_blocks.1.attn1.to_k.weight";
        tensors.insert(name, TensorView::from_f32(vec![32, 16], &[0.0; 512]).unwrap());
    });
    let error = folder.open(&OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Parts { name, .. } if name == "blocks.1.attn.qkv.weight"), "{error}");
}

#[test]
fn a_hostile_config_beside_the_weights_costs_nothing() {
    let (raw, config) = diffusers();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    let error = |key: &str, value: u64| {
        let folder = changed(&raw, None, |_| {});
        let mut json = json.clone();
        json[key] = value.into();
        std::fs::write(folder.0.path().join("config.json"), json.to_string()).unwrap();
        folder.open(&OpenOptions::default()).unwrap_err()
    };
    // A position table of 8 GB.
    assert!(matches!(error("sample_size", 1 << 14), Error::LatentUnknown { .. }));
    for (key, value) in [
        ("sample_size", u64::MAX),
        ("sample_size", 0),
        ("sample_size", 7),
        ("num_attention_heads", 0),
        ("num_attention_heads", u64::MAX),
    ] {
        let error = error(key, value);
        assert!(matches!(error, Error::Config(_)), "{key} {value}: {error}");
    }
    assert!(matches!(error("num_embeds_ada_norm", u64::MAX), Error::Conflict { what: "classes", .. }));
}

#[test]
fn every_renamed_or_reshaped_tensor_is_found() {
    let raw = SafetensorsFile::open(fixture("dit-learned-sigma/model.safetensors")).unwrap();
    for name in raw.infos().keys() {
        let renamed = changed(&raw, None, |tensors| {
            let tensor = tensors.remove(name).unwrap();
            tensors.insert(format!("{name}x"), tensor);
        });
        let error = renamed.open(&with_heads(4)).expect_err(name).to_string();
        assert!(error.contains(name.as_str()) || name == "pos_embed" && error.contains("pos_embed"), "{name}: {error}");

        let reshaped = changed(&raw, None, |tensors| {
            let tensor = tensors.remove(name).unwrap();
            let mut shape = tensor.shape().to_vec();
            shape.push(1);
            tensors.insert(name, TensorView::new(tensor.dtype(), shape, tensor.data().to_vec()).unwrap());
        });
        let error = reshaped.open(&with_heads(4)).expect_err(name).to_string();
        assert!(error.contains(name.as_str()), "{name}: {error}");
    }
}

#[test]
fn the_wrong_model_is_told_from_the_right_one() {
    // The smallest of the standard ones, in the smallest element type.
    let config = DitConfig::standard("DiT-S/8".parse().unwrap(), 64).unwrap();
    let source = weights_of(&config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &CastSource::new(&source, Dtype::BF16), &BTreeMap::new()).unwrap();
    assert_eq!(Checkpoint::open(&path, &OpenOptions::default()).unwrap().config(), &config);

    let model = |name: &str| OpenOptions { model: Some(name.parse::<StandardModel>().unwrap()), ..Default::default() };
    assert_eq!(Checkpoint::open(&path, &model("DiT-S/8")).unwrap().config(), &config);
    let error = Checkpoint::open(&path, &model("DiT-B/8")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Mismatch(_)), "{text}");
    assert!(text.contains("x_embedder.proj.weight is [384, 4, 8, 8], expected [768, 4, 8, 8]"), "{text}");
    assert!(text.ends_with("help: this looks like DiT-S/8; pass --model DiT-S/8"), "{text}");
    let error = Checkpoint::open(&path, &OpenOptions { heads: Some(8), ..model("DiT-S/8") }).unwrap_err();
    assert!(matches!(error, Error::Conflict { what: "attention heads", .. }), "{error}");
}

#[test]
fn metadata_says_all_and_an_option_may_not_contradict_it() {
    let config = tiny(BlockDesign::CrossAttention).with(|spec| spec.label_dropout = 0.25).unwrap();
    let names: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
    let metadata = Metadata {
        config: Some(ModelConfig::Dit(config.clone())),
        class_names: Some(names.clone()),
        weights: Some(WeightsKind::Raw),
        step: Some(7),
        ..Metadata::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &weights_of(&config), &metadata.to_map()).unwrap();
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.config(), &config);
    assert_eq!(checkpoint.metadata(), &metadata);
    assert_eq!(checkpoint.process(), Process::original(config.sigma));
    assert_eq!(checkpoint.class_names(), Some(&names[..]));
    assert_eq!(checkpoint.sha256().unwrap(), dit_weights::sha256_of(&[&path]).unwrap());

    let default = OpenOptions::default;
    for (options, what) in [
        (with_heads(2), "attention heads"),
        (OpenOptions { num_classes: Some(6), ..default() }, "classes"),
        (OpenOptions { latent: Some(LatentSize::square(4)), ..default() }, "latent"),
        (OpenOptions { model: Some("DiT-S/2".parse().unwrap()), ..default() }, "model"),
    ] {
        let error = Checkpoint::open(&path, &options).unwrap_err();
        assert!(matches!(&error, Error::Conflict { what: named, .. } if *named == what), "{error}");
    }
    let error = Checkpoint::open(&path, &OpenOptions { weights: Some(WeightsKind::Ema), ..default() }).unwrap_err();
    assert!(error.to_string().contains("has no ema weights: it says that its weights are raw"), "{error}");

    let wrong = Metadata { process: Some(Process::original(Sigma::Fixed)), ..metadata.clone() };
    write_safetensors(&path, &weights_of(&config), &wrong.to_map()).unwrap();
    let error = Checkpoint::open(&path, &default()).unwrap_err().to_string();
    assert!(error.contains("dit.process") && error.contains("sigma"), "{error}");

    let wrong = Metadata { class_names: Some(names[1..].to_vec()), ..metadata };
    write_safetensors(&path, &weights_of(&config), &wrong.to_map()).unwrap();
    let error = Checkpoint::open(&path, &default()).unwrap_err().to_string();
    assert!(error.contains("4 names for 5 classes"), "{error}");
}

#[test]
fn nested_and_wrapped_weights_are_found() {
    let config = tiny(BlockDesign::AdaLnZero);
    let plain = weights_of(&config);
    let other = {
        let mut other = plain.clone();
        let name = "final_layer.linear.bias";
        let shape = other.remove(name).unwrap().shape().to_vec();
        other.insert(name, TensorView::from_f32(shape.clone(), &vec![9.0; shape[0]]).unwrap());
        other
    };
    let put = |into: &mut MemorySource, prefix: &str, from: &MemorySource| {
        for name in from.infos().keys() {
            let view = from.read(name).unwrap();
            let view = TensorView::new(view.dtype(), view.shape().to_vec(), view.data().to_vec()).unwrap();
            into.insert(format!("{prefix}{name}"), view);
        }
    };
    let bias = |prefixes: &[(&str, &MemorySource)], weights: Option<WeightsKind>| {
        let mut nested = MemorySource::default();
        for (prefix, from) in prefixes {
            put(&mut nested, prefix, from);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_safetensors(&path, &nested, &BTreeMap::new()).unwrap();
        let options = OpenOptions { weights, ..with_heads(4) };
        let checkpoint = Checkpoint::open(&path, &options)?;
        let first = checkpoint.read("final_layer.linear.bias").unwrap().to_f32().unwrap()[0];
        Ok::<_, Error>((first == 9.0, checkpoint.metadata().weights))
    };
    let (ema, raw) = (Some(WeightsKind::Ema), Some(WeightsKind::Raw));
    assert_eq!(bias(&[("", &other)], None).unwrap(), (true, None));
    assert_eq!(bias(&[("module.", &other)], None).unwrap(), (true, None));
    assert_eq!(bias(&[("_orig_mod.module.", &other)], None).unwrap(), (true, None));
    let both = [("ema.", &other), ("model.module.", &plain)];
    assert_eq!(bias(&both, None).unwrap(), (true, ema));
    assert_eq!(bias(&both, ema).unwrap(), (true, ema));
    assert_eq!(bias(&both, raw).unwrap(), (false, raw));
    for (prefixes, asked) in [(&both[..1], raw), (&both[1..], ema), (&[("", &plain)], ema)] {
        let error = bias(prefixes, asked).unwrap_err();
        assert!(matches!(error, Error::NoSuchWeights { .. }), "{error}");
    }
}

#[test]
fn a_training_checkpoint_of_the_original_tells_its_step_and_classes() {
    let path = fixture("dit-training/checkpoint.pt");
    let open = |weights| Checkpoint::open(&path, &OpenOptions { weights, ..with_heads(4) }).unwrap();
    let file = TorchFile::open(&path).unwrap();
    for (asked, found, place, prefix) in [
        (None, WeightsKind::Ema, "ema", ""),
        (Some(WeightsKind::Ema), WeightsKind::Ema, "ema", ""),
        (Some(WeightsKind::Raw), WeightsKind::Raw, "model", "module."),
    ] {
        let checkpoint = open(asked);
        assert_eq!(checkpoint.metadata().weights, Some(found));
        assert_eq!(checkpoint.metadata().step, Some(7));
        assert_eq!((checkpoint.config().num_classes, checkpoint.config().null_class()), (5, None));
        let expected = file.state_dict(place).unwrap();
        for name in checkpoint.infos().keys() {
            assert_eq!(checkpoint.read(name).unwrap(), expected.read(&format!("{prefix}{name}")).unwrap(), "{name}");
        }
    }
    let error = Checkpoint::open(&path, &OpenOptions { num_classes: Some(4), ..with_heads(4) }).unwrap_err();
    assert!(matches!(error, Error::Conflict { what: "classes", .. }), "{error}");
}

#[test]
fn the_format_is_told_by_content_not_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        let to = folder.path().join(to);
        std::fs::copy(fixture(from), &to).unwrap();
        to
    };
    for path in [
        copy("dit-fixed-sigma/model.pt", "a.safetensors"),
        copy("dit-fixed-sigma/model.safetensors", "b.pt"),
        copy("dit-fixed-sigma/model.safetensors", "c"),
    ] {
        let checkpoint = Checkpoint::open(&path, &fixed_sigma_options()).unwrap();
        assert_eq!(checkpoint.config(), &fixed_sigma(), "{}", path.display());
    }
}

#[test]
fn files_that_are_no_checkpoints_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let says = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::open(&path, &OpenOptions::default()).unwrap_err().to_string()
    };
    for (bytes, expected) in [
        (&b""[..], "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"\x40\0\0\0\0\0\0\0{", "cut short"),
        (b"\x01\x02\x03", "cut short"),
        (b"\x80\x02}q\0.", "is a plain Python pickle"),
        (b"PK\x03\x04garbage", "x.safetensors"),
    ] {
        let error = says(bytes);
        assert!(error.contains(expected), "{error}");
    }
    let error = Checkpoint::open(fixture("vae-small"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotDit { .. }), "{error}");
    let error = Checkpoint::open(fixture("dit-learned-sigma/io.safetensors"), &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("none of them is a DiT's or an AutoencoderKL's"), "{error}");
    let error = Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotCheckpoint { .. }), "{error}");
    let error = Checkpoint::open(folder.path().join("nothing"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn weights_in_shards_are_one_checkpoint() {
    let (raw, config) = diffusers();
    let tensors = MemorySource::copy_of(&raw).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut shards = [MemorySource::default(), MemorySource::default()];
    let mut map = serde_json::Map::new();
    for (i, name) in raw.infos().keys().enumerate() {
        let mut whole = tensors.clone();
        shards[i % 2].insert(name, whole.remove(name).unwrap());
        map.insert(name.clone(), format!("part-{}.bin", i % 2).into());
    }
    for (i, shard) in shards.iter().enumerate() {
        let views = shard.infos().keys().map(|name| Ok((name.clone(), shard.read(name)?)));
        torch_save::write_state_dict(folder.path().join(format!("part-{i}.bin")), views).unwrap();
    }
    let index = serde_json::json!({"weight_map": map}).to_string();
    std::fs::write(folder.path().join("diffusion_pytorch_model.bin.index.json"), index).unwrap();
    std::fs::copy(config, folder.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap();
    let whole = Checkpoint::open(fixture("dit-diffusers"), &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.files().len(), 2);
    for name in whole.infos().keys() {
        assert_eq!(checkpoint.read(name).unwrap(), whole.read(name).unwrap(), "{name}");
    }
}

#[test]
fn vaes_of_both_spellings_and_as_convolutions_are_the_same() {
    for name in ["vae-small", "vae-f8"] {
        let path = fixture(name).join("diffusion_pytorch_model.safetensors");
        let config = fixture(name).join("config.json");
        let expected = VaeCheckpoint::open(fixture(name)).unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        assert_eq!(expected.config(), &VaeConfig::from_json(&text).unwrap());
        assert_eq!(expected.source_layout(), Layout::Diffusers);
        let raw = SafetensorsFile::open(path).unwrap();
        for as_convolution in [false, true] {
            let folder = changed(&raw, Some(&config), |tensors| {
                for (name, info) in raw.infos() {
                    let former = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
                        .into_iter()
                        .find(|(present, _)| name.contains(&format!("attentions.0.{present}.")))
                        .map(|(present, former)| name.replace(present, former));
                    let Some(former) = former else { continue };
                    let tensor = tensors.remove(name).unwrap();
                    let mut shape = info.shape.clone();
                    if as_convolution && shape.len() == 2 {
                        shape.extend([1, 1]);
                    }
                    tensors.insert(former, TensorView::new(info.dtype, shape, tensor.data().to_vec()).unwrap());
                }
            });
            let vae = VaeCheckpoint::open(folder.file()).unwrap();
            assert_eq!(vae.source_layout(), Layout::DiffusersOld);
            assert_eq!(vae.infos(), expected.infos());
            for name in expected.infos().keys() {
                assert_eq!(vae.read(name).unwrap(), expected.read(name).unwrap(), "{name}");
            }
        }
    }
}

#[test]
fn a_vae_without_its_config_is_not_guessed() {
    let raw = SafetensorsFile::open(fixture("vae-f8/diffusion_pytorch_model.safetensors")).unwrap();
    let bare = changed(&raw, None, |_| {});
    let error = VaeCheckpoint::open(bare.file()).unwrap_err();
    assert!(matches!(error, Error::VaeConfigNeeded { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("levels of width 8/16/32/32 with 2 resnets each and 4 latent channels"), "{text}");
    let config = VaeCheckpoint::open(fixture("vae-f8")).unwrap().config().clone();
    assert_eq!(VaeCheckpoint::open_with_config(bare.file(), config.clone()).unwrap().config(), &config);

    let other = changed(&raw, Some(&fixture("vae-small/config.json")), |_| {});
    let error = VaeCheckpoint::open(other.file()).unwrap_err();
    assert!(matches!(error, Error::Mismatch(_)), "{error}");
    let unsupported = changed(&raw, None, |_| {});
    let path = unsupported.0.path().join("config.json");
    std::fs::write(&path, r#"{"_class_name": "VQModel"}"#).unwrap();
    let error = VaeCheckpoint::open(unsupported.file()).unwrap_err();
    assert!(matches!(&error, Error::ConfigFile { path: named, .. } if *named == path), "{error}");
    let error = VaeCheckpoint::open(fixture("dit-diffusers")).unwrap_err();
    assert!(matches!(error, Error::NotVae { .. }), "{error}");
}
