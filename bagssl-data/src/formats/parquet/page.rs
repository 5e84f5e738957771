//! Parquet pages: their headers and their values.
//!
//! # Source
//! Apache Parquet, `parquet.thrift` and `Encodings.md`.

use std::borrow::Cow;

use super::footer::{BYTES, Chunk, INT32};
use super::refusal::{Refusal, refusal};
use super::{codec, delta, thrift};

/// The kind of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dictionary,
    Data,
    /// A data page of version 2. Its first `levels` bytes are levels, which are not compressed.
    Data2 {
        levels: u64,
        is_compressed: bool,
    },
    Other,
}

/// The header of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The number of values including nulls, which is the number of rows.
    pub(crate) values: u64,
    pub(crate) encoding: i64,
    /// The size in bytes in the file, and after decompression.
    pub(crate) packed: u64,
    pub(crate) unpacked: u64,
}

impl Header {
    /// Parses a header. Also returns its length. Returns `None` if it is truncated or invalid.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, u64)> {
        let (value, length) = thrift::read(bytes)?;
        let (packed, unpacked) = (value.count(3)?, value.count(2)?);
        let (kind, values, encoding) = match value.number(1)? {
            0 => {
                let data = value.field(5)?;
                (Kind::Data, data.count(1)?, data.number(2)?)
            }
            2 => {
                let dictionary = value.field(7)?;
                (Kind::Dictionary, dictionary.count(1)?, dictionary.number(2)?)
            }
            3 => {
                let data = value.field(8)?;
                let levels = data.count(5)?.checked_add(data.count(6)?)?;
                let is_compressed = data.flag(7).unwrap_or(true);
                (Kind::Data2 { levels, is_compressed }, data.count(1)?, data.number(4)?)
            }
            _ => (Kind::Other, 0, 0),
        };
        Some((Header { kind, values, encoding, packed, unpacked }, length as u64))
    }

    /// Returns the decompressed bytes of a page.
    pub(crate) fn unpack<'a>(&self, packed: &'a [u8], codec: i64) -> Result<Cow<'a, [u8]>, Refusal> {
        let (levels, codec) = match self.kind {
            Kind::Data2 { levels, is_compressed } => (levels, if is_compressed { codec } else { 0 }),
            _ => (0, codec),
        };
        let cut = || refusal("a page of the size in its header", packed.len());
        let (head, body) = packed.split_at_checked(levels as usize).ok_or_else(cut)?;
        let length = self.unpacked.checked_sub(levels).ok_or_else(cut)? as usize;
        if codec == 0 {
            return if body.len() == length { Ok(Cow::Borrowed(packed)) } else { Err(cut()) };
        }
        // A page of null values may have no bytes at all.
        let body = if length == 0 { Vec::new() } else { codec::unpack(body, codec, length)? };
        Ok(Cow::Owned(if head.is_empty() { body } else { [head, &body].concat() }))
    }

    /// Splits a data page into its definition levels (`None` if no value can be null) and its
    /// values.
    fn parts<'a>(&self, page: &'a [u8], chunk: Chunk) -> Option<(Option<&'a [u8]>, &'a [u8])> {
        match self.kind {
            Kind::Data2 { levels, .. } => {
                let (levels, values) = page.split_at_checked(levels as usize)?;
                Some(((chunk.level > 0).then_some(levels), values))
            }
            _ if chunk.level == 0 => Some((None, page)),
            _ => {
                let (length, rest) = page.split_first_chunk()?;
                let (levels, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                Some((Some(levels), values))
            }
        }
    }

    /// Returns the index of each row's value among the present values, or `None` for a null.
    fn indices(&self, page: &[u8], chunk: Chunk) -> Option<Vec<Option<u32>>> {
        let (levels, _) = self.parts(page, chunk)?;
        let Some(levels) = levels else { return Some((0..self.values as u32).map(Some).collect()) };
        let levels = runs(levels, u32::BITS - chunk.level.leading_zeros(), self.values)?;
        let mut next = 0;
        let index = |level| {
            let is_there = level == chunk.level;
            next += u32::from(is_there);
            is_there.then(|| next - 1)
        };
        Some(levels.into_iter().map(index).collect())
    }

    /// Returns the value of one row of a page of byte arrays: `Some(None)` if it is null.
    pub(crate) fn bytes<'a>(
        &self,
        page: &'a [u8],
        dictionary: Option<&'a [u8]>,
        chunk: Chunk,
        row: u64,
    ) -> Option<Option<Cow<'a, [u8]>>> {
        let indices = self.indices(page, chunk)?;
        let Some(index) = *indices.get(usize::try_from(row).ok()?)? else { return Some(None) };
        let values = self.parts(page, chunk)?.1;
        let value = match self.encoding {
            0 => array(values, index).map(Cow::Borrowed),
            2 | 8 => {
                let (width, rest) = values.split_first()?;
                let numbers = runs(rest, u32::from(*width), u64::from(index) + 1)?;
                array(dictionary?, numbers[index as usize]).map(Cow::Borrowed)
            }
            6 => delta::array(values, index, self.values).map(Cow::Borrowed),
            7 => delta::joined_array(values, index, self.values),
            _ => None,
        };
        value.map(Some)
    }

    /// Returns the values of all rows of a page of integers.
    pub(crate) fn numbers(&self, page: &[u8], dictionary: Option<&[u8]>, chunk: Chunk) -> Option<Vec<Option<i64>>> {
        let indices = self.indices(page, chunk)?;
        let count = indices.iter().flatten().count() as u64;
        let values = self.parts(page, chunk)?.1;
        let indices = indices.into_iter();
        match self.encoding {
            0 => {
                indices.map(|index| index.map_or(Some(None), |index| integer(values, index, chunk).map(Some))).collect()
            }
            2 | 8 => {
                let (width, rest) = if count == 0 { (&0, values) } else { values.split_first()? };
                let numbers = runs(rest, u32::from(*width), count)?;
                let value = |index: u32| integer(dictionary?, numbers[index as usize], chunk);
                indices.map(|index| index.map_or(Some(None), |index| value(index).map(Some))).collect()
            }
            5 => {
                let (numbers, _) = delta::numbers(values, count)?;
                let value = |index: u32| {
                    let number = *numbers.get(index as usize)?;
                    Some(if chunk.kind == INT32 { i64::from(number as i32) } else { number })
                };
                indices.map(|index| index.map_or(Some(None), |index| value(index).map(Some))).collect()
            }
            _ => None,
        }
    }
}

