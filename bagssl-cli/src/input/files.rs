//! Reading and writing of files.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bagssl_core::checkpoint;
use bagssl_eval::npy_header;
use bagssl_files::{StagedFile, write_atomic};

/// The maximum size of a checkpoint, 4 GiB: larger than any checkpoint, and small enough to be safe
/// to read.
const MAX_BYTES: u64 = 4 << 30;
/// The maximum size of a text file, 64 MiB: larger than any text file in use.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Reads a text file, such as a config or a list.
pub(crate) fn read_text(path: &Path) -> Result<Vec<u8>> {
    checked_length(path, MAX_TEXT_BYTES)?;
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// Reads a checkpoint. Reads and checks its header first.
pub(crate) fn read_checkpoint(path: &Path) -> Result<Vec<u8>> {
    let length = checked_length(path, MAX_BYTES)?;
    let named = || path.display().to_string();
    let start = start(path, SNIFFED)?;
    if let Some(first) = start.first_chunk() {
        let mut header = Vec::new();
        let header_length = checkpoint::header_length(*first);
        let header_length = header_length.map_err(|error| of_other_type(&start, "a checkpoint", error));
        let header_length = header_length.with_context(named)? as u64;
        let file = std::fs::File::open(path).with_context(named)?;
        file.take(header_length).read_to_end(&mut header).with_context(named)?;
        checkpoint::check_header(&header, length).with_context(named)?;
    }
    read_in_parts(path).with_context(named)
}

/// Reads another safetensors file. Checks the length of its header first.
pub(crate) fn read_tensors(path: &Path) -> Result<Vec<u8>> {
    let start = start(path, SNIFFED)?;
    if let Some(first) = start.first_chunk() {
        checkpoint::header_length(*first)
            .map_err(|error| of_other_type(&start, "a classifier", error))
            .with_context(|| path.display().to_string())?;
    }
    read(path)
}

/// The number of bytes that tell the type of a file.
const SNIFFED: u64 = 512;

/// Returns the error for a file that is not safetensors: what it is, if that is known.
fn of_other_type(start: &[u8], expected: &str, error: bagssl_core::Error) -> anyhow::Error {
    match bagssl_data::file_type(start) {
        Some(what) => anyhow::anyhow!("expected {expected}, got {what}"),
        None => error.into(),
    }
}

/// Reads at most the first `count` bytes of a file.
pub(crate) fn start(path: &Path, count: u64) -> Result<Vec<u8>> {
    checked_length(path, u64::MAX)?;
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(count).read_to_end(&mut start));
    read.with_context(|| path.display().to_string())?;
    Ok(start)
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    checked_length(path, MAX_BYTES)?;
    read_in_parts(path).with_context(|| path.display().to_string())
}

/// Returns the length of a file. Returns an error if it is not a regular file, or has more than
/// `max` bytes.
fn checked_length(path: &Path, max: u64) -> Result<u64> {
    let meta = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if meta.is_dir() {
        bail!("{}: expected a file, got a folder", path.display());
    }
    if !meta.is_file() {
        bail!("{}: expected a regular file, got a special file", path.display());
    }
    if meta.len() > max {
        bail!("{}: expected at most {max} bytes, got {}", path.display(), meta.len());
    }
    Ok(meta.len())
}

/// Returns an error if the path exists and is not a regular file, such as a folder, device, pipe or
/// socket.
fn check_replaceable(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => bail!("{}: expected a file to write, got a folder", path.display()),
        Ok(meta) if !meta.is_file() => {
            bail!("{}: expected a regular file to write, got a special file", path.display())
        }
        _ => Ok(()),
    }
}

/// Reads a file. Several threads read one part each if it is large, because most of the time goes
/// into the first access to freshly allocated memory.
#[cfg(unix)]
fn read_in_parts(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    const LARGE: u64 = 8 << 20;
    let file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    if length < LARGE {
        return std::fs::read(path);
    }
    let mut bytes = vec![0; length as usize];
    let part = bytes.len().div_ceil(crate::parallelism::cores());
    std::thread::scope(|scope| {
        let parts: Vec<_> = bytes
            .chunks_mut(part)
            .enumerate()
            .map(|(index, part_of)| {
                let file = &file;
                scope.spawn(move || file.read_exact_at(part_of, (index * part) as u64))
            })
            .collect();
        parts.into_iter().try_for_each(|part| part.join().expect("a read does not panic"))
    })?;
    Ok(bytes)
}

#[cfg(not(unix))]
fn read_in_parts(path: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// An output file of a command. Its name was checked: it is free, or may be overwritten.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    path: &'a Path,
    force: bool,
}

impl<'a> Output<'a> {
    /// Checks the path of an output file. Returns an error if the file exists and `force` is false,
    /// or if it is one of the `inputs`.
    pub(crate) fn new(path: &'a Path, force: bool, inputs: &[&Path]) -> Result<Self> {
        check_replaceable(path)?;
        if !force && path.symlink_metadata().is_ok() {
            bail!("{}: already exists; --force replaces it", path.display());
        }
        if let Some(folder) = path.parent()
            && !folder.as_os_str().is_empty()
            && !folder.is_dir()
        {
            bail!("{}: expected a folder to write to, got none", folder.display());
        }
        let same = |input: &&&Path| matches!((path.canonicalize(), input.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if let Some(input) = inputs.iter().find(same) {
            bail!("{}: expected a file other than the input {}, got the same", path.display(), input.display());
        }
        Ok(Output { path, force })
    }

    /// Writes the file atomically.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<()> {
        write_together([(self, bytes)])
    }

    fn commit(&self, staged: StagedFile) -> Result<()> {
        check_replaceable(self.path)?;
        let done = if self.force { staged.commit() } else { staged.commit_new() };
        match done {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!("{}: was created in the meantime; --force replaces it", self.path.display())
            }
            done => done.with_context(|| self.path.display().to_string()),
        }
    }
}

