//! Reading policies: files, the packages that they use, lock files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use govc_authority::{bundle::Vocabulary, digest::Digest};
use govc_compiler::{
    analysis,
    check::stale_locks,
    checked::Policy,
    index::Index,
    lock::{Lock, Locks},
    packages,
    sources::Source,
    table::DecisionTable,
};
use govc_grammar::{
    ast,
    diagnostic::{Diagnostic, Severity},
    span::{FileId, Span},
};
use govc_image::Image;

use crate::{
    arguments::{Format, Sources},
    failure::Failure,
    levels::Levels,
    output::Style,
    progress,
    report::{self, Reporting},
};

/// Policies that have been read, with what the compiler said.
pub struct Input {
    /// The texts; a [`FileId`] is a position here.
    pub sources: Vec<Source>,
    /// Where they were read from.
    pub paths: Vec<PathBuf>,
    /// Their trees.
    pub files: Vec<(FileId, ast::File)>,
    /// What is wrong or noteworthy.
    pub diagnostics: Vec<Diagnostic>,
    /// The policy with what it compiles to, when nothing is wrong.
    pub compiled: Option<Compiled>,
    /// How many of the files are named on the command line; they come first.
    named: usize,
    reporting: Reporting,
    locks: Locks,
    locks_next: Locks,
}

/// A policy and everything that it compiles to.
pub struct Compiled {
    /// The policy.
    pub policy: Policy,
    /// The decision table.
    pub table: DecisionTable,
    /// The image.
    pub image: Image,
}

/// Texts that count instead of what is in the files.
pub type Overlay = BTreeMap<PathBuf, String>;

/// How much is found out about a policy that is right.
#[derive(Clone, Copy)]
pub enum Analysis {
    /// Nothing.
    None,
    /// Whether its assertions hold.
    Assertions,
    /// Likewise, and everything that is probably not meant.
    Findings {
        /// Traffic that no rule speaks of.
        gaps: bool,
        /// Rules that contradict each other.
        conflicts: bool,
        /// Names in the files of the command line that nothing uses.
        unused: bool,
    },
}

/// Reads, checks, compiles and analyses; tells nothing and writes nothing yet, see
/// [`Input::finish`].
///
/// # Errors
/// A file cannot be read, or the command line contradicts itself. Mistakes in policies are no
/// error here; see [`Input::compiled`].
pub fn read(
    arguments: &Sources,
    json: bool,
    overlay: &Overlay,
    wanted: Analysis,
) -> Result<Input, Failure> {
    let format = if json { Format::Json } else { arguments.format };
    check(load(arguments, overlay, reporting(arguments, format)?)?, wanted, arguments.locked)
}

/// As [`read`], with an item from the command line, which sees what the first file sees.
///
/// # Errors
/// As [`read`].
pub fn read_with_item(arguments: &Sources, item: &str) -> Result<Input, Failure> {
    read_with_part(arguments, ("", item, ""))
}

/// Likewise with the part of an item that was typed, between what makes an item of it. Diagnostics
/// show what was typed alone.
///
/// # Errors
/// As [`read`].
pub fn read_with_part(
    arguments: &Sources,
    (before, typed, behind): (&str, &str, &str),
) -> Result<Input, Failure> {
    let reporting = reporting(arguments, arguments.format)?;
    let mut input = load(arguments, &Overlay::new(), reporting)?;
    let mut text = String::new();
    if let Some((_, first)) = input.files.first() {
        let package = first.package.as_ref().map(ast::Path::text).unwrap_or_default();
        text = format!("package {package}\n");
        for path in first.uses() {
            text.push_str(&format!("use {}\n", path.text()));
        }
    }
    text.push_str(before);
    let start = text.len();
    text.push_str(&format!("{typed}{behind}\n"));
    add(&mut input, PathBuf::from("command line"), text);
    if let Some((_, file)) = input.files.last_mut() {
        file.items.iter_mut().for_each(unname);
    }
    let mut input = check(input, Analysis::None, arguments.locked)?;
    show_typed(&mut input, typed, u32::try_from(start).unwrap_or(u32::MAX));
    Ok(input)
}

/// Gives an item of the command line a name that no file can give to one of its own.
fn unname(item: &mut ast::Item) {
    if let ast::Item::Assert(assertion) = item {
        assertion.name.text = "the command line".into();
    }
}

