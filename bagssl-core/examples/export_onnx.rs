//! Exports a checkpoint as an ONNX model.
//!
//! ```text
//! export_onnx CHECKPOINT MODEL [--layer embedding|first_layer|projection | --dense] [--size HEIGHTxWIDTH]
//!             [--random ARCHITECTURE]
//! ```
//!
//! Without `--layer`, exports the checkpoint's own feature. Without `--size`, the model accepts any
//! size. `--random` first creates a checkpoint with random values, to try an export without
//! training.

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::bag::Views;
use bagssl_core::checkpoint::{self, Checkpoint, FORMAT_VERSION, ModelPlan, NamedTensor, Provenance, Spec};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::normalize::Normalization;
use bagssl_core::onnx::{self, Export, Output};
use bagssl_core::patch::{Filter, PatchSide, PatchSpec};
use bagssl_core::plan::{Parameter, Role};
use bagssl_core::random::{Address, Purpose, Stream};

const USAGE: &str = "export_onnx CHECKPOINT MODEL [--tap TAP | --dense] [--size HEIGHTxWIDTH] [--random ARCHITECTURE]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut files, mut layer, mut dense, mut size, mut random) = (Vec::new(), None, false, None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word}: expected a value, got none"));
        match word.as_str() {
            "--tap" => layer = Some(parse_layer(&value()?)?),
            "--dense" => dense = true,
            "--size" => size = Some(parse_size(&value()?)?),
            "--random" => random = Some(value()?.parse()?),
            _ => files.push(word),
        }
    }
    let [from, to] = files.as_slice() else {
        return Err(format!("expected two files, got {}: {USAGE}", files.len()).into());
    };
    if dense && layer.is_some_and(|layer| layer != FeatureLayer::Embedding) {
        return Err("--dense: expected the tap embedding, got another".into());
    }
    if let Some(architecture) = random {
        fs::write(from, random_checkpoint(architecture)?)?;
    }
    let bytes = fs::read(from)?;
    let checkpoint = Checkpoint::from_bytes(&bytes)?;
    let output = if dense { Output::Dense } else { Output::Rows(layer.unwrap_or(checkpoint.spec().layer)) };
    fs::write(to, onnx::to_bytes(&checkpoint, &Export { output, size })?)?;
    Ok(())
}

fn parse_layer(name: &str) -> Result<FeatureLayer, String> {
    let known = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];
    let names = known.map(FeatureLayer::name).join(", ");
    known.into_iter().find(|layer| layer.name() == name).ok_or(format!("--tap: expected one of {names}, got {name:?}"))
}

fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once('x').and_then(|(height, width)| Some([height.parse().ok()?, width.parse().ok()?]));
    sides.ok_or(format!("--size: expected for instance 48x64, got {text:?}"))
}

/// Creates a checkpoint with random values: weights as in He et al. 2015, and norms that differ
/// from the identity.
fn random_checkpoint(architecture: Architecture) -> Result<Vec<u8>, bagssl_core::Error> {
    let encoder = architecture.plan();
    let side = encoder.receptive_field().map_or(32, |field| field.side as u32);
    let projector = mlp(encoder.output_dim(), &[128, 32])?;
    let patch = PatchSpec::new(PatchSide::Pixels(side), side)?;
    let spec = Spec {
        format_version: FORMAT_VERSION,
        model: ModelPlan::new(encoder, projector)?,
        patch,
        filter: Filter::Bilinear,
        normalization: Normalization::IMAGENET,
        layer: FeatureLayer::Embedding,
        views: Views::FixedScale(patch),
        provenance: Provenance { created_by: "export_onnx --random".into(), ..Provenance::default() },
        training: None,
    };
    let mut image = 0;
    let tensors = spec.model.parameters().into_iter().map(|parameter| -> NamedTensor {
        let mut random = Address { image, ..Address::default() }.stream(Purpose::Weights);
        image += 1;
        let values = random_values(&parameter, &mut random);
        (parameter.name, parameter.shape, values)
    });
    checkpoint::to_bytes(&spec, &tensors.collect::<Vec<_>>())
}

fn random_values(parameter: &Parameter, random: &mut Stream) -> Vec<f32> {
    let inputs: usize = parameter.shape[1..].iter().product();
    let deviation = (2.0 / inputs as f64).sqrt();
    let mut value = || match parameter.role {
        Role::Weight => (deviation * random.normal_pair().0) as f32,
        Role::NormScale | Role::RunningVariance => random.uniform(0.5, 1.5),
        Role::NormShift | Role::RunningMean | Role::Bias => random.uniform(-0.2, 0.2),
    };
    (0..parameter.len()).map(|_| value()).collect()
}
