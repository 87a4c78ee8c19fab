//! How a command ends when it does not end well.

use std::path::{Path, PathBuf};

use govc_authority as authority;

use thiserror::Error;

/// A command failed. Exit codes: 1 what was asked about is wrong, 2 the command line is, 3 the
/// machine is in the way.
#[derive(Debug, Error)]
pub enum Failure {
    /// Everything has been said already.
    #[error("failed")]
    Told,
    /// What was compared differs, which has been told.
    #[error("different")]
    Different(u8),
    /// The command that was run ended like this.
    #[error("ended")]
    Ended(u8),
    /// Nobody reads any more what only ends when somebody ends it.
    #[error("broken pipe")]
    Pipe,
    /// What was asked for makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// What was asked about is wrong.
    #[error("{message}")]
    Refused {
        /// What is wrong.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} `{path}`")]
    File {
        /// `read`, `write`
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel, or its state.
    #[error(transparent)]
    Load(#[from] govc_loader::LoadError),
    /// A file that is no image.
    #[error("`{path}` is no image: {source}")]
    Image {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: govc_image::ImageError,
    },
    /// The demonstration's network.
    #[error(transparent)]
    Lab(#[from] govc_netlab::LabError),
    /// Anything else about the machine.
    #[error("{message}")]
    Machine {
        /// What is in the way.
        message: String,
        /// What to do.
        help: Option<String>,
    },
}

impl Failure {
    /// What the authority says against something: it puts advice behind a semicolon.
    pub fn refused(error: &dyn std::fmt::Display) -> Self {
        let (message, help) = advice(&error.to_string());
        Self::Refused { message, help }
    }

    /// As [`Self::refused`], about a file.
    pub fn refused_in(path: &Path, error: &dyn std::fmt::Display) -> Self {
        let (message, help) = advice(&error.to_string());
        Self::Refused { message: format!("`{}`: {message}", path.display()), help }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> std::process::ExitCode {
        /// What a shell shows for a program that SIGPIPE ended.
        const PIPE: u8 = 128 + 13;
        std::process::ExitCode::from(match self {
            Self::Pipe => PIPE,
            Self::Different(code) | Self::Ended(code) => *code,
            Self::Told | Self::Refused { .. } | Self::Image { .. } => 1,
            Self::Usage { .. } => 2,
            Self::File { .. } | Self::Load(_) | Self::Lab(_) | Self::Machine { .. } => 3,
        })
    }

    /// A sentence that says what to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Usage { help, .. } => Some(help.clone()),
            Self::Load(error) => error.help(),
            Self::Lab(error) => error.help().map(ToOwned::to_owned),
            Self::Machine { help, .. } | Self::Refused { help, .. } => help.clone(),
            Self::Image { .. } => Some("Images are made by `govc build`.".to_owned()),
            Self::File { what, source, .. } => file_help(what, source).map(ToOwned::to_owned),
            Self::Told | Self::Different(_) | Self::Ended(_) | Self::Pipe => None,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Pipe
        } else {
            let help = file_help("write", &error).map(ToOwned::to_owned);
            Self::Machine { message: format!("cannot write output: {error}"), help }
        }
    }
}

/// What to do about a file that cannot be read or written.
fn file_help(what: &str, source: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind;
    Some(match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "What was written before is good. Make room, or write to another file system."
        }
        ErrorKind::AlreadyExists => "A file that is there is left alone: name another one.",
        ErrorKind::ReadOnlyFilesystem => "Name a file on another file system.",
        ErrorKind::PermissionDenied => "Look at its permissions and those of its directory.",
        ErrorKind::NotFound if what == "create" || what == "write" => {
            "Make the directory that it is to lie in."
        }
        _ => return None,
    })
}

/// A message and the sentence that says what to do.
fn advice(text: &str) -> (String, Option<String>) {
    let Some((message, help)) = text.rsplit_once("; ") else { return (text.into(), None) };
    let mut letters = help.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    (message.into(), Some(format!("{}{}.", first.unwrap_or_default(), letters.as_str())))
}

macro_rules! refused {
    ($($error:ty),* $(,)?) => {
        $(
            impl From<$error> for Failure {
                fn from(error: $error) -> Self {
                    Self::refused(&error)
                }
            }
        )*
    };
}

refused! {
    authority::bundle::BundleError,
    authority::bundle::VerifyError,
    authority::envelope::EnvelopeError,
    authority::form::FormError,
    authority::grant::GrantError,
    authority::intervals::IntervalsError,
    authority::key::KeyError,
    authority::mapping::MappingError,
    authority::ring::RingError,
    authority::sealed::SealError,
    authority::signers::SignersError,
    authority::trust::TrustError,
}

impl From<authority::store::StoreError> for Failure {
    fn from(error: authority::store::StoreError) -> Self {
        use authority::store::StoreError;
        let (message, help) = advice(&error.to_string());
        match error {
            StoreError::Exists { .. } | StoreError::Empty { .. } => {
                Self::Usage { message, help: help.unwrap_or_default() }
            }
            _ => Self::Machine { message, help },
        }
    }
}

impl From<authority::audit::AuditError> for Failure {
    fn from(error: authority::audit::AuditError) -> Self {
        use authority::audit::AuditError;
        let (message, help) = advice(&error.to_string());
        match error {
            AuditError::File { .. } => Self::Machine { message, help },
            AuditError::Line { .. } | AuditError::End { .. } => Self::Refused { message, help },
        }
    }
}
