//! Reads pickles as data: a stack machine that builds values and never calls a function.
//!
//! It accepts only known opcodes and known globals (see `globals`), and rejects all others by name.
//! Values are stored in one list and refer to each other by index. Sharing therefore costs nothing,
//! cycles are harmless, and depth needs no recursion. Each opcode adds at most one value, and
//! strings are borrowed, so memory is bounded by the length of the pickle.
//!
//! This is our own reader: the crate serde-pickle 1.2 knows no persistent ids, which PyTorch writes
//! for tensors, and needs the standard library (2026-11-28).
//!
//! # Source
//! CPython's `pickletools.py` and `torch/serialization.py`.

use std::prelude::v1::*;

use std::collections::BTreeMap;

use super::dtype::DType;
use super::globals::Global;
use crate::error::{Error, Result};

/// The maximum number of bytes. Tensors are stored outside the pickle, so no network needs more.
const MAX_BYTES: usize = 16 << 20;
/// The maximum number of values. A network needs about 20 per tensor.
const MAX_VALUES: usize = 1 << 20;
/// The maximum depth of the stack.
const MAX_STACK: usize = 1 << 18;

/// The index of a value in the list.
pub(super) type Id = u32;

/// A tensor as described by the pickle. It has not been checked against its storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorRef<'a> {
    pub storage: &'a str,
    pub dtype: DType,
    /// The number of values in the storage.
    pub stored: u64,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    /// A number that no tensor depends on.
    Number,
    Str(&'a str),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global<'a>),
    Storage {
        key: &'a str,
        dtype: DType,
        stored: u64,
    },
    Tensor(TensorRef<'a>),
    /// An object of a known class that is irrelevant to tensors.
    Inert,
}

/// The values of a pickle, and the index of its root.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Runs a pickle.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the disallowed opcode or global, or another error, with its
    /// position.
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::Checkpoint(format!("pickle: expected at most {MAX_BYTES} bytes, got {}", bytes.len())));
        }
        let mut machine = Machine { bytes, position: 0, values: Vec::new(), stack: Vec::new(), memo: BTreeMap::new() };
        let root = loop {
            let position = machine.position;
            let step = machine.step();
            let done = step.map_err(|reason| Error::Checkpoint(format!("pickle: {reason}, at byte {position}")))?;
            if let Some(root) = done {
                break root;
            }
        };
        Ok(Pickle { values: machine.values, root })
    }

    pub(super) fn root(&self) -> &Value<'a> {
        self.get(self.root)
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// Returns the value of a dictionary's key. If a key occurs several times, the last one counts,
    /// as in Python.
    pub(super) fn entry(&self, dict: &Value<'a>, name: &str) -> Option<&Value<'a>> {
        let Value::Dict(entries) = dict else { return None };
        let found = entries.iter().rev().find(|(key, _)| *self.get(*key) == Value::Str(name))?;
        Some(self.get(found.1))
    }
}

type Step<T> = core::result::Result<T, String>;

