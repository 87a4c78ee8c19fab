//! How a command ends when it does not end well.

use std::path::PathBuf;

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
    /// Nobody reads our output any more.
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
    /// The process's exit code.
    pub fn exit_code(&self) -> std::process::ExitCode {
        std::process::ExitCode::from(match self {
            Self::Pipe => 0,
            Self::Different(code) => *code,
            Self::Told | Self::Image { .. } => 1,
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
            Self::Machine { help, .. } => help.clone(),
            Self::Image { .. } => Some("Images are made by `govc build`.".to_owned()),
            Self::File { .. } | Self::Told | Self::Different(_) | Self::Pipe => None,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Pipe
        } else {
            Self::Machine { message: format!("cannot write output: {error}"), help: None }
        }
    }
}
