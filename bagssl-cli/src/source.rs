//! The images that a command works on.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl_core::patch::ImageSize;
use bagssl_data::bad::{OnBadImage, Skipped};
use bagssl_data::dataset::{Dataset, Split};
use bagssl_data::image::{Decode, MOST_BYTES};

use crate::files;
use crate::output::{note, one_line};

/// Where images come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DataArgs {
    /// Images: a folder with train/ and val/, such a folder in a .tar, CIFAR-10/100's binary files or .tar.gz, WebDataset's
    /// shards (a folder, or a pattern such as 'train-{000..146}.tar'), Hugging Face's parquet, ImageNet's archives, or a folder with
    /// lists of image files, as `bagssl data split` writes them [default: the photographs that the program carries]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) classes: ClassesArgs,
    /// Turn photographs as their EXIF orientation says [default: not, as torchvision]
    #[arg(long)]
    pub(crate) exif: bool,
    /// Threads that decode and cut images [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) threads: usize,
}

/// Which of a data set's classes are used.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClassesArgs {
    /// Only the classes that this text file lists, a name a line (ImageNet-100 is ImageNet with a list of 100 wnids)
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
}

impl ClassesArgs {
    fn choose(&self, dataset: Dataset) -> Result<Dataset> {
        let Some(path) = &self.classes else { return Ok(dataset) };
        let origin = || path.display().to_string();
        let list = String::from_utf8(files::read(path)?).ok().context("expected text in UTF-8").with_context(origin)?;
        dataset.of_classes(&list).with_context(origin)
    }
}

/// What is done about images that cannot be used.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct BadImageArgs {
    /// What to do with an image that cannot be read, decoded or cut: end with an error, or leave it out and list it
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    pub(crate) on_bad_image: BadImage,
}

/// What becomes of an image that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum BadImage {
    #[default]
    Fail,
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

/// Why an image was left out, with its name.
pub(crate) fn reason(Skipped { name, reason, .. }: &Skipped) -> String {
    // Most reasons begin with the name, some with the data set's before it.
    one_line(&if reason.contains(name.as_str()) { reason.clone() } else { format!("{name}: {reason}") })
}

/// Lists on standard error what was left out.
pub(crate) fn tell_skipped(skipped: &[Skipped]) {
    for image in skipped {
        let often = if image.times == 1 { String::new() } else { format!(" {} times", image.times) };
        note!("left out{often}: {}", reason(image));
    }
    match skipped.len() {
        0 => {}
        1 => note!("1 image left out"),
        count => note!("{count} images left out"),
    }
}

/// The size of the first image that can be used.
pub(crate) fn first_size(dataset: &Dataset) -> Result<ImageSize> {
    let usable = (0..dataset.len()).find_map(|image| dataset.decode(image).ok());
    Ok(usable.map_or_else(|| dataset.decode(0), Ok)?.size())
}

/// Says on standard error how many files were passed over.
pub(crate) fn tell_others(dataset: &Dataset) {
    if dataset.others() > 0 {
        note!("{} other files passed over, no images by the ending of their names", dataset.others());
    }
}

impl DataArgs {
    /// One half of the data set.
    pub(crate) fn open(&self, split: Split) -> Result<Arc<Dataset>> {
        let dataset = match &self.data {
            Some(path) => Dataset::open(path, split)?,
            None => Dataset::embedded(split)?,
        };
        Ok(Arc::new(self.classes.choose(dataset)?.with_decode(Decode { exif: self.exif })))
    }

    /// Where the images lie, whatever the folder that one is in.
    pub(crate) fn place(&self) -> String {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        self.data.as_ref().map_or_else(|| self.name(), absolute)
    }

    /// What the data set is called.
    pub(crate) fn name(&self) -> String {
        match &self.data {
            Some(path) => path.display().to_string(),
            None => "photo-tiles-mini".into(),
        }
    }
}

/// The images that are named: files, folders, one data set's validation half, or `-` for an image on standard input.
pub(crate) fn images(paths: &[PathBuf]) -> Result<Arc<Dataset>> {
    images_of(paths, None)
}

/// The same with a choice of the half, which only a data set has.
pub(crate) fn images_of(paths: &[PathBuf], half: Option<Split>) -> Result<Arc<Dataset>> {
    // An archive, a table or a pattern of them; what else is a file is an image.
    let is_tar = |path: &PathBuf| {
        let name = path.to_string_lossy();
        let is_archive = [".tar", ".tar.gz", ".tgz", ".parquet"].iter().any(|ending| name.ends_with(ending));
        is_archive || (name.contains(['{', '*', '?']) && !path.exists())
    };
    let is_set = matches!(paths, [path] if is_tar(path) || (path.is_dir() && Dataset::is_set(path)));
    if half.is_some() && !is_set {
        bail!("--split: expected a data set with halves, got single images or one folder of them");
    }
    let split = half.unwrap_or(Split::Validation);
    let dataset = match paths {
        [path] if path.as_os_str() == "-" => from_input()?,
        [path] if is_set => Dataset::open(path, split)?,
        [path] if path.is_dir() => Dataset::of_folder(path)?,
        paths => {
            if let Some(other) = paths.iter().find(|path| path.is_dir() || is_tar(path) || path.as_os_str() == "-") {
                bail!("{}: expected image files, or one folder, .tar or - alone", other.display());
            }
            Dataset::of_files(paths)?
        }
    };
    Ok(Arc::new(dataset))
}

/// The image that standard input gives.
fn from_input() -> Result<Dataset> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes).context("standard input")?;
    if bytes.len() as u64 > MOST_BYTES {
        bail!("standard input: expected an image of at most {MOST_BYTES} bytes, got more");
    }
    Ok(Dataset::of_bytes("standard input", bytes))
}
