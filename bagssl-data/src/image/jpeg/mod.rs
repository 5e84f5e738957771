//! Whether a JPEG is whole, and what its header says of it.
//!
//! Decoders fill what is missing of one with grey, and a damaged part with whatever its bits happen to say; nobody should
//! learn from that. So the coded data is walked through before it is decoded: every block of every scan has to be there,
//! and nothing else. This takes a quarter of the time of decoding, and half of it for an image of high quality.
//!
//! # Source
//! ITU-T T.81: markers and segments in annex B, sequential coding in F.2.2, progressive coding in G.2.

mod bits;
mod frame;
mod scan;

use bits::{Bits, Table};
pub(crate) use frame::Frame;
use scan::Scan;

/// What stands before the first scan: the frame, and whether that scan has all of its components. `None` if it is an image of
/// another kind, or none.
pub(crate) fn header(bytes: &[u8]) -> Option<(Frame, bool)> {
    let mut frame = None;
    for (code, segment, _) in Segments(bytes) {
        match code {
            SCAN => {
                let frame: Frame = frame?;
                let all = usize::from(*segment.first()?) == frame.components.len();
                return Some((frame, all));
            }
            code if is_frame(code) && frame.is_some() => return None,
            code if is_frame(code) => frame = Some(Frame::parse(code, segment)?),
            END => return None,
            _ => {}
        }
    }
    None
}

/// Refuses a JPEG that is not whole: without its end, with blocks that are missing, damaged or left over. Of a kind that is
/// not known here (arithmetic coding, 12 bits) only the end is looked for.
///
/// # Errors
/// What it is instead, in words.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let no_end = || format!("{} bytes without its end", bytes.len());
    let mut walk = Walk::default();
    let mut rest = bytes;
    loop {
        let Some((code, segment, after)) = Segments(rest).next() else { return Err(no_end()) };
        rest = match code {
            END => return walk.end(),
            SCAN if walk.is_known() => match walk.scan(segment, after) {
                Ok(after) => after,
                // Where even the end is missing, that is said.
                Err(_) if !Segments(after).any(|(code, ..)| code == END) => return Err(no_end()),
                Err(error) => return Err(error),
            },
            _ => {
                walk.segment(code, segment)?;
                after
            }
        };
    }
}

/// How far the walk has come.
#[derive(Default)]
struct Walk {
    frame: Option<Frame>,
    /// Whether the frame is of another kind than is known here.
    is_other: bool,
    scan: Scan,
    has_tables: bool,
}

impl Walk {
    fn is_known(&self) -> bool {
        !self.is_other
    }

    /// A segment between the scans.
    fn segment(&mut self, code: u8, mut segment: &[u8]) -> Result<(), String> {
        match code {
            HUFFMAN => {
                self.has_tables = true;
                while let Some((&kind, rest)) = segment.split_first() {
                    let (table, after) = Table::parse(rest).ok_or("a damaged table of Huffman codes")?;
                    self.scan.set_table(kind, table);
                    segment = after;
                }
            }
            RESTART => {
                let interval = segment.first_chunk().ok_or("a damaged restart interval")?;
                self.scan.interval = u32::from(u16::from_be_bytes(*interval));
            }
            code if is_frame(code) => match Frame::parse(code, segment) {
                Some(_) if self.frame.is_some() => return Err("a second frame".into()),
                Some(frame) => self.frame = Some(frame),
                None => self.is_other = true,
            },
            _ => {}
        }
        Ok(())
    }

    /// Goes through a scan; what comes after it.
    fn scan<'a>(&mut self, header: &[u8], data: &'a [u8]) -> Result<&'a [u8], String> {
        let frame = self.frame.as_ref().ok_or("a scan before its frame")?;
        if !self.has_tables {
            // Frames of films use tables that are known beforehand. Nothing is known of what such a scan holds.
            self.is_other = true;
            return Ok(data);
        }
        let mut bits = Bits::new(data);
        self.scan.run(frame, header, &mut bits)?;
        bits.finish()
    }

    fn end(self) -> Result<(), String> {
        match &self.frame {
            Some(frame) if !self.is_other => self.scan.is_complete(frame),
            _ => Ok(()),
        }
    }
}

const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;
const HUFFMAN: u8 = 0xc4;
const RESTART: u8 = 0xdd;

/// Whether a marker begins a frame.
fn is_frame(code: u8) -> bool {
    matches!(code, 0xc0..=0xcf) && !matches!(code, HUFFMAN | 0xc8 | 0xcc)
}

/// The markers of a file that are not part of coded data: the code, the segment and what comes after it. A segment that is cut
/// short ends it.
struct Segments<'a>(&'a [u8]);

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8], &'a [u8]);

    /// A marker is `FF` and a code; `FF 00` is a value of the coded data, and the restart markers `D0` to `D7` lie inside it;
    /// most other markers begin a segment, whose length comes next.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let codes = &self.0[memchr::memchr(0xff, self.0)?..];
            let at = codes.iter().position(|&byte| byte != 0xff)?;
            let (&code, after) = codes[at..].split_first()?;
            self.0 = after;
            match code {
                0x00 | 0x01 | 0xd0..=0xd7 => {}
                START | END => return Some((code, &[], after)),
                _ => {
                    let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
                    let segment = after.get(2..length.max(2))?;
                    self.0 = after.get(length.max(2)..)?;
                    return Some((code, segment, self.0));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
