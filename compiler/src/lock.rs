//! The lock file of a vocabulary: which number each name was ever given.
//!
//! Numbers travel in packets and stand in the images of other nodes, so they outlive names: a
//! name that vanishes keeps its number as a tombstone, and gets it back when it returns. The
//! file is append-only and reviewed like source. [`crate::check`] reads locks and returns them
//! updated; it never repairs one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rustc_hash::FxHashMap;
use serde::Deserialize;
use smol_str::SmolStr;

/// The only version of the file format.
const VERSION: u32 = 1;
/// Last number of a domain's subjects; number 0 is never handed out.
pub(crate) const SUBJECT_LAST: u32 = govc_abi::limits::SUBJECTS_MAX - 1;

/// Locks by the package that owns the domain, as `a.b`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks(BTreeMap<SmolStr, Result<Lock, LockError>>);

impl Locks {
    /// Adds the lock of a package.
    pub fn insert(&mut self, package: impl Into<SmolStr>, lock: Lock) {
        self.0.insert(package.into(), Ok(lock));
    }

    /// Adds the lock of a package from its file's text. A text that cannot be trusted is
    /// remembered as such: checking reports it where the package declares its domain.
    pub fn insert_text(&mut self, package: impl Into<SmolStr>, text: &str) {
        self.0.insert(package.into(), Lock::parse(text));
    }

    /// The lock of a package, when there is one that can be trusted.
    #[must_use]
    pub fn get(&self, package: &str) -> Option<&Lock> {
        self.0.get(package)?.as_ref().ok()
    }

    /// What is wrong with the lock of a package.
    pub(crate) fn error(&self, package: &str) -> Option<&LockError> {
        self.0.get(package)?.as_ref().err()
    }

    /// All locks that can be trusted with their packages, in the order of the packages' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Lock)> {
        self.0.iter().filter_map(|(package, lock)| Some((package.as_str(), lock.as_ref().ok()?)))
    }
}

/// Everything that one domain ever numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    pub(crate) domain: SmolStr,
    pub(crate) number: u16,
    pub(crate) levels: Numbers,
    pub(crate) compartments: Numbers,
    pub(crate) constraints: Numbers,
    pub(crate) operations: Numbers,
    pub(crate) residencies: Numbers,
    pub(crate) routes: Numbers,
    /// By path below the domain. Parents are always there, retired ones too.
    pub(crate) scopes: BTreeMap<SmolStr, LockedScope>,
}

/// Numbers of one kind by name.
pub(crate) type Numbers = BTreeMap<SmolStr, Locked>;

/// A name's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locked {
    pub(crate) number: u16,
    /// The name is gone from the source; the number stays taken.
    pub(crate) retired: bool,
}

/// A scope's numbers; all ranges are inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LockedScope {
    /// Numbers for it and for everything below, inside its parent's, ascending.
    pub(crate) blocks: Vec<(u32, u32)>,
    /// All subjects that it ever had under its own name, inside its blocks.
    pub(crate) subjects: Option<(u32, u32)>,
    pub(crate) retired: bool,
}

