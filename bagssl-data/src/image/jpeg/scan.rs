//! The blocks of a scan.

use super::bits::{ALL, Bits, Damage, Table};
use super::frame::{Component, Frame};

/// The state before a scan: the tables, and the progress of the coefficients.
#[derive(Default)]
pub(super) struct Scan {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// The number of units between restart markers; 0 if there are none.
    pub(super) interval: u32,
    components: Vec<Progress>,
    count: usize,
}

/// The maximum number of scans. A few bytes can encode all blocks of a large image, over and over.
/// The decoder has the same limit.
const MAX_SCANS: usize = 100;

/// The progress of the coefficients of a component.
struct Progress {
    /// The lowest bit decoded so far, per coefficient.
    lowest: [u8; 64],
    /// A bit mask of the nonzero coefficients of each block, for progressive images only.
    nonzero: Vec<u64>,
}

/// Marks a coefficient without any decoded bit.
const NOTHING: u8 = u8::MAX;

/// A component in a scan.
struct Part<'a> {
    /// The component's index in the frame.
    index: usize,
    component: Component,
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
}

/// The blocks of a scan.
struct Blocks<'a> {
    parts: Vec<Part<'a>>,
    /// The number of units per row and per column.
    units: (u32, u32),
    interval: u32,
    /// Whether a unit is a single block, as in every scan of one component.
    is_single: bool,
}

impl Scan {
    /// Stores a table under its class and number in the file.
    pub(super) fn set_table(&mut self, kind: u8, table: Table) {
        let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
        tables[usize::from(kind & 3)] = Some(table);
    }

    /// Initializes the progress before the first scan of a frame.
    fn begin(&mut self, frame: &Frame) {
        let (across, down) = frame.units();
        let blocks = |part: &Component| across as usize * down as usize * (part.across * part.down) as usize;
        let masks = |part| if frame.progressive { vec![0; blocks(part)] } else { Vec::new() };
        self.components =
            frame.components.iter().map(|part| Progress { lowest: [NOTHING; 64], nonzero: masks(part) }).collect();
    }

    /// Checks that the scans have decoded every coefficient down to its last bit.
    pub(super) fn is_complete(&self, frame: &Frame) -> Result<(), String> {
        let known = |part: &Progress| part.lowest.iter().filter(|&&lowest| lowest == 0).count();
        let (known, all) = (self.components.iter().map(known).sum::<usize>(), 64 * frame.components.len());
        if known < all {
            return Err(format!("scans that complete {known} of {all} coefficients"));
        }
        Ok(())
    }

    /// Parses the blocks of a scan.
    ///
    /// # Errors
    /// A description of where the blocks end or are damaged.
    pub(super) fn run(&mut self, frame: &Frame, header: &[u8], bits: &mut Bits<'_>) -> Result<(), String> {
        if self.components.is_empty() {
            self.begin(frame);
        }
        self.count += 1;
        if self.count > MAX_SCANS {
            return Err(format!("more than {MAX_SCANS} scans"));
        }
        let damaged = || "a damaged scan header".to_string();
        let (&count, rest) = header.split_first().ok_or_else(damaged)?;
        let (chosen, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(damaged)?;
        let &[first, last, approximation, ..] = rest else { return Err(damaged()) };
        let part = |&[id, tables]: &[u8; 2]| {
            let index = frame.components.iter().position(|component| component.id == id)?;
            let (dc, ac) = (usize::from(tables >> 4 & 3), usize::from(tables & 3));
            Some(Part { index, component: frame.components[index], dc: self.dc[dc].as_ref(), ac: self.ac[ac].as_ref() })
        };
        let parts: Vec<Part<'_>> =
            chosen.as_chunks::<2>().0.iter().map(part).collect::<Option<_>>().ok_or_else(damaged)?;
        let (first, last) = if frame.progressive { (first, last) } else { (0, 63) };
        let is_known = match (first, last) {
            _ if parts.is_empty() || parts.len() > frame.components.len() => false,
            (0, last) => !frame.progressive || last == 0,
            (first, last) => first <= last && last < 64 && parts.len() == 1,
        };
        if !is_known {
            return Err(damaged());
        }
        let (high, low) = if frame.progressive { (approximation >> 4, approximation & 15) } else { (0, 0) };
        let blocks = Blocks::new(frame, parts, self.interval);
        let indices: Vec<usize> = blocks.parts.iter().map(|part| part.index).collect();
        match (frame.progressive, first, high) {
            (false, ..) => blocks.walk(bits, sequential)?,
            (true, 0, 0) => {
                blocks.walk(bits, |bits, part, _, _| bits.symbol(part.dc.ok_or(Damage::Code)?).map(|_| ()))?;
            }
            (true, 0, _) => blocks.walk(bits, |bits, _, _, _| bits.skip(1))?,
            (true, _, 0) => {
                let masks = &mut self.components[indices[0]].nonzero;
                blocks
                    .walk(bits, |bits, part, at, run| first_of_band(bits, part, (first, last), &mut masks[at], run))?;
            }
            (true, _, _) => {
                let masks = &mut self.components[indices[0]].nonzero;
                blocks
                    .walk(bits, |bits, part, at, run| next_of_band(bits, part, (first, last), &mut masks[at], run))?;
            }
        }
        for index in indices {
            self.components[index].lowest[usize::from(first)..=usize::from(last)].fill(low);
        }
        Ok(())
    }
}

impl<'a> Blocks<'a> {
    fn new(frame: &Frame, parts: Vec<Part<'a>>, interval: u32) -> Self {
        let (across, down) = frame.largest();
        let is_single = parts.len() == 1;
        let units = match &parts[..] {
            [Part { component, .. }] => (
                (frame.width * component.across).div_ceil(across).div_ceil(8),
                (frame.height * component.down).div_ceil(down).div_ceil(8),
            ),
            _ => frame.units(),
        };
        Blocks { parts, units, interval, is_single }
    }

