//! `lsp`: the language server, with this machine's files.

use std::path::{Path, PathBuf};

use govc_grammar::diagnostic::Code;
use govc_lsp::Host;

use crate::{failure::Failure, input, report};

pub fn run() -> Result<(), Failure> {
    govc_lsp::run(&Machine).map_err(|error| Failure::Machine {
        message: error.to_string(),
        help: Some("Editors start `govc lsp` by themselves; see docs/editors.md.".into()),
    })
}

struct Machine;

impl Host for Machine {
    fn read(&self, path: &Path) -> Option<String> {
        let text = path.is_file().then(|| input::read_source(path))?;
        text.inspect_err(|failure| tracing::warn!("{failure}")).ok()
    }

    fn policies_below(&self, directory: &Path) -> Vec<PathBuf> {
        let skip = |failure| {
            tracing::warn!("{failure}");
            Ok(())
        };
        input::policies_below(directory, skip).unwrap_or_default()
    }

    fn page_url(&self, code: Code) -> Option<String> {
        report::page_url(code)
    }
}
