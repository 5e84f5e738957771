//! The header of NumPy's `.npy` files.
//!
//! This is our own: the crates npyz 0.9 and ndarray-npy 0.10 add 17 packages for this one text, and
//! choose its length themselves (2026-11-28).

/// The length of a header in bytes: enough for any shape of three dimensions.
pub(crate) const LENGTH: usize = 128;

/// Returns the first 128 bytes of an array file in format 1.0. The values follow, row by
/// row. `kind` is NumPy's type string, such as `<f4`.
///
/// # Panics
/// If the type and the shape do not fit into the header: with more than three dimensions, or with
/// dimensions of 20 digits each.
///
/// # Source
/// NumPy Enhancement Proposal 1.
///
/// # Example
/// ```
/// let mut file = bagssl_eval::npy_header("<f4", &[2, 3]).to_vec();
/// file.extend([1f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|value| value.to_le_bytes()));
/// assert!(file.starts_with(b"\x93NUMPY") && file.len() == 128 + 24);
/// ```
pub fn header(kind: &str, shape: &[usize]) -> [u8; LENGTH] {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let tuple = sides.join(", ") + if shape.len() == 1 { "," } else { "" };
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({tuple}), }}");
    // Magic, version and length take 10 bytes. The rest is padded with spaces and ends with a line
    // feed.
    const START: usize = 10;
    assert!(START + text.len() < LENGTH, "an array of {} sides", shape.len());
    let mut header = [b' '; LENGTH];
    header[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    header[8..START].copy_from_slice(&((LENGTH - START) as u16).to_le_bytes());
    header[START..START + text.len()].copy_from_slice(text.as_bytes());
    header[LENGTH - 1] = b'\n';
    header
}

/// Returns NumPy's type string for a 4-byte type with this letter in native byte order.
pub(super) fn native(letter: char) -> String {
    let order = if cfg!(target_endian = "big") { '>' } else { '<' };
    format!("{order}{letter}4")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numpy_writes_it() {
        let bytes = header("<f4", &[2, 3]);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&bytes[10..]).unwrap();
        assert!(text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"), "{text}");
        assert!(text.ends_with(" \n"));
        let most = header("<f4", &[usize::MAX / 2; 3]);
        assert!(most.ends_with(b"\n") && most.contains(&b'}'));
        assert!(header("<u4", &[7]).windows(4).any(|part| part == b"(7,)"));
    }
}
