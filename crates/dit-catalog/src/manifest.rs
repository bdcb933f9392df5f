//! The manifest's JSON, and the checks that turn it into entries.

use std::collections::{BTreeMap, BTreeSet};

use dit_config::DitConfig;
use serde::Deserialize;

use crate::entry::{CatalogFile, DitHints, Entry, Kind, VAE_CONFIG};

/// The longest name: file names end at 255 bytes, and suffixes are added to this one.
const LONGEST_NAME: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawManifest {
    checkpoints: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    kind: Kind,
    license: String,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    pairs_with: Option<String>,
    #[serde(default)]
    config: Option<RawConfig>,
    files: Vec<RawFile>,
}

#[derive(Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    image_size: Option<usize>,
    #[serde(default)]
    num_heads: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: String,
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    sha256: Option<String>,
}

impl RawManifest {
    /// Checks everything, entry by entry and between entries.
    pub(crate) fn validate(self) -> Result<Vec<Entry>, Vec<String>> {
        let mut problems = Vec::new();
        if self.checkpoints.is_empty() {
            problems.push("lists no checkpoints".to_owned());
        }
        let kinds: BTreeMap<_, _> = self.checkpoints.iter().map(|raw| (raw.name.clone(), raw.kind)).collect();
        let mut names = BTreeSet::new();
        let mut entries = Vec::new();
        for raw in self.checkpoints {
            let mut found = raw.problems(&kinds);
            // The names become files, and some file systems do not tell `A` from `a`.
            if !names.insert(raw.name.to_lowercase()) {
                found.push("is listed twice (names must differ in more than case)".to_owned());
            }
            let hints = raw.hints(&mut found);
            problems.extend(found.iter().map(|problem| format!("checkpoint `{}` {problem}", raw.name)));
            entries.push(raw.into_entry(hints));
        }
        if problems.is_empty() { Ok(entries) } else { Err(problems) }
    }
}

impl RawEntry {
    fn problems(&self, kinds: &BTreeMap<String, Kind>) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_file_name(&self.name) {
            problems.push(format!(
                "has a name that cannot be a file's: letters, digits, `-`, `_` and inner `.`, at most {LONGEST_NAME}"
            ));
        }
        if self.license.trim().is_empty() {
            problems.push("has no license".to_owned());
        }
        if let Some(source) = &self.source
            && !is_url(source)
        {
            problems.push(format!("has a source `{source}` that is not an http or https address"));
        }
        match (self.kind, &self.pairs_with) {
            (_, None) => {}
            (Kind::Vae, Some(_)) => problems.push("is a vae: pairs_with belongs to the dit".to_owned()),
            (Kind::Features, Some(_)) => problems.push("is features: pairs_with belongs to a dit".to_owned()),
            (Kind::Dit, Some(vae)) => match kinds.get(vae) {
                Some(Kind::Vae) => {}
                Some(Kind::Dit | Kind::Features) => problems.push(format!("pairs with `{vae}`, which is no vae")),
                None => problems.push(format!("pairs with `{vae}`, which is not listed")),
            },
        }
        self.file_problems(&mut problems);
        problems
    }

    fn file_problems(&self, problems: &mut Vec<String>) {
        let remote = self.files.iter().filter(|file| !file.urls.is_empty()).count();
        if self.files.is_empty() {
            problems.push("has no files".to_owned());
        } else if remote != 0 && remote != self.files.len() {
            problems.push("has urls for some files only: give all of them urls, or none".to_owned());
        } else if self.kind == Kind::Dit && remote == 0 && self.files.len() > 1 {
            problems.push("is a dit of the repository: it must be one file".to_owned());
        }
        if self.kind == Kind::Features && self.files.iter().any(|file| file.path.contains('/') != file.urls.is_empty())
        {
            // What is fetched lies flat in the weights folder, under its own name.
            problems.push(
                "is features: a file that is fetched has no folder in its path, one of the repository has".to_owned(),
            );
        }
        if self.kind == Kind::Features && self.files.len() > 1 {
            problems.push("is features: it must be one file".to_owned());
        }
        let is_config = |file: &&RawFile| file.path.rsplit('/').next() == Some(VAE_CONFIG);
        if self.kind == Kind::Vae && self.files.iter().filter(is_config).count() != 1 {
            problems.push(format!("is a vae: exactly one of its files must be a {VAE_CONFIG}"));
        }
        let mut paths = BTreeSet::new();
        for file in &self.files {
            let path = &file.path;
            if !is_relative(path) {
                problems.push(format!("has a file `{path}`: paths are relative, with `/`, without `.` and `..`"));
            }
            if !paths.insert(path.to_lowercase()) {
                problems.push(format!("has the file `{path}` twice"));
            }
            for url in file.urls.iter().filter(|url| !is_url(url)) {
                problems.push(format!("has an address `{url}` for {path}: it must begin with https:// or http://"));
            }
            if file.bytes == Some(0) {
                problems.push(format!("has 0 bytes for {path}: write null if the size is not known"));
            }
            if let Some(hash) = &file.sha256
                && !is_sha256(hash)
            {
                problems.push(format!("has a sha256 for {path} that is not 64 hexadecimal digits"));
            }
        }
    }

    fn hints(&self, problems: &mut Vec<String>) -> DitHints {
        let Some(config) = &self.config else {
            return DitHints::default();
        };
        if self.kind == Kind::Vae {
            if *config != RawConfig::default() {
                problems.push(format!("is a vae: its configuration is its {VAE_CONFIG}, not `config` here"));
            }
            return DitHints::default();
        }
        if self.kind == Kind::Features && *config != RawConfig::default() {
            problems.push("is features: `config` belongs to a dit".to_owned());
        }
        let model = config.model.as_deref().and_then(|name| match name.parse() {
            Ok(model) => Some(model),
            Err(error) => {
                problems.push(format!("has a config: {error}"));
                None
            }
        });
        if let (Some(model), Some(image_size)) = (model, config.image_size)
            && let Err(error) = DitConfig::standard(model, image_size)
        {
            problems.push(format!("has a config: {error}"));
        }
        if let (Some(model), Some(heads)) = (model, config.num_heads)
            && model.size.heads() != heads
        {
            problems.push(format!("has a config: {model} has {} heads, not {heads}", model.size.heads()));
        }
        for (key, value) in [("image_size", config.image_size), ("num_heads", config.num_heads)] {
            if value == Some(0) {
                problems.push(format!("has a config: {key} is 0"));
            }
        }
        DitHints { model, image_size: config.image_size, num_heads: config.num_heads }
    }

    fn into_entry(self, hints: DitHints) -> Entry {
        let file = |raw: RawFile| CatalogFile {
            path: raw.path,
            urls: raw.urls,
            bytes: raw.bytes,
            sha256: raw.sha256.map(|hash| hash.to_ascii_lowercase()),
        };
        Entry {
            name: self.name,
            kind: self.kind,
            license: self.license,
            source: self.source,
            pairs_with: self.pairs_with,
            hints,
            files: self.files.into_iter().map(file).collect(),
        }
    }
}

fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends_plainly = !name.starts_with(['.', '-']) && !name.ends_with('.');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(plain) && ends_plainly
}

fn is_relative(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    // Backslashes and colons mean something to Windows; control characters to terminals.
    let foreign = |c: char| matches!(c, '\\' | ':') || c.is_control();
    path.split('/').all(part) && !path.contains(foreign)
}

fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let clean = |c: char| !c.is_whitespace() && !c.is_control();
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && url.chars().all(clean)
}

fn is_sha256(hash: &str) -> bool {
    hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}
