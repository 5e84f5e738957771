//! The numbers of patches at which curves are measured.

/// Returns the patch counts to measure: those of 1, 4 and 16 that are less than `all`, then `all`.
pub(crate) fn accuracy_counts(all: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = [1, 4, 16].into_iter().filter(|&count| count < all).collect();
    counts.push(all);
    counts
}

/// Returns the powers of two that are less than `all`, then `all`.
pub(crate) fn convergence_counts(all: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (0..).map(|power| 1 << power).take_while(|&count| count < all).collect();
    counts.push(all);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_end_with_all() {
        assert_eq!(accuracy_counts(25), [1, 4, 16, 25]);
        assert_eq!(accuracy_counts(16), [1, 4, 16]);
        assert_eq!(accuracy_counts(1), [1]);
        assert_eq!(convergence_counts(25), [1, 2, 4, 8, 16, 25]);
    }
}
