//! `check --fix`: applying the fixes that are sure.

use govc_compiler::fixes;
use govc_grammar::diagnostic::Fix;

use super::{
    changes::{self, Change},
    check::{conclude, findings},
    plural,
};
use crate::{
    arguments::Check,
    failure::Failure,
    input::{self, Input, Overlay},
    output::{Style, line},
};

/// A fix may bring to light what another one mends; more rounds than this are going in circles.
const ROUNDS_MAX: usize = 16;

pub fn fix(arguments: &Check, style: &Style) -> Result<(), Failure> {
    let (sources, json) = (&arguments.sources, arguments.shorthand.json);
    let mut overlay = Overlay::new();
    let mut input = input::read(sources, json, &overlay, findings(arguments))?;
    let originals: Vec<String> = input.sources.iter().map(|source| source.text.clone()).collect();
    for _ in 0..ROUNDS_MAX {
        if !round(&input, sources.files.len(), &mut overlay) {
            break;
        }
        input = input::read(sources, json, &overlay, findings(arguments))?;
    }
    let mut changed = Vec::new();
    for (path, before) in sources.files.iter().zip(originals) {
        if let Some(after) = overlay.get(path).filter(|text| **text != before) {
            changed.push(Change { path: path.clone(), before, after: after.clone() });
        }
    }
    if arguments.diff {
        for change in &changed {
            change.show(style)?;
        }
        input.report(style)?;
        input.compiled()?;
        return if changed.is_empty() { Ok(()) } else { Err(Failure::Told) };
    }
    changes::write(&changed)?;
    input.finish(sources, style)?;
    if !changed.is_empty() && input.format().is_chatty() {
        line(&format!("{} fixed", plural(changed.len(), "file")))?;
    }
    conclude(&input, style)
}

/// Applies what is sure to the files that were named; whether anything changed.
fn round(input: &Input, files_named: usize, overlay: &mut Overlay) -> bool {
    // Packages that are only used belong to somebody else.
    let named = |fix: &&Fix| fix.edits.iter().all(|edit| (edit.span.file.0 as usize) < files_named);
    let fixes = fixes::sure(&input.diagnostics).filter(named);
    let mut changed = false;
    for (file, text) in fixes::apply(&input.sources, fixes) {
        let at = file.0 as usize;
        if let (Some(path), Some(source)) = (input.paths.get(at), input.sources.get(at)) {
            changed |= source.text != text;
            overlay.insert(path.clone(), text);
        }
    }
    changed
}
