//! Bags: the set of patches that represents an image.

use std::prelude::v1::*;

use crate::error::{Error, Result};
use crate::patch::{Crop, ImageSize, MultiScale, PatchSpec};
use crate::random::{Address, Purpose, Stream};

/// How the views of an image are drawn in training.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "snake_case"))]
pub enum Views {
    /// Patches of one fixed scale, as in BagSSL.
    FixedScale(PatchSpec),
    /// Crops of many scales, as in the baselines.
    MultiScale(MultiScale),
}

impl Views {
    /// Returns the side of the network's input in pixels.
    pub fn input(self) -> u32 {
        match self {
            Views::FixedScale(spec) => spec.input(),
            Views::MultiScale(spec) => spec.input(),
        }
    }

    /// Draws the crop at an address. The crop depends only on the seed, the epoch, the image, the
    /// patch and the size of the image.
    ///
    /// # Errors
    /// [`Error::PatchTooLarge`] if the patch does not fit, or the image has no pixels.
    pub fn crop(self, image: ImageSize, address: Address) -> Result<Crop> {
        if image.short_side() == 0 {
            return Err(Error::PatchTooLarge { patch: 1, height: image.height, width: image.width });
        }
        let mut random = address.stream(Purpose::Crop);
        match self {
            Views::FixedScale(spec) => spec.random_crop(image, &mut random),
            Views::MultiScale(spec) => Ok(spec.random_crop(image, &mut random)),
        }
    }
}

/// A grid of patches over an image. Patch `i` is at row `i / columns`, column `i % columns`. Pixels
/// at the bottom and on the right that the stride does not reach are not covered.
///
/// # Example
/// ```
/// use bagssl_core::bag::Grid;
/// use bagssl_core::patch::{Crop, ImageSize, PatchSide, PatchSpec};
/// let spec = PatchSpec::new(PatchSide::Pixels(4), 16)?;
/// let grid = Grid::new(spec, ImageSize { height: 8, width: 11 }, 3)?;
/// assert_eq!((grid.rows(), grid.columns()), (2, 3));
/// assert_eq!(grid.crop(4), Crop { top: 3, left: 3, height: 4, width: 4 });
/// # Ok::<(), bagssl_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    rows: u32,
    columns: u32,
    stride: u32,
    side: u32,
}

impl Grid {
    /// Creates a grid over an image. Adjacent patches start `stride` pixels apart.
    ///
    /// # Errors
    /// [`Error::Setting`] if the stride is 0, [`Error::PatchTooLarge`] if not a single patch fits.
    pub fn new(spec: PatchSpec, image: ImageSize, stride: u32) -> Result<Self> {
        if stride == 0 {
            return Err(Error::Setting { name: "stride", expected: "at least 1 pixel", got: "0".into() });
        }
        let side = spec.side_in(image)?;
        Ok(Grid { rows: (image.height - side) / stride + 1, columns: (image.width - side) / stride + 1, stride, side })
    }

    /// Returns the number of rows of patches.
    pub fn rows(self) -> u32 {
        self.rows
    }

    /// Returns the number of columns of patches.
    pub fn columns(self) -> u32 {
        self.columns
    }