/// Why a lock cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// The text is no TOML, or has entries that a lock does not have.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What the TOML parser says.
        message: String,
    },
    /// The file was written by another version of govc.
    #[error("the format has version {0}, this govc knows version 1 only")]
    Version(u32),
    /// A number that its kind does not have.
    #[error("{section}: `{name}` has number {number}, outside of {first} to {last}")]
    OutOfRange {
        /// Section of the file.
        section: &'static str,
        /// The name.
        name: SmolStr,
        /// Its number.
        number: u32,
        /// Smallest number of the kind.
        first: u32,
        /// Largest number of the kind.
        last: u32,
    },
    /// One number for two names.
    #[error("{section}: `{first}` and `{second}` both have number {number}")]
    Duplicate {
        /// Section of the file.
        section: &'static str,
        /// The number.
        number: u16,
        /// One name.
        first: SmolStr,
        /// The other name.
        second: SmolStr,
    },
    /// A scope whose parent is missing.
    #[error("scopes: `{0}` has no entry for its parent")]
    Orphan(SmolStr),
    /// A scope without any number.
    #[error("scopes: `{0}` has neither blocks nor subjects")]
    Empty(SmolStr),
    /// A range that ends before it begins.
    #[error("scopes: `{path}` has the range {first} to {last}, which ends before it begins")]
    Reversed {
        /// The scope.
        path: SmolStr,
        /// First number.
        first: u32,
        /// Last number.
        last: u32,
    },
    /// A range outside of the numbers that it must lie in.
    #[error("scopes: {first} to {last} of `{path}` lies outside of {within}")]
    Outside {
        /// The scope.
        path: SmolStr,
        /// First number.
        first: u32,
        /// Last number.
        last: u32,
        /// Whose numbers these should be.
        within: String,
    },
    /// Numbers that two scopes claim.
    #[error("scopes: `{first}` and `{second}` both claim number {number}")]
    Overlap {
        /// A number that both claim.
        number: u32,
        /// One scope.
        first: SmolStr,
        /// The other scope.
        second: SmolStr,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockText {
    version: u32,
    domain: String,
    number: u16,
    #[serde(default)]
    levels: BTreeMap<String, NumberText>,
    #[serde(default)]
    compartments: BTreeMap<String, NumberText>,
    #[serde(default)]
    constraints: BTreeMap<String, NumberText>,
    #[serde(default)]
    operations: BTreeMap<String, NumberText>,
    #[serde(default)]
    residencies: BTreeMap<String, NumberText>,
    #[serde(default)]
    routes: BTreeMap<String, NumberText>,
    #[serde(default)]
    scopes: BTreeMap<String, ScopeText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberText {
    number: u16,
    #[serde(default)]
    retired: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeText {
    #[serde(default)]
    blocks: Vec<(u32, u32)>,
    subjects: Option<(u32, u32)>,
    #[serde(default)]
    retired: bool,
}

impl Lock {
    /// Name of the domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The lock that a file's text spells.
    ///
    /// # Errors
    /// When the text is no lock, or when its numbers contradict each other.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let file: LockText = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
            LockError::Syntax { line, message: error.message().replace('\n', ", ") }
        })?;
        if file.version != VERSION {
            return Err(LockError::Version(file.version));
        }
        if file.number == 0 {
            let name = file.domain.into();
            let (section, number, first, last) = ("domain", 0, 1, u16::MAX.into());
            return Err(LockError::OutOfRange { section, name, number, first, last });
        }
        let lock = Self {
            domain: file.domain.into(),
            number: file.number,
            levels: numbers("levels", file.levels, 0, 15)?,
            compartments: numbers("compartments", file.compartments, 0, 15)?,
            constraints: numbers("constraints", file.constraints, 0, 15)?,
            operations: numbers("operations", file.operations, 1, u16::MAX)?,
            residencies: numbers("residencies", file.residencies, 1, 255)?,
            routes: numbers("routes", file.routes, 1, 255)?,
            scopes: scopes(file.scopes)?,
        };
        verify_scopes(&lock.scopes)?;
        Ok(lock)
    }

    /// The file's text: the same lock always spells the same bytes.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# Numbers of a govc vocabulary, written by govc. Append-only: packets carry these\n\
             # numbers, so none is ever changed or given away again. Keep the file beside the\n\
             # vocabulary, review it like source, and do not edit it.\n",
        );
        let domain = toml_text(&self.domain);
        let _ = writeln!(text, "version = {VERSION}\ndomain = {domain}\nnumber = {}", self.number);
        write_numbers(&mut text, "levels", &self.levels);
        write_numbers(&mut text, "compartments", &self.compartments);
        write_numbers(&mut text, "constraints", &self.constraints);
        write_numbers(&mut text, "operations", &self.operations);
        write_numbers(&mut text, "residencies", &self.residencies);
        write_numbers(&mut text, "routes", &self.routes);
        write_scopes(&mut text, &self.scopes);
        text
    }
}

fn write_numbers(text: &mut String, section: &str, numbers: &Numbers) {
    if numbers.is_empty() {
        return;
    }
    let mut entries: Vec<_> = numbers.iter().collect();
    entries.sort_by_key(|(_, locked)| locked.number);
    let _ = writeln!(text, "\n[{section}]");
    for (name, locked) in entries {
        let retired = if locked.retired { ", retired = true" } else { "" };
        let _ = writeln!(text, "{} = {{ number = {}{retired} }}", toml_key(name), locked.number);
    }
}

fn write_scopes(text: &mut String, scopes: &BTreeMap<SmolStr, LockedScope>) {
    if scopes.is_empty() {
        return;
    }
    text.push_str("\n[scopes]\n");
    for (path, scope) in scopes {
        let mut parts = Vec::new();
        if scope.subjects.is_none_or(|subjects| scope.blocks != [subjects]) {
            let blocks: Vec<_> =
                scope.blocks.iter().map(|(first, last)| format!("[{first}, {last}]")).collect();
            parts.push(format!("blocks = [{}]", blocks.join(", ")));
        }
        if let Some((first, last)) = scope.subjects {
            parts.push(format!("subjects = [{first}, {last}]"));
        }
        if scope.retired {
            parts.push("retired = true".to_owned());
        }
        let _ = writeln!(text, "{} = {{ {} }}", toml_key(path), parts.join(", "));
    }
}

