//! A bit reader for entropy-coded data, and Huffman decoding.

/// Why a scan is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// The data end before the scan.
    Short,
    /// The bits are not a code, or coefficients exceed a block.
    Code,
}

/// Reads bits of entropy-coded data up to the next marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the most significant bit.
    buffer: u64,
    /// The number of bits in `buffer`.
    left: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Bits { data, at: 0, buffer: 0, left: 0 }
    }

    /// Ensures that the buffer has at least 32 bits, if that many remain before the next marker.
    #[inline(always)]
    fn fill(&mut self) {
        if self.left < 32 {
            match self.data.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) {
                Some(bytes) if !bytes.contains(&0xff) => {
                    self.buffer |= u64::from(u32::from_be_bytes(*bytes)) << (32 - self.left);
                    self.left += 32;
                    self.at += 4;
                }
                _ => self.fill_by_bytes(),
            }
        }
    }

    #[cold]
    fn fill_by_bytes(&mut self) {
        while self.left <= 56 {
            let Some(&byte) = self.data.get(self.at) else { return };
            if byte == 0xff && self.data.get(self.at + 1) != Some(&0) {
                return;
            }
            self.at += if byte == 0xff { 2 } else { 1 };
            self.buffer |= u64::from(byte) << (56 - self.left);
            self.left += 8;
        }
    }

    /// Skips at most 32 bits.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) -> Result<(), Damage> {
        self.fill();
        self.drop(count)
    }

    #[inline(always)]
    fn drop(&mut self, count: u32) -> Result<(), Damage> {
        if count > self.left {
            return Err(Damage::Short);
        }
        self.buffer <<= count;
        self.left -= count;
        Ok(())
    }

    /// Reads the next `count` bits, at most 16.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Damage> {
        self.fill();
        let value = (self.buffer >> 32 >> (32 - count)) as u32;
        self.drop(count)?;
        Ok(value)
    }

    /// Reads the next symbol of a table, and skips the bits of the value that follow its code.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<Symbol, Damage> {
        self.fill();
        let symbol = match table.short[(self.buffer >> (64 - LOOKUP_BITS)) as usize] {
            Symbol { bits: 0, .. } => table.longer((self.buffer >> 48) as u32).ok_or(match self.left {
                // At the end of the data, the last bits need not be a code.
                0..16 => Damage::Short,
                _ => Damage::Code,
            })?,
            symbol => symbol,
        };
        self.drop(u32::from(symbol.bits))?;
        Ok(symbol)
    }

    /// Moves past the next restart marker. Returns whether the marker exists and directly follows
    /// the current position.
    pub(super) fn restart(&mut self) -> bool {
        self.fill_by_bytes();
        let fill = self.data[self.at..].iter().take_while(|&&byte| byte == 0xff).count();
        let is_there = self.left < 8 && fill > 0 && matches!(self.data.get(self.at + fill), Some(0xd0..=0xd7));
        self.at += fill + 1;
        (self.buffer, self.left) = (0, 0);
        is_there
    }

    /// Returns the data from the marker after the scan. At most [`MAX_UNUSED_BYTES`] bytes may be left
    /// before it.
    ///
    /// # Errors
    /// A description of the surplus data.
    pub(super) fn finish(mut self) -> Result<&'a [u8], String> {
        self.fill_by_bytes();
        let mut rest = &self.data[self.at..];
        // Some encoders write a restart marker after the last unit too.
        if let [0xff, 0xd0..=0xd7, after @ ..] = rest {
            rest = after;
        }
        let until = |bytes: &[u8]| bytes.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0);
        let more = until(rest).unwrap_or(rest.len()) + (self.left / 8) as usize;
        if more > MAX_UNUSED_BYTES { Err(format!("{more} surplus bytes in a scan")) } else { Ok(rest) }
    }
}

/// The maximum number of surplus bytes at the end of a scan. Some cameras pad with one or two.
const MAX_UNUSED_BYTES: usize = 2;

/// A decoded symbol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Symbol {
    /// The run of zeros before a value (upper 4 bits), and the number of bits of the value (lower 4
    /// bits).
    pub(super) value: u8,
    /// The number of coefficients that the symbol covers in sequential coding; [`ALL`] if it ends
    /// the block.
    pub(super) step: u8,
    /// The number of bits of its code and its value.
    bits: u8,
}

/// A step beyond the end of every block.
pub(super) const ALL: u8 = 128;

impl Symbol {
    fn new(value: u8, length: u32) -> Self {
        let step = match value {
            0x00 => ALL,
            0xf0 => 16,
            value => 1 + (value >> 4),
        };
        Symbol { value, step, bits: length as u8 + (value & 15) }
    }
}

/// A Huffman table.
pub(super) struct Table {
    /// The symbol for each combination of the next `LOOKUP_BITS` bits. It has 0 bits if its code is
    /// longer.
    short: Box<[Symbol; 1 << LOOKUP_BITS]>,
    /// For each code length: the first 16-bit value that belongs to a longer code, and the offset
    /// from a code to its index in `symbols`.
    longer: [(u32, i32); 17],
    symbols: Vec<u8>,
}

const LOOKUP_BITS: u32 = 9;

impl Table {
    /// Parses a table: the number of codes of each length from 1 to 16, then their symbols. Also
    /// returns the bytes after the table.
    pub(super) fn parse(segment: &[u8]) -> Option<(Self, &[u8])> {
        let (counts, rest) = segment.split_first_chunk::<16>()?;
        let (symbols, rest) = rest.split_at_checked(counts.iter().map(|&count| usize::from(count)).sum())?;
        let short = Box::new([Symbol::default(); 1 << LOOKUP_BITS]);
        let mut table = Table { short, longer: [(0, 0); 17], symbols: symbols.into() };
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16 {
            let count = usize::from(counts[length as usize - 1]);
            table.longer[length as usize].1 = index as i32 - code as i32;
            for &symbol in &symbols[index..index + count] {
                if code >> length > 0 {
                    return None;
                }
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    table.short[first..first + (1 << (LOOKUP_BITS - length))].fill(Symbol::new(symbol, length));
                }
                code += 1;
            }
            index += count;
            table.longer[length as usize].0 = code << (16 - length);
            code <<= 1;
        }
        Some((table, rest))
    }

    /// Returns the symbol that starts these 16 bits, if its code is longer than `LOOKUP_BITS`.
    #[cold]
    fn longer(&self, bits: u32) -> Option<Symbol> {
        let length = (LOOKUP_BITS + 1..=16).find(|&length| bits < self.longer[length as usize].0)?;
        let index = (bits >> (16 - length)) as i32 + self.longer[length as usize].1;
        Some(Symbol::new(*self.symbols.get(usize::try_from(index).ok()?)?, length))
    }
}
