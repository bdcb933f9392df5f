//! The values of an unpickled file.
//!
//! They live in one table and refer to each other by index, because a pickle is a graph: values are shared, may contain
//! themselves, and may nest a million deep. Nothing here recurses, not even dropping.

use std::ops::Range;

use super::global::Global;
use super::tensor::StridedTensor;
use crate::{Dtype, TensorInfo};

/// A place in the table of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(u32);

/// One value, as the machine builds it.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// Two's complement, little-endian, longer than eight bytes.
    BigInt(Box<[u8]>),
    Float(f64),
    Str(Box<str>),
    Bytes(Box<[u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Box<DictNode>),
    Global(Global),
    Storage(StorageNode),
    Tensor(Box<StridedTensor>),
    Opaque(Box<OpaqueNode>),
}

/// A dictionary in insertion order, and what `__dict__` it was given beside (an `OrderedDict` may carry `_metadata`).
#[derive(Debug, Default)]
pub(super) struct DictNode {
    pub(super) entries: Vec<(Id, Id)>,
    pub(super) state: Option<Id>,
}

/// A Python object that was not made: which callable would have made it, and what it would have been given.
#[derive(Debug)]
pub(super) struct OpaqueNode {
    /// The class or function, by name; where that was itself made by a call, what made it, and so on. Never opaque itself.
    pub(super) made_by: Id,
    pub(super) arguments: Id,
    pub(super) state: Option<Id>,
    pub(super) items: Vec<Id>,
    pub(super) entries: Vec<(Id, Id)>,
}

/// A tensor's storage: bytes of the file.
#[derive(Debug, Clone)]
pub(super) struct StorageNode {
    /// What the storage's class says of its elements; an untyped storage leaves it to the tensor.
    pub(super) dtype: Option<Dtype>,
    /// Where it lies in the file. Invariant: within the file.
    pub(super) bytes: Range<usize>,
}

/// The table of values, bounded in the number of values and of references between them.
#[derive(Debug)]
pub(super) struct Values {
    // Invariant: every Id in a node, and every Id handed out, is an index into `nodes`.
    nodes: Vec<Node>,
    budget: usize,
}

impl Values {
    /// How many values and references a file may hold: fifty times what the training checkpoint of a large model needs.
    pub(super) const BUDGET: usize = 4 << 20;

    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), budget: Self::BUDGET }
    }

    /// Accounts for `units` more values or references.
    pub(super) fn charge(&mut self, units: usize) -> Result<(), String> {
        self.budget = self.budget.checked_sub(units).ok_or("more values than any checkpoint has")?;
        Ok(())
    }

    pub(super) fn push(&mut self, node: Node) -> Result<Id, String> {
        self.charge(1)?;
        let id = u32::try_from(self.nodes.len()).map_err(|_| "too many values")?;
        self.nodes.push(node);
        Ok(Id(id))
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// The object that calling `callable` with `arguments` would make.
    pub(super) fn push_opaque(&mut self, callable: Id, arguments: Id) -> Result<Id, String> {
        let made_by = match self.node(callable) {
            Node::Opaque(opaque) => opaque.made_by,
            _ => callable,
        };
        let (state, items, entries) = (None, Vec::new(), Vec::new());
        self.push(Node::Opaque(Box::new(OpaqueNode { made_by, arguments, state, items, entries })))
    }

    /// The name of what would have made an opaque object.
    fn maker_name(&self, opaque: &OpaqueNode) -> &str {
        match self.node(opaque.made_by) {
            Node::Global(global) => &global.name,
            _ => "an object without a class",
        }
    }

    /// The values of a list or tuple.
    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

/// A value of an unpickled file.
///
/// Cheap to copy. A pickle is a graph: following [`items`](Self::items) and [`entries`](Self::entries) without end is possible.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    values: &'a Values,
    id: Id,
}

