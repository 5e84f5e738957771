//! Selection of common images: an image that is unusable in one view may be usable in another.

use std::collections::{HashMap, HashSet};

use super::Features;
use crate::error::{Error, Result};

/// Returns the images that all features contain, in the order of the first.
fn common(features: &[&Features]) -> Vec<u32> {
    let Some((first, others)) = features.split_first() else { return vec![] };
    let others = others.iter().filter(|other| other.images != first.images);
    let others: Vec<HashSet<u32>> = others.map(|other| other.images.iter().copied().collect()).collect();
    first.images.iter().copied().filter(|image| others.iter().all(|other| other.contains(image))).collect()
}

/// Restricts several views of a data set (each with features at some layers) to the images that all
/// of them contain, in the order of the first.
///
/// # Errors
/// [`Error::Empty`] if there is no common image. [`Error::Write`] if features are in a file and the
/// new file cannot be written.
pub fn intersect_images<const N: usize>(views: [&mut Vec<Features>; N]) -> Result<()> {
    let images = common(&views.iter().flat_map(|view| view.iter()).collect::<Vec<_>>());
    if images.is_empty() {
        return Err(Error::Empty("images usable in all views"));
    }
    for features in views.into_iter().flatten() {
        *features = features.select_images(&images)?;
    }
    Ok(())
}

impl Features {
    /// Returns the features of these images, in this order. If the images are unchanged, the values
    /// are shared and not copied. Otherwise the new values are stored like these: in memory, or in
    /// a file of their own.
    ///
    /// # Errors
    /// [`Error::Setting`] if an image has no features, [`Error::Empty`] if `images` is empty, and
    /// [`Error::Write`] if the file cannot be written.
    pub fn select_images(&self, images: &[u32]) -> Result<Features> {
        if images == self.images {
            return Ok(self.clone());
        }
        let positions: HashMap<u32, usize> = self.images.iter().copied().zip(0..).collect();
        let length = self.shape.patches * self.shape.dim;
        let (mut values, mut labels) =
            (self.values.writer_beside(images.len() * length)?, Vec::with_capacity(images.len()));
        for image in images {
            let Some(&position) = positions.get(image) else {
                let expected = "images of the features".into();
                return Err(Error::Setting { name: "images", expected, got: format!("image {image}") });
            };
            values.extend(&self.values[position * length..][..length])?;
            labels.push(self.labels[position]);
        }
        Features::stored(self.layer, values.finish()?, self.shape, images.to_vec(), labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Shape;
    use crate::features::table::{Mapped, Values, ValuesWriter};
    use bagssl_core::embed::{FeatureLayer, Rows};

    /// Two patches of two values each. The values identify the image and the patch.
    fn features(images: &[u32]) -> Features {
        let values = images.iter().flat_map(|&image| (0..4).map(move |i| (image * 10 + i) as f32)).collect();
        let labels = images.iter().map(|image| image % 3).collect();
        Features::new(FeatureLayer::Embedding, Rows { values, dim: 2 }, 2, images.to_vec(), labels).unwrap()
    }

    /// The same features in a file.
    fn mapped(features: &Features, folder: &std::path::Path) -> Features {
        use std::io::Write;
        let mut file = tempfile::tempfile_in(folder).unwrap();
        file.write_all(bytemuck::cast_slice(features.values())).unwrap();
        let values = Values::from(Mapped::new(&file, 0, folder).unwrap());
        let Features { layer, shape, images, labels, .. } = features.clone();
        Features::stored(layer, values, shape, images, labels).unwrap()
    }

    #[test]
    fn images_in_common_by_hand() {
        let [all, some, turned] = [&[2, 4, 5, 9][..], &[1, 2, 5, 9], &[9, 5, 4]].map(features);
        assert_eq!(common(&[&all, &some]), [2, 5, 9]);
        assert_eq!(common(&[&turned, &all, &some]), [9, 5], "in the order of the first");
        assert_eq!(common(&[&all, &all]), all.images());
        assert!(common(&[]).is_empty() && common(&[&features(&[1]), &features(&[2])]).is_empty());
    }

    #[test]
    fn selected_images_keep_values_and_labels() {
        let folder = tempfile::tempdir().unwrap();
        let memory = features(&[2, 4, 9]);
        let file = mapped(&memory, folder.path());
        for all in [&memory, &file] {
            assert_eq!(all.select_images(&[9, 2]).unwrap(), features(&[9, 2]));
            assert_eq!(all.select_images(&[4]).unwrap().patch(0, 1), [42.0, 43.0]);
            let same = all.select_images(&[2, 4, 9]).unwrap();
            assert_eq!((&same, same.values().as_ptr()), (all, all.values().as_ptr()), "shared");
            let error = all.select_images(&[4, 5]).unwrap_err().to_string();
            assert!(error.contains("images: expected images of the features, got image 5"), "{error}");
            assert!(matches!(all.select_images(&[]), Err(Error::Empty(_))));
        }
        assert!(
            matches!(file.select_images(&[4]).unwrap().values.writer_beside(1).unwrap(), ValuesWriter::File(..)),
            "in a file again"
        );
        assert_eq!(file.shape, Shape { patches: 2, dim: 2 });
    }

    #[test]
    fn views_are_restricted_to_common_images() {
        let (mut whole, mut patches) = (vec![features(&[1, 2, 3]); 2], vec![features(&[1, 3]); 2]);
        intersect_images([&mut whole, &mut patches]).unwrap();
        assert_eq!((&whole, &patches), (&vec![features(&[1, 3]); 2], &vec![features(&[1, 3]); 2]));
        let mut other = vec![features(&[7])];
        let error = intersect_images([&mut whole, &mut other]).unwrap_err().to_string();
        assert_eq!(error, "images usable in all views: expected at least one, got none");
    }
}
