//! Makes the files of `tests/golden`: a small trained checkpoint with int8 weights, one tile as raw pixels, and the
//! embedding that they give. Run by hand when the format changes: `cargo run -p bagssl-tests --features candle --example make_golden`.

use std::path::Path;

use bagssl_core::checkpoint::{Checkpoint, WeightType, convert};
use bagssl_core::embed::FeatureLayer;
use bagssl_data::{Dataset, Split};
use bagssl_tests::{GOLDEN_TILE, golden, loader};
use bagssl_train::run_state::Nowhere;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    std::fs::create_dir_all(&folder)?;
    let mut run = bagssl_tests::run(None)?;
    run.run(&loader(2), &mut Vec::new(), &mut Nowhere)?;
    let bytes = run.checkpoint()?;
    let small = convert(&Checkpoint::from_bytes(&bytes)?, WeightType::Int8)?;
    std::fs::write(folder.join("checkpoint.safetensors"), &small)?;
    let image = Dataset::embedded(Split::Validation)?.decode(GOLDEN_TILE)?;
    std::fs::write(folder.join("tile.rgb"), image.rgb())?;
    let checkpoint = Checkpoint::from_bytes(&small)?;
    let embedding = golden::by_definition(&checkpoint, image.rgb())?;
    let lines: Vec<String> = embedding.iter().map(|value| format!("{value:e}")).collect();
    std::fs::write(folder.join("embedding.txt"), lines.join("\n") + "\n")?;
    println!("{} values of {}", lines.len(), FeatureLayer::Embedding.name());
    Ok(())
}
