//! Borrowed maps or rows with their shape.

use std::prelude::v1::*;

use crate::error::{Error, Result};

/// The shape of maps, `[image, height, width, channel]`.
pub type Shape = [usize; 4];

/// A borrowed map or rows, with their shape.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) shape: Shape,
}

impl<'a> View<'a> {
    /// Creates a view of values with a shape.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of values does not match the shape, [`Error::Setting`] if
    /// the shape contains a 0.
    pub fn new(values: &'a [f32], shape: Shape) -> Result<Self> {
        if shape.contains(&0) {
            return Err(Error::Setting { name: "shape", expected: "no dimension of 0", got: format!("{shape:?}") });
        }
        match shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size)) {
            Some(expected) if values.len() == expected => Ok(View { values, shape }),
            expected => {
                let (expected, got) = (expected.unwrap_or(usize::MAX), values.len());
                Err(Error::Length { name: "feature map values", expected, got })
            }
        }
    }

    /// Returns the shape, `[image, height, width, channel]`.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Returns the values.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    pub(crate) fn size(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }
}
