//! Dictionaries of tensors inside a checkpoint.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Contents;
use super::value::{Id, Kind, Value, Values};
use crate::{Error, TensorInfo, TensorSource, TensorView};

/// How deep dictionaries of tensors are looked for; an optimizer's lie at 3.
const MAX_DEPTH: usize = 16;
/// Longest path that a dictionary is listed under.
const MAX_PATH_BYTES: usize = 256;
/// An optimizer has one dictionary per parameter: thousands, for the largest models.
const MAX_STATE_DICTS: usize = 1 << 16;

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
        let found = contents.state_dicts.iter().find(|(p, _)| p == path);
        let (_, id) = found.ok_or_else(|| no_state_dict(&contents, path))?;
        let mut infos = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        let mut opaque = BTreeMap::new();
        let mut names = HashSet::new();
        for (key, value) in Value::new(&contents.values, *id).entries() {
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
}

impl TensorSource for StateDict {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let tensor = self.tensors.get(name).and_then(|&id| Value::new(&self.contents.values, id).tensor());
        match (tensor, self.opaque.get(name)) {
            (Some(tensor), _) => tensor.view(&self.contents.bytes),
            (None, Some(global)) => Err(Error::Opaque { name: name.into(), global: global.clone() }),
            (None, None) => Err(Error::NoSuchTensor { name: name.into() }),
        }
    }

    fn release(&self, name: &str) {
        if let Some(&id) = self.tensors.get(name)
            && let Some(tensor) = Value::new(&self.contents.values, id).tensor()
        {
            self.contents.bytes.release(tensor.bytes());
        }
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        let global = self.opaque.get(name)?;
        Some(format!("the file has a Python object made by `{global}` there, which is never executed"))
    }
}

/// The dictionaries of tensors under `root`, with their paths, in the file's order.
pub(super) fn find(root: Value<'_>) -> Vec<(String, Id)> {
    let mut found = Vec::new();
    let mut path = String::new();
    // Values may be shared (a checkpoint whose EMA is its model) or contain themselves, so that paths are many more than
    // values, or endless. A tree with as many values as a file may have is walked whole.
    let mut steps = Values::BUDGET;
    let mut open = vec![(0, children(root))];
    if holds_tensors(root) {
        found.push((String::new(), root.id()));
    }
    while let Some((base, rest)) = open.last_mut() {
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
        if steps == 0 || found.len() == MAX_STATE_DICTS {
            break;
        }
        if path.len() > MAX_PATH_BYTES {
            continue;
        }
        if holds_tensors(value) {
            found.push((path.clone(), value.id()));
        }
        if open.len() < MAX_DEPTH {
            open.push((path.len(), children(value)));
        }
    }
    found
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
    let places = &contents.state_dicts;
    let help = match (&places[..], root.kind()) {
        ([], Kind::Opaque(global)) => format!(
            "the file holds a Python object made by `{global}`, of which nothing is executed; if you trust it, load it in Python and save its plain state dict: torch.save(model.state_dict(), …)"
        ),
        ([], Kind::Tensor(info)) => {
            format!("the file holds a single tensor without a name, {} {:?}", info.dtype, info.shape)
        }
        ([], _) => "the file holds no tensors by name".into(),
        (places, _) => {
            const LISTED: usize = 8;
            let names: Vec<_> = places.iter().take(LISTED).map(|(p, _)| format!("{p:?}")).collect();
            let more = if places.len() > LISTED { ", …" } else { "" };
            format!("the file has some at {}{more}", names.join(", "))
        }
    };
    Error::NoStateDict { path: contents.path.clone(), asked: path.into(), help }
}