/// Returns one byte array of a plain page, in which each array follows its length.
fn array(mut values: &[u8], index: u32) -> Option<&[u8]> {
    for number in 0..=index {
        let (length, rest) = values.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        if number == index {
            return Some(value);
        }
        values = rest;
    }
    None
}

/// Returns one integer of a plain page.
fn integer(values: &[u8], index: u32, chunk: Chunk) -> Option<i64> {
    debug_assert_ne!(chunk.kind, BYTES);
    let at = index as usize * if chunk.kind == INT32 { 4 } else { 8 };
    let rest = values.get(at..)?;
    match chunk.kind {
        INT32 => rest.first_chunk().map(|bytes| i64::from(i32::from_le_bytes(*bytes))),
        _ => rest.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)),
    }
}

/// Decodes the first `count` numbers of `width` bits in the hybrid of run-length encoding and bit
/// packing.
fn runs(bytes: &[u8], width: u32, count: u64) -> Option<Vec<u32>> {
    if width > 32 {
        return None;
    }
    let (count, bits) = (usize::try_from(count).ok()?, width as usize);
    let (mut at, mut numbers) = (0, Vec::new());
    while numbers.len() < count {
        let head = delta::varint(bytes, &mut at)?;
        let left = count - numbers.len();
        let amount = usize::try_from(head >> 1).ok()?;
        if head & 1 == 0 {
            let value = bytes.get(at..at.checked_add(bits.div_ceil(8))?)?;
            at += value.len();
            let value = value.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            if amount == 0 {
                return None;
            }
            numbers.resize(numbers.len() + amount.min(left), value);
        } else {
            let end = at.checked_add(amount.checked_mul(bits)?)?;
            let packed = bytes.get(at..end.min(bytes.len()))?;
            at = end;
            let whole = (packed.len() * 8).checked_div(bits).unwrap_or(amount.min(count).saturating_mul(8));
            if whole == 0 {
                return None;
            }
            numbers.extend((0..whole.min(left)).map(|number| unpacked(packed, number * bits, bits)));
        }
    }
    Some(numbers)
}

/// Reads `bits` bits from bit `from`, least significant bit first.
fn unpacked(bytes: &[u8], from: usize, bits: usize) -> u32 {
    (0..bits).fold(0, |sum, bit| sum | u32::from(bytes[(from + bit) / 8] >> ((from + bit) % 8) & 1) << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's example: 0 to 7 in three bits each.
    #[test]
    fn runs_and_groups_by_hand() {
        assert_eq!(runs(&[0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010], 3, 8).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(runs(&[10, 2, 0b11, 0b0000_0101], 1, 9).unwrap(), [2, 2, 2, 2, 2, 1, 0, 1, 0]);
        assert_eq!(runs(&[4, 0x34, 0x12], 16, 2).unwrap(), [0x1234; 2]);
        assert_eq!(runs(&[4], 0, 2).unwrap(), [0; 2]);
        for (bytes, width) in [(&[][..], 1), (&[0, 1], 1), (&[4], 8), (&[3], 3), (&[0xff; 9], 1), (&[4, 1], 33)] {
            assert_eq!(runs(bytes, width, 3), None, "{bytes:?}");
        }
    }
}
