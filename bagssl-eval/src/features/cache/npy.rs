//! The header of NumPy's array files.

/// Bytes of a header: enough for any shape of three sides.
pub const LENGTH: usize = 128;

/// The first [`LENGTH`] bytes of an array file, format 1.0; the values follow, row by row. `kind` is NumPy's word for them, such
/// as `<f4`.
///
/// # Panics
/// If the texts of kind and shape are too long for that: more than three sides, or of 20 digits each.
///
/// # Source
/// NumPy Enhancement Proposal 1.
///
/// # Example
/// ```
/// let mut file = bagssl_eval::features::cache::npy::header("<f4", &[2, 3]).to_vec();
/// file.extend([1f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|value| value.to_le_bytes()));
/// assert!(file.starts_with(b"\x93NUMPY") && file.len() == 128 + 24);
/// ```
pub fn header(kind: &str, shape: &[usize]) -> [u8; LENGTH] {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let tuple = sides.join(", ") + if shape.len() == 1 { "," } else { "" };
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({tuple}), }}");
    // Magic, version and length are 10 bytes; the rest is filled with spaces and ends with a line feed.
    const START: usize = 10;
    assert!(START + text.len() < LENGTH, "an array of {} sides", shape.len());
    let mut header = [b' '; LENGTH];
    header[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    header[8..START].copy_from_slice(&((LENGTH - START) as u16).to_le_bytes());
    header[START..START + text.len()].copy_from_slice(text.as_bytes());
    header[LENGTH - 1] = b'\n';
    header
}

/// NumPy's word for 4 bytes of this letter in this machine's byte order.
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
