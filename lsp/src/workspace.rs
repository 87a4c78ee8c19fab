//! The policies of a workspace, checked together where they belong together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use govc_compiler::check;
use govc_compiler::checked::Policy;
use govc_compiler::expectations;
use govc_compiler::index::{Definition, Index};
use govc_compiler::lock::Locks;
use govc_compiler::packages;
use govc_compiler::sources::Source;
use govc_grammar::ast::{self, Item};
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::{FileId, Span};
use lsp_types::Uri;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Host;
use crate::files::{File, Files};
use crate::positions::Encoding;

/// Everything that the server knows about policies.
pub struct Workspace<'h> {
    pub(crate) host: &'h dyn Host,
    pub(crate) encoding: Encoding,
    pub(crate) files: Files,
    /// Directories in which packages are looked for.
    search: Vec<PathBuf>,
    units: BTreeMap<UnitKey, Unit>,
    /// The unit that is about each file.
    unit_of_file: FxHashMap<FileId, UnitKey>,
    /// The files' revision that `units` was made for.
    grouped: Option<u64>,
}

/// A directory and a package: files of one package that lie beside each other are checked
/// together. Where two of them define the same name they are meant for different nodes, and each
/// file has a unit of its own, by its path. So do files without a package.
pub(crate) type UnitKey = (PathBuf, String);

/// Files that are checked together.
#[derive(Default)]
pub(crate) struct Unit {
    /// The files that it is about.
    pub(crate) roots: Vec<FileId>,
    /// Files of their package that go with them, and that other units are about.
    companions: Vec<FileId>,
    /// These, and all that they use, with the revision that was checked.
    pub(crate) members: Vec<(FileId, u64)>,
    /// Trees of the members.
    pub(crate) trees: Vec<(FileId, ast::File)>,
    /// The revision of all files at which it was found up to date.
    fresh_at: Option<u64>,
    /// What checking says.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What the analysis says, when it was asked; expectations are settled then.
    pub(crate) analysed: Option<Vec<Diagnostic>>,
    pub(crate) index: Index,
    pub(crate) policy: Option<Policy>,
    /// Grows with every check.
    pub(crate) generation: u64,
    /// The check whose findings the editor was told.
    pub(crate) published: u64,
}

impl Unit {
    /// All that there is to say now.
    pub(crate) fn told(&self) -> &[Diagnostic] {
        self.analysed.as_deref().unwrap_or(&self.diagnostics)
    }

    /// Position of a file among the members.
    fn position(&self, file: FileId) -> Option<usize> {
        self.members.iter().position(|(member, _)| *member == file)
    }

    /// What a file can name.
    pub(crate) fn visible_from(&self, file: FileId) -> impl Iterator<Item = &Definition> {
        self.position(file).into_iter().flat_map(|at| self.index.visible_from(at))
    }
}

impl<'h> Workspace<'h> {
    /// The policies below these directories; `search` are further directories for packages.
    pub fn new(host: &'h dyn Host, folders: &[PathBuf], search: &[PathBuf]) -> Self {
        let mut workspace = Self {
            host,
            encoding: Encoding::Utf16,
            files: Files::default(),
            search: search.iter().chain(folders).cloned().collect(),
            units: BTreeMap::new(),
            unit_of_file: FxHashMap::default(),
            grouped: None,
        };
        for folder in folders {
            for path in host.policies_below(folder) {
                workspace.files.find(&path, host);
            }
        }
        workspace
    }

    /// A text that is being edited, whole.
    pub fn edit(&mut self, uri: &Uri, version: i32, text: String) {
        self.files.edit(uri, version, text);
    }

    /// The file that an editor means.
    pub(crate) fn file(&self, uri: &Uri) -> Option<&File> {
        self.files.at(&crate::uris::path(uri))
    }

    /// Whether a unit has to be checked; the one with the file that was edited last comes first.
    pub(crate) fn next_stale(&mut self, edited: Option<FileId>) -> Option<UnitKey> {
        self.group();
        let revision = self.files.revision;
        let stale = |unit: &Unit| unit.fresh_at != Some(revision);
        let of_edited = edited.and_then(|file| self.key_of(file));
        if let Some(key) = of_edited
            && self.units.get(&key).is_some_and(stale)
        {
            return Some(key);
        }
        self.units.iter().find(|(_, unit)| stale(unit)).map(|(key, _)| key.clone())
    }

    /// A unit that was checked for a question in between, so that nobody was told.
    pub(crate) fn next_unpublished(&self) -> Option<UnitKey> {
        let mut units = self.units.iter();
        let unit = units.find(|(_, unit)| unit.published != unit.generation);
        unit.map(|(key, _)| key.clone())
    }

    /// Diagnostics of the unit that is about a file, checked if it is not.
    pub fn checked(&mut self, file: &Path) -> Option<&[Diagnostic]> {
        let id = self.files.at(file)?.id;
        self.unit_of(id).map(Unit::told)
    }

