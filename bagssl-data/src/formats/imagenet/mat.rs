//! A reader for MATLAB's `.mat` files of version 5, limited to what ImageNet's `meta.mat` needs:
//! one array of structs with numbers and texts.
//!
//! This is our own reader: the crate matfile 0.5 reads no arrays of structs, and matrw 0.1.4 panics
//! on 4,943 of 5,000 damaged files and refuses those of SciPy (2026-11-28).
//!
//! # Source
//! MathWorks, *MAT-File Format*, version 5. A header of 128 bytes is followed by elements. An
//! element has a type and a length in 8 bytes (or both in 4 bytes, if the data fit into the next
//! 4), and is padded to 8 bytes.

use std::io::Read;

use crate::error::one_line;

/// A synset: one row of the array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synset {
    /// The ILSVRC2012_ID. Synsets that are classes have 1 to 1000.
    pub id: u32,
    /// The WordNet ID, such as `n01440764`.
    pub wnid: String,
    /// The number of children in the hierarchy. Classes have none.
    pub children: u32,
}

/// The maximum size of a file after decompression. ImageNet's has less than 1 MB.
const MAX_BYTES: u64 = 64 << 20;
const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;
/// The class code of an array of structs.
const STRUCTS: u8 = 2;

/// Reads the synsets of a file.
///
/// # Errors
/// A description of what was found instead of an array of structs with `ILSVRC2012_ID`, `WNID` and
/// `num_children`.
pub fn synsets(file: &[u8]) -> Result<Vec<Synset>, String> {
    let header = file.get(..128).ok_or_else(|| format!("{} bytes", file.len()))?;
    if header[126..] != *b"IM" || header[124..126] != [0, 1] {
        return Err("a file of another version or byte order".into());
    }
    let mut rest = &file[128..];
    let cut = || "a truncated file".to_string();
    while !rest.is_empty() {
        let (kind, data) = element(&mut rest).ok_or_else(cut)?;
        let unpacked = if kind == COMPRESSED { unpack(data)? } else { Vec::new() };
        let mut inner = unpacked.as_slice();
        let (kind, data) = if kind == COMPRESSED { element(&mut inner).ok_or_else(cut)? } else { (kind, data) };
        if kind == MATRIX && class(data) == Some(STRUCTS) {
            return structs(data)
                .ok_or_else(|| "an array without complete ILSVRC2012_ID, WNID and num_children".into());
        }
    }
    Err("no array of structs".into())
}

fn unpack(data: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::ZlibDecoder::new(data).take(MAX_BYTES);
    reader.read_to_end(&mut unpacked).map_err(|error| one_line(&error))?;
    if unpacked.len() as u64 == MAX_BYTES { Err(format!("more than {MAX_BYTES} bytes")) } else { Ok(unpacked) }
}

/// Reads the next element: its type and its data.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let head = u32::from_le_bytes(*head);
    if head >> 16 != 0 {
        // Short form: type and length in one word, and the data in the next four bytes.
        let (data, rest) = rest.split_at_checked(4)?;
        *bytes = rest;
        return Some((head & 0xffff, data.get(..(head >> 16) as usize)?));
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (data, rest) = rest.split_at_checked(length)?;
    // Compressed elements are not padded, and the last element may lack its padding.
    let padding = if head == COMPRESSED { 0 } else { (length.next_multiple_of(8) - length).min(rest.len()) };
    *bytes = &rest[padding..];
    Some((head, data))
}

/// Returns the class code of an array.
fn class(mut matrix: &[u8]) -> Option<u8> {
    element(&mut matrix)?.1.first().copied()
}

/// Reads the rows of an array of structs: flags, dimensions, name, length of a field name, field
/// names, and the values.
fn structs(mut matrix: &[u8]) -> Option<Vec<Synset>> {
    let rest = &mut matrix;
    element(rest)?;
    element(rest)?;
    element(rest)?;
    let length = numbers(element(rest)?).first().copied().filter(|length| (1.0..=64.0).contains(length))? as usize;
    let names: Vec<String> = element(rest)?.1.chunks(length).map(text_of).collect();
    let place = |wanted: &str| names.iter().position(|name| name == wanted);
    let (id, wnid, children) = (place("ILSVRC2012_ID")?, place("WNID")?, place("num_children")?);
    let mut synsets = Vec::new();
    while !rest.is_empty() {
        let fields = names.iter().map(|_| element(rest)).collect::<Option<Vec<_>>>()?;
        let whole =
            |at: usize| number(fields[at]).filter(|number| (0.0..=1e9).contains(number) && number.fract() == 0.0);
        synsets.push(Synset { id: whole(id)? as u32, wnid: text(fields[wnid])?, children: whole(children)? as u32 });
    }
    Some(synsets)
}

/// Returns the values of an array that is a field of a struct.
fn values((kind, mut matrix): (u32, &[u8])) -> Option<(u32, &[u8])> {
    if kind != MATRIX {
        return None;
    }
    let rest = &mut matrix;
    element(rest)?;
    element(rest)?;
    element(rest)?;
    element(rest)
}

fn number(field: (u32, &[u8])) -> Option<f64> {
    match numbers(values(field)?)[..] {
        [number] => Some(number),
        _ => None,
    }
}

/// Reads an array of printable ASCII characters.
fn text(field: (u32, &[u8])) -> Option<String> {
    let letter = |number: &f64| (32.0..127.0).contains(number).then(|| char::from(*number as u8));
    numbers(values(field)?).iter().map(letter).collect()
}

/// Returns the characters before the first zero byte.
fn text_of(bytes: &[u8]) -> String {
    bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

/// Converts the numbers of an element to `f64`. Returns no numbers for an unknown type.
fn numbers((kind, data): (u32, &[u8])) -> Vec<f64> {
    fn of<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
    }
    match kind {
        1 => of(data, |bytes| f64::from(i8::from_le_bytes(bytes))),
        2 | 16 => of(data, |bytes| f64::from(u8::from_le_bytes(bytes))),
        3 => of(data, |bytes| f64::from(i16::from_le_bytes(bytes))),
        4 | 17 => of(data, |bytes| f64::from(u16::from_le_bytes(bytes))),
        5 => of(data, |bytes| f64::from(i32::from_le_bytes(bytes))),
        6 | 18 => of(data, |bytes| f64::from(u32::from_le_bytes(bytes))),
        7 => of(data, |bytes| f64::from(f32::from_le_bytes(bytes))),
        9 => of(data, f64::from_le_bytes),
        12 => of(data, |bytes| i64::from_le_bytes(bytes) as f64),
        13 => of(data, |bytes| u64::from_le_bytes(bytes) as f64),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Four synsets written by SciPy (tests/reference/meta.py). The last one is not a class.
    const FILE: &[u8] = include_bytes!("../../../tests/reference/meta.mat");

    #[test]
    fn synsets_of_a_scipy_file() {
        let synset = |id, wnid: &str, children| Synset { id, wnid: wnid.into(), children };
        let expected = [
            synset(1, "n02119789", 0),
            synset(2, "n01440764", 0),
            synset(3, "n02084071", 0),
            synset(1001, "n00001740", 3),
        ];
        assert_eq!(synsets(FILE).unwrap(), expected);
    }

    #[test]
    fn truncated_files_are_refused() {
        for length in 0..FILE.len() {
            assert!(synsets(&FILE[..length]).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn damage_has_an_answer(at in 0usize..4096, byte: u8) {
            let mut file = FILE.to_vec();
            let at = at % file.len();
            file[at] = byte;
            let _ = synsets(&file);
        }
    }
}
