//! Alias names for shared libraries.

use std::io;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::elf::{self, MACHINE};

/// Loads a library permanently, from a path or by a name that the loader searches for.
pub(super) fn load(library: &Path) -> Result<(), String> {
    // SAFETY: CUDA's libraries may be loaded on any thread at any time, and so may a library
    // without code.
    let library = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| why(&error))?;
    std::mem::forget(library);
    Ok(())
}

/// Returns the loader's message, which is the source of the error.
pub(crate) fn why(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Makes the loader return `library` for the name `name`, whatever its search path contains. The
/// alias is valid for the rest of the process.
///
/// The loader reuses a loaded library if the requested name equals its SONAME. So this function
/// loads an empty library with that SONAME and a NEEDED entry for `library`. Symbol lookups through
/// it find the functions of `library`.
pub(super) fn add(name: &str, library: &Path) -> Result<(), String> {
    let image = image(name, library).map_err(|error| error.to_string())?;
    let place = || -> io::Result<_> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(name);
        std::fs::write(&file, image)?;
        Ok((folder, file))
    };
    let (_folder, file) = place().map_err(|error| format!("a temporary file could not be written: {error}"))?;
    load(&file)
}

/// The offsets of the library's parts, both in its file and in memory.
const DYNAMIC: u64 = elf::HEADER + 3 * elf::PROGRAM_HEADER;
const HASH: u64 = DYNAMIC + 8 * 16;
const SYMBOLS: u64 = HASH + 16;
const STRINGS: u64 = SYMBOLS + SYMBOL;

/// The size of a symbol table entry.
const SYMBOL: u64 = 24;

/// Builds a shared library without code or symbols in the ELF format (System V ABI, chapters 4 and
/// 5).
fn image(name: &str, needed: &Path) -> io::Result<Vec<u8>> {
    let needed = needed.to_str().filter(|path| !path.contains('\0'));
    let needed = needed.ok_or_else(|| io::Error::other("its path is not UTF-8"))?;
    let strings = format!("\0{name}\0{needed}\0");
    let length = STRINGS + strings.len() as u64;
    let mut image = Vec::with_capacity(length as usize);
    let mut put = |bytes: &[u8]| image.extend_from_slice(bytes);

    // The header: a shared library (3) for this machine, without sections.
    put(&elf::IDENT);
    [3, MACHINE].iter().for_each(|half: &u16| put(&half.to_le_bytes()));
    put(&1u32.to_le_bytes());
    [0, elf::HEADER, 0].iter().for_each(|word: &u64| put(&word.to_le_bytes()));
    put(&0u32.to_le_bytes());
    let sizes = [elf::HEADER as u16, elf::PROGRAM_HEADER as u16, 3, 0, 0, 0];
    sizes.iter().for_each(|half| put(&half.to_le_bytes()));

    // Program headers: one loads the entire file (1), readable and writable (6); one locates the
    // dynamic section (2); one declares a non-executable stack.
    for (kind, from, size, align) in
        [(1u32, 0, length, 1 << 16), (2, DYNAMIC, HASH - DYNAMIC, 8), (0x6474_e551, 0, 0, 16)]
    {
        [kind, 6].iter().for_each(|word| put(&word.to_le_bytes()));
        [from, from, from, size, size, align].iter().for_each(|word: &u64| put(&word.to_le_bytes()));
    }

    // The tags are NEEDED, SONAME, HASH, STRTAB, SYMTAB, STRSZ, SYMENT and the end marker.
    let after_name = 2 + name.len() as u64;
    let text = strings.len() as u64;
    for (tag, value) in
        [(1, after_name), (14, 1), (4, HASH), (5, STRINGS), (6, SYMBOLS), (10, text), (11, SYMBOL), (0u64, 0)]
    {
        [tag, value].iter().for_each(|word| put(&word.to_le_bytes()));
    }

    // A hash table with one empty bucket, for the one symbol that every symbol table begins with.
    [1u32, 1, 0, 0].iter().for_each(|word| put(&word.to_le_bytes()));
    put(&[0; SYMBOL as usize]);
    put(strings.as_bytes());
    Ok(image)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// Compiles a library with SONAME `soname` and a function that returns `number`. Returns `None`
    /// without a C compiler.
    fn library(folder: &Path, file: &str, soname: &str, number: i32) -> Option<PathBuf> {
        let (source, made) = (folder.join("source.c"), folder.join(file));
        std::fs::write(&source, format!("int alias_test_number(void) {{ return {number}; }}\n")).unwrap();
        let name = format!("-Wl,-soname,{soname}");
        let mut cc = Command::new("cc");
        let built = cc.args(["-shared", "-fPIC", &name, "-o"]).args([&made, &source]).status();
        built.is_ok_and(|status| status.success()).then_some(made)
    }

    fn number(name: &str) -> Option<i32> {
        // SAFETY: the library was built by this test. Its function takes no arguments and returns
        // an int.
        unsafe {
            let library = Library::open(Some(name), RTLD_NOW | RTLD_LOCAL).ok()?;
            let function = library.get::<unsafe extern "C" fn() -> i32>(b"alias_test_number\0").ok()?;
            Some(function())
        }
    }

    #[test]
    fn a_library_is_found_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let Some(made) = library(folder.path(), "a file's name.so", "libaliastest.so.13", 13) else {
            eprintln!("skipped: no C compiler found as cc");
            return;
        };
        // The loader finds these names nowhere.
        let names = ["libaliastest.so", "libaliastest.so.12"];
        assert_eq!(names.map(number), [None, None]);
        load(&made).unwrap();
        // The library's own name is known from now on, other names are not.
        assert_eq!(number("libaliastest.so.13"), Some(13));
        assert_eq!(number(names[0]), None);
        names.iter().for_each(|name| add(name, &made).unwrap());
        assert_eq!(names.map(number), [Some(13), Some(13)]);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = add("libaliasmissing.so", &folder.path().join("nothing.so")).unwrap_err();
        assert!(error.contains("nothing.so"), "{error}");
    }
}
