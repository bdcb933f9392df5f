//! Dictionaries of tensors inside a checkpoint.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Contents;
use super::tensor::StridedTensor;
use super::value::{Id, Kind, Value, Values};
use crate::{Error, TensorInfo, TensorSource, TensorView};

/// How deep dictionaries of tensors are looked for; an optimizer's lie at 3.
const MAX_DEPTH: usize = 16;
/// Longest path that a dictionary is listed under.
const MAX_PATH_BYTES: usize = 256;
/// An optimizer has one dictionary per parameter, and what comes after it in the file must be found too: DiT-XL/2 has three
/// hundred parameters.
const MAX_STATE_DICTS: usize = 1 << 12;

/// A dictionary of tensors inside a [`TorchFile`](super::TorchFile), which it keeps open.
///
/// Tensors are read one at a time, borrowed from the mapped file where they lie contiguous there, else gathered.
#[derive(Debug, Clone)]
pub struct StateDict {
    contents: Arc<Contents>,
    infos: BTreeMap<String, TensorInfo>,
    /// Invariant: the same keys as `infos`, each the place of a tensor.
    tensors: BTreeMap<String, Id>,
    /// Python objects beside the tensors: name and what would have made them.
    opaque: BTreeMap<String, String>,
}

impl StateDict {
    pub(super) fn new(contents: Arc<Contents>, path: &str) -> Result<Self, Error> {
        let id = contents.state_dicts.get(path).ok_or_else(|| no_state_dict(&contents, path))?;
        let mut infos = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        let mut opaque = BTreeMap::new();
        let mut names = HashSet::new();
        for (key, value) in Value::new(&contents.values, id).entries() {
            let Some(name) = key.as_str() else { continue };
            if !names.insert(name) {
                return Err(Error::DuplicateTensor { name: name.into() });
            }
            match value.kind() {
                Kind::Tensor(info) => {
                    infos.insert(name.to_owned(), info.clone());
                    tensors.insert(name.to_owned(), value.id());
                }
                Kind::Opaque(global) => {
                    opaque.insert(name.to_owned(), global.to_owned());
                }
                _ => {}
            }
        }
        Ok(Self { contents, infos, tensors, opaque })
    }

    fn tensor(&self, name: &str) -> Option<&StridedTensor> {
        self.tensors.get(name).and_then(|&id| Value::new(&self.contents.values, id).tensor())
    }
}

impl TensorSource for StateDict {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        match (self.tensor(name), self.opaque.get(name)) {
            (Some(tensor), _) => tensor.view(&self.contents.bytes),
            (None, Some(global)) => Err(Error::Opaque { name: name.into(), global: global.clone() }),
            (None, None) => Err(Error::NoSuchTensor { name: name.into() }),
        }
    }

    fn prefetch(&self, name: &str) {
        if let Some(tensor) = self.tensor(name) {
            self.contents.bytes.prefetch(&tensor.bytes());
        }
    }

    fn release(&self, name: &str) {
        if let Some(tensor) = self.tensor(name) {
            self.contents.bytes.release(&tensor.bytes());
        }
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        let global = self.opaque.get(name)?;
        Some(format!("the file has a Python object made by `{global}` there, which is never executed"))
    }
}

/// Where the dictionaries that hold tensors are: their keys from the root, joined by dots.
#[derive(Debug, Default)]
pub(super) struct StateDicts {
    /// In the file's order.
    paths: Vec<String>,
    /// Invariant: the same paths. Keys with dots in them may give two dictionaries one path; the first has it.
    by_path: HashMap<String, Id>,
}

impl StateDicts {
    /// Those under `root`.
    pub(super) fn find(root: Value<'_>) -> Self {
        let mut found = Self::default();
        found.add_if_tensors("", root);
        let mut path = String::new();
        // Values may be shared (a checkpoint whose EMA is its model), so that paths are many more than values. A tree with
        // as many values as a file may have is walked whole.
        let mut steps = Values::BUDGET;
        let mut open = vec![(root.id(), 0, children(root))];
        while let Some((_, base, rest)) = open.last_mut() {
            path.truncate(*base);
            let Some((label, value)) = rest.next() else {
                open.pop();
                continue;
            };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&label);
            steps = steps.saturating_sub(1 + value.entries().size_hint().0);
            if steps == 0 || found.paths.len() == MAX_STATE_DICTS {
                break;
            }
            // What contains itself has endless paths, and nothing new on any.
            if path.len() > MAX_PATH_BYTES || open.iter().any(|(id, ..)| *id == value.id()) {
                continue;
            }
            found.add_if_tensors(&path, value);
            if open.len() < MAX_DEPTH {
                open.push((value.id(), path.len(), children(value)));
            }
        }
        found
    }

    fn add_if_tensors(&mut self, path: &str, value: Value<'_>) {
        if holds_tensors(value) && !self.by_path.contains_key(path) {
            self.paths.push(path.to_owned());
            self.by_path.insert(path.to_owned(), value.id());
        }
    }

    pub(super) fn paths(&self) -> impl ExactSizeIterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    fn get(&self, path: &str) -> Option<Id> {
        self.by_path.get(path).copied()
    }
}

fn holds_tensors(value: Value<'_>) -> bool {
    let is_tensor =
        |(key, value): (Value<'_>, Value<'_>)| key.as_str().is_some() && matches!(value.kind(), Kind::Tensor(_));
    matches!(value.kind(), Kind::Dict) && value.entries().any(is_tensor)
}

/// What a list, tuple or dictionary contains, each with the key that leads there. Attributes of objects are not walked.
fn children<'a>(value: Value<'a>) -> Box<dyn Iterator<Item = (Cow<'a, str>, Value<'a>)> + 'a> {
    match value.kind() {
        Kind::Dict => Box::new(value.entries().filter_map(|(key, value)| {
            let label = match key.kind() {
                Kind::Str(key) => Cow::Borrowed(key),
                Kind::Int(key) => Cow::Owned(key.to_string()),
                _ => return None,
            };
            Some((label, value))
        })),
        Kind::List | Kind::Tuple => {
            let label = |(i, value): (usize, _)| (Cow::Owned(i.to_string()), value);
            Box::new(value.items().enumerate().map(label))
        }
        _ => Box::new(std::iter::empty()),
    }
}

fn no_state_dict(contents: &Contents, path: &str) -> Error {
    let root = Value::new(&contents.values, contents.root);
    if let Some(Kind::Opaque(global)) = root.get(path).map(Value::kind) {
        return Error::Opaque { name: path.into(), global: global.into() };
    }
    let places = contents.state_dicts.paths();
    let help = match (places.len(), root.kind()) {
        (0, Kind::Opaque(global)) => format!(
            "the file holds a Python object made by `{global}`, of which nothing is executed; if you trust it, load it in Python and save its plain state dict: torch.save(model.state_dict(), …)"
        ),
        (0, Kind::Tensor(info)) => {
            format!("the file holds a single tensor without a name, {} {:?}", info.dtype, info.shape)
        }
        (0, _) => "the file holds no tensors by name".into(),
        (count, _) => {
            const LISTED: usize = 8;
            let names: Vec<_> = places.take(LISTED).map(|path| format!("{path:?}")).collect();
            let more = if count > LISTED { ", …" } else { "" };
            format!("the file has some at {}{more}", names.join(", "))
        }
    };
    Error::NoStateDict { path: contents.path.clone(), asked: path.into(), help }
}
