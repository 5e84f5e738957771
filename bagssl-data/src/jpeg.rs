//! Whether a JPEG is whole. The decoder fills what is missing of one with grey; nobody should learn from that.

/// Whether the segments of a file lead to the marker that ends the image. What comes after it does not count.
///
/// # Source
/// ITU-T T.81, annex B: a marker is `FF` and a code; `FF 00` is a value of the coded data, and the restart markers
/// `D0` to `D7` lie inside it; most other markers begin a segment, whose length comes next.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    const START: u8 = 0xd8;
    const END: u8 = 0xd9;
    let mut rest = bytes;
    loop {
        let Some((code, after)) = next_marker(rest) else { return false };
        let skipped = match code {
            END => return true,
            START => Some(after),
            _ => after.first_chunk().and_then(|&length| after.get(usize::from(u16::from_be_bytes(length))..)),
        };
        let Some(skipped) = skipped else { return false };
        rest = skipped;
    }
}

/// The code of the next marker that is not part of coded data, and what follows it.
fn next_marker(mut bytes: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        let at = memchr::memchr(0xff, bytes)?;
        let codes = &bytes[at..];
        let at = codes.iter().position(|&byte| byte != 0xff)?;
        let (&code, after) = codes[at..].split_first()?;
        match code {
            0x00 | 0x01 | 0xd0..=0xd7 => bytes = after,
            _ => return Some((code, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A start, a comment that holds an end marker, a scan with a stuffed value and a restart, an end.
    const WHOLE: [u8; 21] =
        [0xff, 0xd8, 0xff, 0xfe, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 3, 7, 0xff, 0x00, 0xff, 0xd3, 9, 0xff, 0xff, 0xd9];

    #[test]
    fn only_the_end_makes_it_whole() {
        assert!(is_whole(&WHOLE));
        assert!(is_whole(&[&WHOLE[..], b"and more"].concat()));
        for length in 0..WHOLE.len() {
            assert!(!is_whole(&WHOLE[..length]), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in prop::collection::vec(prop::sample::select(vec![0xff, 0xd8, 0xda, 0xd9, 0, 1, 2]), 0..40)) {
            let whole = is_whole(&bytes);
            prop_assert!(!whole || bytes.windows(2).any(|pair| pair == [0xff, 0xd9]));
        }
    }
}
