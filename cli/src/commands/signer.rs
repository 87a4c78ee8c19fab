//! `signer`: keys that sign bundles and grants.

use std::path::{Path, PathBuf};

use govc_authority::{
    key::{PublicKey, SigningKey},
    sealed::SEALED_LEN_MAX,
};
use serde::Serialize;

use crate::{
    arguments::{Signer, Unlock},
    failure::Failure,
    input,
    output::{Style, json, line},
    secrets,
};

/// A public key for programs.
#[derive(Serialize)]
struct Report {
    id: String,
    public: String,
}

pub fn run(command: &Signer, style: &Style) -> Result<(), Failure> {
    match command {
        Signer::New { file, recipient, passphrase_file, json } => {
            new(file, recipient, passphrase_file.as_deref(), (*json, style))
        }
        Signer::Show { file, unlock, json } => tell(&public_half(file, unlock)?, *json, style),
    }
}

fn new(
    path: &Path,
    recipients: &[String],
    passphrase_file: Option<&Path>,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let public = public_path(path);
    for taken in [path, &public] {
        if taken.exists() {
            return Err(Failure::Usage {
                message: format!("there is a `{}` already", taken.display()),
                help: "Choose another name: a key that is overwritten is lost.".into(),
            });
        }
    }
    let to = secrets::recipients(recipients, passphrase_file, path)?;
    let key = SigningKey::generate()?;
    secrets::write_private(path, &key.seal(&to)?)?;
    input::write_whole(&public, format!("{}\n", key.public()).as_bytes())?;
    if !as_json {
        let (path, public) = (path.display(), public.display());
        line(&format!("{} {path} and {public}", style.good("made")))?;
    }
    tell(&key.public(), as_json, style)
}

fn public_path(path: &Path) -> PathBuf {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    public.into()
}

fn public_half(path: &Path, unlock: &Unlock) -> Result<PublicKey, Failure> {
    let bytes = secrets::read(path, SEALED_LEN_MAX)?;
    // age files start so, armoured or not; what does not is shown as it stands, or refused.
    if !bytes.starts_with(b"-----BEGIN AGE") && !bytes.starts_with(b"age-encryption.org/") {
        return secrets::public_key(path);
    }
    let key = SigningKey::open(&bytes, &secrets::opener(unlock, path)?)
        .map_err(|error| Failure::refused_in(path, &error))?;
    Ok(key.public())
}

fn tell(key: &PublicKey, as_json: bool, style: &Style) -> Result<(), Failure> {
    let report = Report { id: key.id().to_string(), public: key.to_string() };
    if as_json {
        return json(&report);
    }
    line(&format!("{} {}", style.bold("key   "), report.id))?;
    line(&format!("{} {}", style.bold("public"), report.public))
}
