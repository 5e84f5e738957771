//! Thrift's compact protocol, as far as parquet's footers and page headers use it.
//!
//! # Source
//! Apache Thrift, `thrift-compact-protocol.md`.

/// A Thrift value, limited to the types that parquet's metadata needs.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Number(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Struct(Vec<(i16, Value<'a>)>),
}

/// The maximum number of values in a struct, including nested ones. Each takes at least 32 bytes of
/// memory.
const MAX_VALUES: usize = 4 << 20;
/// The maximum nesting depth of structs and lists.
const MAX_DEPTH: usize = 16;

/// Parses a struct at the start of `bytes`. Also returns its length in bytes. Returns `None` if it
/// is truncated or invalid.
pub(crate) fn read(bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    let mut reader = Reader { bytes, at: 0, left: MAX_VALUES };
    let value = reader.fields(MAX_DEPTH)?;
    Some((value, reader.at))
}

impl<'a> Value<'a> {
    /// Returns a field of a struct.
    pub(crate) fn field(&self, id: i16) -> Option<&Value<'a>> {
        let Value::Struct(fields) = self else { return None };
        fields.iter().find(|(other, _)| *other == id).map(|(_, value)| value)
    }

    /// Returns a field that is a number.
    pub(crate) fn number(&self, id: i16) -> Option<i64> {
        match self.field(id)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns a field that is a nonnegative number.
    pub(crate) fn count(&self, id: i16) -> Option<u64> {
        self.number(id)?.try_into().ok()
    }

    /// Returns a field that is a boolean.
    pub(crate) fn flag(&self, id: i16) -> Option<bool> {
        match self.field(id)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Returns a field that is UTF-8 text.
    pub(crate) fn text(&self, id: i16) -> Option<&'a str> {
        match self.field(id)? {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Returns a field that is a list.
    pub(crate) fn list(&self, id: i16) -> Option<&[Value<'a>]> {
        match self.field(id)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Parses the fields of a struct up to its end.
    fn fields(&mut self, depth: usize) -> Option<Value<'a>> {
        let (mut fields, mut id) = (Vec::new(), 0_i16);
        loop {
            let head = self.byte()?;
            let (step, kind) = (head >> 4, head & 0xf);
            if kind == 0 {
                return Some(Value::Struct(fields));
            }
            id = if step == 0 { self.zigzag()?.try_into().ok()? } else { id.checked_add(i16::from(step))? };
            let value = match kind {
                1 => Value::Bool(true),
                2 => Value::Bool(false),
                kind => self.value(kind, depth.checked_sub(1)?)?,
            };
            self.left = self.left.checked_sub(1)?;
            fields.push((id, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<Value<'a>> {
        Some(match kind {
            1 | 2 => Value::Bool(self.byte()? == 1),
            3 => Value::Number(i64::from(self.byte()? as i8)),
            4..=6 => Value::Number(self.zigzag()?),
            7 => Value::Bytes(self.take(8)?),
            8 => {
                let length = self.varint()?.try_into().ok()?;
                Value::Bytes(self.take(length)?)
            }
            9 | 10 => self.list(depth.checked_sub(1)?)?,
            12 => self.fields(depth)?,
            _ => return None,
        })
    }

    fn list(&mut self, depth: usize) -> Option<Value<'a>> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            few => u64::from(few),
        };
        let mut list = Vec::new();
        for _ in 0..count {
            self.left = self.left.checked_sub(1)?;
            list.push(self.value(head & 0xf, depth)?);
        }
        Some(Value::List(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_struct_by_hand() {
        // Field 1: i32 -3. Field 2: "hi". Field 4: a list of two structs, each with a boolean.
        // Field 30 (with an explicit id): 5.
        let bytes = [0x15, 5, 0x18, 2, b'h', b'i', 0x29, 0x2c, 0x11, 0, 0x12, 0, 0x05, 60, 10, 0, 99];
        let (value, length) = read(&bytes).unwrap();
        assert_eq!(length, bytes.len() - 1);
        assert_eq!((value.number(1), value.text(2), value.number(30)), (Some(-3), Some("hi"), Some(5)));
        assert_eq!((value.count(1), value.count(30), value.number(2), value.text(3)), (None, Some(5), None, None));
        let list = value.list(4).unwrap();
        assert_eq!([list[0].flag(1), list[1].flag(1)], [Some(true), Some(false)]);
        for length in 0..bytes.len() - 1 {
            assert!(read(&bytes[..length]).is_none(), "{length} bytes");
        }
        assert!(read(&[0x19, 0xf0 | 12, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_none(), "a list longer than its bytes");
        assert!(read(&[0x1c; 1000]).is_none(), "structs without end");
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some((_, length)) = read(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