/// Moves the places in the last file to where they are in what was typed, which starts at `start`.
fn show_typed(input: &mut Input, typed: &str, start: u32) {
    let Some(last) = input.sources.len().checked_sub(1) else { return };
    let end = u32::try_from(typed.len()).unwrap_or(u32::MAX);
    let move_span = |span: &mut Span| {
        if span.file.0 as usize == last {
            span.start = span.start.saturating_sub(start).min(end);
            span.end = span.end.saturating_sub(start).clamp(span.start, end);
        }
    };
    for diagnostic in &mut input.diagnostics {
        diagnostic.labels.iter_mut().for_each(|label| move_span(&mut label.span));
        let edits = diagnostic.fixes.iter_mut().flat_map(|fix| &mut fix.edits);
        edits.for_each(|edit| move_span(&mut edit.span));
    }
    if let Some(source) = input.sources.get_mut(last) {
        source.text = typed.to_owned();
    }
}

fn reporting(arguments: &Sources, format: Format) -> Result<Reporting, Failure> {
    let levels = Levels::new(&arguments.deny, &arguments.warn, &arguments.allow)?;
    Ok(Reporting { format, levels, limit: arguments.limit })
}

fn check(mut input: Input, wanted: Analysis, locked: bool) -> Result<Input, Failure> {
    input.locks = read_locks(&input)?;
    let syntax = std::mem::take(&mut input.diagnostics);
    let unused = matches!(wanted, Analysis::Findings { unused: true, .. });
    let (checked, index) = if unused {
        govc_compiler::check::check_parsed_indexed(&input.files, syntax, &input.locks)
    } else {
        let checked = govc_compiler::check::check_parsed(&input.files, syntax, &input.locks);
        (checked, Index::default())
    };
    let mut diagnostics = checked.diagnostics;
    if locked {
        diagnostics.extend(stale_locks(&input.files, &checked.locks_changed));
    }
    if checked.policy.is_some() {
        // Files are numbered as they are read, those of the command line first.
        let asked = |file: FileId| (file.0 as usize) < input.named;
        let found = govc_compiler::unused::unused(&index, &diagnostics, asked);
        diagnostics.extend(found);
    }
    if let Some(policy) = checked.policy {
        // Limits are the last mistakes to be found.
        match govc_compiler::compile(&policy, &input.sources, &input.title()) {
            Ok((table, image)) => {
                let compiled = Compiled { policy, table, image };
                diagnostics.extend(findings(&compiled, wanted));
                input.compiled = Some(compiled);
            }
            Err(diagnostic) => diagnostics.push(*diagnostic),
        }
    }
    let analysed = matches!(wanted, Analysis::Findings { .. });
    let settled = govc_compiler::expectations::settle(&input.files, diagnostics, analysed);
    input.diagnostics = input.reporting.levels.apply(settled);
    if input.diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error) {
        input.compiled = None;
    }
    input.locks_next = checked.locks;
    Ok(input)
}

fn findings(compiled: &Compiled, wanted: Analysis) -> Vec<Diagnostic> {
    let Compiled { policy, table, image } = compiled;
    match wanted {
        Analysis::None => Vec::new(),
        Analysis::Assertions => analysis::assertions::diagnose(policy, table, image.names()),
        Analysis::Findings { gaps, conflicts, .. } => {
            let bar = progress::rules("analysing", policy.rules().len());
            let found = analysis::findings(policy, table, image, &|rules| bar.inc(rules as u64));
            bar.finish_and_clear();
            let mut diagnostics = found.diagnostics;
            if found.undecided > 0 {
                tracing::warn!(
                    "{} rules overlap with too many others to be judged in reasonable time",
                    found.undecided
                );
            }
            if conflicts {
                diagnostics.extend(analysis::conflicts::diagnose(policy, table, image.names()));
            }
            if gaps {
                diagnostics.extend(analysis::gaps::diagnose(policy, table, image.names()));
            }
            diagnostics
        }
    }
}

impl Input {
    /// The policy with what it compiles to.
    ///
    /// # Errors
    /// There are mistakes in it.
    pub fn compiled(&self) -> Result<&Compiled, Failure> {
        self.compiled.as_ref().ok_or(Failure::Told)
    }

    /// How diagnostics are told.
    pub fn format(&self) -> Format {
        self.reporting.format
    }

