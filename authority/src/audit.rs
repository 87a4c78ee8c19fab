//! The audit log: what was done with keys, bundles and grants, in lines that hold each other.
//!
//! Every line is canonical JSON and names the digest of the line before it, so that no line can be
//! changed, removed or put in between without those after it telling. Only lines at the end can be
//! taken away unnoticed; who keeps a [`Head`] elsewhere, as a node does beside its trust, notices that too.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Digest,
    files,
    form::{self, FormError},
    key::KeyId,
};

/// Bytes of a line with its end.
pub const LINE_LEN_MAX: usize = 1 << 16;
/// Names the digest of a line that is missing, where the log tells that lines are.
pub const KNOWN: &str = "known";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A node was given its root of trust.
    RootSet,
    /// A node was given the root of another domain, with the first thing that it signed.
    ForeignRootSet,
    /// A signing key was made.
    KeyMade,
    /// Epoch keys were made.
    EpochsStaged,
    /// A key ring left.
    RingExported,
    /// A key ring came.
    RingImported,
    /// A bundle was signed.
    BundleSigned,
    /// A bundle was accepted and is enforced.
    BundleAccepted,
    /// A bundle was refused.
    BundleRefused,
    /// A grant was made or handed on.
    GrantSigned,
    /// A grant was accepted.
    GrantAccepted,
    /// A grant was refused.
    GrantRefused,
    /// A mapping was signed.
    MappingSigned,
    /// A mapping was accepted.
    MappingAccepted,
    /// A mapping was refused.
    MappingRefused,
    /// What signed bundles put in force was given up for a policy that nobody signed.
    AuthorityGivenUp,
    /// The last line of the log was torn off and taken away.
    LogMended,
}

/// What a line says besides its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Unix time in seconds.
    pub time: u64,
    /// What happened.
    pub event: Event,
    /// For people: the reason of a refusal, a file's name.
    pub note: String,
    /// Of what it happened to, by what that is: `manifest`, `image`.
    pub digests: BTreeMap<String, Digest>,
    /// Keys that took part.
    pub keys: Vec<KeyId>,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From 0.
    pub index: u64,
    /// Digest of the line before it, without its end.
    pub previous: Option<Digest>,
    /// What it says.
    pub record: Record,
}

impl Entry {
    /// How far a log goes that ends with this line.
    ///
    /// # Errors
    /// It cannot be written, which a line of a log always can.
    pub fn head(&self) -> Result<Head, FormError> {
        let last = Digest::of(&form::write(self)?);
        Ok(Head { count: self.index.saturating_add(1), last: Some(last) })
    }
}