/// What a [`Value`] is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Kind<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A longer integer: two's complement, little-endian.
    BigInt(&'a [u8]),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Str(&'a str),
    /// `bytes` or `bytearray`.
    Bytes(&'a [u8]),
    /// A list; see [`Value::items`].
    List,
    /// A tuple; see [`Value::items`].
    Tuple,
    /// A set or frozenset; see [`Value::items`].
    Set,
    /// A dictionary; see [`Value::entries`].
    Dict,
    /// A tensor or parameter.
    Tensor(&'a TensorInfo),
    /// A storage that is not (yet) a tensor.
    Storage,
    /// A class, function or constant, by name: `torch.float32`.
    Global(&'a str),
    /// A Python object that was not made, by the name of its class or of the function that would make it.
    Opaque(&'a str),
}

impl<'a> Value<'a> {
    pub(super) fn new(values: &'a Values, id: Id) -> Self {
        Self { values, id }
    }

    pub(super) fn id(self) -> Id {
        self.id
    }

    /// What it is.
    pub fn kind(self) -> Kind<'a> {
        match self.values.node(self.id) {
            Node::None => Kind::None,
            Node::Bool(value) => Kind::Bool(*value),
            Node::Int(value) => Kind::Int(*value),
            Node::BigInt(bytes) => Kind::BigInt(bytes),
            Node::Float(value) => Kind::Float(*value),
            Node::Str(value) => Kind::Str(value),
            Node::Bytes(bytes) => Kind::Bytes(bytes),
            Node::List(_) => Kind::List,
            Node::Tuple(_) => Kind::Tuple,
            Node::Set(_) => Kind::Set,
            Node::Dict(_) => Kind::Dict,
            Node::Tensor(tensor) => Kind::Tensor(tensor.info()),
            Node::Storage(_) => Kind::Storage,
            Node::Global(global) => Kind::Global(&global.name),
            Node::Opaque(opaque) => Kind::Opaque(self.values.maker_name(opaque)),
        }
    }

    /// The string, if it is one.
    pub fn as_str(self) -> Option<&'a str> {
        match self.values.node(self.id) {
            Node::Str(value) => Some(value),
            _ => None,
        }
    }

    /// The integer, if it is one of 64 bits.
    pub fn as_i64(self) -> Option<i64> {
        match self.values.node(self.id) {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, if it is a floating-point number or an integer of 64 bits.
    pub fn as_f64(self) -> Option<f64> {
        match self.values.node(self.id) {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(self) -> Option<bool> {
        match self.values.node(self.id) {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The values of a list, tuple or set; nothing for anything else.
    pub fn items(self) -> impl Iterator<Item = Value<'a>> {
        let items: &[Id] = match self.values.node(self.id) {
            Node::List(items) | Node::Tuple(items) | Node::Set(items) => items,
            Node::Opaque(opaque) => &opaque.items,
            _ => &[],
        };
        items.iter().map(move |&id| Value::new(self.values, id))
    }

    /// The keys and values of a dictionary, in insertion order. For an opaque object, what it would have been given:
    /// its own entries if it is a kind of dictionary, else its attributes (an `argparse.Namespace`'s options).
    pub fn entries(self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        let entries: &[(Id, Id)] = match self.values.node(self.id) {
            Node::Dict(dict) => &dict.entries,
            Node::Opaque(opaque) if opaque.entries.is_empty() => self.attributes(opaque),
            Node::Opaque(opaque) => &opaque.entries,
            _ => &[],
        };
        entries.iter().map(move |&(k, v)| (Value::new(self.values, k), Value::new(self.values, v)))
    }

    fn attributes(self, opaque: &OpaqueNode) -> &'a [(Id, Id)] {
        match opaque.state.map(|state| self.values.node(state)) {
            Some(Node::Dict(dict)) => &dict.entries,
            _ => &[],
        }
    }

    /// The value under a string key, among [`entries`](Self::entries). As in Python, the last one counts.
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.entries().filter(|(k, _)| k.as_str() == Some(key)).last().map(|(_, value)| value)
    }

    /// What the object's `__setstate__` or `__dict__` would have been given, if anything.
    pub fn state(self) -> Option<Value<'a>> {
        let state = match self.values.node(self.id) {
            Node::Dict(dict) => dict.state,
            Node::Opaque(opaque) => opaque.state,
            _ => None,
        };
        state.map(|id| Value::new(self.values, id))
    }

    /// What the callable behind an opaque object would have been called with.
    pub fn arguments(self) -> Option<Value<'a>> {
        match self.values.node(self.id) {
            Node::Opaque(opaque) => Some(Value::new(self.values, opaque.arguments)),
            _ => None,
        }
    }

    pub(super) fn tensor(self) -> Option<&'a StridedTensor> {
        match self.values.node(self.id) {
            Node::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Value<'_> {
    /// The value itself, not what it contains: that may be without end.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind().fmt(f)
    }
}