    /// The unit that is about a file, checked if it is not.
    pub(crate) fn unit_of(&mut self, file: FileId) -> Option<&Unit> {
        self.group();
        let key = self.key_of(file)?;
        self.refresh(&key);
        self.units.get(&key)
    }

    pub(crate) fn unit(&self, key: &UnitKey) -> Option<&Unit> {
        self.units.get(key)
    }

    pub(crate) fn unit_mut(&mut self, key: &UnitKey) -> Option<&mut Unit> {
        self.units.get_mut(key)
    }

    /// All units, checked.
    pub(crate) fn all_units(&mut self) -> impl Iterator<Item = &Unit> {
        while let Some(key) = self.next_stale(None) {
            self.refresh(&key);
        }
        self.units.values()
    }

    pub(crate) fn units(&self) -> impl Iterator<Item = (&UnitKey, &Unit)> {
        self.units.iter()
    }

    fn key_of(&self, file: FileId) -> Option<UnitKey> {
        self.unit_of_file.get(&file).cloned()
    }

    /// Sorts all files into units, keeping what is known of those that stay the same.
    fn group(&mut self) {
        if self.grouped == Some(self.files.revision) {
            return;
        }
        let mut roots: BTreeMap<UnitKey, Vec<FileId>> = BTreeMap::new();
        for file in self.files.all() {
            roots.entry(key(file)).or_default().push(file.id);
        }
        let mut old = std::mem::take(&mut self.units);
        self.unit_of_file.clear();
        for (key, roots) in roots {
            for (key, roots, companions) in self.split(key, roots) {
                self.unit_of_file.extend(roots.iter().map(|root| (*root, key.clone())));
                let same = |unit: &Unit| unit.roots == roots && unit.companions == companions;
                let known = old.remove(&key).filter(same);
                let unit = known.unwrap_or_else(|| Unit { roots, companions, ..Unit::default() });
                self.units.insert(key, unit);
            }
        }
        self.grouped = Some(self.files.revision);
    }

    /// One unit for files that go together; else one for each, with those that go with it.
    fn split(&self, key: UnitKey, roots: Vec<FileId>) -> Vec<(UnitKey, Vec<FileId>, Vec<FileId>)> {
        let names: Vec<FxHashSet<(&str, &str)>> =
            roots.iter().map(|id| self.files.get(*id).map(defined).unwrap_or_default()).collect();
        let mut all = FxHashSet::default();
        if names.iter().flatten().all(|name| all.insert(*name)) {
            return vec![(key, roots, Vec::new())];
        }
        let alone = |(root, own): (&FileId, &FxHashSet<(&str, &str)>)| {
            let path = self.files.get(*root)?.path.clone();
            let others = roots.iter().zip(&names).filter(|(other, _)| *other != root);
            let fitting = others.filter(|(_, names)| names.is_disjoint(own));
            let companions = fitting.map(|(other, _)| *other).collect();
            Some(((path, key.1.clone()), vec![*root], companions))
        };
        roots.iter().zip(&names).filter_map(alone).collect()
    }

    /// Brings a unit up to date; whether it had to be checked.
    pub(crate) fn refresh(&mut self, key: &UnitKey) -> bool {
        let Some(unit) = self.units.get(key) else { return false };
        if unit.fresh_at == Some(self.files.revision) {
            return false;
        }
        let family = [unit.roots.as_slice(), unit.companions.as_slice()].concat();
        let members = self.members(family);
        let Some(mut unit) = self.units.remove(key) else { return false };
        unit.fresh_at = Some(self.files.revision);
        let changed = unit.members != members;
        if changed {
            self.take_trees(&mut unit, members);
            self.check(&mut unit);
        }
        self.units.insert(key.clone(), unit);
        changed
    }

    /// Files with all that they use, packages looked for as the command line does.
    fn members(&mut self, mut members: Vec<FileId>) -> Vec<(FileId, u64)> {
        let mut searched: Vec<String> = Vec::new();
        let mut next = 0;
        while let Some(file) = members.get(next).and_then(|id| self.files.get(*id)) {
            next += 1;
            let (origin, wanted): (_, Vec<ast::Path>) =
                (file.path.clone(), file.tree.uses().cloned().collect());
            for package in wanted {
                let name: String = package.text().into();
                let known = members.iter().any(|id| self.declares(*id, &name));
                if known || searched.contains(&name) {
                    continue;
                }
                for candidate in packages::candidates(&package, &origin, &self.search) {
                    let found = self.files.find(&candidate, self.host);
                    if let Some(found) = found.filter(|id| self.declares(*id, &name)) {
                        members.push(found);
                        break;
                    }
                }
                searched.push(name);
            }
        }
        let revision = |id: FileId| self.files.get(id).map_or(0, |file| file.revision);
        members.into_iter().map(|id| (id, revision(id))).collect()
    }

