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
    /// Decode all images, and report the data set's contents, ignored files and broken images
    ///
    /// The exit code is 1 if an image is broken.
    Check(check::Args),
    Preview(preview::Args),
    Split(split::Args),
}

/// The data set to work on.
#[derive(Debug, clap::Args)]
struct SetArgs {
    /// Data set of images [default: the built-in photographs]
    ///
    /// One of: a folder with train/ and val/; such a folder in a .tar; CIFAR-10/100's binary files
    /// or .tar.gz; WebDataset's shards; Hugging Face's parquet; ImageNet's archives; or a folder
    /// with lists of image files, as `bagssl data split` writes them.
    path: Option<PathBuf>,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    classes: ClassesArgs,
    /// Apply the EXIF orientation of photographs [default: ignore it, as torchvision does]
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
            memory: self.memory.clone(),
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
