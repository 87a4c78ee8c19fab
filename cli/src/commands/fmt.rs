//! `fmt`: the one layout.

use std::{collections::BTreeSet, io::Read as _, path::PathBuf};

use govc_compiler::sources::Source;
use govc_format::FormatError;

use super::{
    changes::{self, Change},
    plural,
};
use crate::{
    arguments::{Fmt, Format},
    failure::Failure,
    input,
    levels::Levels,
    output::{Style, line, out},
    report::{self, Reporting},
};

/// What stands for standard input on the command line.
const STANDARD_INPUT: &str = "-";

pub fn run(arguments: &Fmt, style: &Style) -> Result<(), Failure> {
    let named: &[PathBuf] = &arguments.files;
    if named.iter().any(|path| path.as_os_str() == STANDARD_INPUT) {
        if named.len() > 1 {
            return Err(Failure::Usage {
                message: "`-` stands beside other files".into(),
                help: "Lay out standard input on its own.".into(),
            });
        }
        return standard_input(arguments, style);
    }
    let mut files = BTreeSet::new();
    let here = [PathBuf::from(".")];
    for path in if named.is_empty() { &here } else { named } {
        if path.is_dir() {
            files.extend(input::policies_below(path, Err)?);
        } else {
            files.insert(path.clone());
        }
    }
    let mut changed = Vec::new();
    let mut faulty = false;
    for path in files {
        let before = input::read_source(&path)?;
        match lay_out(&path.display().to_string(), &before, style)? {
            Some(after) if after != before => changed.push(Change { path, before, after }),
            Some(_) => {}
            None => faulty = true,
        }
    }
    if arguments.check || arguments.diff {
        for change in &changed {
            tell(change, arguments, style)?;
        }
    } else {
        changes::write(&changed)?;
        if !changed.is_empty() {
            line(&format!("{} laid out", plural(changed.len(), "file")))?;
        }
    }
    let unwritten = (arguments.check || arguments.diff) && !changed.is_empty();
    if faulty || unwritten { Err(Failure::Told) } else { Ok(()) }
}

/// Shows what would change, or only where.
fn tell(change: &Change, arguments: &Fmt, style: &Style) -> Result<(), Failure> {
    if arguments.diff { change.show(style) } else { line(&change.path.display().to_string()) }
}

/// Policy text comes in and goes out.
fn standard_input(arguments: &Fmt, style: &Style) -> Result<(), Failure> {
    let path = PathBuf::from("standard input");
    let mut before = String::new();
    std::io::stdin().read_to_string(&mut before).map_err(input::file("read", &path))?;
    input::refuse_secrets(&path, &before)?;
    let name = path.display().to_string();
    let after = lay_out(&name, &before, style)?.ok_or(Failure::Told)?;
    if !(arguments.check || arguments.diff) {
        return out(after.as_bytes());
    }
    if after == before {
        return Ok(());
    }
    tell(&Change { path, before, after }, arguments, style)?;
    Err(Failure::Told)
}

/// The text laid out; `None` after its syntax errors were told.
fn lay_out(name: &str, text: &str, style: &Style) -> Result<Option<String>, Failure> {
    match govc_format::format(text) {
        Ok(after) => Ok(Some(after)),
        Err(FormatError::Syntax(diagnostics)) => {
            let sources = [Source { name: name.to_owned(), text: text.to_owned() }];
            let (format, levels) = (Format::Graphical, Levels::default());
            let reporting = Reporting { format, levels, limit: None };
            report::report(&diagnostics, &sources, &reporting, style)?;
            Ok(None)
        }
        Err(error @ FormatError::Changed) => Err(Failure::Machine {
            message: format!("`{name}` was left as it is: {error}"),
            help: Some("This is a mistake in govc: please report it with the policy.".into()),
        }),
    }
}