    fn declares(&self, file: FileId, package: &str) -> bool {
        self.files.get(file).and_then(File::package).is_some_and(|own| own == package)
    }

    /// Copies the trees that changed.
    fn take_trees(&self, unit: &mut Unit, members: Vec<(FileId, u64)>) {
        let mut old: Vec<Option<ast::File>> =
            std::mem::take(&mut unit.trees).into_iter().map(|(_, tree)| Some(tree)).collect();
        let before = std::mem::replace(&mut unit.members, members);
        for member in &unit.members {
            let kept = before.iter().position(|known| known == member);
            let kept = kept.and_then(|at| old.get_mut(at)).and_then(Option::take);
            let tree = kept.or_else(|| Some(self.files.get(member.0)?.tree.clone()));
            unit.trees.push((member.0, tree.unwrap_or_default()));
        }
    }

    fn check(&self, unit: &mut Unit) {
        let syntax = |(id, _): &(FileId, u64)| {
            self.files.get(*id).map(|file| file.syntax.clone()).unwrap_or_default()
        };
        let syntax: Vec<Diagnostic> = unit.members.iter().flat_map(syntax).collect();
        let locks = self.locks(unit);
        let (checked, index) = check::check_parsed_indexed(&unit.trees, syntax, &locks);
        let told = checked.diagnostics.into_iter();
        let told = told.filter(|diagnostic| !is_about_alternatives(diagnostic, unit));
        unit.diagnostics = expectations::settle(&unit.trees, told.collect(), false);
        (unit.policy, unit.index, unit.analysed) = (checked.policy, index, None);
        unit.generation += 1;
    }

    /// The lock files beside the vocabularies of a unit.
    fn locks(&self, unit: &Unit) -> Locks {
        let mut locks = Locks::default();
        for (id, tree) in &unit.trees {
            let Some(package) = tree.package.as_ref().filter(|_| tree.has_domain()) else {
                continue;
            };
            let lock = self.files.get(*id).map(|file| file.path.with_extension("lock"));
            if let Some(text) = lock.and_then(|path| self.host.read(&path)) {
                locks.insert_text(package.text(), &text);
            }
        }
        locks
    }

    /// Texts by [`FileId`], those of other units left empty.
    pub(crate) fn sources(&self, unit: &Unit) -> Vec<Source> {
        let last = unit.members.iter().map(|(id, _)| id.0).max().map_or(0, |last| last + 1);
        let source = |at| {
            let id = FileId(at);
            let file = unit.position(id).and_then(|_| self.files.get(id));
            let name = file.map(|file| file.path.display().to_string()).unwrap_or_default();
            Source { name, text: file.map(|file| file.text.clone()).unwrap_or_default() }
        };
        (0..last).map(source).collect()
    }

    /// What a place names, and where that is defined.
    pub(crate) fn named_at(&mut self, place: Span) -> Option<(Span, Definition)> {
        let unit = self.unit_of(place.file)?;
        unit.index.at(place).map(|(span, definition)| (span, definition.clone()))
    }
}

fn key(file: &File) -> UnitKey {
    let folder = file.path.parent().map(Path::to_path_buf).unwrap_or_default();
    match file.package() {
        Some(package) => (folder, package),
        None => (file.path.clone(), String::new()),
    }
}

/// The names that only one file of a package can define, with what they are.
fn defined(file: &File) -> FxHashSet<(&str, &str)> {
    let mut names = FxHashSet::default();
    for item in &file.tree.items {
        match item {
            Item::Policy(policy) => drop(names.insert(("policy", policy.name.text.as_str()))),
            Item::Zone(list) => {
                names.extend(list.iter().map(|zone| ("zone", zone.name.text.as_str())));
            }
            Item::Template(template) => {
                names.insert(("template", template.name.text.as_str()));
            }
            Item::Let(list) => names.extend(list.iter().map(|set| ("let", set.name.text.as_str()))),
            Item::Tier(list) => {
                names.extend(list.iter().map(|tier| ("tier", tier.name.text.as_str())));
            }
            Item::Domain(_) => drop(names.insert(("domain", ""))),
            _ => {}
        }
    }
    names
}

/// Files of one package may be meant for different nodes and never be loaded together. What is
/// only strange when they are is not told.
fn is_about_alternatives(diagnostic: &Diagnostic, unit: &Unit) -> bool {
    use govc_grammar::diagnostic::Severity;
    let mut files = diagnostic.labels.iter().map(|label| label.span.file);
    let first = files.next();
    diagnostic.severity() != Severity::Error
        && files.any(|file| {
            Some(file) != first && (unit.roots.contains(&file) || unit.companions.contains(&file))
        })
}
