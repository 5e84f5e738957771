//! The parts of the ELF format (shared libraries on Linux) that are needed here.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The size of the file header.
pub(super) const HEADER: u64 = 64;

/// The size of a program header.
pub(super) const PROGRAM_HEADER: u64 = 56;

/// The first bytes of a file for this kind of machine: 64 bits, little-endian.
pub(super) const IDENT: [u8; 16] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The machine number of the target architecture.
pub(super) const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// Whether a file is a shared library for this machine. Library folders may also contain 32-bit
/// libraries and linker scripts.
pub(super) fn is_library(file: &Path) -> bool {
    let mut start = [0; 20];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[..6] == IDENT[..6] && start[16..18] == [3, 0] && start[18..] == MACHINE.to_le_bytes()
}

/// Returns the path of a loaded library whose file name starts with `start`.
pub(super) fn loaded(start: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    // The columns are address, permissions, offset, device, inode and path. The file of an alias
    // has been deleted.
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let mut libraries = paths.filter(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(start)));
    libraries.find(|path| !path.ends_with(" (deleted)")).map(ToString::to_string)
}

/// Returns the first bytes of a library for this machine, the only part of a file that is
/// inspected.
#[cfg(test)]
pub(super) fn start_of_library() -> Vec<u8> {
    [&IDENT[..], &[3, 0], &MACHINE.to_le_bytes()].concat()
}
