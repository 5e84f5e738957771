//! Files that are read and written by the commands.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bagssl_train::store::write_whole;

/// More than any checkpoint or config has, less than would be a danger to read: 4 GiB.
const MOST_BYTES: u64 = 4 << 30;

/// All bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let meta = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if meta.is_dir() {
        bail!("{}: expected a file, got a folder", path.display());
    }
    if !meta.is_file() {
        bail!("{}: expected a regular file, got a special one", path.display());
    }
    if meta.len() > MOST_BYTES {
        bail!("{}: expected at most {MOST_BYTES} bytes, got {}", path.display(), meta.len());
    }
    read_in_parts(path).with_context(|| path.display().to_string())
}

/// A file of which some threads read a part each: what takes the time of a large one is to fill fresh memory.
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
    let part = bytes.len().div_ceil(crate::work::cores());
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

/// Refuses to write over what is there, unless told to.
pub(crate) fn check_free(path: &Path, force: bool) -> Result<()> {
    if !force && path.exists() {
        bail!("{}: is there already; --force replaces it", path.display());
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            bail!("{}: expected a folder to write to, got none", folder.display());
        }
        _ => Ok(()),
    }
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())
}

/// Writes a file as a whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(write_whole(path, bytes)?)
}

/// An array `[rows, columns]` of `f32` as a NumPy file, format 1.0.
///
/// # Source
/// NumPy Enhancement Proposal 1.
pub(crate) fn npy(values: &[f32], columns: usize) -> Vec<u8> {
    let rows = values.len() / columns.max(1);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic, version and length are 10 bytes; all of it is padded to a multiple of 64 and ends with a line feed.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// A safetensors file with one tensor `[rows, columns]` of `f32`.
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
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"));
        assert!(header.ends_with('\n'));
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(bytes[128..132], 1.0_f32.to_le_bytes());
    }

    #[test]
    fn what_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(check_free(&path, false).is_ok());
        write(&path, b"x").unwrap();
        assert!(check_free(&path, false).is_err());
        assert!(check_free(&path, true).is_ok());
        assert!(check_free(&folder.path().join("no/a"), true).is_err());
    }
}
