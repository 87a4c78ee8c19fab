//! The one error type of the crate.

use std::io;

use thiserror::Error;

use crate::Outcome;

/// Why the laboratory could not do what it was asked.
///
/// The messages are lower case and without a full stop; the reason given by the system, if there
/// is one, is the [source](std::error::Error::source) and not part of the message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// The process may not build namespaces; `missing` lists the capabilities it lacks.
    #[error("missing capabilities: {missing}")]
    MissingCapabilities {
        /// Names separated by commas, for example `CAP_NET_ADMIN, CAP_SYS_ADMIN`.
        missing: String,
    },

    /// The namespace holds no device of that name.
    #[error("no device {device:?} in namespace {namespace:?}")]
    NoSuchDevice {
        /// The name that was looked for.
        device: String,
        /// The label of the namespace.
        namespace: String,
    },

    /// The text or the pair is not an address with a prefix length.
    #[error("{text:?} is not an address with a prefix length such as 10.0.0.1/24")]
    InvalidPrefix {
        /// What was given.
        text: String,
    },

    /// A bulk transfer did not arrive as it was sent.
    #[error("{what}: {outcome} after {received} bytes")]
    Undelivered {
        /// Which transfer, with both its ends.
        what: String,
        /// What went wrong; never [`Outcome::Delivered`].
        outcome: Outcome,
        /// How many bytes the server received, all equal to those that were sent.
        received: u64,
    },

    /// The kernel refused a request.
    #[error("cannot {action}")]
    Io {
        /// What was attempted, to be read after "cannot".
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl LabError {
    /// A sentence that tells the user what to do about the error, where there is something.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::MissingCapabilities { .. } => {
                Some("Run the command as root, for example with sudo.")
            }
            _ => None,
        }
    }

    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }
}
