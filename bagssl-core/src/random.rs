//! Counter-based random numbers: each draw is a function of seed, epoch, image and patch.
//!
//! There is no generator state shared between patches. The patches of an image therefore do not
//! depend on the number of threads, the batch size, the step at which training resumed, or errors
//! in other images.
//!
//! The generator is our own 16 lines: the crate rand_philox 0.2 is five months old (2026-11-28).
//!
//! # Source
//! Philox4x32-10: Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC
//! 2011.

use std::prelude::v1::*;

/// The purpose of a stream of draws. Streams for different purposes use disjoint counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The position of a patch.
    Crop = 1,
    /// The augmentation of a patch.
    Augment = 2,
    /// The order of the images in an epoch.
    Shuffle = 3,
    /// The initial weights of a network.
    Weights = 4,
    /// Evaluation: bags, probes, splits.
    Evaluation = 5,
    /// The order in which the patches of a grid are visited.
    Order = 6,
}

/// The address of a stream of draws.
///
/// # Example
/// ```
/// use bagssl_core::random::{Address, Purpose};
/// let address = Address { seed: 7, epoch: 2, image: 1_281_166, patch: 19 };
/// let mut one = address.stream(Purpose::Crop);
/// let mut two = address.stream(Purpose::Crop);
/// assert_eq!(one.unit_f32(), two.unit_f32());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Address {
    /// The seed of the run.
    pub seed: u64,
    /// The epoch, counted from 0.
    pub epoch: u32,
    /// The image's index in the data set.
    pub image: u32,
    /// The patch's index in the bag.
    pub patch: u32,
}

impl Address {
    /// Returns the stream of draws at this address, starting from its first number.
    pub fn stream(self, purpose: Purpose) -> Stream {
        Stream {
            key: [self.seed as u32, (self.seed >> 32) as u32],
            counter: [(purpose as u32) << 24, self.patch, self.image, self.epoch],
            block: [0; 4],
            used: 4,
        }
    }
}

/// A stream of draws. It repeats after 2^26 numbers of 32 bits.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

const BLOCKS: u32 = 1 << 24;

impl Stream {
    /// Draws 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32_10(self.counter, self.key);
            let purpose = self.counter[0] & !(BLOCKS - 1);
            self.counter[0] = purpose | (self.counter[0].wrapping_add(1) & (BLOCKS - 1));
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Draws uniformly from `[0, 1)`, with 24 bits.
    pub fn unit_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Draws uniformly from `[0, 1)`, with 53 bits.
    pub fn unit_f64(&mut self) -> f64 {
        let bits = (u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())) >> 11;
        bits as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Draws uniformly from `[low, high)`. Returns `low` if the two are equal.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit_f32()
    }

    /// Returns `true` with the given probability (0 never, 1 always).
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit_f32() < probability
    }

    /// Draws uniformly from `0..bound`, without bias.
    ///
    /// # Panics
    /// If `bound` is 0.
    ///
    /// # Source
    /// Lemire, *Fast random integer generation in an interval*, ACM TOMACS 2019.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "below(0) has no value to draw");
        let mut wide = u64::from(self.next_u32()) * u64::from(bound);
        if (wide as u32) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (wide as u32) < threshold {
                wide = u64::from(self.next_u32()) * u64::from(bound);
            }
        }
        (wide >> 32) as u32
    }

    /// Draws two independent numbers from the standard normal distribution (Box and Muller 1958).
    pub fn normal_pair(&mut self) -> (f64, f64) {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit_f64()));
        let angle = 2.0 * core::f64::consts::PI * self.unit_f64();
        (radius * libm::cos(angle), radius * libm::sin(angle))
    }

    /// Shuffles `items` uniformly (Fisher and Yates, Durstenfeld's form).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }

    /// Returns the numbers `0..len` in a uniformly random order.
    pub fn permutation(&mut self, len: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len).collect();
        self.shuffle(&mut order);
        order
    }
}

fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let even = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let odd = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (odd >> 32) as u32 ^ counter[1] ^ key[0],
            odd as u32,
            (even >> 32) as u32 ^ counter[3] ^ key[1],
            even as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The test vectors published with Random123 (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn philox_matches_published_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_differ_by_each_address_field() {
        let base = Address { seed: 1, epoch: 2, image: 3, patch: 4 };
        let others = [
            Address { seed: 5, ..base },
            Address { seed: 1 | 1 << 40, ..base },
            Address { epoch: 5, ..base },
            Address { image: 5, ..base },
            Address { patch: 5, ..base },
            Address { image: base.patch, patch: base.image, ..base },
        ];
        let first = |address: Address, purpose| address.stream(purpose).next_u32();
        for other in others {
            assert_ne!(first(base, Purpose::Crop), first(other, Purpose::Crop), "{other:?}");
        }
        assert_ne!(first(base, Purpose::Crop), first(base, Purpose::Augment));
    }

    #[test]
    fn stream_wraps_within_its_purpose() {
        let mut stream = Address::default().stream(Purpose::Crop);
        let start = stream.clone().next_u32();
        stream.counter[0] |= BLOCKS - 1;
        for _ in 0..4 {
            stream.next_u32();
        }
        assert_eq!(stream.next_u32(), start);
    }

    #[test]
    fn moments_match_the_distributions() {
        let mut stream = Address { seed: 11, ..Address::default() }.stream(Purpose::Weights);
        let count = 20_000;
        let (mut sum, mut squares, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..count {
            let (a, b) = stream.normal_pair();
            sum += a + b;
            squares += a * a + b * b;
            uniform += stream.unit_f64();
        }
        let draws = f64::from(2 * count);
        assert!((sum / draws).abs() < 0.02, "mean {}", sum / draws);
        assert!((squares / draws - 1.0).abs() < 0.03, "variance {}", squares / draws);
        assert!((uniform / f64::from(count) - 0.5).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn below_is_less_than_its_bound(seed: u64, bound in 1u32..) {
            let mut stream = Address { seed, ..Address::default() }.stream(Purpose::Crop);
            for _ in 0..20 {
                prop_assert!(stream.below(bound) < bound);
            }
        }

        #[test]
        fn permutation_holds_each_number_once(seed: u64, len in 0u32..200) {
            let mut order = Address { seed, ..Address::default() }.stream(Purpose::Shuffle).permutation(len);
            order.sort_unstable();
            prop_assert!(order.iter().copied().eq(0..len));
        }
    }
}
