//! Exact and near duplicates among images.

use std::collections::HashMap;

use serde::Serialize;

use crate::image::{Image, luma};

/// The duplicates in a data set, by image name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// The maximum number of different bits in the difference hashes of near duplicates.
    pub radius: u32,
    /// Groups of images with the same pixels, in the order of the data set.
    pub exact: Vec<Vec<String>>,
    /// Pairs of other images whose hashes differ in at most `radius` bits; at most 1000.
    pub near: Vec<(String, String)>,
    /// The number of near pairs, including those not listed; at most one million.
    pub near_count: u64,
}

/// The maximum Hamming distance of near duplicates.
pub(crate) const RADIUS: u32 = 3;
/// The maximum number of near pairs that are listed.
pub(crate) const MAX_PAIRS: usize = 1000;
/// The maximum number of near pairs that are counted.
const MAX_FOUND: usize = 1_000_000;

/// The hashes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    /// The 128-bit FNV-1a hash of the size and the pixels.
    pub(crate) exact: u128,
    /// The difference hash. `None` if at most 3 bits are set, as for an image of one color: all
    /// such images have similar hashes.
    pub(crate) near: Option<u64>,
}

impl Print {
    pub(crate) fn new(image: &Image) -> Self {
        let size = image.size();
        let head = [size.height, size.width].map(u32::to_le_bytes).concat();
        let add =
            |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        let exact = head.iter().chain(image.rgb()).fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, add);
        Print { exact, near: Some(difference_hash(image)).filter(|hash| hash.count_ones() > 3) }
    }
}

/// Returns the 64-bit difference hash. The image is averaged to 8 rows of 9 grey values; each bit
/// tells whether a value is smaller than the one to its right.
pub(crate) fn difference_hash(image: &Image) -> u64 {
    let (height, width) = (image.size().height as usize, image.size().width as usize);
    let pixels = image.rgb().as_chunks::<3>().0;
    let mean = |row: usize, column: usize| {
        let range = |at: usize, parts: usize, side: usize| {
            let first = at * side / parts;
            first..((at + 1) * side / parts).max(first + 1)
        };
        let columns = range(column, 9, width);
        let (mut sum, mut count) = (0_u64, 0_u64);
        for row in range(row, 8, height) {
            for pixel in &pixels[row * width..][columns.clone()] {
                sum += u64::from(luma(*pixel));
                count += 1;
            }
        }
        // In sixteenths, so that rounding does not decide.
        sum * 16 / count
    };
    (0..8).fold(0, |hash, row| {
        let means: [u64; 9] = std::array::from_fn(|column| mean(row, column));
        means.windows(2).fold(hash, |hash, pair| hash << 1 | u64::from(pair[1] > pair[0]))
    })
}

/// Finds the duplicates among images, given by name.
pub(crate) fn find(prints: &[(&str, Print)]) -> Duplicates {
    let mut groups: HashMap<u128, Vec<usize>> = HashMap::new();
    prints.iter().enumerate().for_each(|(image, (_, print))| groups.entry(print.exact).or_default().push(image));
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    groups.sort();
    // One image represents each group in the search for near duplicates.
    let kept: Vec<(usize, u64)> =
        groups.iter().filter_map(|group| Some((group[0], prints[group[0]].1.near?))).collect();
    let pairs = near(&kept);
    let name = |image: usize| prints[image].0.to_string();
    Duplicates {
        radius: RADIUS,
        exact: groups
            .iter()
            .filter(|group| group.len() > 1)
            .map(|group| group.iter().map(|&i| name(i)).collect())
            .collect(),
        near: pairs.iter().take(MAX_PAIRS).map(|&(a, b)| (name(a), name(b))).collect(),
        near_count: pairs.len() as u64,
    }
}

/// Returns the pairs within the radius, at most [`MAX_FOUND`].
fn near(hashes: &[(usize, u64)]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    visit_near_pairs(hashes, &mut |one, other| {
        pairs.push((one.min(other), one.max(other)));
        pairs.len() <= 4 * MAX_FOUND
    });
    pairs.sort_unstable();
    pairs.dedup();
    pairs.truncate(MAX_FOUND);
    pairs
}

/// Calls `found` for each pair within the radius, up to four times per pair, until it returns
/// false. Three changed bits leave at least one of four 16-bit parts unchanged, so only hashes that
/// share a part are compared.
pub(crate) fn visit_near_pairs(hashes: &[(usize, u64)], found: &mut dyn FnMut(usize, usize) -> bool) {
    for part in 0..4 {
        let mut buckets: HashMap<u16, Vec<(usize, u64)>> = HashMap::new();
        for &(image, hash) in hashes {
            let others = buckets.entry((hash >> (16 * part)) as u16).or_default();
            for (other, _) in others.iter().filter(|(_, other)| (other ^ hash).count_ones() <= RADIUS) {
                if !found(*other, image) {
                    return;
                }
            }
            others.push((image, hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::patch::ImageSize;
    use proptest::prelude::*;

    /// Nine columns and eight rows, so that each mean is one pixel. Even rows increase to the
    /// right, odd rows decrease.
    #[test]
    fn a_hash_by_hand() {
        let size = ImageSize { height: 8, width: 9 };
        let level =
            |at: usize| if (at / 9).is_multiple_of(2) { (at % 9) as u8 * 20 } else { 200 - (at % 9) as u8 * 20 };
        let image = Image::new(size, (0..72).flat_map(|at| [level(at); 3]).collect());
        assert_eq!(difference_hash(&image), 0xff00_ff00_ff00_ff00);
        let tall = Image::new(ImageSize { height: 9, width: 8 }, (0..72).flat_map(|at| [level(at); 3]).collect());
        assert_ne!(difference_hash(&tall), difference_hash(&image));
        assert_eq!(Print::new(&Image::black(ImageSize { height: 3, width: 1 })).near, None);
    }

    proptest! {
        /// The buckets find the same pairs as a comparison of all pairs.
        #[test]
        fn no_pair_is_missed(base: u64, flips in prop::collection::vec(prop::collection::vec(0u32..64, 0..6), 2..20)) {
            let hashes: Vec<(usize, u64)> =
                flips.iter().map(|bits| bits.iter().fold(base, |hash, bit| hash ^ 1 << bit)).enumerate().collect();
            let mut expected = Vec::new();
            for (a, x) in &hashes {
                expected.extend(hashes[..*a].iter().filter(|(_, y)| (x ^ y).count_ones() <= RADIUS).map(|(b, _)| (*b, *a)));
            }
            expected.sort_unstable();
            prop_assert_eq!(near(&hashes), expected);
        }
    }
}