/// Writes several files. All contents are on disk before the first file is renamed to its final
/// name.
///
/// If a rename fails, the files renamed so far are removed again. Files that overwrote existing
/// ones cannot be restored; the error lists them.
pub(crate) fn write_together<const N: usize>(files: [(Output<'_>, &[u8]); N]) -> Result<()> {
    let mut staged = Vec::with_capacity(N);
    for (output, bytes) in files {
        let file = StagedFile::write(output.path, bytes).with_context(|| output.path.display().to_string())?;
        staged.push((file, output));
    }
    let mut named = Vec::with_capacity(N);
    for (staged, output) in staged {
        let was_free = output.path.symlink_metadata().is_err();
        if let Err(error) = output.commit(staged) {
            return Err(undo(error, &named));
        }
        named.push((output.path, was_free));
    }
    Ok(())
}

/// Removes files whose names were free. Lists the other files in the error.
fn undo(error: anyhow::Error, named: &[(&Path, bool)]) -> anyhow::Error {
    let stays = |&&(path, was_free): &&(&Path, bool)| !was_free || std::fs::remove_file(path).is_err();
    let stay: Vec<String> = named.iter().filter(stays).map(|(path, _)| path.display().to_string()).collect();
    if stay.is_empty() { error } else { anyhow::anyhow!("{error:#}; already written: {}", stay.join(", ")) }
}

/// Creates a folder and its parents.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    bagssl_files::create_folder(path).with_context(|| path.display().to_string())
}

/// Returns an error if a file is in the way of a folder to write to.
pub(crate) fn check_folder(path: &Path) -> Result<()> {
    bagssl_files::check_folder(path).with_context(|| path.display().to_string())
}

/// Writes a file atomically.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    check_replaceable(path)?;
    write_atomic(path, bytes).with_context(|| path.display().to_string())
}

/// Encodes an `f32` array of shape `[rows, columns]` as a .npy file.
pub(crate) fn npy(values: &[f32], columns: usize) -> Vec<u8> {
    let mut bytes = npy_header("<f4", &[values.len() / columns.max(1), columns]).to_vec();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// Encodes an `f32` tensor of shape `[rows, columns]` as a safetensors file.
pub(crate) fn safetensors(name: &str, values: &[f32], columns: usize) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = vec![values.len() / columns.max(1), columns];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes)?;
    Ok(safetensors::serialize([(name, view)], None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_as_numpy_writes_it() {
        let bytes = npy(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(bytes[128..132], 1.0_f32.to_le_bytes());
    }

    #[test]
    fn existing_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let output = Output::new(&path, false, &[]).unwrap();
        // Another program creates the file while the command runs.
        std::fs::write(&path, b"other").unwrap();
        let error = output.write(b"x").unwrap_err().to_string();
        assert!(error.ends_with("was created in the meantime; --force replaces it"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert!(Output::new(&path, false, &[]).is_err());
        Output::new(&path, true, &[]).unwrap().write(b"x").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        assert!(Output::new(&folder.path().join("no/a"), true, &[]).is_err());
        assert!(Output::new(folder.path(), true, &[]).is_err(), "a folder");
        #[cfg(unix)]
        {
            let error = Output::new(Path::new("/dev/null"), true, &[]).unwrap_err().to_string();
            assert_eq!(error, "/dev/null: expected a regular file to write, got a special file");
            // The same holds for the target of a symbolic link.
            std::os::unix::fs::symlink("/dev/null", folder.path().join("link")).unwrap();
            assert!(Output::new(&folder.path().join("link"), true, &[]).is_err());
            assert!(write(&folder.path().join("link"), b"x").is_err());
        }
        let same = folder.path().join("./a");
        let error = Output::new(&same, true, &[&path]).unwrap_err().to_string();
        assert!(error.contains("a file other than the input"), "{error}");
    }

    /// The third of three files cannot be renamed: files with new names are removed, and files that
    /// overwrote others are listed in the error.
    #[test]
    fn failed_renames_are_undone_or_reported() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, late] = ["old", "new", "late"].map(|name| folder.path().join(name));
        std::fs::write(&old, b"before").unwrap();
        let outputs = || {
            let of = |path, force| Output::new(path, force, &[]).unwrap();
            [(of(&old, true), &b"1"[..]), (of(&new, true), b"2"), (of(&late, false), b"3")]
        };
        let waiting = outputs();
        std::fs::write(&late, b"other").unwrap();
        let error = write_together(waiting).unwrap_err().to_string();
        assert!(error.contains("late: was created in the meantime"), "{error}");
        assert!(error.ends_with(&format!("already written: {}", old.display())), "{error}");
        assert!(!new.exists() && std::fs::read(&late).unwrap() == b"other" && std::fs::read(&old).unwrap() == b"1");
        std::fs::remove_file(&late).unwrap();
        std::fs::remove_file(&old).unwrap();
        let waiting = outputs();
        std::fs::write(&late, b"other").unwrap();
        let error = write_together(waiting).unwrap_err().to_string();
        assert!(error.ends_with("--force replaces it"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the file that has appeared");
        std::fs::remove_file(&late).unwrap();
        write_together(outputs()).unwrap();
        assert_eq!([&old, &new, &late].map(|path| std::fs::read(path).unwrap()), [b"1", b"2", b"3"]);
    }

    #[test]
    fn two_files_are_written_together() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("no/b"));
        let outputs =
            [(Output { path: &first, force: true }, &b"1"[..]), (Output { path: &second, force: true }, b"2")];
        assert!(write_together(outputs).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
