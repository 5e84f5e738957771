//! The confusion matrix of a classifier.

use serde::{Deserialize, Serialize};

use crate::error::{Result, same_length};

/// The number of samples for each pair of true and predicted class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// The classes that occur as labels or predictions, in ascending order.
    pub classes: Vec<u32>,
    /// `counts[a][b]` is the number of samples of class `classes[a]` predicted as `classes[b]`.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts predictions against labels.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length) if `predictions` and `labels` have different
    /// lengths.
    pub fn new(predictions: &[u32], labels: &[u32]) -> Result<Self> {
        same_length("predictions", labels.len(), predictions.len())?;
        let mut classes = [predictions, labels].concat();
        classes.sort_unstable();
        classes.dedup();
        let place = |class: &u32| classes.binary_search(class).expect("all classes are listed");
        let mut counts = vec![vec![0; classes.len()]; classes.len()];
        for (ranks, label) in predictions.iter().zip(labels) {
            counts[place(label)][place(ranks)] += 1;
        }
        Ok(Confusion { classes, counts })
    }

    /// Returns the most frequent confusions, `(class, predicted class, count)`, at most `count`.
    pub fn worst(&self, count: usize) -> Vec<(u32, u32, u64)> {
        let mut pairs = Vec::new();
        for (row, class) in self.counts.iter().zip(&self.classes) {
            let wrong = row.iter().zip(&self.classes).filter(|(times, ranks)| **times > 0 && *ranks != class);
            pairs.extend(wrong.map(|(times, ranks)| (*class, *ranks, *times)));
        }
        pairs.sort_by_key(|&(class, ranks, times)| (std::cmp::Reverse(times), class, ranks));
        pairs.truncate(count);
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let confusion = Confusion::new(&[7, 7, 2, 9, 2], &[2, 2, 2, 7, 7]).unwrap();
        assert_eq!(confusion.classes, [2, 7, 9]);
        assert_eq!(confusion.counts, [[1, 2, 0], [1, 0, 1], [0, 0, 0]]);
        assert_eq!(confusion.worst(2), [(2, 7, 2), (7, 2, 1)]);
        assert!(Confusion::new(&[1], &[]).is_err());
    }
}
