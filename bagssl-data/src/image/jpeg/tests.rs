use super::*;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use proptest::prelude::*;
use std::sync::LazyLock;

/// Builds a grey JPEG. Its tables have a single code `0`, for a symbol that means zero. So a block
/// takes two bits, and the last byte is padded with ones.
fn by_hand(height: u8, width: u8, scan: &[u8]) -> Vec<u8> {
    let table = |kind: u8| [&[0xff, HUFFMAN, 0, 20, kind, 1][..], &[0; 15], &[0]].concat();
    let frame = [0xff, 0xc0, 0, 11, 8, 0, height, 0, width, 1, 7, 0x11, 0];
    let header = [0xff, SCAN, 0, 8, 1, 7, 0, 0, 63, 0];
    [&[0xff, START][..], &table(0x00), &table(0x10), &frame, &header, scan, &[0xff, END]].concat()
}

#[track_caller]
fn refused(bytes: &[u8], words: &str) {
    assert_eq!(check(bytes).err().as_deref(), Some(words));
}

#[test]
fn every_block_has_to_be_there() {
    // Two rows of three blocks: 12 bits.
    let whole = by_hand(9, 24, &[0b0000_0000, 0b0000_1111]);
    assert_eq!(check(&whole), Ok(()));
    let (frame, in_rows) = header(&whole).unwrap();
    assert_eq!((frame.height, frame.width, frame.blocks(), in_rows), (9, 24, 6, true));
    refused(&by_hand(9, 24, &[0]), "data for 4 of 6 units in a scan");
    refused(&by_hand(9, 24, &[0, 0b0100_0000, 0, 0]), "damaged data after 4 of 6 units in a scan");
    // Padding of two bytes is accepted, three bytes are not.
    assert_eq!(check(&by_hand(9, 24, &[0, 0xf, 0, 0])), Ok(()));
    refused(&by_hand(9, 24, &[0, 0xf, 0, 0, 0]), "3 surplus bytes in a scan");
}

#[test]
fn the_end_has_to_be_there() {
    let whole = by_hand(9, 24, &[0, 0x0f]);
    assert_eq!(check(&[&whole[..], b"and more \xff\xd8"].concat()), Ok(()));
    for length in 0..whole.len() {
        refused(&whole[..length], &format!("{length} bytes without its end"));
    }
    // An end marker inside a comment does not count.
    let comment = [&whole[..2], &[0xff, 0xfe, 0, 4, 0xff, END], &whole[2..]].concat();
    assert_eq!(check(&comment), Ok(()));
    assert!(check(&comment[..comment.len() - 2]).is_err());
    // Without tables, as in videos, a scan cannot be checked.
    let film = [&whole[..2], &whole[2 + 2 * 22..]].concat();
    assert_eq!(check(&film), Ok(()));
    assert!(check(&[&film[..], &whole[2..]].concat()).is_ok(), "what comes after the end does not count");
    let two = [&whole[..2 + 2 * 22 + 13], &whole[2 + 2 * 22..]].concat();
    refused(&two, "a second frame");
    assert_eq!(header(&two), None);
}

/// A progressive image cannot repeat scans without limit.
#[test]
fn scans_end() {
    let (_, whole) = kinds().iter().find(|(name, _)| name.contains("progressive true")).unwrap();
    let last = whole.windows(2).rposition(|pair| pair == [0xff, SCAN]).unwrap();
    let (before, scan) = (&whole[..last], &whole[last..whole.len() - 2]);
    let many = [before, &scan.repeat(101), &[0xff, END]].concat();
    refused(&many, "more than 100 scans");
}

/// An image of 41x57 (width x height) with some detail, in every supported coding.
fn kinds() -> &'static [(String, Vec<u8>)] {
    static KINDS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(encoded);
    &KINDS
}

fn encoded() -> Vec<(String, Vec<u8>)> {
    let pixels: Vec<u8> = (0..57_u32 * 41 * 3).map(|i| (i * i / 97 % 251 / (1 + i % 5)) as u8).collect();
    let mut kinds = Vec::new();
    for progressive in [false, true] {
        for factor in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_1_2, SamplingFactor::F_2_2] {
            for (restart, grey) in [(0, false), (2, false), (0, true)] {
                let mut bytes = Vec::new();
                let mut encoder = Encoder::new(&mut bytes, 80);
                encoder.set_progressive(progressive);
                encoder.set_sampling_factor(factor);
                encoder.set_restart_interval(restart);
                encoder.set_optimized_huffman_tables(progressive || restart == 2);
                match grey {
                    true => encoder.encode(&pixels[..57 * 41], 41, 57, ColorType::Luma).unwrap(),
                    false => encoder.encode(&pixels, 41, 57, ColorType::Rgb).unwrap(),
                }
                kinds.push((format!("progressive {progressive}, {factor:?}, restart {restart}, grey {grey}"), bytes));
            }
        }
    }
    kinds
}

/// Returns the offset of the data of the last scan.
fn last_scan(bytes: &[u8]) -> usize {
    let at = bytes.windows(2).rposition(|pair| pair == [0xff, SCAN]).unwrap();
    at + 2 + usize::from(bytes[at + 3])
}

#[test]
fn holes_are_found_in_every_kind() {
    for (name, whole) in kinds() {
        let whole = whole.clone();
        assert_eq!(check(&whole), Ok(()), "{name}");
        let (frame, _) = header(&whole).unwrap();
        assert_eq!((frame.height, frame.width), (57, 41), "{name}");
        let (first, end) = (last_scan(&whole), whole.len() - 2);
        let middle = first + (end - first) / 2;
        let cut = [&whole[..middle], &whole[end..]].concat();
        assert!(check(&cut).is_err(), "{name}: cut");
        let hole = [&whole[..first], &whole[middle..]].concat();
        assert!(check(&hole).is_err(), "{name}: hole");
        // The last scan of a progressive image is too short for this.
        let mut zeros = whole.clone();
        zeros[middle..end].fill(0);
        assert!(frame.progressive || check(&zeros).is_err(), "{name}: zeros");
        assert!(check(&whole[..end]).unwrap_err().ends_with("without its end"), "{name}");
    }
}

#[test]
fn scans_that_are_not_there_are_missed() {
    let (name, whole) = kinds().iter().find(|(name, _)| name.contains("progressive true")).unwrap();
    let last = whole.windows(2).rposition(|pair| pair == [0xff, SCAN]).unwrap();
    let error = check(&[&whole[..last], &[0xff, END]].concat()).unwrap_err();
    assert!(error.starts_with("scans that complete ") && error.ends_with(" of 192 coefficients"), "{name}: {error}");
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(kind in 0..24_usize, damage in prop::collection::vec((0usize..4000, any::<u8>()), 0..9), length in 0..4000_usize) {
        let mut bytes = kinds()[kind].1.clone();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(length);
        let whole = check(&bytes).is_ok();
        let _ = header(&bytes);
        prop_assert!(!whole || bytes.windows(2).any(|pair| pair == [0xff, END]));
    }
}
