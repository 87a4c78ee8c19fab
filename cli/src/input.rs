//! Reading policies: files, the packages that they use, lock files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use govc_compiler::{
    analysis, checked::Policy, lock::Locks, sources::Source, table::DecisionTable,
};
use govc_grammar::{
    ast::{self, Item},
    diagnostic::{Diagnostic, Severity},
    span::FileId,
};
use govc_image::Image;

use crate::{
    arguments::{Format, Sources},
    failure::Failure,
    output::{JsonDiagnostic, Style, line},
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
    /// The policy, when nothing is wrong.
    pub policy: Option<Policy>,
}

/// Everything that a policy compiles to.
pub struct Compiled {
    /// The decision table.
    pub table: DecisionTable,
    /// The image.
    pub image: Image,
}

/// Reads and checks; reports what the compiler says; writes lock files that have to change.
///
/// # Errors
/// A file cannot be read. Mistakes in policies are no error here; see [`Input::checked`].
pub fn read(arguments: &Sources, style: &Style) -> Result<Input, Failure> {
    check(load(arguments)?, arguments, style)
}

/// As [`read`], with an item from the command line, which sees what the first file sees.
///
/// # Errors
/// A file cannot be read.
pub fn read_with_item(arguments: &Sources, item: &str, style: &Style) -> Result<Input, Failure> {
    let mut input = load(arguments)?;
    let mut text = String::new();
    if let Some((_, first)) = input.files.first() {
        let package = first.package.as_ref().map(path_text).unwrap_or_default();
        text = format!("package {package}\n");
        for item in &first.items {
            if let Item::Use(path) = item {
                text.push_str(&format!("use {}\n", path_text(path)));
            }
        }
    }
    text.push_str(item);
    text.push('\n');
    add(&mut input, PathBuf::from("command line"), text);
    check(input, arguments, style)
}

fn check(mut input: Input, arguments: &Sources, style: &Style) -> Result<Input, Failure> {
    let locks = read_locks(&input)?;
    let checked = govc_compiler::check::check(&input.files, &locks);
    let parsed = input.diagnostics.is_empty();
    // What could not be parsed may be the use of a name, or the item that another one hides.
    let worth_saying = |d: &Diagnostic| parsed || d.severity() == Severity::Error;
    input.diagnostics.extend(checked.diagnostics.into_iter().filter(worth_saying));
    let sound = input.diagnostics.iter().all(|d| d.severity() != Severity::Error);
    input.policy = checked.policy.filter(|_| sound);
    report(&input, arguments.format, style)?;
    if sound {
        write_locks(&input, &locks, &checked.locks, arguments.locked)?;
    }
    Ok(input)
}

impl Input {
    /// The policy.
    ///
    /// # Errors
    /// There are mistakes in it, which have been reported.
    pub fn checked(&self) -> Result<&Policy, Failure> {
        self.policy.as_ref().ok_or(Failure::Told)
    }

    /// The policy's name for people: the package of the first file.
    pub fn title(&self) -> String {
        let package = self.files.first().and_then(|(_, file)| file.package.as_ref());
        package.map_or_else(|| "policy".into(), path_text)
    }

    /// Compiles the policy, whose assertions must hold.
    ///
    /// # Errors
    /// There are mistakes in it, it passes a limit, or an assertion does not hold.
    pub fn compile(&self, format: Format, style: &Style) -> Result<Compiled, Failure> {
        let compiled = self.compile_unproven(format, style)?;
        let (policy, names) = (self.checked()?, compiled.image.names());
        let diagnostics = analysis::assertions::diagnose(policy, &compiled.table, names);
        for diagnostic in &diagnostics {
            tell(diagnostic, &self.sources, format, style)?;
        }
        if diagnostics.is_empty() { Ok(compiled) } else { Err(Failure::Told) }
    }

    /// Compiles the policy, whatever becomes of its assertions.
    ///
    /// # Errors
    /// There are mistakes in it, or it passes a limit.
    pub fn compile_unproven(&self, format: Format, style: &Style) -> Result<Compiled, Failure> {
        let policy = self.checked()?;
        govc_compiler::compile(policy, &self.sources, &self.title())
            .map(|(table, image)| Compiled { table, image })
            .map_err(|diagnostic| {
                let _ = tell(&diagnostic, &self.sources, format, style);
                Failure::Told
            })
    }
}

