//! The archive.

use std::io::{self, Write};

use super::{BUNDLE_LEN_MAX, BundleError, MANIFEST, MEMBERS};
use crate::envelope::ENVELOPE_LEN_MAX;

/// The bytes of the manifest's envelope and of the other members, if this is exactly what
/// [`write()`] writes for them.
pub(super) fn read(bytes: &[u8]) -> Result<(&[u8], [&[u8]; 3]), BundleError> {
    let too_long = |what, len, max| BundleError::TooLong { what, len, max };
    // The archive's own errors quote the file, which may be a secret that was named by mistake.
    let broken = |_: io::Error| BundleError::Container("it is no tar archive".into());
    if bytes.len() > BUNDLE_LEN_MAX {
        return Err(too_long("the file", bytes.len() as u64, BUNDLE_LEN_MAX));
    }
    let mut archive = tar::Archive::new(bytes);
    // Raw: names and sizes come from the headers themselves, not from extensions before them.
    let mut entries = archive.entries().map_err(broken)?.raw(true);
    let mut next = |wanted: &'static str, max: usize| {
        let entry =
            entries.next().ok_or_else(|| BundleError::Container("a member is missing".into()))?;
        let entry = entry.map_err(broken)?;
        if *entry.path_bytes() != *wanted.as_bytes() {
            // The name may be anything, and goes to terminals.
            let found = entry.path_bytes().escape_ascii().to_string();
            return Err(BundleError::Member { found, wanted: wanted.into() });
        }
        if entry.size() > max as u64 {
            return Err(too_long(wanted, entry.size(), max));
        }
        let start = usize::try_from(entry.raw_file_position()).ok();
        let end = start.and_then(|start| start.checked_add(entry.size() as usize));
        let member = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
        member.ok_or_else(|| BundleError::Container(format!("`{wanted}` is cut off")))
    };
    let manifest = next(MANIFEST, ENVELOPE_LEN_MAX)?;
    let [image, vocabulary, revocations] = MEMBERS;
    let members = [
        next(image.0, image.1)?,
        next(vocabulary.0, vocabulary.1)?,
        next(revocations.0, revocations.1)?,
    ];
    let mut rest = Same(bytes);
    match write(manifest, members, &mut rest) {
        Ok(()) if rest.0.is_empty() => Ok((manifest, members)),
        _ => Err(BundleError::NotCanonical),
    }
}

/// Writes the archive: nothing in it depends on anything but these bytes.
pub(super) fn write(manifest: &[u8], members: [&[u8]; 3], out: &mut impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    let names = MEMBERS.iter().map(|(name, _)| *name);
    for (name, bytes) in
        std::iter::once(MANIFEST).chain(names).zip([manifest].into_iter().chain(members))
    {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path(name)?;
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, bytes)?;
    }
    builder.into_inner().map(|_| ())
}

/// A writer that takes only the bytes that are there already.
struct Same<'a>(&'a [u8]);

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
