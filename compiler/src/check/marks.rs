//! Uses of names that are private or deprecated.

use govc_grammar::ast::{self, MarkKind};
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::FileId;
use rustc_hash::FxHashMap;

use super::sink::Sink;
use crate::codes;
use crate::index::Index;
use crate::resolve::World;

/// Whether any name is marked, so that uses have to be looked at.
pub(crate) fn any(files: &[(FileId, ast::File)]) -> bool {
    let says = |mark: &ast::Mark| !matches!(mark.kind, MarkKind::Documentation(_));
    files.iter().any(|(_, file)| file.marks.iter().any(says))
}

/// Reports what uses private names of other packages, and warns about deprecated names that are
/// used and private ones that are not.
pub(crate) fn check(world: &World<'_>, index: &Index, sink: &mut Sink) {
    let files = world.files.iter().zip(&world.packages.views);
    let packages: FxHashMap<FileId, usize> =
        files.map(|((file, _), view)| (*file, view.package)).collect();
    let mut used = vec![false; index.definitions.len()];
    for &(place, at) in &index.uses {
        let Some(definition) = index.definitions.get(at).filter(|one| one.span != place) else {
            continue;
        };
        if let Some(used) = used.get_mut(at) {
            *used = true;
        }
        let (noun, full) = (definition.kind.noun(), &definition.full);
        if definition.private && packages.get(&place.file) != Some(&definition.package) {
            let package = world.packages.text(definition.package);
            let message = format!("{noun} `{full}` is private to package `{package}`");
            sink.push(
                Diagnostic::new(codes::PRIVATE_NAME, message, place, "private")
                    .and(definition.span, "defined here")
                    .help("use a name that the package offers, or remove `private` there"),
            );
        } else if let Some(instead) = &definition.deprecated {
            let message = format!("{noun} `{full}` is deprecated");
            sink.push(
                Diagnostic::new(codes::DEPRECATED, message, place, "deprecated")
                    .and(definition.span, "defined here")
                    .help(instead.to_string()),
            );
        }
    }
    let unused = index.definitions.iter().zip(used).filter(|(one, used)| one.private && !used);
    for (definition, _) in unused {
        let message = format!("{} `{}` is never used", definition.kind.noun(), definition.full);
        sink.push(
            Diagnostic::new(codes::UNUSED, message, definition.span, "never used")
                .help("use it, or remove it: no other package can use what is private"),
        );
    }
}
