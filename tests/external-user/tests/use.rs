use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
use external_user::{Grey, represent, represent_by_quarter};

/// Four rows and six columns; a pixel is its column plus ten times its row.
fn image() -> Grey {
    let pixels = (0..24).map(|pixel| (pixel % 6 + 10 * (pixel / 6)) as f32).collect();
    Grey { size: ImageSize { height: 4, width: 6 }, pixels }
}

#[test]
fn image_is_the_mean_of_its_patches() {
    let spec = PatchSpec::new(PatchSide::Pixels(2), 2).unwrap();
    let (mean, error) = represent(&image(), spec, 2).unwrap();
    // Columns 0 to 5 and rows 0 to 3 count alike: 2.5 + 15.
    assert_eq!(mean, [17.5, 1.0]);
    // Patch means 5.5, 7.5, 9.5, 25.5, 27.5, 29.5: their deviation over the root of 6; slopes are all 1.
    let error = error.unwrap();
    assert!((error[0] - (616.0_f32 / 30.0).sqrt()).abs() < 1e-4, "{error:?}");
    assert_eq!(error[1], 0.0);
    let quarters = represent_by_quarter(&image(), spec, 2).unwrap();
    assert_eq!(quarters, [6.5, 1.0, 8.5, 1.0, 26.5, 1.0, 28.5, 1.0]);
}

#[test]
fn patch_that_does_not_fit_is_an_error() {
    let spec = PatchSpec::new(PatchSide::Pixels(5), 2).unwrap();
    assert_eq!(
        represent(&image(), spec, 1).unwrap_err().to_string(),
        "patch of 5x5 pixels does not fit into an image of 4x6 (height x width)"
    );
}
