//! Paths and the names that editors give them.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use lsp_types::Uri;

const FILE: &str = "file://";

/// The path of a `file:` URI. What has no file, such as a text that was never saved, is its own
/// name.
pub(crate) fn path(uri: &Uri) -> PathBuf {
    let text = uri.as_str();
    let Some(rest) = text.strip_prefix(FILE) else { return PathBuf::from(text) };
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| *first == b'%');
        let value = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The URI of a path; `None` for one that cannot be written as one.
pub(crate) fn uri(path: &Path) -> Option<Uri> {
    if !path.is_absolute() {
        return path.to_str()?.parse().ok();
    }
    let mut text = FILE.to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back() {
        for text in ["/a/b.gov", "/a b/ü%20/#?.gov", "/"] {
            let uri = uri(Path::new(text)).unwrap();
            assert_eq!(path(&uri), Path::new(text), "{}", uri.as_str());
        }
        let uri: Uri = "untitled:Untitled-1".parse().unwrap();
        assert_eq!(path(&uri), Path::new("untitled:Untitled-1"));
        assert_eq!(super::uri(&path(&uri)), Some(uri));
    }
}
