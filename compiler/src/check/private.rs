//! Names that their packages keep to themselves: others are neither offered them nor led astray
//! by them.

use govc_grammar::ast::{self, MarkKind};
use rustc_hash::FxHashSet;
use smol_str::{SmolStr, format_smolstr};

use super::kind::Kind;

/// The private names of all packages.
#[derive(Default)]
pub(crate) struct Private(FxHashSet<(usize, Kind, SmolStr)>);

impl Private {
    /// Adds those of a file.
    pub(crate) fn add(&mut self, file: &ast::File, package: usize) {
        let private = file.marks.iter().filter(|mark| mark.kind == MarkKind::Private);
        let mut places: Vec<_> = private.map(|mark| mark.covers).collect();
        if places.is_empty() {
            return;
        }
        places.sort_unstable();
        let mut put = |kind, name: &ast::Name, text: SmolStr| {
            let before = places.partition_point(|place| place.start <= name.span.start);
            let place = before.checked_sub(1).and_then(|at| places.get(at));
            if place.is_some_and(|place| place.contains(name.span)) {
                self.0.insert((package, kind, text));
            }
        };
        for item in &file.items {
            let mut plain = |kind, name: &ast::Name| put(kind, name, name.text.clone());
            match item {
                ast::Item::Zone(list) => list.iter().for_each(|one| plain(Kind::Zone, &one.name)),
                ast::Item::Tier(list) => list.iter().for_each(|one| plain(Kind::Tier, &one.name)),
                ast::Item::Let(list) => {
                    list.iter().for_each(|one| plain(Kind::Prefixes, &one.name));
                }
                ast::Item::Template(one) => plain(Kind::Template, &one.name),
                ast::Item::Constraint(names) => {
                    names.iter().for_each(|name| plain(Kind::Constraint, name));
                }
                ast::Item::Residency(list) => {
                    list.iter().for_each(|one| plain(Kind::Residency, &one.name));
                }
                ast::Item::Route(names) => names.iter().for_each(|name| plain(Kind::Route, name)),
                ast::Item::Operation(groups) => {
                    for group in groups {
                        plain(Kind::OperationGroup, &group.name);
                    }
                    for group in groups {
                        for name in &group.operations {
                            let full = format_smolstr!("{}.{}", group.name.text, name.text);
                            put(Kind::Operation, name, full);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a package keeps a name, as it is written in full, to itself.
    pub(crate) fn holds(&self, package: usize, kind: Kind, name: &SmolStr) -> bool {
        // What a set holds does not matter.
        let kind = if kind == Kind::Ports { Kind::Prefixes } else { kind };
        !self.0.is_empty() && self.0.contains(&(package, kind, name.clone()))
    }
}
