//! The digest that detects changes to a checkpoint since it was written.
//!
//! The digest is XXH3-64 over the spec's JSON, followed by each tensor in the order of their names.
//! A tensor is hashed as one line of text with its name, type and shape
//! (`encoder.conv1.weight F32 [16, 3, 3, 3]`), then its bytes. The JSON and each line are preceded
//! by their length: 8 bytes, little-endian.
//!
//! The JSON of classifiers (`bagssl_eval::classify::classifier`) has the same digest.
//!
//! The metadata stores the digest as 16 hexadecimal digits in the last field of the JSON:
//! `{..,"digest":"0123456789abcdef"}`. It detects accidental corruption by disks and networks, not
//! deliberate changes.

use core::fmt::Debug;
use core::hash::Hasher;
use std::prelude::v1::*;

use twox_hash::xxhash3_64::Hasher as Xxh3;

/// The text between the JSON's other fields and the digits.
const FIELD: &str = ",\"digest\":\"";
/// The text after the digits.
const END: &str = "\"}";
const DIGITS: usize = 16;

/// A tensor's name, type (which is written as safetensors writes it), shape and bytes.
pub type Described<'a, D> = (&'a str, D, Vec<usize>, &'a [u8]);

/// Returns the digest over a JSON object and tensors.
pub fn digest<D: Debug>(json: &str, mut tensors: Vec<Described<'_, D>>) -> u64 {
    let mut hash = Xxh3::new();
    let text = |hash: &mut Xxh3, text: &str| {
        hash.write(&(text.len() as u64).to_le_bytes());
        hash.write(text.as_bytes());
    };
    text(&mut hash, json);
    tensors.sort_unstable_by_key(|(name, ..)| *name);
    for (name, dtype, shape, bytes) in tensors {
        text(&mut hash, &format!("{name} {dtype:?} {shape:?}"));
        hash.write(bytes);
    }
    hash.finish()
}

/// Appends the digest to a JSON object as its last field.
///
/// # Panics
/// If the text does not end as an object does.
pub fn join(json: &str, digest: u64) -> String {
    let fields = json.strip_suffix('}').expect("an object");
    format!("{fields}{FIELD}{digest:0DIGITS$x}{END}")
}

/// Splits the output of [`join`] into the JSON object and the digest.
///
/// # Errors
/// If there is no digest.
pub fn split(json: &str) -> Result<(String, u64), String> {
    let found = || {
        let (fields, digits) = json.strip_suffix(END)?.rsplit_once(FIELD)?;
        let lower = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        let digits = Some(digits).filter(|digits| digits.len() == DIGITS && digits.bytes().all(lower))?;
        Some((format!("{fields}}}"), u64::from_str_radix(digits, 16).ok()?))
    };
    found().ok_or_else(|| "expected a digest at the end of the metadata, got none".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::Dtype;

    /// From `tests/reference/digest.py`, with the package xxhash.
    #[test]
    fn reference_values() {
        let bytes: Vec<u8> = (0..24).collect();
        let tensors =
            || vec![("b", Dtype::I8, vec![3, 2], &bytes[8..14]), ("a.weight", Dtype::F32, vec![2], &bytes[..8])];
        assert_eq!(digest::<Dtype>("{}", vec![]), 0x6ddb_247d_90c4_1a9c);
        assert_eq!(digest("{\"x\":1}", tensors()), 0x5be1_a299_91ff_3904);
        let mut turned = tensors();
        turned.reverse();
        assert_eq!(digest("{\"x\":1}", turned), 0x5be1_a299_91ff_3904);
        turned = tensors();
        turned[0].2 = vec![2, 3];
        assert_ne!(digest("{\"x\":1}", turned), 0x5be1_a299_91ff_3904, "a shape counts");
    }

    #[test]
    fn split_takes_the_last_field() {
        let joined = join("{\"x\":1}", 0xab);
        assert_eq!(joined, "{\"x\":1,\"digest\":\"00000000000000ab\"}");
        assert_eq!(split(&joined), Ok(("{\"x\":1}".into(), 0xab)));
        for bad in ["", "{}", "{\"x\":1,\"digest\":\"ab\"}", "{\"x\":1,\"digest\":\"00000000000000AB\"}"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