/// A key as TOML wants it: quoted unless it is a bare word.
fn toml_key(name: &str) -> String {
    let bare = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { name.to_owned() } else { toml_text(name) }
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn numbers(
    section: &'static str,
    entries: BTreeMap<String, NumberText>,
    first: u16,
    last: u16,
) -> Result<Numbers, LockError> {
    let mut taken: FxHashMap<u16, SmolStr> = FxHashMap::default();
    let mut numbers = Numbers::new();
    for (name, NumberText { number, retired }) in entries {
        let name = SmolStr::from(name);
        if !(first..=last).contains(&number) {
            let (first, last, number) = (first.into(), last.into(), number.into());
            return Err(LockError::OutOfRange { section, name, number, first, last });
        }
        if let Some(other) = taken.insert(number, name.clone()) {
            return Err(LockError::Duplicate { section, number, first: other, second: name });
        }
        numbers.insert(name, Locked { number, retired });
    }
    Ok(numbers)
}

fn scopes(
    entries: BTreeMap<String, ScopeText>,
) -> Result<BTreeMap<SmolStr, LockedScope>, LockError> {
    let mut scopes = BTreeMap::new();
    for (path, ScopeText { mut blocks, subjects, retired }) in entries {
        let path = SmolStr::from(path);
        if blocks.is_empty() {
            blocks.extend(subjects);
        }
        if blocks.is_empty() {
            return Err(LockError::Empty(path));
        }
        blocks.sort_unstable();
        scopes.insert(path, LockedScope { blocks, subjects, retired });
    }
    Ok(scopes)
}

/// Every scope lies inside its parent, and no two scopes claim one number.
fn verify_scopes(scopes: &BTreeMap<SmolStr, LockedScope>) -> Result<(), LockError> {
    // Claims on a scope's numbers: its own subjects, and the blocks of the scopes directly below.
    let mut claims: FxHashMap<&str, Vec<(u32, u32, &SmolStr)>> = FxHashMap::default();
    for (path, scope) in scopes {
        let parent = path.rsplit_once('.').map(|(parent, _)| parent);
        let space = match parent {
            Some(parent) => match scopes.get(parent) {
                Some(parent) => joined(&parent.blocks),
                None => return Err(LockError::Orphan(path.clone())),
            },
            None => vec![(1, SUBJECT_LAST)],
        };
        let whose = parent.map_or("the numbers 1 to 16777215 of the domain".to_owned(), |parent| {
            format!("the blocks of `{parent}`")
        });
        for &block in &scope.blocks {
            verify_range(path, block, &space, &whose)?;
            claims.entry(parent.unwrap_or("")).or_default().push((block.0, block.1, path));
        }
        if let Some(subjects) = scope.subjects {
            verify_range(path, subjects, &joined(&scope.blocks), "its own blocks")?;
            claims.entry(path).or_default().push((subjects.0, subjects.1, path));
        }
    }
    for path in std::iter::once("").chain(scopes.keys().map(SmolStr::as_str)) {
        let Some(ranges) = claims.get_mut(path) else { continue };
        ranges.sort_unstable();
        for (left, right) in ranges.iter().zip(ranges.iter().skip(1)) {
            if right.0 <= left.1 {
                let (first, second) = (left.2.clone(), right.2.clone());
                return Err(LockError::Overlap { number: right.0, first, second });
            }
        }
    }
    Ok(())
}

fn verify_range(
    path: &SmolStr,
    (first, last): (u32, u32),
    space: &[(u32, u32)],
    within: &str,
) -> Result<(), LockError> {
    if first > last {
        return Err(LockError::Reversed { path: path.clone(), first, last });
    }
    if !space.iter().any(|&(start, end)| start <= first && last <= end) {
        let within = within.to_owned();
        return Err(LockError::Outside { path: path.clone(), first, last, within });
    }
    Ok(())
}

/// Ascending ranges with neighbours put together.
pub(crate) fn joined(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for &(first, last) in ranges {
        match joined.last_mut() {
            Some(previous) if first == previous.1.saturating_add(1) => previous.1 = last,
            _ => joined.push((first, last)),
        }
    }
    joined
}