    /// Returns the total number of patches.
    pub fn patches(self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// Returns the crop of a patch.
    ///
    /// # Panics
    /// If `patch` is not less than [`Grid::patches`].
    pub fn crop(self, patch: usize) -> Crop {
        assert!(patch < self.patches(), "patch {patch} in a grid of {} patches", self.patches());
        let (row, column) = (patch as u32 / self.columns, patch as u32 % self.columns);
        Crop { top: row * self.stride, left: column * self.stride, height: self.side, width: self.side }
    }

    /// Returns the crops of all patches, row by row.
    pub fn crops(self) -> impl ExactSizeIterator<Item = Crop> {
        (0..self.patches()).map(move |patch| self.crop(patch))
    }

    /// Returns the indices of all patches in a uniformly random order. The order depends only on
    /// the address's seed, epoch and image. Its first `n` indices are a uniform sample of `n`
    /// patches without replacement.
    ///
    /// # Example
    /// ```
    /// use bagssl_core::bag::Grid;
    /// use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
    /// use bagssl_core::random::Address;
    /// let spec = PatchSpec::new(PatchSide::Pixels(4), 16)?;
    /// let grid = Grid::new(spec, ImageSize { height: 8, width: 12 }, 4)?;
    /// let mut order: Vec<usize> = grid.order(Address::default()).collect();
    /// order.sort();
    /// assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    /// # Ok::<(), bagssl_core::Error>(())
    /// ```
    ///
    /// # Panics
    /// If there are 2^32 patches or more.
    pub fn order(self, address: Address) -> Order {
        let patches = u32::try_from(self.patches()).expect("fewer than 2^32 patches");
        Order {
            numbers: (0..patches).collect(),
            next: 0,
            random: Address { patch: 0, ..address }.stream(Purpose::Order),
        }
    }
}

/// A random order of a grid's patches, drawn lazily. See [`Grid::order`].
///
/// # Source
/// Fisher and Yates' shuffle, starting at the front (Durstenfeld 1964).
#[derive(Debug, Clone)]
pub struct Order {
    numbers: Vec<u32>,
    next: usize,
    random: Stream,
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let left = self.numbers.len() - self.next;
        if left == 0 {
            return None;
        }
        let drawn = self.next + self.random.below(left as u32) as usize;
        self.numbers.swap(self.next, drawn);
        self.next += 1;
        Some(self.numbers[self.next - 1] as usize)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.numbers.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Order {}

/// The patches of an image that an evaluation uses.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "snake_case"))]
pub enum Bag {
    /// Patches at random positions.
    Random {
        /// The size of the patches.
        spec: PatchSpec,
        /// The number of patches.
        patches: u32,
    },
    /// All patches of a grid, row by row.
    Grid {
        /// The size of the patches.
        spec: PatchSpec,
        /// The step from one patch to the next, in pixels.
        stride: u32,
    },
    /// One crop: the entire image, resampled to the network's input size.
    Whole,
    /// One crop: the largest centered square.
    #[cfg_attr(feature = "checkpoint", serde(rename = "centre"))]
    Center,
}

impl Bag {
    /// Returns the crops of an image. Random crops are drawn at this address, with the patch index
    /// in `patch`.
    ///
    /// # Errors
    /// [`Error::PatchTooLarge`] if a patch does not fit, [`Error::Setting`] if the bag would be
    /// empty.
    pub fn crops(self, image: ImageSize, address: Address) -> Result<Vec<Crop>> {
        if image.short_side() == 0 {
            return Err(Error::PatchTooLarge { patch: 1, height: image.height, width: image.width });
        }
        match self {
            Bag::Random { patches: 0, .. } => {
                Err(Error::Setting { name: "patches", expected: "at least 1", got: "0".into() })
            }
            Bag::Random { spec, patches } => (0..patches)
                .map(|patch| spec.random_crop(image, &mut Address { patch, ..address }.stream(Purpose::Evaluation)))
                .collect(),
            Bag::Grid { spec, stride } => Ok(Grid::new(spec, image, stride)?.crops().collect()),
            Bag::Whole => Ok(vec![Crop::whole(image)]),
            Bag::Center => Ok(vec![Crop::center(image)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::PatchSide;
    use proptest::prelude::*;

    fn pixels(side: u32) -> PatchSpec {
        PatchSpec::new(PatchSide::Pixels(side), 16).unwrap()
    }

    #[test]
    fn grid_runs_row_by_row() {
        let grid = Grid::new(pixels(2), ImageSize { height: 4, width: 7 }, 2).unwrap();
        let places: Vec<_> = grid.crops().map(|crop| (crop.top, crop.left)).collect();
        assert_eq!(places, [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4)]);
    }

    #[test]
    fn empty_bags_are_refused() {
        let image = ImageSize { height: 4, width: 7 };
        assert!(Grid::new(pixels(2), image, 0).is_err());
        assert!(Bag::Random { spec: pixels(2), patches: 0 }.crops(image, Address::default()).is_err());
        let empty = ImageSize { height: 0, width: 7 };
        for bag in [Bag::Whole, Bag::Center, Bag::Grid { spec: pixels(1), stride: 1 }] {
            assert!(bag.crops(empty, Address::default()).is_err(), "{bag:?}");
        }
        let views = Views::MultiScale(MultiScale::new((0.1, 1.0), (1.0, 1.0), 8).unwrap());
        assert!(views.crop(empty, Address::default()).is_err());
    }

    #[test]
    fn random_bag_is_a_prefix_of_a_larger_one() {
        let image = ImageSize { height: 40, width: 70 };
        let bag = |patches| Bag::Random { spec: pixels(9), patches }.crops(image, Address::default()).unwrap();
        assert_eq!(bag(5)[..], bag(12)[..5]);
    }

    /// The order depends on the seed, the epoch and the image, but not on the address's patch.
    #[test]
    fn order_depends_on_its_address() {
        let grid = Grid::new(pixels(2), ImageSize { height: 6, width: 22 }, 2).unwrap();
        let base = Address { seed: 1, epoch: 2, image: 3, patch: 0 };
        let order = |address| grid.order(address).collect::<Vec<_>>();
        assert_eq!(order(base), order(Address { patch: 9, ..base }));
        for other in [Address { seed: 2, ..base }, Address { epoch: 3, ..base }, Address { image: 4, ..base }] {
            assert_ne!(order(base), order(other));
        }
    }

    /// Two of five patches: in 10,000 draws, each of the 20 ordered pairs is expected 500 times,
    /// within 5 standard deviations (sqrt(10,000 p q) = 22).
    #[test]
    fn order_is_uniform_over_first_pairs() {
        let grid = Grid::new(pixels(2), ImageSize { height: 2, width: 10 }, 2).unwrap();
        let mut seen = [[0u32; 5]; 5];
        for image in 0..10_000 {
            let mut order = grid.order(Address { image, ..Address::default() });
            seen[order.next().unwrap()][order.next().unwrap()] += 1;
        }
        for (first, row) in seen.iter().enumerate() {
            for (second, &count) in row.iter().enumerate() {
                let expected = if first == second { 0..1 } else { 391..609 };
                assert!(expected.contains(&count), "{first}, {second}: {count}");
            }
        }
    }

    proptest! {
        #[test]
        fn order_holds_each_patch_once(h in 1u32..20, w in 1u32..20, seed: u64) {
            let grid = Grid::new(pixels(1), ImageSize { height: h, width: w }, 1).unwrap();
            let mut order = grid.order(Address { seed, ..Address::default() });
            prop_assert_eq!(order.len(), grid.patches());
            let mut numbers: Vec<usize> = order.by_ref().collect();
            numbers.sort_unstable();
            prop_assert!(numbers.into_iter().eq(0..grid.patches()) && order.len() == 0);
        }

        #[test]
        fn grid_is_as_dense_as_its_stride_allows(side in 1u32..40, stride in 1u32..50, h in 0u32..60, w in 0u32..60) {
            let image = ImageSize { height: side + h, width: side + w };
            let grid = Grid::new(pixels(side), image, stride).unwrap();
            prop_assert!(grid.crops().all(|crop| crop.fits(image)));
            let last = grid.crop(grid.patches() - 1);
            prop_assert!(last.top + stride + side > image.height && last.left + stride + side > image.width);
        }
    }
}
