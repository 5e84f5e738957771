//! Parquet's delta encodings: of integers, of byte arrays with delta-encoded lengths, and of byte
//! arrays with shared prefixes.
//!
//! # Source
//! Apache Parquet, `Encodings.md`: DELTA_BINARY_PACKED (5), DELTA_LENGTH_BYTE_ARRAY (6),
//! DELTA_BYTE_ARRAY (7).

use std::borrow::Cow;

/// Decodes at most `max_count` integers. Also returns the number of bytes read.
pub(super) fn numbers(bytes: &[u8], max_count: u64) -> Option<(Vec<i64>, usize)> {
    let mut at = 0;
    let (block, minis, count) = (varint(bytes, &mut at)?, varint(bytes, &mut at)?, varint(bytes, &mut at)?);
    let mut value = zigzag(varint(bytes, &mut at)?);
    if count > max_count
        || minis == 0
        || !block.is_multiple_of(minis)
        || !(block / minis).is_multiple_of(32)
        || block == 0
    {
        return None;
    }
    let (minis, of_mini, count) = (usize::try_from(minis).ok()?, usize::try_from(block / minis).ok()?, count as usize);
    let mut numbers = Vec::new();
    if count > 0 {
        numbers.push(value);
    }
    while numbers.len() < count {
        let min_delta = zigzag(varint(bytes, &mut at)?);
        let widths = bytes.get(at..at.checked_add(minis)?)?;
        at += minis;
        for &width in widths {
            if numbers.len() == count {
                break;
            }
            let length = of_mini.checked_mul(usize::from(width))? / 8;
            let packed = bytes.get(at..at.checked_add(length)?)?;
            at += length;
            if width > 64 {
                return None;
            }
            for number in 0..of_mini.min(count - numbers.len()) {
                let delta = bits(packed, number * usize::from(width), usize::from(width));
                value = value.wrapping_add(min_delta).wrapping_add(delta as i64);
                numbers.push(value);
            }
        }
    }
    Some((numbers, at))
}

/// Returns one byte array. The lengths of all arrays come first.
pub(super) fn array(bytes: &[u8], index: u32, max_count: u64) -> Option<&[u8]> {
    let (lengths, at) = numbers(bytes, max_count)?;
    slice(&bytes[at..], &lengths, index as usize)
}

/// Returns one byte array, where each array stores the length of the prefix it shares with the
/// array before it, and the rest.
pub(super) fn joined_array(bytes: &[u8], index: u32, max_count: u64) -> Option<Cow<'_, [u8]>> {
    let (shared, at) = numbers(bytes, max_count)?;
    let (lengths, length) = numbers(&bytes[at..], max_count)?;
    let (rest, index) = (&bytes[at + length..], index as usize);
    // Start at the nearest array before it that shares no prefix.
    let start = (0..=index).rev().find(|at| shared.get(*at) == Some(&0))?;
    let mut array = Cow::Borrowed(slice(rest, &lengths, start)?);
    for at in start + 1..=index {
        let same = array.get(..usize::try_from(*shared.get(at)?).ok()?)?;
        array = Cow::Owned([same, slice(rest, &lengths, at)?].concat());
    }
    Some(array)
}

/// Returns one of several consecutive slices.
fn slice<'a>(bytes: &'a [u8], lengths: &[i64], index: usize) -> Option<&'a [u8]> {
    let sum = |start: usize, length: &i64| start.checked_add(usize::try_from(*length).ok()?);
    let start = lengths.get(..index)?.iter().try_fold(0, sum)?;
    bytes.get(start..sum(start, lengths.get(index)?)?)
}

/// Reads `bits` (at most 64) bits from bit `from`, least significant bit first. The bits must be
/// inside `bytes`.
fn bits(bytes: &[u8], from: usize, bits: usize) -> u64 {
    (0..bits).fold(0, |sum, bit| sum | u64::from(bytes[(from + bit) / 8] >> ((from + bit) % 8) & 1) << bit)
}

fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second example of the specification: 7, 5, 3, 1, 2, 3, 4, 5. The deltas are -2, -2, -2,
    /// 1, 1, 1, 1. Their minimum is -2. The differences to it, 0, 0, 0, 3, 3, 3, 3, take two bits
    /// each. A block has 128 numbers in four miniblocks of 32.
    const EXAMPLE: &[u8] = &[0x80, 1, 4, 8, 14, 3, 2, 0, 0, 0, 0b1100_0000, 0b0011_1111, 0, 0, 0, 0, 0, 0];

    #[test]
    fn numbers_of_the_specification() {
        assert_eq!(numbers(EXAMPLE, 8).unwrap(), (vec![7, 5, 3, 1, 2, 3, 4, 5], EXAMPLE.len()));
        assert_eq!(numbers(EXAMPLE, 7), None, "more than there are rows");
        assert_eq!(numbers(&[0x80, 1, 4, 1, 3], 1).unwrap(), (vec![-2], 5), "one number has no block");
        assert_eq!(numbers(&[0x80, 1, 4, 0, 0], 9).unwrap(), (vec![], 5));
        for length in 0..EXAMPLE.len() {
            assert_eq!(numbers(&EXAMPLE[..length], 8), None, "{length} bytes");
        }
        for wrong in [&[0x80, 1, 0, 8, 14][..], &[0, 4, 8, 14], &[8, 1, 8, 14], &[0xff; 11]] {
            assert_eq!(numbers(wrong, 8), None, "{wrong:?}");
        }
    }

    /// `count` equal numbers: the minimum delta of their block is 0, and its bit widths are 0.
    fn equal(count: u8, number: u8) -> Vec<u8> {
        [&[0x80, 1, 4, count, number * 2][..], if count > 1 { &[0, 0, 0, 0, 0] } else { &[] }].concat()
    }

    #[test]
    fn byte_arrays_by_hand() {
        let arrays = [&equal(3, 2)[..], b"abcdef"].concat();
        let of = |index| array(&arrays, index, 3);
        assert_eq!([of(0), of(2), of(3)], [Some(&b"ab"[..]), Some(b"ef"), None]);
        // "ab", then two arrays that append two letters to its first letter: "acd" and "aef".
        let shared: &[u8] = &[0x80, 1, 4, 3, 0, 0, 1, 0, 0, 0, 0b01, 0, 0, 0];
        assert_eq!(numbers(shared, 3).unwrap().0, [0, 1, 1]);
        let joined = [shared, &equal(3, 2), b"abcdef"].concat();
        let of = |index| joined_array(&joined, index, 3).map(Cow::into_owned);
        assert_eq!(
            [of(0), of(1), of(2), of(3)],
            [Some(b"ab".to_vec()), Some(b"acd".to_vec()), Some(b"aef".to_vec()), None]
        );
    }
}
