//! Detection of file types that are not data sets, with advice for error messages.

/// The number of bytes that detection needs.
pub(crate) const LENGTH: u64 = 512;

/// What [`file_kind`] calls a tar archive.
pub(crate) const TAR: &str = "a tar archive";
const PICKLE: &str = "a pickle; for CIFAR, use the binary version";

/// Describes a file by its first bytes (512 are enough), if it is of a known type: `a zip archive`.
/// What would work is added if it does not depend on what the file was to be:
/// ``a PyTorch file; to import weights, use `bagssl import` ``.
pub fn file_type(start: &[u8]) -> Option<&'static str> {
    let whole = file_kind(start)?;
    let (name, _) = whole.split_once(';').unwrap_or((whole, ""));
    let is_for_all = ["a PyTorch file", "an HTML page", "a Git LFS pointer"].iter().any(|all| name.starts_with(all));
    Some(if is_for_all { whole } else { name })
}

/// Describes a file that is not a data set by its first bytes, with advice.
pub(crate) fn file_kind(start: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 23] = [
        (b"\x1f\x8b", "a file compressed with gzip; run gunzip to get a .tar"),
        (b"BZh", "a file compressed with bzip2; run bunzip2 to get a .tar"),
        (b"\xfd7zXZ", "a file compressed with xz; run unxz to get a .tar"),
        (b"\x28\xb5\x2f\xfd", "a file compressed with zstd; run unzstd to get a .tar"),
        (b"PK\x03\x04", "a zip archive; unzip it and pass its folder"),
        (b"PK\x05\x06", "an empty zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and pass its folder"),
        (b"Rar!", "a RAR archive; unpack it and pass its folder"),
        (b"\xff\xd8\xff", "an image (JPEG); pass its folder instead"),
        (b"\x89PNG", "an image (PNG); pass its folder instead"),
        (b"GIF8", "an image (GIF); pass its folder instead"),
        (b"BM", "an image (BMP); pass its folder instead"),
        (b"II*\0", "an image (TIFF) in an unsupported format"),
        (b"MM\0*", "an image (TIFF) in an unsupported format"),
        (b"\x89HDF", "an HDF5 file; write its images to one folder per class"),
        (b"\x93NUMPY", "a NumPy array; write its images to one folder per class"),
        (b"PAR1", "a parquet file"),
        (b"ARROW1", "an Arrow file; convert it to parquet"),
        (b"\x80\x02", PICKLE),
        (b"\x80\x03", PICKLE),
        (b"\x80\x04", PICKLE),
        (b"\x80\x05", PICKLE),
        (b"%PDF", "a PDF"),
    ];
    if start.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") {
        return Some("a PyTorch file of the format before PyTorch 1.6; save it again with torch.save, then import it");
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some(match start.starts_with(b"sys_info\0") {
            true => "a PyTorch file of the format before PyTorch 0.1.10; save it again with torch.save, then import it",
            false => TAR,
        });
    }
    let has = |part: &[u8]| memchr::memmem::find(start, part).is_some();
    if start.starts_with(b"PK\x03\x04") && has(b"/data.pkl") {
        return Some("a PyTorch file; to import weights, use `bagssl import`");
    }
    if start.starts_with(b"PK\x03\x04") && has(b".npy") {
        return Some("a zip of NumPy arrays; write its images to one folder per class");
    }
    let by_mark = known.into_iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, what)| what);
    by_mark.or_else(|| match start.get(8..12) {
        _ if start.is_empty() => Some("an empty file"),
        Some(b"heic" | b"heix" | b"mif1" | b"msf1") if start[4..8] == *b"ftyp" => {
            Some("an image (HEIC) in an unsupported format")
        }
        Some(b"avif" | b"avis") if start[4..8] == *b"ftyp" => Some("an image (AVIF) in an unsupported format"),
        Some(b"WEBP") if start.starts_with(b"RIFF") => Some("an image (WebP); pass its folder instead"),
        _ => text(start),
    })
}

/// Describes a text file.
fn text(start: &[u8]) -> Option<&'static str> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character may be cut in two at the end.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let begins = text.trim_start().to_ascii_lowercase();
    Some(match () {
        () if begins.starts_with("<!doctype html") || begins.starts_with("<html") => {
            "an HTML page, probably from a failed download; download the file again"
        }
        () if begins.starts_with("version https://git-lfs") => {
            "a Git LFS pointer; run `git lfs pull` to fetch the file"
        }
        () if begins.contains(|letter: char| letter.is_control() && !letter.is_whitespace()) => return None,
        () if begins.starts_with(['{', '[']) => "a JSON file",
        () => "a text file; for lists of images, pass the folder with train.txt and val.txt",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        for (start, word) in [
            (&b"\x1f\x8b\x08\0"[..], "gunzip"),
            (b"PK\x03\x04rest", "unzip"),
            (b"PK\x03\x04\0\0model/data.pkl", "PyTorch"),
            (b"PK\x03\x04\0\0x.npy\x93NUMPY", "NumPy"),
            (b"\n<!DOCTYPE html><p>", "HTML"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
            (b"\xff\xd8\xff\xe0", "JPEG"),
            (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
            (b"II*\0\x08\0\0\0", "TIFF"),
            (b"a/b.jpg\tcat\n", "train.txt"),
            (b"caf\xc3", "a text"),
            (b"{\"a\":1}", "JSON"),
            (b"", "an empty file"),
            (
                b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80",
                "a PyTorch file of the format before PyTorch 1.6",
            ),
            (b"\x80\x04\x95", "a pickle"),
            (&[b"sys_info".as_slice(), &[0; 249], b"ustar"].concat(), "before PyTorch 0.1.10"),
            (&[b"cat/1.jpg".as_slice(), &[0; 248], b"ustar"].concat(), "a tar archive"),
        ] {
            assert!(file_kind(start).is_some_and(|what| what.contains(word)), "{word}: {:?}", file_kind(start));
        }
        for start in [&b"\x01\x02\x03"[..], b"abc\0\0\0", b"\xfe\xff text"] {
            assert_eq!(file_kind(start), None, "{start:?}");
        }
        for (start, expected) in [
            (&b"PK\x03\x04rest"[..], "a zip archive"),
            (b"PK\x03\x04\0\0model/data.pkl", "a PyTorch file; to import weights, use `bagssl import`"),
            (b"\x89PNG", "an image (PNG)"),
            (b"%PDF", "a PDF"),
        ] {
            assert_eq!(file_type(start), Some(expected));
        }
    }
}