/// How far a log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Lines.
    pub count: u64,
    /// Digest of the last one.
    pub last: Option<Digest>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// It has no end: power was lost, or the disk full, while it was written.
    #[error("it is cut off; mend the log, which takes it away and says so")]
    Torn,
    /// Beyond the limit.
    #[error("it is longer than {LINE_LEN_MAX} bytes; write less, or look who else writes the file")]
    TooLong,
    /// Not a line of a log.
    #[error("{0}")]
    Form(FormError),
    /// Lines are missing or come twice.
    #[error("it has index {found}, wanted {wanted}; lines were removed, added or moved")]
    Index {
        /// Its index.
        found: u64,
        /// The index of its place.
        wanted: u64,
    },
    /// It or the line before was changed.
    #[error("it does not name the line before it; one of the two was changed")]
    Chain,
    /// The log ends before what is known of it, or otherwise.
    #[error(
        "it is neither the end that the trust state knows nor behind it, for lines were changed or removed; find out \
         by whom, and mend the log, which says so in it"
    )]
    Shortened,
    /// The log ends before or differs from what was known of it.
    #[error("it is not the line that was known to be there; the log was shortened or replaced")]
    Known,
}

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A file operation failed.
    #[error("cannot use the audit log `{path}`: {source}")]
    File {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The first line that is wrong.
    #[error("audit log `{path}`, line {line}: {fault}")]
    Line {
        /// The log.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The last line, or the one to be appended, is wrong.
    #[error("audit log `{path}`, the end: {fault}")]
    End {
        /// The log.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
}

/// Appends a line. When it returns, the line outlives a power loss; processes may append at the
/// same time.
///
/// # Errors
/// The file cannot be written, or its last line is none that one could follow.
pub fn append(path: &Path, record: Record) -> Result<Entry, AuditError> {
    let mut file = open(path)?;
    append_to(&mut file, path, record)
}

/// Whether a line can be appended that goes on from what is known of the log: what has happened must not go
/// unwritten, and a line behind one that was changed must not hide that.
///
/// # Errors
/// The file cannot be written, its last line is none that one could follow, or lines that were known are gone.
pub fn check_end(path: &Path, known: Option<&Head>) -> Result<(), AuditError> {
    let end = if path.exists() { end_of(&mut open(path)?, path)? } else { Head::default() };
    let Some(known) = known.filter(|known| **known != end) else { return Ok(()) };
    if end.count <= known.count {
        return Err(AuditError::End { path: path.into(), fault: Fault::Shortened });
    }
    // Whoever appended could not note it any more, or is about to.
    verify(path, Some(known)).map(drop)
}

/// Makes a log fit to be appended to, and says in it what was amiss: a last line that was torn off is taken away,
/// and lines that are `known` to have been there and are not are told. Where the log ends now, if anything was.
///
/// # Errors
/// As [`append`].
pub fn mend(path: &Path, time: u64, known: Option<&Head>) -> Result<Option<Head>, AuditError> {
    let mut file = open(path)?;
    let torn = take_torn(&mut file, path, time)?;
    let end = end_of(&mut file, path)?;
    let Some(known) = known.filter(|known| end.count <= known.count && **known != end) else {
        return Ok(torn.then_some(end));
    };
    // The line that tells of a torn one stands where another was, if that one was known.
    let whole = end.count.saturating_sub(torn.into());
    let note = match known.count.saturating_sub(whole) {
        0 => "the last line is not the one that was known to be there".to_owned(),
        missing => format!("{missing} of {} known lines are missing", known.count),
    };
    let digests = known.last.map(|last| (KNOWN.to_owned(), last)).into_iter().collect();
    let record = Record { time, event: Event::LogMended, note, digests, keys: Vec::new() };
    let entry = append_to(&mut file, path, record)?;
    let end = |why| AuditError::End { path: path.into(), fault: Fault::Form(why) };
    entry.head().map(Some).map_err(end)
}

/// Takes away a last line that was torn off and appends one that says so; whether there was one.
fn take_torn(file: &mut File, path: &Path, time: u64) -> Result<bool, AuditError> {
    let failed = failed(path);
    let (len, tail) = tail(file).map_err(&failed)?;
    let kept = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = tail.get(kept..).unwrap_or_default();
    if torn.is_empty() {
        return Ok(false);
    }
    if kept == 0 && len > tail.len() as u64 {
        return Err(AuditError::End { path: path.into(), fault: Fault::TooLong });
    }
    file.set_len(len - torn.len() as u64).map_err(&failed)?;
    let record = Record {
        time,
        event: Event::LogMended,
        note: format!("{} bytes of a torn line were taken away", torn.len()),
        digests: [("line".into(), Digest::of(torn))].into(),
        keys: Vec::new(),
    };
    append_to(file, path, record).map(|_| true)
}

/// Checks a whole log, and that it goes on from what was known of it.
///
/// # Errors
/// The file cannot be read, or the first line that is wrong.
pub fn verify(path: &Path, known: Option<&Head>) -> Result<Head, AuditError> {
    let file = File::open(path).map_err(failed(path))?;
    check(&mut BufReader::new(file), path, known)
}

fn check(reader: &mut impl BufRead, path: &Path, known: Option<&Head>) -> Result<Head, AuditError> {
    let mut head = Head::default();
    let mut line = Vec::new();
    let mut met = known.is_none_or(|known| *known == head);
    loop {
        line.clear();
        let max = LINE_LEN_MAX as u64 + 1;
        let len = reader.by_ref().take(max).read_until(b'\n', &mut line);
        let len = len.map_err(failed(path))?;
        let line_number = head.count + 1;
        let wrong = |fault| AuditError::Line { path: path.into(), line: line_number, fault };
        if len == 0 {
            return if met { Ok(head) } else { Err(wrong(Fault::Known)) };
        }
        let text = whole(&line).map_err(wrong)?;
        let entry: Entry = form::read(text, LINE_LEN_MAX).map_err(|why| wrong(Fault::Form(why)))?;
        if entry.index != head.count {
            return Err(wrong(Fault::Index { found: entry.index, wanted: head.count }));
        }
        if entry.previous != head.last {
            return Err(wrong(Fault::Chain));
        }
        let next = Head { count: head.count + 1, last: Some(Digest::of(text)) };
        if let Some(known) = known.filter(|known| known.count == next.count) {
            met = *known == next;
            if !met {
                return Err(wrong(Fault::Known));
            }
        }
        head = next;
    }
}

/// Where a log ends, by its last line alone.
fn end_of(file: &mut File, path: &Path) -> Result<Head, AuditError> {
    let (len, tail) = tail(file).map_err(failed(path))?;
    let last =
        last_line(&tail, len).map_err(|fault| AuditError::End { path: path.into(), fault })?;
    Ok(last.map_or_else(Head::default, |(index, digest)| Head {
        count: index.saturating_add(1),
        last: Some(digest),
    }))
}

/// Opens the log for its only writer.
fn open(path: &Path) -> Result<File, AuditError> {
    let failed = failed(path);
    let mut options = File::options();
    let file = options.read(true).append(true).create(true).mode(0o600).open(path);
    let file = file.map_err(&failed)?;
    file.lock().map_err(&failed)?;
    Ok(file)
}

fn append_to(file: &mut File, path: &Path, record: Record) -> Result<Entry, AuditError> {
    let failed = failed(path);
    let (len, tail) = tail(file).map_err(&failed)?;
    let end = |fault| AuditError::End { path: path.into(), fault };
    let (index, previous) = match last_line(&tail, len).map_err(end)? {
        Some((index, digest)) => (index.saturating_add(1), Some(digest)),
        None => (0, None),
    };
    let entry = Entry { index, previous, record };
    let line = form::write(&entry).map_err(|why| end(Fault::Form(why)))?;
    if line.len() >= LINE_LEN_MAX {
        return Err(end(Fault::TooLong));
    }
    let line = [line.as_slice(), b"\n"].concat();
    if let Err(source) = file.write_all(&line) {
        // A full disk must not leave half a line that nobody could follow.
        let _ = file.set_len(len);
        return Err(failed(source));
    }
    file.sync_all().map_err(&failed)?;
    if len == 0 {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        files::sync(parent.unwrap_or(Path::new("."))).map_err(&failed)?;
    }
    Ok(entry)
}

/// The length of the file and its end, one byte more than the longest line.
fn tail(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let len = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(len.saturating_sub(LINE_LEN_MAX as u64 + 1)))?;
    let mut tail = Vec::new();
    file.take(LINE_LEN_MAX as u64 + 1).read_to_end(&mut tail)?;
    Ok((len, tail))
}

/// Index and digest of the last line; [`None`] if there is none.
fn last_line(tail: &[u8], len: u64) -> Result<Option<(u64, Digest)>, Fault> {
    let Some((_, before)) = tail.split_last() else { return Ok(None) };
    let at = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if at == 0 && len > tail.len() as u64 {
        return Err(Fault::TooLong);
    }
    let text = whole(tail.get(at..).unwrap_or_default())?;
    let entry: Entry = form::read(text, LINE_LEN_MAX).map_err(Fault::Form)?;
    Ok(Some((entry.index, Digest::of(text))))
}

/// A line without its end.
fn whole(line: &[u8]) -> Result<&[u8], Fault> {
    if line.len() > LINE_LEN_MAX {
        return Err(Fault::TooLong);
    }
    line.strip_suffix(b"\n").ok_or(Fault::Torn)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AuditError {
    move |source| AuditError::File { path: path.into(), source }
}

#[cfg(test)]
mod tests;
