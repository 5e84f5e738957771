//! The random numbers of Python's `random`, so that the same tiles are chosen.

use rand_mt::Mt;

/// `random.Random(seed)`.
pub(crate) struct Random(Mt);

impl Random {
    pub(crate) fn new(seed: u32) -> Self {
        Random(Mt::new_with_key([seed]))
    }

    /// A number below another, by rejection of too large ones.
    fn below(&mut self, bound: usize) -> usize {
        let bits = usize::BITS - bound.leading_zeros();
        loop {
            let number = (self.0.next_u32() >> (32 - bits)) as usize;
            if number < bound {
                return number;
            }
        }
    }

    /// `shuffle`.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// `sample(range(count), chosen)` for at most 21 of which at most 5 are chosen.
    pub(crate) fn sample(&mut self, count: usize, chosen: usize) -> Vec<usize> {
        let mut pool: Vec<usize> = (0..count).collect();
        (0..chosen)
            .map(|_| {
                let at = self.below(pool.len());
                pool.swap_remove(at)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python 3: `r = random.Random(7); print(r.sample(range(16), 4)); x = list(range(10)); r.shuffle(x); print(x)`.
    #[test]
    fn numbers_are_pythons() {
        let mut random = Random::new(7);
        assert_eq!(random.sample(16, 4), [10, 2, 6, 15]);
        let mut items: Vec<usize> = (0..10).collect();
        random.shuffle(&mut items);
        assert_eq!(items, [3, 6, 5, 7, 9, 4, 2, 8, 1, 0]);
    }
}
