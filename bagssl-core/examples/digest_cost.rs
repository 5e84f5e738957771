//! What the digest of a checkpoint costs, beside the rest of loading it: reading the file (from the page cache), checking its header, and
//! packing the weights for this machine.
//!
//! `cargo run --release -p bagssl-core --features rayon --example digest_cost -- 30` makes a ResNet-50 with random weights, and takes each
//! time 30 times in turn.

use std::error::Error;
use std::time::{Duration, Instant};

use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::bag::Views;
use bagssl_core::checkpoint::{Checkpoint, FORMAT_VERSION, ModelPlan, Provenance, Spec, to_bytes};
use bagssl_core::cpu::{Embedder, EmbedderOptions, InstructionSet};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Filter, PatchSide, PatchSpec};

const SIDE: u32 = 224;

fn main() -> Result<(), Box<dyn Error>> {
    let times: usize = std::env::args().nth(1).map_or(Ok(30), |count| count.parse())?;
    let path = std::env::temp_dir().join(format!("digest_cost-{}.safetensors", std::process::id()));
    std::fs::write(&path, checkpoint()?)?;
    let options = EmbedderOptions { set: InstructionSet::best(), exact: false, rows: 1, side: SIDE as usize };
    let mut least = [Duration::MAX; 4];
    let mut length = 0;
    for _ in 0..times {
        let begun = Instant::now();
        let bytes = std::fs::read(&path)?;
        let read = Instant::now();
        let checkpoint = Checkpoint::from_bytes_unverified(&bytes)?;
        let checked = Instant::now();
        checkpoint.verify()?;
        let verified = Instant::now();
        Embedder::new(&checkpoint, &[FeatureLayer::Embedding], options)?;
        let taken = [read - begun, checked - read, verified - checked, verified.elapsed()];
        least = std::array::from_fn(|part| least[part].min(taken[part]));
        length = bytes.len();
    }
    std::fs::remove_file(path)?;
    let ms = least.map(|time| time.as_secs_f64() * 1e3);
    let [read, header, digest, pack] = ms;
    println!("{:.1} MB, the least of {times} times", length as f64 / 1e6);
    println!("read {read:.2} ms, header {header:.2} ms, digest {digest:.2} ms, pack {pack:.2} ms");
    let share = |rest: f64| 100.0 * digest / (digest + rest);
    println!("digest: {:.1} GB/s", length as f64 / digest / 1e6);
    println!("share: {:.1} % of loading, {:.1} % without packing", share(read + header + pack), share(read + header));
    Ok(())
}

fn checkpoint() -> Result<Vec<u8>, bagssl_core::Error> {
    let encoder = Architecture::ResNet50.plan();
    let projector = mlp(encoder.output_dim(), &[64])?;
    let patch = PatchSpec::new(PatchSide::Pixels(SIDE), SIDE)?;
    let spec = Spec {
        format_version: FORMAT_VERSION,
        model: ModelPlan::new(encoder, projector)?,
        patch,
        filter: Filter::Bilinear,
        normalization: Normalization::HALF,
        layer: FeatureLayer::Embedding,
        views: Views::FixedScale(patch),
        provenance: Provenance::default(),
        training: None,
    };
    to_bytes(&spec, &spec.model.init_weights(1))
}
