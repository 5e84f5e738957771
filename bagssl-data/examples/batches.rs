//! Batches of augmented patches: `cargo run --example batches`, or `-- FOLDER` for your own images.

use std::error::Error;
use std::sync::Arc;

use bagssl_core::batch::PatchSource;
use bagssl_data::{Augment, Dataset, Loader, LoaderConfig, Split};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dataset = match std::env::args_os().nth(1) {
        Some(folder) => Dataset::open(folder.as_ref(), Split::Train)?,
        None => Dataset::embedded(Split::Train)?,
    };
    println!("{}", dataset.summary());
    let augment = Augment { flip: 0.5, grey: 0.2, ..Augment::default() };
    let loader = Loader::new(Arc::new(dataset), LoaderConfig { patches: 4, augment, ..LoaderConfig::default() })?;
    for (number, batch) in loader.epoch(0, 0).enumerate() {
        let batch = batch?;
        let mean = batch.data().iter().sum::<f32>() / batch.data().len() as f32;
        println!("batch {number}: {:?}, mean {mean:.3}", batch.shape());
    }
    Ok(())
}
