//! Changes of policy files: shown, or written.

use std::path::PathBuf;

use similar::TextDiff;

use crate::{
    failure::Failure,
    input,
    output::{Style, line},
};

/// A file with other text.
pub struct Change {
    pub path: PathBuf,
    pub before: String,
    pub after: String,
}

impl Change {
    /// Shows what changes, as a unified diff.
    pub fn show(&self, style: &Style) -> Result<(), Failure> {
        let diff = TextDiff::from_lines(&self.before, &self.after);
        let path = self.path.display();
        let diff =
            diff.unified_diff().header(&format!("a/{path}"), &format!("b/{path}")).to_string();
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
}

/// Writes the files, each whole or not at all, unless somebody changed them meanwhile.
pub fn write(changes: &[Change]) -> Result<(), Failure> {
    for Change { path, before, .. } in changes {
        if input::read_text(path)? != *before {
            return Err(Failure::Machine {
                message: format!("`{}` was changed while it was looked at", path.display()),
                help: Some("Run the command again.".into()),
            });
        }
    }
    for Change { path, after, .. } in changes {
        input::write_whole(path, after.as_bytes())?;
    }
    Ok(())
}
