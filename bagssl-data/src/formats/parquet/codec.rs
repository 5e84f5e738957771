//! Decompression of parquet pages. A page never takes more memory than its header declares, and the
//! declared size is limited by what the compressed bytes can contain.
//!
//! # Source
//! Apache Parquet, `Compression.md`.

use std::io::Read;

use super::refusal::{Refusal, refusal};

/// Decompresses a page to `length` bytes. `codec` is parquet's number of the codec.
pub(super) fn unpack(bytes: &[u8], codec: i64, length: usize) -> Result<Vec<u8>, Refusal> {
    let unpacked = match codec {
        1 => snappy(bytes, length),
        2 => limited(flate2::read::MultiGzDecoder::new(bytes), length),
        4 => limited(brotli_decompressor::Decompressor::new(bytes, 4096), length),
        5 => lz4_of_hadoop(bytes, length).or_else(|| lz4(bytes, length)),
        6 => zstd(bytes, length),
        7 => lz4(bytes, length),
        3 => return Err(refusal(KNOWN, "LZO")),
        other => return Err(refusal(KNOWN, format!("codec {other}"))),
    };
    let whole = unpacked.filter(|unpacked| unpacked.len() == length);
    whole.ok_or_else(|| {
        refusal("a page of the size in its header", format!("another size ({} bytes packed)", bytes.len()))
    })
}

const KNOWN: &str = "pages without compression or with Snappy, gzip, Brotli, LZ4 or Zstandard";

/// Reads at most one byte more than `length`.
fn limited(reader: impl Read, length: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader.take(length as u64 + 1).read_to_end(&mut unpacked).ok()?;
    Some(unpacked)
}

/// Decompresses Snappy. Refuses lengths that the compressed bytes cannot reach: 3 bytes encode a
/// copy of at most 64 bytes.
fn snappy(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let said = snap::raw::decompress_len(bytes).ok()?;
    if said != length || length > bytes.len().saturating_mul(32) {
        return None;
    }
    snap::raw::Decoder::new().decompress_vec(bytes).ok()
}

fn zstd(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    limited(ruzstd::decoding::StreamingDecoder::new(bytes).ok()?, length)
}

/// Decompresses one LZ4 block, in which a byte expands to at most 255.
fn lz4(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    if length > bytes.len().saturating_mul(255) {
        return None;
    }
    lz4_flex::block::decompress(bytes, length).ok()
}

/// Decompresses LZ4 blocks in Hadoop's framing. Before each block are its decompressed and its
/// compressed length, both big-endian.
fn lz4_of_hadoop(mut bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    while !bytes.is_empty() {
        let (of_block, rest) = bytes.split_first_chunk()?;
        let (packed, rest) = rest.split_first_chunk()?;
        let (block, rest) = rest.split_at_checked(u32::from_be_bytes(*packed) as usize)?;
        let of_block = u32::from_be_bytes(*of_block) as usize;
        if of_block > length - unpacked.len() {
            return None;
        }
        unpacked.extend(lz4(block, of_block)?);
        bytes = rest;
    }
    Some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A literal of four letters and a match of them (token, letters, offset), then the five
    /// literals that must end an LZ4 block.
    const BLOCK: &[u8] = b"\x44abcd\x04\x00\x50vwxyz";
    const TEXT: &[u8] = b"abcdabcdabcdvwxyz";

    #[test]
    fn lz4_by_hand_with_and_without_frames() {
        assert_eq!(unpack(BLOCK, 7, 17).unwrap(), TEXT);
        assert_eq!(unpack(BLOCK, 5, 17).unwrap(), TEXT, "as early files of parquet-cpp have it");
        let framed = [&[0, 0, 0, 17, 0, 0, 0, BLOCK.len() as u8][..], BLOCK].concat();
        assert_eq!(unpack(&framed, 5, 17).unwrap(), TEXT);
        assert_eq!(unpack(&framed.repeat(2), 5, 34).unwrap(), TEXT.repeat(2));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for codec in [1, 2, 4, 5, 6, 7] {
            for (bytes, length) in [(&b""[..], 5), (b"no page of any kind", 5), (BLOCK, 16), (BLOCK, 1 << 40)] {
                assert!(unpack(bytes, codec, length).is_err(), "{codec} {length}");
            }
        }
        assert_eq!(unpack(b"", 3, 1).unwrap_err().got, "LZO");
        // A few bytes of gzip that would expand to one MiB of zeros are read only up to their
        // thirteenth byte.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &[0; 1 << 20]).unwrap();
        assert_eq!(limited(flate2::read::MultiGzDecoder::new(&gzip.finish().unwrap()[..]), 12).unwrap().len(), 13);
    }
}
