//! Coded data bit by bit, and its Huffman codes.

/// Why a scan cannot be walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// The data ends before the scan.
    Short,
    /// Bits that are no code, or lead out of a block.
    Code,
}

/// The bits of coded data, up to the next marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    buffer: u64,
    /// How many of them there are.
    left: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Bits { data, at: 0, buffer: 0, left: 0 }
    }

    /// Has at least 32 bits at hand, if there are as many before the next marker.
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

    /// Passes over bits, at most 32.
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

    /// The value of the next bits, at most 16.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Damage> {
        self.fill();
        let value = (self.buffer >> 32 >> (32 - count)) as u32;
        self.drop(count)?;
        Ok(value)
    }

    /// The next symbol of a table, and passes over the bits of a value that come after its code.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<Symbol, Damage> {
        self.fill();
        let symbol = match table.short[(self.buffer >> (64 - LOOK)) as usize] {
            Symbol { bits: 0, .. } => table.longer((self.buffer >> 48) as u32).ok_or(match self.left {
                // Where the data ends, its last bits need not be a code.
                0..16 => Damage::Short,
                _ => Damage::Code,
            })?,
            symbol => symbol,
        };
        self.drop(u32::from(symbol.bits))?;
        Ok(symbol)
    }

    /// Goes to the next restart marker, and whether it is there with nothing before it.
    pub(super) fn restart(&mut self) -> bool {
        self.fill_by_bytes();
        let fill = self.data[self.at..].iter().take_while(|&&byte| byte == 0xff).count();
        let is_there = self.left < 8 && fill > 0 && matches!(self.data.get(self.at + fill), Some(0xd0..=0xd7));
        self.at += fill + 1;
        (self.buffer, self.left) = (0, 0);
        is_there
    }

    /// What comes after the scan: a marker, before which no more is left than fills a byte.
    ///
    /// # Errors
    /// What is left over, in words.
    pub(super) fn finish(mut self) -> Result<&'a [u8], String> {
        self.fill_by_bytes();
        let mut rest = &self.data[self.at..];
        // Some write a restart marker after the last unit too.
        if let [0xff, 0xd0..=0xd7, after @ ..] = rest {
            rest = after;
        }
        let until = |bytes: &[u8]| bytes.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0);
        let more = until(rest).unwrap_or(rest.len()) + (self.left / 8) as usize;
        if more > MOST_LEFT { Err(format!("{more} bytes more than a scan has")) } else { Ok(rest) }
    }
}

/// Bytes that may be left over at the end of a scan: cameras fill up with one or two.
const MOST_LEFT: usize = 2;

/// A symbol of coded data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Symbol {
    /// The zeros before a value, and the bits of the value.
    pub(super) value: u8,
    /// Coefficients that it stands for in sequential coding: more than a block has if it ends one.
    pub(super) step: u8,
    /// The bits that its code and the value take together.
    bits: u8,
}

/// More coefficients than a block has.
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

/// A table of Huffman codes.
pub(super) struct Table {
    /// For the next `LOOK` bits: their symbol, of 0 bits if its code is longer.
    short: Box<[Symbol; 1 << LOOK]>,
    /// Of each length of a code: the first 16 bits that are a longer code, and what leads from a code to its place.
    longer: [(u32, i32); 17],
    symbols: Vec<u8>,
}

const LOOK: u32 = 9;

impl Table {
    /// A table, and what comes after it: how many codes there are of each length from 1 to 16, then their symbols in this order.
    pub(super) fn parse(segment: &[u8]) -> Option<(Self, &[u8])> {
        let (counts, rest) = segment.split_first_chunk::<16>()?;
        let (symbols, rest) = rest.split_at_checked(counts.iter().map(|&count| usize::from(count)).sum())?;
        let short = Box::new([Symbol::default(); 1 << LOOK]);
        let mut table = Table { short, longer: [(0, 0); 17], symbols: symbols.into() };
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=16 {
            let count = usize::from(counts[length as usize - 1]);
            table.longer[length as usize].1 = place as i32 - code as i32;
            for &symbol in &symbols[place..place + count] {
                if code >> length > 0 {
                    return None;
                }
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    table.short[first..first + (1 << (LOOK - length))].fill(Symbol::new(symbol, length));
                }
                code += 1;
            }
            place += count;
            table.longer[length as usize].0 = code << (16 - length);
            code <<= 1;
        }
        Some((table, rest))
    }

    /// The symbol of these 16 bits, if its code is longer than `LOOK`.
    #[cold]
    fn longer(&self, bits: u32) -> Option<Symbol> {
        let length = (LOOK + 1..=16).find(|&length| bits < self.longer[length as usize].0)?;
        let place = (bits >> (16 - length)) as i32 + self.longer[length as usize].1;
        Some(Symbol::new(*self.symbols.get(usize::try_from(place).ok()?)?, length))
    }
}
