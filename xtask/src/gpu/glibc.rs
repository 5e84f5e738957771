//! Finds the glibc version that a program needs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::read::elf::{ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSymbol};

/// A glibc version: 2.35 is `[2, 35]`.
type Version = [u32; 2];

/// The newest glibc that a GPU machine is expected to have, that of Ubuntu 22.04.
const NEWEST: Version = [2, 35];

/// Returns the newest glibc version that a program needs. If that is newer than [`NEWEST`], returns
/// an error with the symbol that needs it.
pub(super) fn check(program: &Path) -> Result<String> {
    let place = || program.display().to_string();
    let bytes = fs::read(program).with_context(place)?;
    let (symbol, version) = newest(&bytes).with_context(place)?;
    let [major, minor] = version;
    if version > NEWEST {
        bail!(
            "{}: expected to need glibc {}.{} at most, got {symbol} of {major}.{minor}; build where glibc is older",
            place(),
            NEWEST[0],
            NEWEST[1]
        );
    }
    Ok(format!("{major}.{minor}"))
}

/// Returns the newest glibc version that a 64-bit ELF file needs, and a symbol of that version.
fn newest(bytes: &[u8]) -> Result<(String, Version)> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("expected a program for Linux of 64 bits")?;
    let endian = file.elf_header().endian()?;
    let versions = file.elf_section_table().versions(endian, bytes)?;
    let mut newest = None;
    for symbol in file.dynamic_symbols().filter(|symbol| symbol.is_undefined()) {
        let Some(versions) = &versions else { break };
        let Some(version) = versions.version(versions.version_index(endian, symbol.index()).index())? else { continue };
        let needed = std::str::from_utf8(version.name()).ok().and_then(glibc);
        if let Some(version) = needed
            && newest.as_ref().is_none_or(|(_, newest)| version > *newest)
        {
            newest = Some((symbol.name().context("a symbol's name")?.to_string(), version));
        }
    }
    newest.context("expected symbols of glibc in it, got none")
}

/// Parses the version in a name such as `GLIBC_2.3.4`. Returns `None` for other libraries and
/// `GLIBC_PRIVATE`.
fn glibc(name: &str) -> Option<Version> {
    let mut parts = name.strip_prefix("GLIBC_")?.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert_eq!(glibc("GLIBC_2.3.4"), Some([2, 3]));
        assert!(glibc("GLIBC_2.4") < glibc("GLIBC_2.35") && glibc("GLIBC_2.35") < glibc("GLIBC_2.36"));
        for other in ["GLIBC_PRIVATE", "GCC_3.0", "GLIBC_2"] {
            assert_eq!(glibc(other), None, "{other}");
        }
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn this_programs_newest_symbol_is_found() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let (symbol, version) = newest(&bytes).unwrap();
        assert!(!symbol.is_empty() && version >= [2, 17], "{symbol} {version:?}");
    }

    /// Replaces the version's name in the file by one that is too new. Only a string changes.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn a_program_that_needs_a_newer_glibc_is_refused() {
        let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let [major, minor] = newest(&bytes).unwrap().1;
        let name = format!("\0GLIBC_{major}.{minor}\0");
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
        bytes[at..at + name.len()].copy_from_slice(b"\0GLIBC_2.99\0");
        let file = std::env::temp_dir().join(format!("bagssl-glibc-{}", std::process::id()));
        fs::write(&file, bytes).unwrap();
        let error = check(&file).unwrap_err().to_string();
        assert!(error.contains("expected to need glibc 2.35 at most, got ") && error.contains(" of 2.99; "), "{error}");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let error = format!("{:#}", check(&file).unwrap_err());
        assert!(error.contains("expected a program for Linux of 64 bits"), "{error}");
        fs::remove_file(file).unwrap();
    }
}
