//! The scope tree of a domain: what was written, flattened, with levels inherited and numbers
//! handed out.

use govc_grammar::ast;
use govc_grammar::diagnostic::Diagnostic;
use rustc_hash::FxHashMap;
use smol_str::{SmolStr, format_smolstr};

use super::blocks::{Space, Trouble, Wanted};
use super::kind::{Flat, Kind};
use super::names::unknown_among;
use super::sink::Sink;
use crate::checked;
use crate::codes;
use crate::lock::{Lock, LockedScope, SUBJECT_LAST};
use crate::vocabulary::{DomainNames, ScopeSource, defined_twice};

/// A numbered scope tree; see [`DomainNames`].
pub(crate) struct Tree {
    pub(crate) scopes: Vec<checked::Scope>,
    pub(crate) sources: Vec<ScopeSource>,
    pub(crate) by_name: FxHashMap<(u32, SmolStr), u32>,
}

/// A scope on its way: everything but its numbers.
struct Entry<'a> {
    scope: &'a ast::Scope,
    parent: Option<usize>,
    path: SmolStr,
    level: u8,
    compartments: u16,
    /// Position behind its last descendant.
    end: usize,
}

/// Numbers all scopes of a domain; `names` has its levels and compartments already.
pub(crate) fn number(
    names: &DomainNames,
    roots: &[&ast::ScopeRoot],
    lock: &mut Lock,
    sink: &mut Sink,
) -> Tree {
    let lowest = names.checked.levels.first().map_or(0, |(_, number)| *number);
    let mut flat = Flattening { names, sink, entries: Vec::new(), by_name: FxHashMap::default() };
    for root in roots {
        flat.add_all(&root.entries, None, lowest, 0);
    }
    let Flattening { entries, by_name, .. } = flat;
    let mut space = Space::new(&lock.scopes);
    let wanted: Vec<Wanted> = entries.iter().map(|entry| wanted(entry, sink)).collect();
    let placed = space.place(&wanted);
    report_troubles(names.name(), &entries, &placed, sink);
    lock.scopes = space.into_locked();
    let mut tree = Tree { scopes: Vec::new(), sources: Vec::new(), by_name };
    for ((entry, wanted), placed) in entries.iter().zip(&wanted).zip(placed) {
        let locked = placed.unwrap_or_default();
        let subjects = wanted.subjects.zip(locked.subjects);
        tree.scopes.push(checked::Scope {
            path: entry.path.clone(),
            blocks: locked.blocks,
            // The lock may remember more subjects than the batch has now.
            subjects: subjects.map(|(count, (first, _))| (first, first + (count - 1))),
            level: entry.level,
            compartments: entry.compartments,
        });
        tree.sources.push(ScopeSource {
            span: entry.scope.name.span,
            end: entry.end,
            groups: !entry.scope.children.is_empty(),
        });
    }
    tree
}

struct Flattening<'a, 'c> {
    names: &'c DomainNames,
    sink: &'c mut Sink,
    entries: Vec<Entry<'a>>,
    by_name: FxHashMap<(u32, SmolStr), u32>,
}

impl<'a> Flattening<'a, '_> {
    fn add_all(
        &mut self,
        scopes: &'a [ast::Scope],
        parent: Option<usize>,
        level: u8,
        compartments: u16,
    ) {
        for scope in scopes {
            self.add(scope, parent, level, compartments);
        }
    }

    fn add(&mut self, scope: &'a ast::Scope, parent: Option<usize>, level: u8, compartments: u16) {
        let at = self.entries.len();
        let name = &scope.name;
        let key = (parent.map_or(0, as_key), name.text.clone());
        if let Some(&first) = self.by_name.get(&key) {
            if let Some(first) = self.entries.get(first as usize) {
                let path = first.path.clone();
                let first = first.scope.name.span;
                self.sink.push(defined_twice(&path, Kind::Scope, name.span, first));
            }
            return;
        }
        self.by_name.insert(key, as_key(at) - 1);
        let above = parent.and_then(|parent| self.entries.get(parent));
        let path = match above {
            Some(above) => format_smolstr!("{}.{}", above.path, name.text),
            None => name.text.clone(),
        };
        let inherited = level;
        let level = self.level(scope, parent.map(|_| inherited)).unwrap_or(inherited);
        let compartments = match &scope.compartments {
            Some(names) => self.compartments(names),
            None => compartments,
        };
        self.entries.push(Entry { scope, parent, path, level, compartments, end: 0 });
        self.add_all(&scope.children, Some(at), level, compartments);
        let end = self.entries.len();
        if let Some(entry) = self.entries.get_mut(at) {
            entry.end = end;
        }
    }

    /// The scope's own level, when it says one.
    fn level(&mut self, scope: &ast::Scope, parent: Option<u8>) -> Option<u8> {
        let name = scope.level.as_ref()?;
        let Some(level) = self.names.flat(Flat::Level, &name.text) else {
            let diagnostic = unknown_among(self.names, Flat::Level, name);
            return self.sink.fail(diagnostic);
        };
        let level = u8::try_from(level).ok()?;
        if let Some(parent) = parent.filter(|&parent| level > parent) {
            let above = self.names.level_name(parent);
            let message = format!(
                "`{}` is at `{}`, above its parent's level `{above}`",
                scope.name.text, name.text
            );
            self.sink.push(
                Diagnostic::new(codes::LEVEL_ABOVE_PARENT, message, name.span, "above the parent")
                    .help(format!("lower it to `{above}`, or raise the parent's level")),
            );
        }
        Some(level)
    }

    fn compartments(&mut self, names: &[ast::Name]) -> u16 {
        let mut mask = 0;
        for name in names {
            match self.names.flat(Flat::Compartment, &name.text) {
                Some(bit) => mask |= 1_u16.checked_shl(bit.into()).unwrap_or(0),
                None => self.sink.push(unknown_among(self.names, Flat::Compartment, name)),
            }
        }
        mask
    }
}

