//! Random streams of the evaluation, independent of each other and of the patches of random bags.

use bagssl_core::random::{Address, Purpose, Stream};

/// The purpose of a random stream. Each purpose has its own patch index in the address, counted
/// down from the maximum, which no bag reaches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Draw {
    /// The order of the patches of the image with this index.
    Order { image: u32 },
    /// The training samples that are held out.
    HoldOut,
    /// The order of the samples in an epoch of a probe.
    Shuffle { epoch: u32 },
    /// The groups of a bootstrap sample.
    Bootstrap,
    /// A synthetic world of patches.
    World,
    /// The initial projections for training in a synthetic world.
    Start,
}

impl Draw {
    pub(crate) fn stream(self, seed: u64) -> Stream {
        let (epoch, image, from_end) = match self {
            Draw::Order { image } => (0, image, 0),
            Draw::HoldOut => (0, 0, 1),
            Draw::Shuffle { epoch } => (epoch, 0, 2),
            Draw::Bootstrap => (0, 0, 3),
            Draw::World => (0, 0, 4),
            Draw::Start => (0, 0, 5),
        };
        Address { seed, epoch, image, patch: u32::MAX - from_end }.stream(Purpose::Evaluation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_streams_are_independent() {
        let draws = [
            Draw::Order { image: 0 },
            Draw::Order { image: 1 },
            Draw::HoldOut,
            Draw::Bootstrap,
            Draw::World,
            Draw::Start,
        ];
        let shuffles = [Draw::Shuffle { epoch: 0 }, Draw::Shuffle { epoch: 1 }];
        let mut first: Vec<u32> = draws.into_iter().chain(shuffles).map(|draw| draw.stream(5).next_u32()).collect();
        first.push(Address { seed: 5, ..Address::default() }.stream(Purpose::Evaluation).next_u32());
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 9);
    }
}
