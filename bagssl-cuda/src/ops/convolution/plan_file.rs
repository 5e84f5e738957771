//! Stores the fastest plans on disk, per GPU and cuDNN version.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ops::convolution::key::Key;

/// The version of the file format, and of the numbering of suggestions.
const FORMAT: u32 = 2;

/// The fastest of cuDNN's suggestions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    /// Its index among the suggestions of all modes.
    pub(crate) index: usize,
    /// Its engine, to detect that the suggestions have changed.
    pub(crate) engine: i64,
}

/// The choices so far.
#[derive(Debug)]
pub(crate) struct PlanFile {
    path: Option<PathBuf>,
    gpu: String,
    cudnn: usize,
    choices: BTreeMap<Key, Choice>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    gpu: String,
    cudnn: usize,
    plans: Vec<(Key, Choice)>,
}

impl PlanFile {
    /// Opens the choices for a GPU and a cuDNN version. They are empty if the file is missing,
    /// unreadable or for another GPU or version.
    pub(crate) fn open(folder: Option<&Path>, gpu: &str, cudnn: usize) -> Self {
        let path = folder.map(|folder| folder.join(file_name(gpu, cudnn)));
        let text = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let content = text.and_then(|text| serde_json::from_str::<Content>(&text).ok());
        let fits = |content: &Content| content.format == FORMAT && content.gpu == gpu && content.cudnn == cudnn;
        let plans = content.filter(fits).map_or_else(Vec::new, |content| content.plans);
        PlanFile { path, gpu: gpu.into(), cudnn, choices: plans.into_iter().collect() }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Choice> {
        self.choices.get(key).copied()
    }

    /// Adds a choice and writes the file. Without a path, or if writing fails, the choice only
    /// lasts for this process.
    pub(crate) fn insert(&mut self, key: Key, choice: Choice) {
        self.choices.insert(key, choice);
        if let Some(path) = &self.path {
            // The file is a cache: other processes measure again what they do not find.
            let _ = self.write(path);
        }
    }

    /// Writes a temporary file and renames it, so that readers always find a complete file.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        let plans = self.choices.iter().map(|(key, choice)| (*key, *choice)).collect();
        let content = Content { format: FORMAT, gpu: self.gpu.clone(), cudnn: self.cudnn, plans };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let beside = path.with_extension(format!("{}.partial", std::process::id()));
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(serde_json::to_string(&content)?.as_bytes())?;
        std::fs::rename(&beside, path)
    }
}

/// Returns bagssl's folder in the user's cache directory.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    // Relative paths are ignored, as the XDG Base Directory Specification says.
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    base.or_else(|| folder("LOCALAPPDATA")).map(|base| base.join("bagssl"))
}

fn file_name(gpu: &str, cudnn: usize) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    format!("cudnn-{cudnn}-{}.json", gpu.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::convolution::key::Pass;
    use crate::ops::form::Math;

    fn key(images: i64) -> Key {
        let window = ([3, 2], [2, 1], [1, 0]);
        let (kernel, stride, padding) = window;
        let sizes = [images, 8, 9, 7];
        Key { pass: Pass::Forward, bf16: true, math: Math::Exact, input: sizes, outputs: 16, kernel, stride, padding }
    }

    #[test]
    fn choices_come_back_for_the_same_gpu_and_version_alone() {
        let folder = tempfile::tempdir().unwrap();
        let open = |gpu, version| PlanFile::open(Some(folder.path()), gpu, version);
        let choice = Choice { index: 3, engine: 41 };
        let mut file = open("NVIDIA H100 80GB", 91002);
        assert_eq!(file.get(&key(4)), None);
        file.insert(key(4), choice);
        file.insert(key(5), Choice { index: 0, engine: 7 });
        let again = open("NVIDIA H100 80GB", 91002);
        assert_eq!((again.get(&key(4)), again.get(&key(6))), (Some(choice), None));
        assert_eq!(again.get(&Key { bf16: false, ..key(4) }), None);
        assert_eq!(open("NVIDIA H100 80GB", 91100).get(&key(4)), None);
        assert_eq!(open("NVIDIA A100", 91002).get(&key(4)), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn a_file_that_does_not_fit_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name("A", 90000));
        let text = |format: u32, gpu: &str| {
            let plans = vec![(key(1), Choice { index: 1, engine: 1 })];
            serde_json::to_string(&Content { format, gpu: gpu.into(), cudnn: 90000, plans }).unwrap()
        };
        for (content, found) in
            [(text(FORMAT, "A"), true), (text(FORMAT + 1, "A"), false), (text(FORMAT, "a"), false), ("{".into(), false)]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(PlanFile::open(Some(folder.path()), "A", 90000).get(&key(1)).is_some(), found);
        }
        PlanFile::open(Some(folder.path()), "A", 90000).insert(key(2), Choice { index: 2, engine: 2 });
        assert!(PlanFile::open(Some(folder.path()), "A", 90000).get(&key(2)).is_some());
        let mut nowhere = PlanFile::open(None, "A", 90000);
        nowhere.insert(key(2), Choice { index: 2, engine: 2 });
        assert!(nowhere.get(&key(2)).is_some());
    }
}
