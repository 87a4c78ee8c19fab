//! Where packages are looked for. Whoever asks does the reading.

use std::path::{Path, PathBuf};

use govc_grammar::ast;

/// The files that package `a.b` may be in, the likeliest first: `a/b.gov`, then `b.gov`, in the
/// directories of the search path, beside the file `origin` that uses it, and in the directories
/// above.
pub fn candidates<'p>(
    package: &ast::Path,
    origin: &'p Path,
    search: &'p [PathBuf],
) -> impl Iterator<Item = PathBuf> + use<'p> {
    let names: Vec<&str> = package.segments.iter().map(|name| name.text.as_str()).collect();
    let mut long = names.iter().collect::<PathBuf>();
    long.set_extension("gov");
    let short = PathBuf::from(format!("{}.gov", names.last().copied().unwrap_or_default()));
    let beside = origin.ancestors().skip(1).take(names.len() + 1);
    search
        .iter()
        .map(PathBuf::as_path)
        .chain(beside)
        .flat_map(move |folder| [folder.join(&long), folder.join(&short)])
}
