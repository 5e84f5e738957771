//! The memory that decoding a WebP needs, estimated from its chunks.
//!
//! # Source
//! RFC 9649. A WebP is a RIFF file of chunks. A chunk has a name, a length and its bytes, padded to
//! an even number. `VP8 ` is a lossy frame and `VP8L` a lossless one. `ANMF` contains the frames of
//! an animation after 16 bytes.

/// Returns the bytes that the decoder allocates besides the decoded image, for the largest frame.
/// Returns `None` if a frame is truncated.
pub(crate) fn decode_memory(bytes: &[u8], (width, height): (u32, u32)) -> Option<u64> {
    let pixels = u64::from(width) * u64::from(height);
    let length = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    let mut most = 0;
    for (name, chunk) in Chunks(bytes.get(12..length.saturating_add(8).min(bytes.len()))?) {
        most = most.max(match (name, chunk) {
            (b"ANMF", chunk) => {
                let chunk = chunk?;
                let inside = Chunks(chunk.get(16..)?).map(|(name, chunk)| frame_memory(name, chunk, pixels));
                // The frame and the entire image, both with transparency.
                inside.collect::<Option<Vec<u64>>>()?.into_iter().max().unwrap_or(0) + 8 * pixels
            }
            // The transparency is a separate frame beside the color frame.
            (b"ALPH", Some(_)) => 7 * pixels,
            (name, chunk) => frame_memory(name, chunk, pixels)?,
        });
    }
    Some(most)
}

fn frame_memory(name: &[u8; 4], chunk: Option<&[u8]>, pixels: u64) -> Option<u64> {
    match name {
        // Luma for each pixel, two chroma values for every four. The frame has its own size.
        b"VP8 " => {
            let sides = chunk?.get(6..10)?.as_chunks::<2>().0;
            let [width, height] = [sides[0], sides[1]].map(|side| u64::from(u16::from_le_bytes(side) & 0x3fff) + 16);
            Some(2 * pixels.max(width * height))
        }
        // All pixels with transparency, and the data to undo transforms.
        b"VP8L" | b"ALPH" => chunk.map(|_| 5 * pixels),
        _ => Some(0),
    }
}

/// Iterates over consecutive chunks. Yields the name, and the bytes if they are complete.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let chunk = rest.get(..length);
        self.0 = rest.get(length.next_multiple_of(2)..).unwrap_or(&[]);
        Some((name, chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let padding = vec![0; content.len() % 2];
        [&name[..], &(content.len() as u32).to_le_bytes(), content, &padding].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        let chunks = chunks.concat();
        [&b"RIFF"[..], &(chunks.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunks].concat()
    }

    #[test]
    fn the_largest_frame_counts() {
        let lossless = chunk(b"VP8L", &[0x2f, 0, 0]);
        assert_eq!(decode_memory(&file(std::slice::from_ref(&lossless)), (30, 10)), Some(5 * 300));
        // A lossy frame that declares a larger size than the image: 1000x500, padded to blocks of
        // 16.
        let lossy = chunk(b"VP8 ", &[0, 0, 0, 0x9d, 1, 0x2a, 0xe8, 0x03, 0xf4, 0x01]);
        assert_eq!(decode_memory(&file(std::slice::from_ref(&lossy)), (1, 1)), Some(2 * 1016 * 516));
        let moving = chunk(b"ANMF", &[&[0; 16][..], &lossy].concat());
        assert_eq!(decode_memory(&file(&[chunk(b"VP8X", &[0; 10]), moving]), (10, 10)), Some(2 * 1016 * 516 + 800));
        assert_eq!(decode_memory(&file(&[chunk(b"ALPH", &[1]), lossy]), (2000, 1000)), Some(14_000_000));
        assert_eq!(decode_memory(&lossless[..9], (1, 1)), None);
        assert_eq!(decode_memory(&file(&[lossless[..10].to_vec()]), (1, 1)), None, "cut short");
        let more = [file(std::slice::from_ref(&lossless)), vec![b'V'; 9]].concat();
        assert_eq!(decode_memory(&more, (30, 10)), Some(1500), "what comes after it does not count");
    }
}
