//! `check --fix`: applying the fixes that are sure.

use std::path::{Path, PathBuf};

use govc_compiler::fixes;
use govc_grammar::diagnostic::Fix;
use similar::TextDiff;

use super::{
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
    for (path, original) in sources.files.iter().zip(originals) {
        if let Some(text) = overlay.get(path).filter(|text| **text != original) {
            changed.push((path.clone(), original, text.clone()));
        }
    }
    if arguments.diff {
        for (path, original, text) in &changed {
            show(path, original, text, style)?;
        }
        input.report(style)?;
        input.compiled()?;
        return if changed.is_empty() { Ok(()) } else { Err(Failure::Told) };
    }
    write(&changed)?;
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

fn show(path: &Path, original: &str, text: &str, style: &Style) -> Result<(), Failure> {
    let diff = TextDiff::from_lines(original, text);
    let (before, after) = (format!("a/{}", path.display()), format!("b/{}", path.display()));
    let diff = diff.unified_diff().header(&before, &after).to_string();
    for text in diff.lines() {
        line(&match text.chars().next() {
            Some('+') => style.good(text),
            Some('-') => style.bad(text),
            Some('@') => style.dim(text),
            _ => text.to_owned(),
        })?;
    }
    Ok(())
}

/// Writes the files, each whole or not at all, unless somebody changed them meanwhile.
fn write(changed: &[(PathBuf, String, String)]) -> Result<(), Failure> {
    for (path, original, _) in changed {
        if input::read_text(path)? != *original {
            return Err(Failure::Machine {
                message: format!("`{}` was changed while it was checked", path.display()),
                help: Some("Run the command again.".into()),
            });
        }
    }
    for (path, _, text) in changed {
        input::write_whole(path, text.as_bytes())?;
    }
    Ok(())
}