/// Position + 1; 0 stands for the domain.
fn as_key(position: usize) -> u32 {
    u32::try_from(position + 1).unwrap_or(u32::MAX)
}

fn wanted(entry: &Entry<'_>, sink: &mut Sink) -> Wanted {
    let Entry { scope, path, parent, .. } = entry;
    let leaf = scope.children.is_empty();
    let mut subjects = leaf.then_some(1);
    if let Some(count) = &scope.count {
        let counted = u32::try_from(count.value).ok().filter(|&count| count <= SUBJECT_LAST);
        match counted {
            _ if !leaf => {
                let message = format!("`{path}` groups other scopes and has a count");
                sink.push(
                    Diagnostic::new(codes::COUNT_ON_GROUP, message, count.span, "a count")
                        .help("give the count to a scope inside it: only those have subjects"),
                );
            }
            Some(0) => {
                let message = format!("`{path}` is a batch of no subjects");
                sink.push(
                    Diagnostic::new(codes::COUNT_ZERO, message, count.span, "no subjects")
                        .help("write how many there are, or leave out the count for one"),
                );
            }
            None => {
                let message = format!("`{path}` has more than {SUBJECT_LAST} subjects");
                sink.push(
                    Diagnostic::new(codes::TOO_MANY_SUBJECTS, message, count.span, "too many")
                        .help("a label has 24 bits for the subject"),
                );
            }
            Some(_) => subjects = counted,
        }
    }
    Wanted { path: path.clone(), parent: *parent, subjects }
}

fn report_troubles(
    domain: &str,
    entries: &[Entry<'_>],
    placed: &[Result<LockedScope, Trouble>],
    sink: &mut Sink,
) {
    let mut full = false;
    for (entry, placed) in entries.iter().zip(placed) {
        let (name, path) = (&entry.scope.name, &entry.path);
        match placed {
            Ok(_) => {}
            // One report: what comes after it finds no numbers either.
            Err(Trouble::Full) if full => {}
            Err(Trouble::Full) => {
                full = true;
                let message = format!("domain `{domain}` has no subject numbers left for `{path}`");
                sink.push(
                    Diagnostic::new(codes::TOO_MANY_SUBJECTS, message, name.span, "no room").help(
                        "a label has 24 bits for the subject, and numbers of retired scopes stay \
                         taken: use smaller batches",
                    ),
                );
            }
            Err(Trouble::Stuck(had)) => {
                let count = entry.scope.count.map_or(name.span, |count| count.span);
                let wanted = entry.scope.count.map_or(1, |count| count.value);
                let message = format!("`{path}` cannot grow from {had} to {wanted} subjects");
                let more = wanted.saturating_sub((*had).into());
                let size = if *had == 1 { String::new() } else { format!("[{had}]") };
                let help = format!(
                    "the numbers behind it belong to another scope, and numbers are never moved: \
                     keep `{0}{size}` and add `{0}_more[{more}]` beside it",
                    name.text
                );
                sink.push(
                    Diagnostic::new(codes::BATCH_CANNOT_GROW, message, count, "no room").help(help),
                );
            }
        }
    }
}
