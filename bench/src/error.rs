//! Why there are no figures.

use std::io;

use govc_loader::LoadError;
use govc_netlab::LabError;
use thiserror::Error;

/// What went wrong.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Somebody wants it to stop.
    #[error("interrupted")]
    Interrupted,
    /// Namespaces.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The enforcement point.
    #[error("{error}{}", source_of(.error))]
    Load {
        /// What the loader says.
        #[from]
        error: LoadError,
    },
    /// The benchmark's own eBPF programs.
    #[error("{what}: {source}")]
    Bpf {
        /// What was tried.
        what: String,
        /// What the kernel says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Files and programs.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The compiler does not take a generated policy.
    #[error("the compiler refuses the policy of {rules} rules: {message}")]
    Policy {
        /// How many rules it has.
        rules: usize,
        /// The first diagnostic.
        message: String,
    },
    /// A program did something else than what is to be timed.
    #[error("`{case}` does not do what is to be timed: {found}")]
    Wrong {
        /// What was run.
        case: String,
        /// What it did.
        found: String,
    },
}

/// The cause that the loader's own message leaves out.
fn source_of(error: &LoadError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

/// Shorthand for errors of bpf(2).
pub fn bpf<E>(what: impl Into<String>) -> impl FnOnce(E) -> BenchError
where
    E: std::error::Error + Send + Sync + 'static,
{
    let what = what.into();
    move |source| BenchError::Bpf { what, source: Box::new(source) }
}

/// Shorthand for errors of files and programs.
pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
    let what = what.into();
    move |source| BenchError::Io { what, source }
}
