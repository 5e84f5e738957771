//! Command-line arguments for images and data sets.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use bagssl_data::curate::Classes;
use bagssl_data::{Budget, Columns, Dataset, Decode, Ignored, MAX_BYTES, OnBadImage, Skipped, Split};

use crate::input::files;
use crate::memory::{ImageMemoryArgs, LimitArgs};
use crate::terminal::output::{note, note_once, one_line};
use crate::terminal::progress::Progress;

/// The data set of a command, and its memory limit: of the images, or of all that the command holds.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DataArgs<M: LimitArgs = ImageMemoryArgs> {
    /// Data set of images [default: the built-in photographs]
    ///
    /// One of: a folder with train/ and val/; such a folder in a .tar; CIFAR-10/100's binary files
    /// or .tar.gz; WebDataset's shards (a folder, or a pattern such as
    /// '{train-{000..146},val-{000..006}}.tar'); Hugging Face's parquet; ImageNet's archives; a
    /// folder with lists of image files, as `bagssl data split` writes them; or a folder of images,
    /// to train on or to embed.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) classes: ClassesArgs,
    /// Apply the EXIF orientation of photographs [default: ignore it, as torchvision does]
    #[arg(long)]
    pub(crate) exif: bool,
    /// Threads that decode and crop images [default: one per core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) threads: usize,
    #[command(flatten)]
    pub(crate) memory: M,
}

/// The columns to read from parquet files.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ColumnArgs {
    /// Parquet column with the images [default: image, img, or the only column that may hold
    /// images]
    #[arg(long, value_name = "NAME")]
    image_column: Option<String>,
    /// Parquet column with the class numbers [default: label, fine_label, labels, or the first
    /// column that is declared as class labels]
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
}

impl ColumnArgs {
    fn columns(&self) -> Columns {
        Columns { image: self.image_column.clone(), label: self.label_column.clone() }
    }

    /// Returns an error if columns were given, but none of the arguments in `images` is a data set.
    pub(crate) fn check(&self, images: &[&[PathBuf]]) -> Result<()> {
        if self.columns() != Columns::default() && !images.iter().any(|paths| is_set(paths)) {
            bail!("--image-column, --label-column: expected parquet files, got image files");
        }
        Ok(())
    }
}

/// The classes of a data set to use.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClassesArgs {
    /// Use only the classes listed in this text file, one name per line
    ///
    /// For example, ImageNet-100 is ImageNet with a list of 100 wnids.
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
}

impl ClassesArgs {
    fn choose(&self, dataset: Dataset) -> Result<Dataset> {
        let Some(path) = &self.classes else { return Ok(dataset) };
        let origin = || path.display().to_string();
        let list =
            String::from_utf8(files::read_text(path)?).ok().context("expected text in UTF-8").with_context(origin)?;
        dataset.select_classes(&list).with_context(origin)
    }
}

/// The policy for unusable images.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct BadImageArgs {
    /// What to do with an image that cannot be read, decoded or cropped: abort, or skip and report
    /// it
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    pub(crate) on_bad_image: BadImage,
}

/// The policy for an unusable image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum BadImage {
    /// Abort with an error
    #[default]
    Fail,
    /// Skip the image and report it
    Skip,
}

impl From<BadImage> for OnBadImage {
    fn from(policy: BadImage) -> OnBadImage {
        match policy {
            BadImage::Fail => OnBadImage::Fail,
            BadImage::Skip => OnBadImage::Skip,
        }
    }
}

/// Returns the name of a skipped image, with the reason.
pub(crate) fn reason(skipped: &Skipped) -> String {
    one_line(&skipped.to_string())
}

/// Prints the skipped images to standard error.
pub(crate) fn report_skipped(skipped: &[Skipped]) {
    for image in skipped {
        let often = if image.times == 1 { String::new() } else { format!(" {} times", image.times) };
        note!("skipped{often}: {}", reason(image));
    }
    match skipped.len() {
        0 => {}
        1 => note!("skipped 1 image"),
        count => note!("skipped {count} images"),
    }
}

/// Returns the fingerprint of a data set. Reads and hashes its images if they have not been hashed
/// yet, and then shows a progress bar.
pub(crate) fn fingerprint(dataset: &Dataset) -> String {
    let bar = OnceLock::new();
    let images = || Progress::images("hash images", dataset.len(), false);
    let fingerprint = dataset.fingerprint_with(&|more| bar.get_or_init(images).inc(more));
    if let Some(bar) = bar.get() {
        bar.finish();
    }
    fingerprint
}

/// Prints the ignored files to standard error.
pub(crate) fn report_ignored(ignored: &Ignored) {
    if !ignored.is_empty() {
        note_once(&format!("data: ignored: {}", one_line(&ignored.to_string())));
    }
}

impl<M: LimitArgs> DataArgs<M> {
    /// Opens one split. Prints to standard error what was opened, and which files were ignored.
    pub(crate) fn open(&self, split: Split) -> Result<Arc<Dataset>> {
        let dataset = self.read(split)?;
        self.report(&[&dataset]);
        Ok(Arc::new(dataset))
    }

