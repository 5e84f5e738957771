//! Parameter values in memory or in a checkpoint.

use std::borrow::Cow;
use std::prelude::v1::*;

use crate::checkpoint::TensorRef;

/// The values of a parameter, in memory or in a checkpoint's bytes.
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// In memory.
    Floats(Cow<'a, [f32]>),
    /// In a checkpoint.
    Stored(TensorRef<'a>),
}

impl Values<'_> {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match self {
            Values::Floats(values) => values.len(),
            Values::Stored(values) => values.len(),
        }
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `to` with the values from `start` on.
    ///
    /// # Panics
    /// If there are not enough values.
    pub(crate) fn read(&self, start: usize, to: &mut [f32]) {
        match self {
            Values::Floats(values) => to.copy_from_slice(&values[start..][..to.len()]),
            Values::Stored(TensorRef::F32(bytes)) => {
                let bytes = &bytes[start..][..to.len()];
                to.iter_mut().zip(bytes).for_each(|(to, &bytes)| *to = f32::from_le_bytes(bytes));
            }
            Values::Stored(values) => to.iter_mut().enumerate().for_each(|(index, to)| *to = values.get(start + index)),
        }
    }

    /// Returns all values.
    pub(crate) fn to_vec(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.len()];
        self.read(0, &mut all);
        all
    }
}

impl From<Vec<f32>> for Values<'_> {
    fn from(values: Vec<f32>) -> Self {
        Values::Floats(Cow::Owned(values))
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Values::Floats(Cow::Borrowed(values))
    }
}

impl<'a> From<&'a Vec<f32>> for Values<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Values::Floats(Cow::Borrowed(values))
    }
}

impl<'a> From<TensorRef<'a>> for Values<'a> {
    fn from(values: TensorRef<'a>) -> Self {
        Values::Stored(values)
    }
}