/// Reads the files of the command line, then the packages that they use.
fn load(arguments: &Sources) -> Result<Input, Failure> {
    let mut input = Input {
        sources: Vec::new(),
        paths: Vec::new(),
        files: Vec::new(),
        diagnostics: Vec::new(),
        policy: None,
    };
    for path in &arguments.files {
        if path.is_dir() {
            return Err(Failure::Usage {
                message: format!("`{}` is a directory", path.display()),
                help: "Name the policy files in it.".into(),
            });
        }
        let text = read_text(path)?;
        add(&mut input, path.clone(), text);
    }
    let mut searched = BTreeSet::new();
    let mut next = 0;
    while let Some((_, file)) = input.files.get(next) {
        let origin = input.paths.get(next).cloned().unwrap_or_default();
        let wanted: Vec<ast::Path> = file
            .items
            .iter()
            .filter_map(|item| if let Item::Use(path) = item { Some(path.clone()) } else { None })
            .collect();
        for package in wanted {
            let known = input.files.iter().any(|(_, file)| {
                file.package.as_ref().is_some_and(|p| path_text(p) == path_text(&package))
            });
            if !known && searched.insert(path_text(&package)) {
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

/// Looks for `a/b.gov`, then for `b.gov`, beside the file that uses package `a.b`, in the
/// directories above it, and under the search path. A package that is not found is the
/// checker's to report.
fn find_package(
    input: &mut Input,
    package: &ast::Path,
    origin: &Path,
    include: &[PathBuf],
) -> Result<(), Failure> {
    let names: Vec<&str> = package.segments.iter().map(|name| name.text.as_str()).collect();
    let mut long = names.iter().collect::<PathBuf>();
    long.set_extension("gov");
    let short = PathBuf::from(format!("{}.gov", names.last().copied().unwrap_or_default()));
    let beside =
        origin.ancestors().skip(1).take(names.len() + 1).map(|dir| {
            if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_path_buf() }
        });
    for dir in include.iter().cloned().chain(beside) {
        for candidate in [dir.join(&long), dir.join(&short)] {
            if !candidate.is_file() {
                continue;
            }
            let text = read_text(&candidate)?;
            let (file, _) = govc_grammar::parse(FileId(0), &text);
            if file.package.is_some_and(|p| path_text(&p) == path_text(package)) {
                let tidy = candidate.strip_prefix(".").map(Path::to_path_buf).unwrap_or(candidate);
                add(input, tidy, text);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String, Failure> {
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

fn path_text(path: &ast::Path) -> String {
    path.segments.iter().map(|name| name.text.as_str()).collect::<Vec<_>>().join(".")
}

/// Files that own a domain, with their packages: their lock files lie beside them.
fn vocabularies(input: &Input) -> impl Iterator<Item = (String, PathBuf)> + '_ {
    input.files.iter().zip(&input.paths).filter_map(|((_, file), path)| {
        let owns = file.items.iter().any(|item| matches!(item, Item::Domain(_)));
        let package = file.package.as_ref().filter(|_| owns)?;
        Some((path_text(package), path.with_extension("lock")))
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

fn write_locks(input: &Input, old: &Locks, new: &Locks, locked: bool) -> Result<(), Failure> {
    for (package, path) in vocabularies(input) {
        let Some(lock) = new.get(&package) else { continue };
        if old.get(&package) == Some(lock) {
            continue;
        }
        if locked {
            return Err(Failure::Usage {
                message: format!("`{}` would have to change", path.display()),
                help: "Run `govc check` without --locked, review the lock file and commit it."
                    .into(),
            });
        }
        write_whole(&path, lock.to_text().as_bytes())?;
    }
    Ok(())
}

/// Writes a file whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = fs::File::create_new(&temporary)
        .and_then(|mut f| std::io::Write::write_all(&mut f, bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(file("write", path))
}

/// Reports diagnostics, errors last so that they stand at the end of a terminal.
fn report(input: &Input, format: Format, style: &Style) -> Result<(), Failure> {
    let mut ordered: Vec<&Diagnostic> = input.diagnostics.iter().collect();
    ordered.sort_by_key(|d| (d.severity(), d.span().map(|span| (span.file, span.start))));
    for diagnostic in ordered {
        tell(diagnostic, &input.sources, format, style)?;
    }
    Ok(())
}

/// Reports one diagnostic.
pub fn tell(
    diagnostic: &Diagnostic,
    sources: &[Source],
    format: Format,
    style: &Style,
) -> Result<(), Failure> {
    match format {
        Format::Human => {
            use std::io::Write as _;
            let text = style.diagnostic(diagnostic, sources);
            std::io::stderr().write_all(text.as_bytes())?;
            Ok(())
        }
        Format::Json => {
            let shown = JsonDiagnostic::new(diagnostic, sources);
            let text = serde_json::to_string(&shown).map_err(std::io::Error::other)?;
            line(&text)
        }
    }
}

/// Shorthand for errors of files.
pub fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_path_buf();
    move |source| Failure::File { what, path, source }
}
