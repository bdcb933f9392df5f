//! The pickle machine: a stack, a memo and a table of values. It builds data and calls nothing.
//!
//! Where Python would call a function, the machine looks the function's name up in an allow-list whose effects it acts
//! out itself ([`Known`]); everything else becomes an opaque value that remembers what would have been called.

use std::collections::HashMap;

use super::global::{Global, Known};
use super::input::Input;
use super::legacy::StorageSizes;
use super::opcode::Opcode;
use super::rebuild::{self, Storages};
use super::value::{DictNode, Id, Node, Values};

/// Marks are open containers; pickles of real checkpoints nest a handful.
const MAX_MARKS: usize = 4096;
/// Longer than any importable name, short enough that names cannot exhaust memory.
const MAX_GLOBAL_NAME: usize = 256;

/// What is wrong and at which byte of the pickle.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) problem: String,
}

/// Runs the pickle `input`; `storages` tells where the tensors' bytes are. Returns all values and which of them is the result.
pub(super) fn unpickle(input: &[u8], storages: &Storages<'_>) -> Result<(Values, Id), Fault> {
    unpickle_first(input, storages).map(|(values, root, _)| (values, root))
}

/// As [`unpickle`], of an input that goes on after the pickle: also returns the pickle's length.
pub(super) fn unpickle_first(input: &[u8], storages: &Storages<'_>) -> Result<(Values, Id, usize), Fault> {
    let mut machine = Machine::new(input, Persistent::Found(storages));
    let root = machine.run()?;
    Ok((machine.values, root, machine.input.offset()))
}

/// Runs a pickle only to learn which storages it refers to, and how long it is.
pub(super) fn storage_sizes(input: &[u8]) -> Result<(StorageSizes, usize), Fault> {
    let mut sizes = StorageSizes::new();
    let mut machine = Machine::new(input, Persistent::Noted(&mut sizes));
    machine.run()?;
    let length = machine.input.offset();
    Ok((sizes, length))
}

/// What is done about a reference to a storage.
enum Persistent<'a> {
    /// It is looked up here.
    Found(&'a Storages<'a>),
    /// It is noted here; its tensors are opaque.
    Noted(&'a mut StorageSizes),
}

struct Machine<'a> {
    input: Input<'a>,
    stack: Vec<Id>,
    /// Heights of the stack. Invariant: ascending, none above the stack's height.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    values: Values,
    persistent: Persistent<'a>,
}

