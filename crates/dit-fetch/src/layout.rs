//! Where the files of a checkpoint are put.

use std::path::{Path, PathBuf};

use dit_catalog::{Catalog, CatalogFile, Entry, Kind};

use crate::addresses::FileName;

const VAE_CONFIG: &str = "config.json";
const VAE_WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
/// Endings of files that may lie beside the results, where a user would look for them.
const WEIGHTS: [&str; 5] = ["pt", "pth", "ckpt", "bin", "safetensors"];

/// Where a file is downloaded to. For a VAE in safetensors and for features that is where it stays; a DiT's file becomes
/// another one.
pub(crate) fn staged(catalog: &Catalog, entry: &Entry, file: &CatalogFile, dir: &Path) -> PathBuf {
    let folder = dir.join(entry.name());
    match entry.kind() {
        Kind::Dit if may_lie_flat(catalog, entry, file) => dir.join(file.path()),
        Kind::Dit => folder.join(file.path()),
        Kind::Features => dir.join(file.path()),
        Kind::Vae if is_config(file) => folder.join(VAE_CONFIG),
        Kind::Vae if is_safetensors(file) => folder.join(VAE_WEIGHTS),
        Kind::Vae => folder.join(file_name(file)),
    }
}

/// Whether this is the file that describes a network rather than holding its weights.
pub(crate) fn is_config(file: &CatalogFile) -> bool {
    file_name(file) == VAE_CONFIG
}

pub(crate) fn is_safetensors(file: &CatalogFile) -> bool {
    Path::new(file.path()).extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"))
}

pub(crate) fn file_name(file: &CatalogFile) -> &str {
    file.path().rsplit('/').next().unwrap_or_default()
}

/// Whether only one checkpoint of the catalogue has a file of this name.
pub(crate) fn uniqueness(catalog: &Catalog, file: &CatalogFile) -> FileName {
    let name = file_name(file);
    let all = catalog.entries().iter().flat_map(Entry::files);
    match all.filter(|other| file_name(other).eq_ignore_ascii_case(name)).count() {
        0 | 1 => FileName::Unique,
        _ => FileName::Shared,
    }
}

/// A single file whose name can be confused with nothing else in the weights folder.
fn may_lie_flat(catalog: &Catalog, entry: &Entry, file: &CatalogFile) -> bool {
    let path = Path::new(file.path());
    let weights = path.extension().and_then(|e| e.to_str()).is_some_and(|e| WEIGHTS.contains(&e));
    let taken = catalog.entries().iter().flat_map(|e| [e.name().to_owned(), format!("{}.safetensors", e.name())]);
    entry.files().len() == 1
        && !file.path().contains('/')
        && !file.path().starts_with('.')
        && weights
        && uniqueness(catalog, file) == FileName::Unique
        && !taken.into_iter().any(|name| name.eq_ignore_ascii_case(file.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn originals_lie_where_they_collide_with_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("m.json");
        let dit = |name: &str, files: &[&str]| {
            let files: Vec<_> =
                files.iter().map(|f| format!(r#"{{"path": "{f}", "urls": ["https://h/x"]}}"#)).collect();
            format!(r#"{{"name": "{name}", "kind": "dit", "license": "MIT", "files": [{}]}}"#, files.join(","))
        };
        let vae = r#"{"name": "v", "kind": "vae", "license": "MIT", "files": [
            {"path": "vae/config.json", "urls": ["https://h/c"]}, {"path": "vae/model.bin", "urls": ["https://h/b"]}]}"#;
        let vae2 = vae.replace("\"v\"", "\"w\"").replace("model.bin", "odd.safetensors");
        let entries = [
            dit("a", &["A.pt"]),
            dit("b", &["model.bin.pt"]),
            dit("c", &["same.pt"]),
            dit("d", &["same.pt"]),
            dit("e", &["e.safetensors"]),
            dit("f", &["transformer/x.bin", "transformer/config.json"]),
            dit("g", &["manifest.json"]),
            vae.to_owned(),
            vae2,
        ];
        std::fs::write(&manifest, format!(r#"{{"checkpoints": [{}]}}"#, entries.join(","))).unwrap();
        let catalog = Catalog::load(&manifest).unwrap();
        let check = |name: &str, expected: &[&str]| {
            let entry = catalog.get(name).unwrap();
            let found: Vec<_> = entry.files().iter().map(|f| staged(&catalog, entry, f, Path::new("W"))).collect();
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(found, expected);
        };
        check("a", &["W/A.pt"]);
        check("b", &["W/model.bin.pt"]);
        check("c", &["W/c/same.pt"]);
        check("d", &["W/d/same.pt"]);
        check("e", &["W/e/e.safetensors"]);
        check("f", &["W/f/transformer/x.bin", "W/f/transformer/config.json"]);
        check("g", &["W/g/manifest.json"]);
        check("v", &["W/v/config.json", "W/v/model.bin"]);
        check("w", &["W/w/config.json", "W/w/diffusion_pytorch_model.safetensors"]);
    }
}
