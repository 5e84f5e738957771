//! The patch grid that all images of a data set share.

use bagssl_core::bag::Grid;
use bagssl_core::patch::{ImageSize, PatchSpec};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::loading::skip::OnBadImage;

/// Returns the patch grid that all images of these data sets share, with the same number of rows
/// and columns. A mean over patches needs only the same number of patches. Methods that depend on
/// the position of a patch need the same grid: a rotated image has as many patches, but in other
/// positions.
///
/// Reads all files, but decodes an image only if its header does not decide: the first image,
/// images that seem to differ from it, and all images if EXIF orientations are applied.
///
/// # Errors
/// [`Error::Image`] with the name of the first image with a different grid, or if no image can be
/// used. Errors of unusable images, unless they are skipped.
pub fn common_grid(datasets: &[&Dataset], spec: PatchSpec, stride: u32, on_bad_image: OnBadImage) -> Result<Grid> {
    let of = |size| Grid::new(spec, size, stride);
    let mut first: Option<(Grid, &str)> = None;
    for (dataset, image) in datasets.iter().flat_map(|&dataset| (0..dataset.len()).map(move |image| (dataset, image))) {
        let told = size_from_header(dataset, image).and_then(|size| of(size).ok());
        if told.zip(first).is_some_and(|(told, (grid, _))| layout(told) == layout(grid)) {
            continue;
        }
        let name = dataset.name(image);
        let decoded = dataset.decode(image).and_then(|decoded| {
            let grid = of(decoded.size()).map_err(|error| Error::Patch { name: name.into(), error })?;
            Ok((grid, decoded.size()))
        });
        match (on_bad_image.skip_or_fail(decoded)?, first) {
            (Ok((grid, _)), None) => first = Some((grid, name)),
            (Ok((grid, size)), Some(first)) if layout(grid) != layout(first.0) => {
                return Err(other_grid(name, (grid, size), first));
            }
            // The grid is the same after decoding, or the image is skipped.
            _ => {}
        }
    }
    let origin = || datasets.first().map_or_else(String::new, |dataset| dataset.origin().display().to_string());
    let none = || Error::Image { name: origin(), expected: "a usable image".into(), got: "none".into() };
    Ok(first.ok_or_else(none)?.0)
}

/// Returns the size in an image's header, if it is sure to be the size of the decoded image: not if
/// EXIF orientations are applied.
fn size_from_header(dataset: &Dataset, image: usize) -> Option<ImageSize> {
    if dataset.applies_exif() { None } else { dataset.size_from_header(image).ok() }
}

fn layout(grid: Grid) -> (u32, u32) {
    (grid.rows(), grid.columns())
}

fn other_grid(name: &str, (grid, size): (Grid, ImageSize), (first, of_first): (Grid, &str)) -> Error {
    let ((rows, columns), (other_rows, other_columns)) = (layout(first), layout(grid));
    let expected = format!("a grid of {rows}x{columns} patches (rows x columns), as in {of_first}");
    let got = format!("{other_rows}x{other_columns} in an image of {}x{} (height x width)", size.height, size.width);
    Error::Image { name: name.into(), expected, got }
}