    /// The policy's name for people: the package of the first file.
    pub fn title(&self) -> String {
        let package = self.files.first().and_then(|(_, file)| file.package.as_ref());
        package.map_or_else(|| "policy".into(), |path| path.text().into())
    }

    /// Digests of the lock files that the policy's numbers come from, by package.
    pub fn vocabulary(&self) -> Vocabulary {
        let locks = self.locks_next.iter();
        let digest = |lock: &Lock| Digest::of(lock.to_text().as_bytes());
        Vocabulary { locks: locks.map(|(name, lock)| (name.into(), digest(lock))).collect() }
    }

    /// One diagnostic for people, in the format that they chose.
    pub fn render(&self, diagnostic: &Diagnostic, style: &Style) -> String {
        report::render(diagnostic, &self.sources, self.reporting.format, style)
    }

    /// Tells all diagnostics.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn report(&self, style: &Style) -> Result<(), Failure> {
        report::report(&self.diagnostics, &self.sources, &self.reporting, style)
    }

    /// Tells all diagnostics, and writes the lock files that have to change if nothing is wrong.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(&self, arguments: &Sources, style: &Style) -> Result<(), Failure> {
        if self.reporting.format == Format::Junit {
            return Err(Failure::Usage {
                message: "--format junit is for tests".into(),
                help: "Write `govc test --format junit`.".into(),
            });
        }
        self.report(style)?;
        self.keep_locks(arguments)
    }

    /// Writes the lock files that have to change if nothing is wrong.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn keep_locks(&self, arguments: &Sources) -> Result<(), Failure> {
        match self.compiled {
            Some(_) if !arguments.locked => write_locks(self, &self.locks, &self.locks_next),
            _ => Ok(()),
        }
    }
}

/// Reads the files of the command line, then the packages that they use.
fn load(arguments: &Sources, overlay: &Overlay, reporting: Reporting) -> Result<Input, Failure> {
    let mut input = Input {
        sources: Vec::new(),
        paths: Vec::new(),
        files: Vec::new(),
        diagnostics: Vec::new(),
        compiled: None,
        named: arguments.files.len(),
        reporting,
        locks: Locks::default(),
        locks_next: Locks::default(),
    };
    for path in &arguments.files {
        if path.is_dir() {
            return Err(Failure::Usage {
                message: format!("`{}` is a directory", path.display()),
                help: "Name the policy files in it.".into(),
            });
        }
        let text = match overlay.get(path) {
            Some(text) => text.clone(),
            None => read_source(path)?,
        };
        add(&mut input, path.clone(), text);
    }
    let mut searched = BTreeSet::new();
    let mut next = 0;
    while let Some((_, file)) = input.files.get(next) {
        let origin = input.paths.get(next).cloned().unwrap_or_default();
        let wanted: Vec<ast::Path> = file.uses().cloned().collect();
        for package in wanted {
            let known = input
                .files
                .iter()
                .any(|(_, file)| file.package.as_ref().is_some_and(|p| p.text() == package.text()));
            if !known && searched.insert(package.text()) {
                find_package(&mut input, &package, &origin, &arguments.include)?;
            }
        }
        next += 1;
    }
    Ok(input)
}

fn add(input: &mut Input, path: PathBuf, text: String) {
    let id = FileId(input.sources.len() as u32);
    let (file, diagnostics) = govc_grammar::parse(id, &text);
    input.sources.push(Source { name: path.display().to_string(), text });
    input.paths.push(path);
    input.files.push((id, file));
    input.diagnostics.extend(diagnostics);
}

/// Looks for a package that a file uses. One that is not found is the checker's to report.
fn find_package(
    input: &mut Input,
    package: &ast::Path,
    origin: &Path,
    include: &[PathBuf],
) -> Result<(), Failure> {
    for candidate in packages::candidates(package, origin, include) {
        if !candidate.is_file() {
            continue;
        }
        let text = read_source(&candidate)?;
        let (file, _) = govc_grammar::parse(FileId(0), &text);
        if file.package.is_some_and(|p| p.text() == package.text()) {
            let tidy = candidate.strip_prefix(".").map(Path::to_path_buf).unwrap_or(candidate);
            add(input, tidy, text);
            return Ok(());
        }
    }
    Ok(())
}

