//! A diffusers folder: where its weights are, and what its JSON files say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use dit_config::{DitConfig, LatentSize, Numerics};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Error, hints::Hints};

/// The weights' file in a folder that diffusers writes.
pub(crate) const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
/// The configuration beside them.
pub(crate) const CONFIG: &str = "config.json";
/// Names under which weights are looked for, best first. An index lists the files that they are spread over.
const CANDIDATES: [&str; 6] = [
    WEIGHTS,
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.bin",
];
/// Longest JSON file read: an index of a hundred thousand tensors.
const MAX_JSON: u64 = 16 << 20;

/// Where a checkpoint's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// The weights: one file, or all shards.
    pub(crate) weights: Vec<PathBuf>,
    /// The folder of the weights.
    pub(crate) folder: PathBuf,
}

/// The weights at `path`: the file itself, or those of the folder, or of its subfolder `part` (`transformer`, `vae`).
///
/// # Errors
/// [`Error::NotCheckpoint`] where a folder has none, [`Error::ConfigFile`] for a bad index, [`Error::Io`].
pub(crate) fn locate(path: &Path, part: &str) -> Result<Located, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
    if !metadata.is_dir() {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok(Located { weights: vec![path.to_owned()], folder });
    }
    for folder in [path.join(part), path.to_owned()] {
        for candidate in CANDIDATES {
            let file = folder.join(candidate);
            if file.is_file() {
                let weights = if candidate.ends_with(".json") { shards(&file, &folder)? } else { vec![file] };
                return Ok(Located { weights, folder });
            }
        }
    }
    Err(Error::NotCheckpoint {
        path: path.to_owned(),
        problem: format!("neither it nor its folder {part} holds {WEIGHTS} or diffusion_pytorch_model.bin"),
        help: "name the checkpoint's file, or a folder that diffusers wrote",
    })
}

/// The files that the index at `path` names, each once.
fn shards(path: &Path, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = read_json(path)?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // Names, not paths: an index must not lead out of its folder.
    if let Some(bad) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        let problem = format!("it names the file {bad:?}, which is not one of its folder");
        return Err(Error::ConfigFile { path: path.to_owned(), problem });
    }
    if names.is_empty() {
        return Err(Error::ConfigFile { path: path.to_owned(), problem: "it names no files".to_owned() });
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Reads the JSON file at `path`.
///
/// # Errors
/// [`Error::Io`], [`Error::ConfigFile`].
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let problem = |problem: String| Error::ConfigFile { path: path.to_owned(), problem };
    let length = fs::metadata(path).map_err(Error::io("open", path))?.len();
    if length > MAX_JSON {
        return Err(problem(format!("{length} bytes are too many for a configuration")));
    }
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| problem(error.to_string()))
}

/// What the `config.json` of a folder says of its DiT; no hints where there is no such file or it is another program's.
///
/// # Errors
/// [`Error::ConfigFile`] where the model it describes computes something else than a DiT.
pub(crate) fn dit_hints(folder: &Path) -> Result<Hints, Error> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Ok(Hints::default());
    }
    let config: Value = read_json(&path)?;
    let class = config.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    // Before it had a class of its own, diffusers' DiT was a setting of the second.
    if !matches!(class, "DiTTransformer2DModel" | "Transformer2DModel") {
        tracing::debug!(path = %path.display(), class, "not a DiT's configuration; ignored");
        return Ok(Hints::default());
    }
    let mut problems = Vec::new();
    for (key, supported) in [
        ("activation_fn", json!("gelu-approximate")),
        ("norm_type", json!("ada_norm_zero")),
        ("norm_elementwise_affine", json!(false)),
    ] {
        if let Some(value) = config.get(key).filter(|value| **value != supported) {
            problems.push(format!("{key} is {value}, a DiT has {supported}"));
        }
    }
    if !problems.is_empty() {
        return Err(Error::ConfigFile { path, problem: problems.join("; ") });
    }
    let number = |key: &str| config.get(key).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
    Ok(Hints {
        model: None,
        heads: number("num_attention_heads"),
        num_classes: number("num_embeds_ada_norm"),
        latent: number("sample_size").map(LatentSize::square),
        numerics: None,
    })
}

/// The names of classes 0, 1, … that a pipeline's `model_index.json` gives, in `folder` or the one above it.
pub(crate) fn class_names(folder: &Path) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct ModelIndex {
        id2label: BTreeMap<usize, String>,
    }
    let candidates = [Some(folder), folder.parent()];
    let path = candidates.into_iter().flatten().map(|f| f.join("model_index.json")).find(|path| path.is_file())?;
    let ModelIndex { id2label } = read_json(&path).ok()?;
    let contiguous = id2label.keys().copied().eq(0..id2label.len());
    contiguous.then(|| id2label.into_values().collect())
}

