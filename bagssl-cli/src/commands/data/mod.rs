//! `bagssl data`.

mod check;
mod preview;
mod split;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::input::source::{ClassesArgs, ColumnArgs, DataArgs};
use crate::memory::ImageMemoryArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Decode every image; say what there is, what is passed over and what is broken (exit code 1 if anything is)
    Check(check::Args),
    Preview(preview::Args),
    Split(split::Args),
}

/// The data set that is looked at.
#[derive(Debug, clap::Args)]
struct SetArgs {
    /// Images: a folder with train/ and val/, such a folder in a .tar, CIFAR-10/100's binary files or .tar.gz, WebDataset's
    /// shards, Hugging Face's parquet, ImageNet's archives, or a folder with lists of image files, as `bagssl data split`
    /// writes them [default: the photographs that the program carries]
    path: Option<PathBuf>,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    classes: ClassesArgs,
    /// Turn photographs as their EXIF orientation says [default: not, as torchvision]
    #[arg(long)]
    exif: bool,
    #[command(flatten)]
    memory: ImageMemoryArgs,
}

impl SetArgs {
    fn source(&self) -> DataArgs {
        DataArgs {
            data: self.path.clone(),
            columns: self.columns.clone(),
            classes: self.classes.clone(),
            exif: self.exif,
            threads: 0,
            memory: self.memory,
        }
    }
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Check(args) => check::run(args),
        Command::Preview(args) => preview::run(args),
        Command::Split(args) => split::run(args),
    }
}