/// An item on the stack.
#[derive(Clone, Copy, PartialEq)]
enum Item {
    Mark,
    Value(Id),
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Item>,
    memo: BTreeMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Executes one opcode. Returns the root at the end.
    fn step(&mut self) -> Step<Option<Id>> {
        let opcode = self.byte()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => self.protocol()?,
            0x95 => drop(self.take(8)?),
            b'(' => self.push_item(Item::Mark)?,
            b'0' => drop(self.stack.pop().ok_or("POP from an empty stack")?),
            b'1' => drop(self.marked()?),
            b'2' => {
                let top = *self.stack.last().ok_or("DUP on an empty stack")?;
                self.push_item(top)?;
            }
            b'q' | b'r' | 0x94 => self.put(opcode)?,
            b'h' | b'j' => self.fetch(opcode)?,
            b'a' | b'e' => self.append(opcode == b'e')?,
            b's' | b'u' => self.set(opcode == b'u')?,
            0x90 => self.add_items()?,
            b'c' | 0x93 => self.global(opcode)?,
            b'Q' => self.persistent()?,
            b'R' | 0x81 => self.reduce()?,
            b'b' => self.build()?,
            _ => {
                let value = self.literal(opcode)?;
                self.push(value)?;
            }
        }
        Ok(None)
    }

    /// Executes an opcode that pushes a new value.
    fn literal(&mut self, opcode: u8) -> Step<Value<'a>> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool,
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(self.unsigned::<2>()? as i64),
            b'J' => Value::Int(i64::from(self.unsigned::<4>()? as u32 as i32)),
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                Value::Number
            }
            b'X' => self.string::<4>()?,
            0x8c => self.string::<1>()?,
            0x8d => self.string::<8>()?,
            b'U' => self.string::<1>()?,
            b'T' => self.string::<4>()?,
            b'C' => self.raw::<1>()?,
            b'B' => self.raw::<4>()?,
            b')' => Value::Tuple(Vec::new()),
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            0x8f => Value::Inert,
            0x91 => {
                self.marked()?;
                Value::Inert
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or("TUPLE from an empty stack")?;
                Value::Tuple(ids(self.stack.drain(start..))?)
            }
            b't' => Value::Tuple(self.marked()?),
            b'l' => Value::List(self.marked()?),
            b'd' => Value::Dict(pairs(&self.marked()?)?),
            _ => return Err(format!("opcode {} ({opcode:#04x}) is not allowed", opcode_name(opcode))),
        })
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: u64) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let short = || format!("expected {count} more bytes, got {}", rest.len());
        let piece = usize::try_from(count).ok().and_then(|count| rest.get(..count)).ok_or_else(short)?;
        self.position += piece.len();
        Ok(piece)
    }

    fn unsigned<const N: usize>(&mut self) -> Step<u64> {
        Ok(self.take(N as u64)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn string<const N: usize>(&mut self) -> Step<Value<'a>> {
        let count = self.unsigned::<N>()?;
        let text = core::str::from_utf8(self.take(count)?);
        Ok(Value::Str(text.map_err(|_| "expected a string in UTF-8")?))
    }

    fn raw<const N: usize>(&mut self) -> Step<Value<'a>> {
        let count = self.unsigned::<N>()?;
        self.take(count)?;
        Ok(Value::Bytes)
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self) -> Step<Value<'a>> {
        let count = self.byte()?;
        let bytes = self.take(u64::from(count))?;
        if bytes.len() > 8 {
            return Ok(Value::Number);
        }
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { u64::MAX } else { 0 };
        let value = bytes.iter().rev().fold(sign, |value, &byte| value << 8 | u64::from(byte));
        Ok(Value::Int(value.cast_signed()))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.position..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("expected a line, got the end")?;
        let line = self.take(length as u64)?;
        self.position += 1;
        core::str::from_utf8(line).map_err(|_| "expected a name in UTF-8".into())
    }

    fn protocol(&mut self) -> Step<()> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(format!("expected protocol 2 to 5, got {other}")),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.values.len() == MAX_VALUES {
            return Err(format!("expected at most {MAX_VALUES} values, got more"));
        }
        self.values.push(value);
        self.push_item(Item::Value((self.values.len() - 1) as Id))
    }

    fn push_item(&mut self, item: Item) -> Step<()> {
        if self.stack.len() == MAX_STACK {
            return Err(format!("expected a stack of at most {MAX_STACK}, got more"));
        }
        self.stack.push(item);
        Ok(())
    }

    fn top(&self) -> Step<Id> {
        match self.stack.last() {
            Some(Item::Value(id)) => Ok(*id),
            _ => Err("expected a value on the stack, got none".into()),
        }
    }

    fn pop(&mut self) -> Step<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// Pops the items above the last mark, and the mark.
    fn marked(&mut self) -> Step<Vec<Id>> {
        let mark = self.stack.iter().rposition(|item| *item == Item::Mark).ok_or("expected a mark, got none")?;
        let items = ids(self.stack.drain(mark + 1..))?;
        self.stack.pop();
        Ok(items)
    }

    fn put(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            b'q' => u32::from(self.byte()?),
            b'r' => self.unsigned::<4>()? as u32,
            _ => self.memo.len() as u32,
        };
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn fetch(&mut self, opcode: u8) -> Step<()> {
        let key = if opcode == b'h' { u32::from(self.byte()?) } else { self.unsigned::<4>()? as u32 };
        let id = *self.memo.get(&key).ok_or_else(|| format!("expected memo entry {key}, got none"))?;
        self.push_item(Item::Value(id))
    }

    fn append(&mut self, many: bool) -> Step<()> {
        let items = if many { self.marked()? } else { vec![self.pop()?] };
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            Value::Inert => {}
            _ => return Err("expected a list to append to, got another type".into()),
        }
        Ok(())
    }

    fn set(&mut self, many: bool) -> Step<()> {
        let items = match many {
            true => self.marked()?,
            false => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
        };
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => dict.extend(pairs(&items)?),
            Value::Inert => {}
            _ => return Err("expected a dictionary to add items to, got another type".into()),
        }
        Ok(())
    }

    /// Adds items to a set. Sets are inert, since no tensor depends on them.
    fn add_items(&mut self) -> Step<()> {
        self.marked()?;
        match self.values[self.top()? as usize] {
            Value::Inert => Ok(()),
            _ => Err("expected a set to add items to, got another type".into()),
        }
    }

    fn global(&mut self, opcode: u8) -> Step<()> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (&self.values[module as usize], &self.values[name as usize]) {
                (Value::Str(module), Value::Str(name)) => (*module, *name),
                _ => return Err("STACK_GLOBAL: expected two strings".into()),
            }
        };
        let global = Global::find(module, name);
        let start = |text: &str| text.chars().take(60).collect::<String>();
        let refused = || {
            let advice = if Global::is_of_a_model(module, name) {
                ": the file holds a whole model; save its weights alone with torch.save(model.state_dict(), PATH)"
            } else {
                ""
            };
            format!("global {:?} is not allowed{advice}", start(&format!("{module}.{name}")))
        };
        let global = global.ok_or_else(refused)?;
        self.push(Value::Global(global))
    }

    /// Reads a reference to a storage: `('storage', class, key, device, count)`.
    fn persistent(&mut self) -> Step<()> {
        let id = self.pop()?;
        let wrong = "expected a persistent id (storage, class, key, device, count), got another type";
        let Value::Tuple(parts) = &self.values[id as usize] else { return Err(wrong.into()) };
        let [kind, class, key, _, count] = parts[..] else { return Err(wrong.into()) };
        let [kind, class, key, count] = [kind, class, key, count].map(|id| &self.values[id as usize]);
        let (Value::Str("storage"), Value::Global(Global::Storage(dtype)), Value::Str(key), Value::Int(count)) =
            (kind, class, key, count)
        else {
            return Err(wrong.into());
        };
        let stored = u64::try_from(*count).map_err(|_| wrong)?;
        let storage = Value::Storage { key, dtype: *dtype, stored };
        self.push(storage)
    }

    /// Handles `REDUCE` and `NEWOBJ`. Nothing is called: the callees listed here only describe
    /// tensors and containers, or yield inert values.
    fn reduce(&mut self) -> Step<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = &self.values[arguments as usize] else {
            return Err("expected a tuple of arguments, got another type".into());
        };
        let made = match &self.values[callee as usize] {
            Value::Global(Global::Inert | Global::Size) => Value::Inert,
            Value::Global(Global::OrderedDict) if arguments.is_empty() => Value::Dict(Vec::new()),
            Value::Global(Global::RebuildTensor) => self.rebuild(arguments)?,
            Value::Global(Global::RebuildParameter) => match arguments.first().map(|&id| &self.values[id as usize]) {
                Some(Value::Tensor(tensor)) => Value::Tensor(tensor.clone()),
                _ => return Err("_rebuild_parameter: expected a tensor, got another type".into()),
            },
            Value::Global(Global::Script(name)) => {
                let name: String = name.chars().take(60).collect();
                return Err(format!(
                    "global \"__main__.{name}\" is defined in the training script and is never called"
                ));
            }
            _ => return Err("expected a call of an allowed global with known arguments, got another".into()),
        };
        self.push(made)
    }

    /// Describes a tensor from `(storage, offset, size, stride, ..)`.
    fn rebuild(&self, arguments: &[Id]) -> Step<Value<'a>> {
        let wrong = "_rebuild_tensor_v2: expected (storage, offset, size, stride, ..), got other arguments";
        let [storage, offset, size, stride, ..] = arguments else { return Err(wrong.into()) };
        let unsigned = |id: &Id| match &self.values[*id as usize] {
            Value::Int(value) => u64::try_from(*value).map_err(|_| wrong),
            _ => Err(wrong),
        };
        let row = |id: &Id| match &self.values[*id as usize] {
            Value::Tuple(items) if items.len() <= 8 => {
                items.iter().map(unsigned).collect::<core::result::Result<Vec<u64>, _>>()
            }
            _ => Err(wrong),
        };
        let Value::Storage { key, dtype, stored } = self.values[*storage as usize] else { return Err(wrong.into()) };
        let (shape, strides) = (row(size)?, row(stride)?);
        if shape.len() != strides.len() {
            return Err(wrong.into());
        }
        Ok(Value::Tensor(TensorRef { storage: key, dtype, stored, offset: unsigned(offset)?, shape, strides }))
    }

    /// Drops the state: a dictionary's state is its `_metadata`, and that of an inert object is
    /// irrelevant.
    fn build(&mut self) -> Step<()> {
        self.pop()?;
        match self.values[self.top()? as usize] {
            Value::Dict(_) | Value::Inert => Ok(()),
            _ => Err("BUILD: expected a dictionary or a settings object, got another type".into()),
        }
    }
}

fn ids(items: impl Iterator<Item = Item>) -> Step<Vec<Id>> {
    let value = |item| match item {
        Item::Value(id) => Ok(id),
        Item::Mark => Err("expected values, got a mark".into()),
    };
    items.map(value).collect()
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(format!("expected pairs of keys and values, got {} items", items.len()));
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

/// The names of opcodes that occur in malicious or very old pickles.
fn opcode_name(opcode: u8) -> &'static str {
    match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x92 => "NEWOBJ_EX",
        b'P' => "PERSID",
        b'p' => "PUT",
        b'g' => "GET",
        b'S' => "STRING",
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'V' => "UNICODE",
        0x8b => "LONG4",
        0x8e => "BINBYTES8",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "unknown",
    }
}
