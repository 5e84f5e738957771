//! The header of a frame.

/// The header of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) components: Vec<Component>,
    pub(crate) progressive: bool,
}

/// A component of a frame: its id and its horizontal and vertical sampling factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    pub(super) id: u8,
    pub(super) across: u32,
    pub(super) down: u32,
}

impl Frame {
    /// Parses the header of a sequential or progressive frame with Huffman coding and 8 bits.
    /// Returns `None` for other frames.
    pub(super) fn parse(code: u8, segment: &[u8]) -> Option<Self> {
        let (&[precision, a, b, c, d, count], rest) = segment.split_first_chunk()?;
        let (height, width) = (u32::from(u16::from_be_bytes([a, b])), u32::from(u16::from_be_bytes([c, d])));
        let components: Vec<Component> = rest
            .as_chunks::<3>()
            .0
            .iter()
            .take(usize::from(count))
            .map(|&[id, factors, _]| Component { id, across: u32::from(factors >> 4), down: u32::from(factors & 15) })
            .collect();
        let is_known = precision == 8
            && matches!(code, 0xc0..=0xc2)
            && height > 0
            && width > 0
            && components.len() == usize::from(count)
            && (1..=4).contains(&count)
            && components.iter().all(|part| (1..=4).contains(&part.across) && (1..=4).contains(&part.down));
        is_known.then_some(Frame { height, width, components, progressive: code == 0xc2 })
    }

    /// Returns the number of units (MCUs) per row and per column.
    pub(super) fn units(&self) -> (u32, u32) {
        let (across, down) = self.largest();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    /// Returns the largest horizontal and vertical sampling factor of all components.
    pub(super) fn largest(&self) -> (u32, u32) {
        let most = |of: fn(&Component) -> u32| self.components.iter().map(of).max().unwrap_or(1);
        (most(|part| part.across), most(|part| part.down))
    }

    /// Returns the total number of blocks of 64 coefficients over all components.
    pub(crate) fn blocks(&self) -> u64 {
        let (across, down) = self.units();
        let in_unit: u32 = self.components.iter().map(|part| part.across * part.down).sum();
        u64::from(across) * u64::from(down) * u64::from(in_unit)
    }
}