/// The `config.json` under which diffusers loads `config`.
pub(crate) fn dit_config_json(config: &DitConfig) -> String {
    // diffusers applies it to a block's second norm only; the original's is 1e-6 everywhere.
    let norm_eps = match config.numerics {
        Numerics::Original => 1e-6,
        Numerics::Diffusers => 1e-5,
    };
    let json = json!({
        "_class_name": "DiTTransformer2DModel",
        "_diffusers_version": "0.42.1",
        "activation_fn": "gelu-approximate",
        "attention_bias": true,
        "attention_head_dim": config.head_size(),
        "dropout": 0.0,
        "in_channels": config.in_channels,
        "norm_elementwise_affine": false,
        "norm_eps": norm_eps,
        "norm_num_groups": 32,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.heads,
        // Its label table always has one row more.
        "num_embeds_ada_norm": config.label_rows() - 1,
        "num_layers": config.depth,
        "out_channels": config.out_channels(),
        "patch_size": config.patch,
        "sample_size": config.latent.height,
        "upcast_attention": false,
    });
    format!("{json:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[track_caller]
    fn check_located(files: &[(&str, &str)], expected: &[&str]) {
        let folder = folder(files);
        let located = locate(folder.path(), "transformer").unwrap();
        let expected: Vec<_> = expected.iter().map(|name| folder.path().join(name)).collect();
        assert_eq!(located.weights, expected);
    }

    #[test]
    fn weights_are_found_in_the_folder_or_its_part_and_in_shards() {
        check_located(&[(WEIGHTS, ""), ("diffusion_pytorch_model.bin", "")], &[WEIGHTS]);
        check_located(&[("transformer/diffusion_pytorch_model.bin", "")], &["transformer/diffusion_pytorch_model.bin"]);
        let index =
            r#"{"metadata": {}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        check_located(
            &[("diffusion_pytorch_model.safetensors.index.json", index)],
            &["1.safetensors", "2.safetensors"],
        );
    }

    #[track_caller]
    fn check_refused(files: &[(&str, &str)], says: &str) {
        let error = locate(folder(files).path(), "vae").unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn a_folder_without_weights_or_with_a_bad_index_is_refused() {
        check_refused(&[(CONFIG, "{}")], "neither it nor its folder vae holds");
        let index = "diffusion_pytorch_model.bin.index.json";
        check_refused(&[(index, "{}")], "missing field `weight_map`");
        check_refused(&[(index, r#"{"weight_map": {}}"#)], "names no files");
        for out in ["../x.bin", "/etc/passwd", "a/b.bin", "..", ""] {
            check_refused(&[(index, &json!({"weight_map": {"a": out}}).to_string())], "not one of its folder");
        }
    }

    #[test]
    fn what_the_config_says_becomes_hints() {
        let config = |change: &[(&str, Value)]| {
            let mut json: Value = serde_json::from_str(&dit_config_json(&"DiT-XL/2".parse().unwrap())).unwrap();
            for (key, value) in change {
                json[*key] = value.clone();
            }
            dit_hints(folder(&[(CONFIG, &json.to_string())]).path())
        };
        let expected = Hints {
            heads: Some(16),
            num_classes: Some(1000),
            latent: Some(LatentSize::square(32)),
            ..Hints::default()
        };
        assert_eq!(config(&[]).unwrap(), expected);
        assert_eq!(config(&[("_class_name", json!("Transformer2DModel"))]).unwrap(), expected);
        assert_eq!(config(&[("_class_name", json!("AutoencoderKL"))]).unwrap(), Hints::default());
        for (key, value) in [
            ("activation_fn", json!("geglu")),
            ("norm_type", json!("layer_norm")),
            ("norm_elementwise_affine", json!(true)),
        ] {
            let error = config(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn class_names_come_from_the_pipeline_if_none_is_left_out() {
        let names = |json: &str| class_names(folder(&[("model_index.json", json)]).path());
        let words = |words: &[&str]| Some(words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(names(r#"{"id2label": {"1": "b", "0": "a, c"}}"#), words(&["a, c", "b"]));
        assert_eq!(names(r#"{"id2label": {"0": "a", "2": "c"}}"#), None);
        assert_eq!(names("{}"), None);
    }
}
