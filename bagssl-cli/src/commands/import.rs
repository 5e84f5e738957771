//! `bagssl import`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bagssl_core::architecture::Architecture;
use bagssl_core::checkpoint;
use bagssl_core::embed::FeatureLayer;
use bagssl_core::import::{self, Foreign, ImportOptions, Imported, Layout};
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{PatchSide, PatchSpec};

use crate::commands::bench::architecture;
use crate::input::files::{self, Output};
use crate::terminal::output::say;

/// Convert another program's weights to a checkpoint
///
/// Reads PyTorch's .pth, .pt and .ckpt files without executing code in them, and safetensors.
/// Supports ResNet-18, 34 and 50 with either stem, as saved by torchvision, VICReg, solo-learn,
/// lightly and EMP-SSL.
///
/// The file must have all tensors of the encoder, and no unknown ones. If it has no projector, the
/// checkpoint gets an identity projector.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File to import
    file: PathBuf,
    /// Output file
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Program that wrote the file: auto, torchvision, vicreg, solo-learn, lightly or emp-ssl
    #[arg(long, default_value = "auto", value_parser = layout)]
    layout: Chosen,
    /// Encoder architecture [default: detected from the tensors]
    #[arg(long, value_name = "NAME", value_parser = architecture)]
    arch: Option<Architecture>,
    /// Ignore tensors that belong to neither the encoder nor the projector, such as a classifier
    #[arg(long)]
    allow_unused: bool,
    /// Side of a patch in pixels of the image
    #[arg(long, value_name = "N", conflicts_with = "area_share")]
    patch_side: Option<u32>,
    /// Area of a patch as a share of the area of the image's center square [default: 0.2]
    #[arg(long, value_name = "S")]
    area_share: Option<f32>,
    /// Side in pixels to which patches are resampled [default: 224, or 32 for an encoder with the
    /// small stem]
    #[arg(long, value_name = "N")]
    input: Option<u32>,
    /// Normalization of colors [default: half for emp-ssl, else imagenet]
    ///
    /// One of imagenet, half, cifar10 and cifar100, or mean/deviation of red, green and blue, such
    /// as 0.5,0.5,0.5/0.25,0.25,0.25.
    #[arg(long, alias = "normalisation", value_name = "COLORS", value_parser = colors)]
    normalization: Option<Normalization>,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
struct Chosen(Option<Layout>);

fn colors(text: &str) -> std::result::Result<Normalization, String> {
    text.parse().map_err(|error: bagssl_core::Error| error.to_string())
}

fn layout(name: &str) -> std::result::Result<Chosen, String> {
    match name {
        "auto" => Ok(Chosen(None)),
        _ => name.parse().map(|layout| Chosen(Some(layout))).map_err(|error: bagssl_core::Error| error.to_string()),
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let output = Output::new(&args.output, args.force, &[&args.file])?;
    let named = || args.file.display().to_string();
    Foreign::check_start(&files::start(&args.file, Foreign::START_BYTES)?).with_context(named)?;
    let bytes = files::read(&args.file)?;
    let foreign = Foreign::from_bytes(&bytes).with_context(named)?;
    let side = match (args.patch_side, args.area_share) {
        (Some(pixels), _) => PatchSide::Pixels(pixels),
        (None, share) => PatchSide::AreaShare(share.unwrap_or(0.2)),
    };
    let source = args.file.file_name().map_or_else(named, |name| name.to_string_lossy().into_owned());
    let mut options = ImportOptions {
        layout: args.layout.0,
        architecture: args.arch,
        patch: PatchSpec::new(side, args.input.unwrap_or(224))?,
        normalization: args.normalization,
        allow_unused: args.allow_unused,
        source,
    };
    let architecture = import::architecture(&foreign, &options).with_context(named)?;
    options.architecture = Some(architecture);
    options.patch = PatchSpec::new(side, args.input.unwrap_or(usual_input(architecture)))?;
    let imported = import::import(&foreign, &options).with_context(named)?;
    let written = checkpoint::to_bytes(&imported.spec, &imported.tensors)?;
    output.write(&written)?;
    report(args, &imported, written.len())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the input side in pixels that these encoders are usually trained on.
fn usual_input(architecture: Architecture) -> u32 {
    match architecture {
        Architecture::ResNet18 | Architecture::ResNet34 | Architecture::ResNet50 => 224,
        _ => 32,
    }
}

fn report(args: &Args, imported: &Imported, bytes: usize) -> Result<()> {
    let (layout, arch) = (imported.layout.name(), imported.architecture.name());
    if args.json {
        let output = args.output.display().to_string();
        let done = serde_json::json!({
            "output": output, "bytes": bytes, "layout": layout, "arch": arch,
            "unused": imported.unused, "notes": imported.notes,
        });
        say!("{}", serde_json::to_string_pretty(&done)?);
        return Ok(());
    }
    say!("{}: {bytes} bytes, {arch} of {layout}", args.output.display());
    if !imported.unused.is_empty() {
        say!("unused      {} tensors, the first {:?}", imported.unused.len(), imported.unused[0]);
    }
    if imported.spec.layer != FeatureLayer::Embedding {
        say!(
            "feature     {}, as evaluated by the original program; --tap embedding selects the encoder's output",
            imported.spec.layer.name()
        );
    }
    imported.notes.iter().for_each(|note| say!("note        {note}"));
    Ok(())
}
