//! What is known of ELF files, the form of libraries on Linux.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The length of a file's header.
pub(super) const HEADER: u64 = 64;

/// The length of a program header.
pub(super) const PROGRAM_HEADER: u64 = 56;

/// The first bytes of a file of this kind of machine: 64 bits, the lowest byte first.
pub(super) const IDENT: [u8; 16] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The number of this kind of machine.
pub(super) const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// Whether a file is a library for this machine: beside those may be ones for 32 bits, and texts for the linker.
pub(super) fn is_library(file: &Path) -> bool {
    let mut start = [0; 20];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[..6] == IDENT[..6] && start[16..18] == [3, 0] && start[18..] == MACHINE.to_le_bytes()
}

/// The file of a library that this process has loaded, by the start of its name.
pub(super) fn loaded(start: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    // Address, rights, offset, device, inode, path. An alias has been deleted.
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let mut libraries = paths.filter(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(start)));
    libraries.find(|path| !path.ends_with(" (deleted)")).map(ToString::to_string)
}

/// The start of a library for this machine, which is all that is looked at in a file.
#[cfg(test)]
pub(super) fn start_of_library() -> Vec<u8> {
    [&IDENT[..], &[3, 0], &MACHINE.to_le_bytes()].concat()
}
