//! Features: the embeddings of the patches of many images.

pub(crate) mod table;
pub(crate) mod cache;
pub(crate) mod samples;
mod select;

pub use select::intersect_images;

use bagssl_core::aggregate::{RunningMean, pool};
use bagssl_core::bag::Grid;
use bagssl_core::batch::{PatchBatch, SourceError};
use bagssl_core::embed::{Embed, FeatureLayer, InFlight, Rows};

use crate::draw::Draw;
use crate::error::{Error, Result, same_length};
use crate::features::samples::Samples;
use crate::features::table::{RowsView, Table, Values};

/// The features of images at one layer of the network. All values are finite, and all images have
/// the same number of patches. The values are in memory, or in the files of a
/// [`FeatureCache`](crate::FeatureCache).
///
/// # Shapes
/// `values` is `[image, patch, dim]`, row-major. In this type, the "position" of an image is its
/// index in this array, and [`Features::images`] has the image's index in its data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    layer: FeatureLayer,
    values: Values,
    shape: Shape,
    images: Vec<u32>,
    labels: Vec<u32>,
}

/// The shape of one image's features: `[patch, dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) patches: usize,
    pub(crate) dim: usize,
}

/// The order in which an image's patches are averaged, if only some of them are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// The stored order.
    Given,
    /// The same order for every image: a permutation of the patch indices.
    Same(&'a [u32]),
    /// A random order for each image, which depends only on the seed and on the image's index in
    /// its data set. The patches of a shorter mean are a prefix of those of a longer one.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// Extracts the features of all batches at each layer in `layers`, in that order. `progress` is
/// called with the number of images done.
///
/// # Errors
/// [`Error::Source`] or [`Error::Network`] if the source or the network fails. [`Error::NotFinite`]
/// with the image whose feature is infinite or NaN. [`Error::Length`] if batches have different
/// numbers of patches, or the network returns an unexpected number of rows or layers.
/// [`Error::Empty`] if there are no batches.
pub fn extract(
    network: &dyn Embed,
    batches: impl Iterator<Item = core::result::Result<PatchBatch, SourceError>>,
    layers: &[FeatureLayer],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Features>> {
    let shape = Shape { patches: 0, dim: 0 };
    let empty = |&layer| Features { layer, values: Values::from(vec![]), shape, images: vec![], labels: vec![] };
    let mut all: Vec<Features> = layers.iter().map(empty).collect();
    let mut done = 0;
    let mut add = |(batch, rows): (PatchBatch, Vec<Rows>)| -> Result<()> {
        same_length("network taps", layers.len(), rows.len())?;
        for (features, rows) in all.iter_mut().zip(rows) {
            features.append(&batch, &rows)?;
        }
        done += batch.shape().images;
        progress(done);
        Ok(())
    };
    let mut in_flight = InFlight::new(network);
    for batch in batches {
        let batch = batch.map_err(Error::Source)?;
        in_flight.begin(batch.clone(), &batch, layers).map_err(Error::Network)?.map_or(Ok(()), &mut add)?;
    }
    while let Some(last) = in_flight.wait().map_err(Error::Network)? {
        add(last)?;
    }
    if done == 0 { Err(Error::Empty("images to embed")) } else { Ok(all) }
}

impl Features {
    /// Creates features after checking them. `values` is `[image, patch, dim]`, `images` has each
    /// image's index in its data set, and `labels` its class.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Length`] or [`Error::NotFinite`].
    pub fn new(layer: FeatureLayer, values: Rows, patches: usize, images: Vec<u32>, labels: Vec<u32>) -> Result<Self> {
        if values.is_empty() || patches == 0 {
            return Err(Error::Empty("features"));
        }
        same_length("feature values", images.len() * patches * values.dim, values.values.len())?;
        same_length("feature labels", images.len(), labels.len())?;
        let Rows { values, dim } = values;
        let shape = Shape { patches, dim };
        shape.check_finite(layer, &values, &images)?;
        Ok(Features { layer, values: values.into(), shape, images, labels })
    }

    /// Creates features whose values were checked before they were stored.
    pub(crate) fn stored(
        layer: FeatureLayer,
        values: Values,
        shape: Shape,
        images: Vec<u32>,
        labels: Vec<u32>,
    ) -> Result<Self> {
        if values.is_empty() {
            return Err(Error::Empty("features"));
        }
        same_length("feature values", images.len() * shape.patches * shape.dim, values.len())?;
        Ok(Features { layer, values, shape, images, labels })
    }

    /// The layer of the network.
    pub fn layer(&self) -> FeatureLayer {
        self.layer
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Returns whether there are no images. Checked features have at least one.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The number of patches per image.
    pub fn patches(&self) -> usize {
        self.shape.patches
    }

    /// The dimension of a feature.
    pub fn dim(&self) -> usize {
        self.shape.dim
    }

    /// The index of each image in its data set.
    pub fn images(&self) -> &[u32] {
        &self.images
    }

    /// The class of each image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// All values, `[image, patch, dim]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the feature of one patch of the image at a position.
    ///
    /// # Panics
    /// If the position or the patch is out of range.
    pub fn patch(&self, position: usize, patch: usize) -> &[f32] {
        let Shape { patches, dim } = self.shape;
        assert!(position < self.len() && patch < patches, "patch {patch} of image {position}");
        &self.values[(position * patches + patch) * dim..][..dim]
    }

    /// All patches of all images as rows, `[image * patch, dim]`.
    pub fn rows(&self) -> RowsView<'_> {
        RowsView { values: &self.values, dim: self.shape.dim }
    }

    /// Returns the mean of the first `count` patches of each image, which is BagSSL's
    /// representation. The result is stored like the features: in memory, or in a file of its own.
    ///
    /// # Shapes
    /// - returns: `[image, dim]`
    ///
    /// # Errors
    /// [`Error::Setting`] if `count` is 0 or exceeds the number of patches, or `order` is not a
    /// permutation of the patches. [`Error::Write`] if the file cannot be written.
    ///
    /// # Source
    /// BagSSL, arXiv:2206.08954.
    pub fn mean_of(&self, count: usize, order: Order<'_>) -> Result<Table> {
        let Shape { patches, dim } = self.shape;
        if count == 0 || count > patches {
            let expected = format!("1 to {patches}");
            return Err(Error::Setting { name: "patches", expected, got: count.to_string() });
        }
        self.check_order(order)?;
        if patches == 1 {
            // A single patch is its own mean. The values are shared, not copied.
            return Ok(Table { values: self.values.clone(), dim });
        }
        let mut values = self.values.writer_beside(self.len() * dim)?;
        for position in 0..self.len() {
            let mut mean = RunningMean::new(dim);
            for patch in self.order_of(position, order).take(count) {
                mean.push(self.patch(position, patch))?;
            }
            values.extend(&mean.mean().expect("at least one patch"))?;
        }
        Ok(Table { values: values.finish()?, dim })
    }

    /// Returns the mean of all patches of each image, `[image, dim]`.
    ///
    /// # Errors
    /// [`Error::Write`] if the features are in a file and the new file cannot be written.
    pub fn mean(&self) -> Result<Table> {
        self.mean_of(self.shape.patches, Order::Given)
    }

    /// Returns [`Features::mean_of`] with the images' classes, for a classifier.
    ///
    /// # Errors
    /// The errors of [`Features::mean_of`].
    pub fn samples(&self, count: usize, order: Order<'_>) -> Result<Samples> {
        Samples::new(self.mean_of(count, order)?, self.labels.clone())
    }

    /// Returns, for each image, the concatenated means over `cells x cells` parts of its patch
    /// grid, with the images' classes. [`pool`] defines which patches belong to a part.
    ///
    /// # Errors
    /// [`Error::Core`] if the number of patches does not match the grid, or the grid has fewer rows
    /// or columns than `cells`. [`Error::Write`] if the file cannot be written.
    pub fn pooled(&self, grid: Grid, cells: u32) -> Result<Samples> {
        let Shape { patches, dim } = self.shape;
        let parts = (cells * cells) as usize;
        let mut values = self.values.writer_beside(self.len() * parts * dim)?;
        for image in self.values.chunks_exact(patches * dim) {
            values.extend(&pool(image, dim, grid, cells)?)?;
        }
        Samples::new(Table { values: values.finish()?, dim: parts * dim }, self.labels.clone())
    }

    /// Iterates over the patches of an image in a valid order.
    fn order_of(&self, position: usize, order: Order<'_>) -> impl Iterator<Item = usize> {
        let order = match order {
            Order::Given => (0..self.shape.patches as u32).collect(),
            Order::Same(order) => order.to_vec(),
            Order::Random { seed } => {
                Draw::Order { image: self.images[position] }.stream(seed).permutation(self.shape.patches as u32)
            }
        };
        order.into_iter().map(|patch| patch as usize)
    }

    fn check_order(&self, order: Order<'_>) -> Result<()> {
        let Order::Same(order) = order else { return Ok(()) };
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if sorted.iter().copied().eq(0..self.shape.patches as u32) {
            return Ok(());
        }
        let expected = format!("each of 0 to {} once", self.shape.patches - 1);
        Err(Error::Setting { name: "patch order", expected, got: format!("{} other numbers", order.len()) })
    }

    fn append(&mut self, batch: &PatchBatch, rows: &Rows) -> Result<()> {
        let before = (!self.images.is_empty()).then_some(self.shape);
        self.shape = Shape::check(self.layer, batch, rows, before)?;
        self.values.as_mut_vec().extend_from_slice(&rows.values);
        self.images.extend_from_slice(batch.images());
        self.labels.extend_from_slice(batch.labels());
        Ok(())
    }
}

impl Shape {
    /// Returns the shape of a batch's features after checking that it has not changed and that all
    /// values are finite.
    pub(crate) fn check(layer: FeatureLayer, batch: &PatchBatch, rows: &Rows, before: Option<Shape>) -> Result<Self> {
        let shape = Shape { patches: batch.shape().patches, dim: rows.dim };
        same_length("network output rows", batch.shape().rows(), rows.len())?;
        let before = before.unwrap_or(shape);
        same_length("patches per image", before.patches, shape.patches)?;
        same_length("feature length", before.dim, shape.dim)?;
        shape.check_finite(layer, &rows.values, batch.images())?;
        Ok(shape)
    }

    fn check_finite(self, layer: FeatureLayer, values: &[f32], images: &[u32]) -> Result<()> {
        let Some(found) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let (row, index) = (found / self.dim, found % self.dim);
        Err(Error::NotFinite {
            what: layer.name(),
            image: images[row / self.patches] as usize,
            patch: row % self.patches,
            index,
            value: values[found],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::batch::BatchShape;
    use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
    use bagssl_core::random::{Address, Purpose};
    use proptest::prelude::*;

    /// Embeds a patch as its sum, and at the second layer as its first and last value.
    struct Sums;

    impl Embed for Sums {
        fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
            let patches: Vec<&[f32]> = batch.data().chunks(batch.shape().patch_len()).collect();
            let of = |layer: &FeatureLayer| match layer {
                FeatureLayer::Embedding => {
                    Ok(Rows { values: patches.iter().map(|patch| patch.iter().sum()).collect(), dim: 1 })
                }
                FeatureLayer::Projection => {
                    let ends = patches.iter().flat_map(|patch| [patch[0], patch[patch.len() - 1]]);
                    Ok(Rows { values: ends.collect(), dim: 2 })
                }
                FeatureLayer::FirstLayer => Err("no first layer".into()),
            };
            layers.iter().map(of).collect()
        }
    }

    /// One image with two patches of one row and two columns, with consecutive values from `first`.
    fn batch(image: u32, first: f32) -> core::result::Result<PatchBatch, SourceError> {
        let shape = BatchShape { images: 1, patches: 2, channels: 1, height: 1, width: 2 };
        let data = (0..4).map(|i| first + i as f32).collect();
        Ok(PatchBatch::new(shape, data, vec![image], vec![image % 2])?)
    }

    fn features(images: usize, patches: usize, dim: usize) -> Features {
        let values = (0..images * patches * dim).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let numbers: Vec<u32> = (0..images as u32).collect();
        Features::new(FeatureLayer::Embedding, Rows { values, dim }, patches, numbers.clone(), numbers).unwrap()
    }

    #[test]
    fn batches_are_joined_by_layer() {
        let mut heard = vec![];
        let layers = [FeatureLayer::Projection, FeatureLayer::Embedding];
        let batches = [batch(7, 0.0), batch(4, 10.0)].into_iter();
        let all = extract(&Sums, batches, &layers, &mut |done| heard.push(done)).unwrap();
        assert_eq!(all[0].values(), [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
        assert_eq!(all[1].values(), [1.0, 5.0, 21.0, 25.0]);
        assert_eq!(
            (all[0].dim(), all[0].patches(), all[1].images(), all[1].labels()),
            (2, 2, &[7, 4][..], &[1, 0][..])
        );
        assert_eq!(heard, [1, 2]);
    }

    #[test]
    fn errors_are_passed_on() {
        let run = |batches: Vec<_>, layers: &[FeatureLayer]| {
            extract(&Sums, batches.into_iter(), layers, &mut |_| ()).unwrap_err()
        };
        assert_eq!(run(vec![batch(1, 0.0)], &[FeatureLayer::FirstLayer]).to_string(), "no first layer");
        assert_eq!(run(vec![Err("file gone".into())], &[FeatureLayer::Embedding]).to_string(), "file gone");
        assert!(matches!(run(vec![], &[FeatureLayer::Embedding]), Error::Empty(_)));
        let wrong = run(vec![batch(3, 0.0), batch(9, f32::INFINITY)], &[FeatureLayer::Projection]);
        let expected = "projection: expected a finite number as value 0 of image 9, patch 0, got inf";
        assert_eq!(wrong.to_string(), expected);
    }

    #[test]
    fn means_by_hand() {
        let values = vec![1.0, 10.0, 3.0, 20.0, 8.0, 60.0, 0.0, 1.0, 0.0, 2.0, 0.0, 6.0];
        let features =
            Features::new(FeatureLayer::Embedding, Rows { values, dim: 2 }, 3, vec![0, 1], vec![0, 0]).unwrap();
        assert_eq!(features.mean_of(2, Order::Given).unwrap().values[..], [2.0, 15.0, 0.0, 1.5]);
        assert_eq!(features.mean_of(2, Order::Same(&[2, 0, 1])).unwrap().values[..], [4.5, 35.0, 0.0, 3.5]);
        assert_eq!(features.mean().unwrap().values[..], [4.0, 30.0, 0.0, 3.0]);
        assert!(features.mean_of(0, Order::Given).is_err() && features.mean_of(4, Order::Given).is_err());
        assert!(features.mean_of(1, Order::Same(&[0, 1, 1])).is_err());
        assert!(features.mean_of(1, Order::Same(&[0, 1])).is_err());
    }

    /// A grid of two rows and three columns of patches, whose features are their indices. The left
    /// part has columns 0 and 1, the right part columns 1 and 2.
    #[test]
    fn quarters_by_hand() {
        let spec = PatchSpec::new(PatchSide::Pixels(4), 4).unwrap();
        let grid = Grid::new(spec, ImageSize { height: 8, width: 12 }, 4).unwrap();
        let values = (0..12).map(|i| i as f32).collect();
        let features =
            Features::new(FeatureLayer::Embedding, Rows { values, dim: 1 }, 6, vec![0, 1], vec![5, 7]).unwrap();
        let pooled = features.pooled(grid, 2).unwrap();
        assert_eq!(pooled.rows().values, [0.5, 1.5, 3.5, 4.5, 6.5, 7.5, 9.5, 10.5]);
        assert_eq!((pooled.rows().dim, pooled.labels()), (4, &[5, 7][..]));
        assert!(features.pooled(grid, 3).is_err());
    }

    #[test]
    fn random_orders_differ_from_image_to_image_and_not_from_call_to_call() {
        let features = features(6, 40, 1);
        let one = |seed| features.mean_of(1, Order::Random { seed }).unwrap();
        assert_eq!(one(3), one(3));
        assert_ne!(one(3), one(4));
        let first = |position| features.order_of(position, Order::Random { seed: 3 }).next().unwrap();
        assert!((1..6).any(|position| first(position) != first(0)));
    }

    proptest! {
        #[test]
        fn the_mean_of_all_does_not_depend_on_the_order(images in 1usize..5, patches in 1usize..9, dim in 1usize..6, seed: u64) {
            let features = features(images, patches, dim);
            let whole = features.mean().unwrap();
            let order = Address { seed, ..Address::default() }.stream(Purpose::Shuffle).permutation(patches as u32);
            for order in [Order::Same(&order), Order::Random { seed }] {
                let other = features.mean_of(patches, order).unwrap();
                prop_assert!(whole.values.iter().zip(&*other.values).all(|(a, b)| (a - b).abs() < 1e-6));
            }
        }
    }
}