/// The policies below a directory, but for those in hidden ones, in no order.
///
/// # Errors
/// What `excuse` makes of a directory that cannot be read.
pub fn policies_below(
    directory: &Path,
    excuse: impl Fn(Failure) -> Result<(), Failure>,
) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        let entries = fs::read_dir(&directory).and_then(|entries| {
            entries.map(|entry| entry.and_then(|entry| Ok((entry.file_type()?, entry)))).collect()
        });
        let entries: Vec<(fs::FileType, fs::DirEntry)> = match entries {
            Ok(entries) => entries,
            Err(error) => {
                excuse(file("read", &directory)(error))?;
                continue;
            }
        };
        for (kind, entry) in entries {
            // Links are not followed: they may lead in circles, or out of the directory.
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let inside = directory.strip_prefix(".").unwrap_or(&directory).join(entry.file_name());
            if kind.is_dir() && !hidden {
                waiting.push(inside);
            } else if kind.is_file() && inside.extension().is_some_and(|suffix| suffix == "gov") {
                found.push(inside);
            }
        }
    }
    Ok(found)
}

/// The text of a policy, or of a part of one.
///
/// # Errors
/// It cannot be read, or is no policy but what must not be shown: messages quote policies.
pub fn read_source(path: &Path) -> Result<String, Failure> {
    let text = read_text(path)?;
    refuse_secrets(path, &text)?;
    Ok(text)
}

/// Refuses texts that are keys or hold some, such as key rings, age files and age keys. Messages
/// quote policies, and end up in terminals, in logs and on the pages of CI.
///
/// # Errors
/// It is such a text. Nothing of it is told.
pub fn refuse_secrets(path: &Path, text: &str) -> Result<(), Failure> {
    const BEGINS: [&str; 3] = ["{", "-----BEGIN", "age-encryption.org/"];
    const KEY: &[u8] = b"AGE-SECRET-KEY-1";
    let begin = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let mut windows = text.as_bytes().windows(KEY.len());
    if BEGINS.iter().any(|known| begin.starts_with(known))
        || windows.any(|window| window.eq_ignore_ascii_case(KEY))
    {
        return Err(Failure::Usage {
            message: format!("`{}` is no policy, and may hold keys", path.display()),
            help: "Nothing of it is shown. Name policy files, which end in .gov as a rule.".into(),
        });
    }
    Ok(())
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).map_err(file("read", path))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::File {
            what: "read",
            path: path.into(),
            source: std::io::Error::other(format!("byte {at} is not UTF-8")),
        }
    })
}

/// Files that own a domain, with their packages: their lock files lie beside them.
fn vocabularies(input: &Input) -> impl Iterator<Item = (String, PathBuf)> + '_ {
    input.files.iter().zip(&input.paths).filter_map(|((_, file), path)| {
        let package = file.package.as_ref().filter(|_| file.has_domain())?;
        Some((package.text().into(), path.with_extension("lock")))
    })
}

fn read_locks(input: &Input) -> Result<Locks, Failure> {
    let mut locks = Locks::default();
    for (package, path) in vocabularies(input) {
        match fs::read_to_string(&path) {
            Ok(text) => locks.insert_text(package, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file("read", &path)(error)),
        }
    }
    Ok(locks)
}

fn write_locks(input: &Input, old: &Locks, new: &Locks) -> Result<(), Failure> {
    for (package, path) in vocabularies(input) {
        let Some(lock) = new.get(&package) else { continue };
        if old.get(&package) == Some(lock) {
            continue;
        }
        write_whole(&path, lock.to_text().as_bytes())?;
    }
    Ok(())
}

/// Writes a file whole or not at all. A file that is there keeps its permissions, and a link to
/// one stays a link.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let permissions = fs::metadata(&target).map(|metadata| metadata.permissions()).ok();
    let mut temporary = target.as_os_str().to_owned();
    temporary.push(format!(".tmp{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = fs::File::create_new(&temporary)
        .and_then(|mut f| std::io::Write::write_all(&mut f, bytes).and_then(|()| f.sync_all()))
        .and_then(|()| match permissions {
            Some(permissions) => fs::set_permissions(&temporary, permissions),
            None => Ok(()),
        })
        .and_then(|()| fs::rename(&temporary, &target))
        // The name has to outlive a power loss as the contents do: others are told that the file is there.
        .and_then(|()| {
            let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
            fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(file("write", path))
}

/// Shorthand for errors of files.
pub fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_path_buf();
    move |source| Failure::File { what, path, source }
}