    /// Calls `block` for each block, with the index of its unit and the remaining blocks of an
    /// end-of-band run.
    fn walk(
        &self,
        bits: &mut Bits<'_>,
        mut block: impl FnMut(&mut Bits<'_>, &Part<'_>, usize, &mut u32) -> Result<(), Damage>,
    ) -> Result<(), String> {
        let (across, down) = self.units;
        let (all, mut until_restart, mut run) = (across as usize * down as usize, self.interval, 0);
        for unit in 0..all {
            let words = |what: &str| format!("{what} {unit} of {all} units in a scan");
            if self.interval > 0 {
                if until_restart == 0 {
                    if run > 0 || !bits.restart() {
                        return Err(words("no restart marker after"));
                    }
                    until_restart = self.interval;
                }
                until_restart -= 1;
            }
            self.unit(unit, &mut |part, at| block(bits, part, at, &mut run)).map_err(|damage| match damage {
                Damage::Short => words("data for"),
                Damage::Code => words("damaged data after"),
            })?;
        }
        if run > 0 { Err("a run of blocks past the end of a scan".into()) } else { Ok(()) }
    }

    /// Calls `block` for each block of a unit.
    #[inline(always)]
    fn unit(&self, unit: usize, block: &mut impl FnMut(&Part<'_>, usize) -> Result<(), Damage>) -> Result<(), Damage> {
        for part in &self.parts {
            let blocks = if self.is_single { 1 } else { part.component.across * part.component.down };
            (0..blocks).try_for_each(|_| block(part, unit))?;
        }
        Ok(())
    }
}

/// Parses a block of sequential coding: the DC coefficient, then runs of zeros and values.
#[inline(always)]
fn sequential(bits: &mut Bits<'_>, part: &Part<'_>, _: usize, _: &mut u32) -> Result<(), Damage> {
    let (dc, ac) = (part.dc.ok_or(Damage::Code)?, part.ac.ok_or(Damage::Code)?);
    bits.symbol(dc)?;
    let mut at = 1;
    while at < 64 {
        at += bits.symbol(ac)?.step;
    }
    if (65..ALL).contains(&at) { Err(Damage::Code) } else { Ok(()) }
}

/// Returns the length of an end-of-band run, including the current block.
fn run_of(bits: &mut Bits<'_>, symbol: u8) -> Result<u32, Damage> {
    let length = u32::from(symbol >> 4);
    Ok((1 << length) + bits.take(length)?)
}

/// Parses the first scan of a band of coefficients.
#[inline(always)]
fn first_of_band(
    bits: &mut Bits<'_>,
    part: &Part<'_>,
    (first, last): (u8, u8),
    nonzero: &mut u64,
    run: &mut u32,
) -> Result<(), Damage> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let table = part.ac.ok_or(Damage::Code)?;
    let (mut at, last) = (u32::from(first), u32::from(last));
    while at <= last {
        match bits.symbol(table)?.value {
            0xf0 => at += 16,
            symbol if symbol & 15 == 0 => {
                *run = run_of(bits, symbol)? - 1;
                return Ok(());
            }
            symbol => {
                at += u32::from(symbol >> 4);
                *nonzero |= 1_u64.checked_shl(at).ok_or(Damage::Code)?;
                at += 1;
            }
        }
    }
    if at > last + 1 { Err(Damage::Code) } else { Ok(()) }
}

/// Parses a refinement scan of a band: one bit for each nonzero coefficient, and between them the
/// coefficients that become nonzero.
#[inline(always)]
fn next_of_band(
    bits: &mut Bits<'_>,
    part: &Part<'_>,
    (first, last): (u8, u8),
    nonzero: &mut u64,
    run: &mut u32,
) -> Result<(), Damage> {
    let (mut at, last) = (u32::from(first), u32::from(last));
    if *run == 0 {
        let table = part.ac.ok_or(Damage::Code)?;
        while at <= last {
            let symbol = bits.symbol(table)?.value;
            let mut zeros = u32::from(symbol >> 4);
            match symbol & 15 {
                0 if zeros < 15 => {
                    *run = run_of(bits, symbol)?;
                    break;
                }
                0 | 1 => {}
                _ => return Err(Damage::Code),
            }
            // Move to the position of the new value, or of the last of 16 zeros.
            loop {
                if at > last {
                    return Err(Damage::Code);
                }
                if *nonzero >> at & 1 == 1 {
                    bits.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            *nonzero |= u64::from(symbol & 1) << at;
            at += 1;
        }
    }
    if *run > 0 {
        *run -= 1;
        if at <= last {
            let band = (u64::MAX >> (63 - last)) & (u64::MAX << at);
            (0..(*nonzero & band).count_ones()).try_for_each(|_| bits.skip(1))?;
        }
    }
    Ok(())
}