impl<'a> Machine<'a> {
    fn new(input: &'a [u8], persistent: Persistent<'a>) -> Self {
        let (input, values) = (Input::new(input), Values::new());
        Self { input, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), values, persistent }
    }

    /// Executes up to the end of the pickle.
    fn run(&mut self) -> Result<Id, Fault> {
        loop {
            let offset = self.input.offset();
            match self.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(root),
                Err(problem) => return Err(Fault { offset, problem }),
            }
        }
    }

    /// Executes one instruction. `Some` is the pickle's result: the machine is done.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let first = self.input.offset() == 0;
        let byte = self.input.u8()?;
        let opcode = Opcode::from_byte(byte).ok_or_else(|| {
            format!("instruction {byte:#04x} is not one that torch.save writes (pickle protocols 2 to 5)")
        })?;
        if first && opcode != Opcode::Proto {
            return Err("the pickle does not start with its protocol number".into());
        }
        match opcode {
            Opcode::Proto => match self.input.u8()? {
                2..=5 => {}
                n => return Err(format!("pickle protocol {n} is not one of 2 to 5")),
            },
            Opcode::Frame => {
                let len = self.input.len8()?;
                self.input.require(len)?;
            }
            Opcode::Stop => return self.pop().map(Some),

            Opcode::None => self.push(Node::None)?,
            Opcode::NewTrue => self.push(Node::Bool(true))?,
            Opcode::NewFalse => self.push(Node::Bool(false))?,
            Opcode::BinInt => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.push(Node::Int(value.into()))?;
            }
            Opcode::BinInt1 => {
                let value = self.input.u8()?;
                self.push(Node::Int(value.into()))?;
            }
            Opcode::BinInt2 => {
                let value = u16::from_le_bytes(self.input.array()?);
                self.push(Node::Int(value.into()))?;
            }
            Opcode::Long1 => {
                let len = self.input.len1()?;
                self.long(len)?;
            }
            Opcode::Long4 => {
                let len = self.input.len4()?;
                self.long(len)?;
            }
            Opcode::BinFloat => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.push(Node::Float(value))?;
            }

            // Python 2's strings are bytes, which Python 3 decodes when it loads them.
            Opcode::ShortBinString | Opcode::ShortBinUnicode => {
                let len = self.input.len1()?;
                self.string(len)?;
            }
            Opcode::BinString | Opcode::BinUnicode => {
                let len = self.input.len4()?;
                self.string(len)?;
            }
            Opcode::BinUnicode8 => {
                let len = self.input.len8()?;
                self.string(len)?;
            }
            Opcode::ShortBinBytes => {
                let len = self.input.len1()?;
                self.bytes(len)?;
            }
            Opcode::BinBytes => {
                let len = self.input.len4()?;
                self.bytes(len)?;
            }
            Opcode::BinBytes8 | Opcode::ByteArray8 => {
                let len = self.input.len8()?;
                self.bytes(len)?;
            }

            Opcode::Mark => {
                if self.marks.len() == MAX_MARKS {
                    return Err(format!("more than {MAX_MARKS} open containers"));
                }
                self.marks.push(self.stack.len());
            }
            Opcode::Pop => {
                // As in Python: an open mark is popped before what lies under it.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            Opcode::PopMark => {
                self.pop_mark()?;
            }
            Opcode::Dup => {
                let top = self.top()?;
                self.stack.push(top);
            }

            Opcode::BinPut => {
                let index = self.input.u8()?;
                self.remember(index.into())?;
            }
            Opcode::LongBinPut => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.remember(index)?;
            }
            Opcode::Memoize => {
                let index = u32::try_from(self.memo.len()).map_err(|_| "the memo is full")?;
                self.remember(index)?;
            }
            Opcode::BinGet => {
                let index = self.input.u8()?;
                self.recall(index.into())?;
            }
            Opcode::LongBinGet => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.recall(index)?;
            }

            Opcode::EmptyTuple => self.push(Node::Tuple(Vec::new()))?,
            Opcode::Tuple1 => self.tuple(1)?,
            Opcode::Tuple2 => self.tuple(2)?,
            Opcode::Tuple3 => self.tuple(3)?,
            Opcode::Tuple => {
                let items = self.pop_mark()?;
                self.push_charged(items.len(), Node::Tuple(items))?;
            }
            Opcode::EmptyList => self.push(Node::List(Vec::new()))?,
            Opcode::List => {
                let items = self.pop_mark()?;
                self.push_charged(items.len(), Node::List(items))?;
            }
            Opcode::Append => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            Opcode::Appends => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            Opcode::EmptySet => self.push(Node::Set(Vec::new()))?,
            Opcode::FrozenSet => {
                let items = self.pop_mark()?;
                self.push_charged(items.len(), Node::Set(items))?;
            }
            Opcode::AddItems => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            Opcode::EmptyDict => self.push(Node::Dict(Box::default()))?,
            Opcode::Dict => {
                let entries = pairs(self.pop_mark()?)?;
                let state = None;
                self.push_charged(entries.len(), Node::Dict(Box::new(DictNode { entries, state })))?;
            }
            Opcode::SetItem => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![(key, value)])?;
            }
            Opcode::SetItems => {
                let entries = pairs(self.pop_mark()?)?;
                self.insert(entries)?;
            }

            Opcode::Global => {
                let module = self.input.line()?;
                let name = self.input.line()?;
                self.global(module, name)?;
            }
            Opcode::StackGlobal => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Node::Str(module), Node::Str(name)) = (self.values.node(module), self.values.node(name)) else {
                    return Err("a global's name is not a string".into());
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            Opcode::BinPersId => {
                let pid = self.pop()?;
                let made = match &mut self.persistent {
                    Persistent::Found(storages) => rebuild::persistent(&mut self.values, pid, storages)?,
                    Persistent::Noted(sizes) => {
                        rebuild::note_storage(&self.values, pid, sizes)?;
                        self.values.push_opaque(pid, pid)?
                    }
                };
                self.stack.push(made);
            }
            Opcode::Reduce | Opcode::NewObj => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                let made = rebuild::call(&mut self.values, callable, arguments)?;
                self.stack.push(made);
            }
            Opcode::NewObjEx => {
                // With keyword arguments, which no class of the allow-list takes: opaque whatever it is.
                let keywords = self.pop()?;
                let arguments = self.pop()?;
                let callable = self.pop()?;
                let given = self.values.push(Node::Tuple(vec![arguments, keywords]))?;
                let made = self.values.push_opaque(callable, given)?;
                self.stack.push(made);
            }
            Opcode::Build => {
                let state = self.pop()?;
                let target = self.top()?;
                self.build(target, state)?;
            }
        }
        Ok(None)
    }

    // Plain values.

    /// An integer in two's complement, in as many bytes as its writer found fit.
    fn long(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.input.take(len)?;
        let sign = if bytes.last().is_some_and(|&top| top >= 0x80) { 0xff } else { 0 };
        let mut extended = [sign; 8];
        let (low, high) = bytes.split_at(len.min(8));
        extended[..low.len()].copy_from_slice(low);
        let value = i64::from_le_bytes(extended);
        let fits = high.iter().all(|&byte| byte == sign) && (value < 0) == (sign != 0);
        self.push(if fits { Node::Int(value) } else { Node::BigInt(bytes.into()) })
    }

    fn string(&mut self, len: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.input.take(len)?).map_err(|_| "a string is not UTF-8")?;
        let node = Node::Str(text.into());
        self.push(node)
    }

    fn bytes(&mut self, len: usize) -> Result<(), String> {
        let node = Node::Bytes(self.input.take(len)?.into());
        self.push(node)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        if module.len() + name.len() >= MAX_GLOBAL_NAME {
            return Err(format!("a global's name is longer than {MAX_GLOBAL_NAME} bytes"));
        }
        let name = format!("{module}.{name}");
        self.values.charge(name.len() / 32)?;
        let known = Known::of(&name);
        let name = name.into_boxed_str();
        self.push(Node::Global(Global { name, known }))
    }

    // The stack and the memo.

    fn push(&mut self, node: Node) -> Result<(), String> {
        let id = self.values.push(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_charged(&mut self, references: usize, node: Node) -> Result<(), String> {
        self.values.charge(references)?;
        self.push(node)
    }

    /// The height below which nothing may be taken: that of the innermost open mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Result<Id, String> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err("an instruction finds nothing on the stack".into()),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let height = self.marks.pop().ok_or("an instruction finds no mark")?;
        Ok(self.stack.split_off(height))
    }

    fn remember(&mut self, index: u32) -> Result<(), String> {
        let top = self.top()?;
        if self.memo.insert(index, top).is_none() {
            self.values.charge(1)?;
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let id = self.memo.get(&index);
        let id = id.ok_or_else(|| format!("memo entry {index} was never written"))?;
        self.stack.push(*id);
        Ok(())
    }

    // Containers.

    fn tuple(&mut self, len: usize) -> Result<(), String> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_charged(len, Node::Tuple(items))
    }

    fn append(&mut self, new: Vec<Id>) -> Result<(), String> {
        let target = self.top()?;
        self.values.charge(new.len())?;
        match self.values.node_mut(target) {
            Node::List(items) | Node::Set(items) => items.extend(new),
            Node::Opaque(opaque) => opaque.items.extend(new),
            _ => return Err("items are added to what is neither list nor set".into()),
        }
        Ok(())
    }

    fn insert(&mut self, new: Vec<(Id, Id)>) -> Result<(), String> {
        let target = self.top()?;
        self.values.charge(new.len())?;
        match self.values.node_mut(target) {
            Node::Dict(dict) => dict.entries.extend(new),
            Node::Opaque(opaque) => opaque.entries.extend(new),
            _ => return Err("entries are added to what is not a dictionary".into()),
        }
        Ok(())
    }

    fn build(&mut self, target: Id, state: Id) -> Result<(), String> {
        match self.values.node_mut(target) {
            Node::Dict(dict) => dict.state = Some(state),
            Node::Opaque(opaque) => opaque.state = Some(state),
            // Attributes that someone hung on a tensor or parameter: the values do not depend on them.
            Node::Tensor(_) => {}
            _ => return Err("attributes are given to a plain value".into()),
        }
        Ok(())
    }
}

fn pairs(items: Vec<Id>) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a dictionary's key has no value".into());
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}
