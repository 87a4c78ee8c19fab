//! The language server of `.gov` policies: what an editor asks for, over standard input and
//! output.
//!
//! One thread answers everything, in order; policies are checked between messages, one unit at a
//! time, so that an edit which arrives meanwhile is seen before the next unit. Only the analysis
//! runs beside it, on policies that have come to rest.

mod analysis;
mod complete;
mod diagnostics;
mod files;
mod hover;
mod navigate;
mod positions;
mod server;
mod symbols;
mod uris;
mod workspace;

use std::path::{Path, PathBuf};

use govc_grammar::diagnostic::Code;
use thiserror::Error;

pub use server::run;
pub use workspace::Workspace;

/// What the server needs from the machine that it runs on.
pub trait Host {
    /// The text of a file, if it is there and is text.
    fn read(&self, path: &Path) -> Option<String>;
    /// The policies below a directory.
    fn policies_below(&self, directory: &Path) -> Vec<PathBuf>;
    /// Where the page of a diagnostic code can be read.
    fn page_url(&self, code: Code) -> Option<String>;
}

/// The conversation with the editor broke off.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The editor does not keep to the protocol.
    #[error("the editor does not keep to the protocol: {0}")]
    Protocol(#[from] lsp_server::ProtocolError),
    /// What the editor says about itself makes no sense.
    #[error("cannot read what the editor asks for: {0}")]
    Parameters(#[from] serde_json::Error),
    /// The editor is gone.
    #[error("the editor is gone")]
    Gone,
    /// Standard input or output failed.
    #[error("cannot speak to the editor: {0}")]
    Io(#[from] std::io::Error),
}