    /// Opens the training split. Returns an error if an image has no class.
    pub(crate) fn open_labeled(&self) -> Result<Arc<Dataset>> {
        let dataset = self.open(Split::Train)?;
        check_labels(&dataset, "training", self)?;
        if let [first, more @ ..] = &Classes::compare(&dataset, &dataset).empty[..] {
            let dots = if more.is_empty() { "" } else { ", .." };
            note_once(&one_line(&format!("data: classes: {} without training images ({first}{dots})", 1 + more.len())));
        }
        Ok(dataset)
    }

    /// Opens one split without printing.
    pub(crate) fn read(&self, split: Split) -> Result<Dataset> {
        let dataset = match &self.data {
            Some(path) => Dataset::open_with(path, split, &self.columns.columns())?,
            None if self.columns.columns() != Columns::default() => {
                bail!("--image-column, --label-column: expected parquet files, got no data set")
            }
            None => Dataset::embedded(split)?,
        };
        let dataset = dataset.with_budget(self.memory.budget()).with_decode(Decode { exif: self.exif });
        self.classes.choose(dataset)
    }

    /// Prints to standard error how one split or both were read.
    pub(crate) fn report(&self, splits: &[&Dataset]) {
        if self.data.is_none() {
            return;
        }
        let Some((first, others)) = splits.split_first() else { return };
        let mut described = first.describe();
        others.iter().for_each(|split| described.push_str(&format!("; {}", split.describe_split())));
        note_once(&format!("data: {}: {}", one_line(&self.name()), one_line(&described)));
        report_ignored(&others.iter().fold(first.ignored(), |_, other| first.ignored_with(other)));
    }

    /// Returns the location of the images as an absolute path, or the name of the built-in data
    /// set.
    pub(crate) fn location(&self) -> String {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        self.data.as_ref().map_or_else(|| self.name(), absolute)
    }

    /// Returns the name of the data set.
    pub(crate) fn name(&self) -> String {
        match &self.data {
            Some(path) => path.display().to_string(),
            None => "photo-tiles-mini".into(),
        }
    }
}

/// Returns whether the path is an archive, a parquet file or a pattern of such files. Other files
/// are images.
fn is_archive(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let ends = [".tar", ".tar.gz", ".tgz", ".parquet"].iter().any(|ending| name.ends_with(ending));
    ends || (name.contains(['{', '*', '?']) && !path.exists())
}

/// Returns whether the paths are a data set, as opposed to image files or a folder of images.
fn is_set(paths: &[PathBuf]) -> bool {
    matches!(paths, [path] if is_archive(path) || (path.is_dir() && Dataset::is_set(path)))
}

/// Opens the images that the paths name: image files, a folder, a data set, or `-` for an image on
/// standard input.
///
/// A data set is opened at split `split`, which defaults to the validation split, or to all images
/// if there are no splits. Only a data set has splits and columns. Decoding takes its memory from
/// `budget`.
pub(crate) fn images(
    paths: &[PathBuf],
    split: Option<Split>,
    columns: &ColumnArgs,
    budget: Arc<Budget>,
) -> Result<Arc<Dataset>> {
    let (columns, is_set) = (columns.columns(), is_set(paths));
    let is_folder = matches!(paths, [path] if path.is_dir());
    if split.is_some() && !is_set {
        bail!("--split: expected a data set with splits, got single images or one folder of images");
    }
    let dataset = match paths {
        [path] if path.as_os_str() == "-" => from_input()?,
        [path] if is_set => match split {
            Some(split) => Dataset::open_with(path, split, &columns)?,
            None => Dataset::open_validation_or_all(path, &columns)?,
        },
        [path] if path.is_dir() => Dataset::from_folder(path)?,
        paths => {
            if let Some(other) = paths.iter().find(|path| path.is_dir() || is_archive(path) || path.as_os_str() == "-")
            {
                bail!("{}: expected only image files, or a single folder, .tar or -", other.display());
            }
            Dataset::from_files(paths)?
        }
    };
    if is_set || is_folder {
        note_once(&format!("data: {}: {}", one_line(&paths[0].to_string_lossy()), one_line(&dataset.describe())));
    }
    report_ignored(&dataset.ignored());
    Ok(Arc::new(dataset.with_budget(budget)))
}

/// Adds to the error of a command with --split that the data set has a training split, if that is
/// all that it has.
pub(crate) fn with_split_advice(error: anyhow::Error, paths: &[PathBuf], columns: &ColumnArgs) -> anyhow::Error {
    let [path] = paths else { return error };
    let columns = columns.columns();
    if !is_set(paths) || Dataset::open_with(path, Split::Validation, &columns).is_ok() {
        return error;
    }
    match Dataset::open_with(path, Split::Train, &columns) {
        Ok(train) => anyhow::anyhow!("{error:#}; --split train embeds the training split: {}", train.summary()),
        Err(_) => error,
    }
}

/// Reads an image from standard input.
fn from_input() -> Result<Dataset> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).context("standard input")?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("standard input: expected an image of at most {MAX_BYTES} bytes, got more");
    }
    Ok(Dataset::from_image_bytes("standard input", bytes))
}

/// Returns an error if an image has no class. Only `train` and `embed` accept such images.
pub(crate) fn check_labels<M: LimitArgs>(dataset: &Dataset, split: &str, data: &DataArgs<M>) -> Result<()> {
    if let Some(image) = dataset.first_without_class() {
        bail!(
            "{}: expected a class for each image of the {split} split, got none for {image}; only `train` and `embed` \
             accept images without classes",
            data.name()
        );
    }
    Ok(())
}
