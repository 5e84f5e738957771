//! `bagssl convert` and `bagssl export`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::bag::Views;
use bagssl_core::checkpoint::{self, Checkpoint, FORMAT_VERSION, ModelPlan, Provenance, Spec, WeightType};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::import::to_torchvision;
use bagssl_core::normalize::Normalization;
use bagssl_core::onnx::{self, Export};
use bagssl_core::patch::{Filter, PatchSide, PatchSpec};
use clap::ValueEnum;

use crate::commands::bench::architecture;
use crate::commands::embed::Feature;
use crate::input::files::{self, Output};
use crate::terminal::output::say;

/// Convert a checkpoint's weights to a smaller type
///
/// Every command except training can read the result: the optimizer's state is left out.
/// Normalization parameters and biases stay f32.
#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// Checkpoint file
    checkpoint: PathBuf,
    /// Type of the stored weights
    #[arg(long, value_enum)]
    dtype: Weights,
    /// Output file
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Weights {
    /// 4 bytes, as trained
    F32,
    /// 2 bytes: 8 bits of precision, rounded to nearest
    Bf16,
    /// 1 byte, with one scale per output
    Int8,
}

impl From<Weights> for WeightType {
    fn from(weights: Weights) -> WeightType {
        match weights {
            Weights::F32 => WeightType::F32,
            Weights::Bf16 => WeightType::Bf16,
            Weights::Int8 => WeightType::Int8,
        }
    }
}

pub(crate) fn convert(args: &ConvertArgs) -> Result<ExitCode> {
    // Overwriting the input is fine: it is read completely before the output is written.
    let output = Output::new(&args.output, args.force, &[])?;
    let bytes = files::read_checkpoint(&args.checkpoint)?;
    let named = || args.checkpoint.display().to_string();
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(named)?;
    let converted = checkpoint::convert(&checkpoint, args.dtype.into()).with_context(named)?;
    output.write(&converted)?;
    let share = 100.0 * converted.len() as f64 / bytes.len() as f64;
    say!("{}: {} bytes, {share:.0} % of {}", args.output.display(), converted.len(), bytes.len());
    Ok(ExitCode::SUCCESS)
}

/// Export an encoder as an ONNX model, or as weights for torchvision
///
/// The ONNX model takes normalized RGB patches of shape [batch, 3, height, width]. Its metadata
/// describes how patches are cropped and normalized.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("weights").required(true).args(["checkpoint", "arch"])))]
pub(crate) struct ExportArgs {
    /// Checkpoint file
    checkpoint: Option<PathBuf>,
    /// Export an encoder with random weights instead, to compare speeds
    #[arg(long, value_name = "NAME", value_parser = architecture)]
    arch: Option<Architecture>,
    /// Output file
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Format of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write the encoder's weights under another program's tensor names instead
    #[arg(long, value_enum, conflicts_with_all = ["format", "tap", "dense", "size"])]
    layout: Option<ExportLayout>,
    /// Layer whose features are read [default: the one recorded in the checkpoint]
    #[arg(long, value_enum)]
    tap: Option<Feature>,
    /// Output the embeddings of all patches of an image, [batch, dim, rows, columns]
    ///
    /// Needs an encoder without padding.
    #[arg(long, conflicts_with = "tap")]
    dense: bool,
    /// Fixed height and width of the input, such as 32x48 [default: any size]
    #[arg(long, value_name = "HxW", value_parser = size)]
    size: Option<[usize; 2]>,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// ONNX, opset 17
    #[default]
    Onnx,
    /// A checkpoint of this project (useful with --arch)
    Safetensors,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExportLayout {
    /// Safetensors for load_state_dict(.., strict=False) of torchvision's ResNets: the encoder
    /// without fc
    Torchvision,
}

fn size(text: &str) -> std::result::Result<[usize; 2], String> {
    let sides = text.split_once('x').and_then(|(height, width)| Some([height.parse().ok()?, width.parse().ok()?]));
    sides.ok_or(format!("expected a size such as 32x48, got {text:?}"))
}

pub(crate) fn export(args: &ExportArgs) -> Result<ExitCode> {
    let inputs: Vec<&Path> = args.checkpoint.iter().map(PathBuf::as_path).collect();
    let file = Output::new(&args.output, args.force, &inputs)?;
    let (bytes, name) = match (&args.checkpoint, args.arch) {
        (Some(path), _) => (files::read_checkpoint(path)?, path.display().to_string()),
        (None, Some(architecture)) => (untrained(architecture)?, architecture.name().into()),
        (None, None) => bail!("expected a checkpoint or --arch, got neither"),
    };
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| name.clone())?;
    checkpoint.check_values().with_context(|| name.clone())?;
    if args.layout.is_some() || matches!(args.format, Format::Safetensors) {
        if args.dense || args.size.is_some() || args.tap.is_some() {
            bail!(
                "--layout, --format safetensors: expected none of --dense, --size and --tap, which are for ONNX only"
            );
        }
        let bytes = match args.layout {
            Some(ExportLayout::Torchvision) => to_torchvision(&checkpoint).context(name)?,
            None => bytes.clone(),
        };
        file.write(&bytes)?;
        say!("{}: {} bytes", args.output.display(), bytes.len());
        return Ok(ExitCode::SUCCESS);
    }
    let output = match args.dense {
        true => onnx::Output::Dense,
        false => onnx::Output::Rows(args.tap.map_or(checkpoint.spec().layer, FeatureLayer::from)),
    };
    let model = onnx::to_bytes(&checkpoint, &Export { output, size: args.size }).context(name)?;
    file.write(&model)?;
    say!("{}: {} bytes", args.output.display(), model.len());
    Ok(ExitCode::SUCCESS)
}

/// Returns a checkpoint of an untrained encoder with random weights.
fn untrained(architecture: Architecture) -> Result<Vec<u8>> {
    let encoder = architecture.plan();
    let projector = mlp(encoder.output_dim(), &[128, 128])?;
    let side = encoder.receptive_field().map_or(32, |field| field.side as u32);
    let patch = PatchSpec::new(PatchSide::Pixels(side), side)?;
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
    Ok(checkpoint::to_bytes(&spec, &spec.model.init_weights(0))?)
}
