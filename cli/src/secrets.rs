//! Passphrases and private keys: where they come from, and how they stay unseen.
//!
//! None is ever taken from the command line, which every process can read, and no message holds
//! any part of one. What is read here is wiped from memory when it goes.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use govc_authority::{
    files,
    key::{PublicKey, SigningKey},
    sealed::{Opener, Recipients, SEALED_LEN_MAX},
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    arguments::{Signing, Unlock},
    failure::Failure,
    input,
};

/// The environment variable with a passphrase, for machines that nobody sits at.
pub const PASSPHRASE: &str = "GOVC_PASSPHRASE";
/// Bytes of a file with a passphrase or an age key, and of a public key.
const TEXT_LEN_MAX: usize = 1 << 12;

/// What seals a new key: age keys, or a passphrase, which is asked for twice.
///
/// # Errors
/// There is no passphrase, or a text is no age key.
pub fn recipients(
    keys: &[String],
    passphrase_file: Option<&Path>,
    what: &Path,
) -> Result<Recipients, Failure> {
    if !keys.is_empty() {
        return Ok(Recipients::keys(keys.iter().map(String::as_str))?);
    }
    Ok(Recipients::passphrase(&passphrase(passphrase_file, what, true)?)?)
}

/// What opens a sealed file.
///
/// # Errors
/// There is no passphrase, or a file cannot be read.
pub fn opener(unlock: &Unlock, what: &Path) -> Result<Opener, Failure> {
    match &unlock.identity {
        Some(path) => Ok(Opener::key(&age_key(path)?)?),
        None => {
            Ok(Opener::passphrase(&passphrase(unlock.passphrase_file.as_deref(), what, false)?)?)
        }
    }
}

/// The private key that signs.
///
/// # Errors
/// It cannot be read or opened.
pub fn signing_key(signing: &Signing) -> Result<SigningKey, Failure> {
    let path = &signing.key;
    let sealed = read(path, SEALED_LEN_MAX)?;
    SigningKey::open(&sealed, &opener(&signing.unlock, path)?)
        .map_err(|error| Failure::refused_in(path, &error))
}

/// The public key in a file.
///
/// # Errors
/// It cannot be read or holds something else.
pub fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let bytes = read(path, TEXT_LEN_MAX)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    // What stands in the file is not told: it may be a private key.
    text.trim_end().parse().map_err(|error| Failure::refused_in(path, &error))
}

/// The contents of a file that there has to be.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read(path: &Path, len_max: usize) -> Result<Vec<u8>, Failure> {
    let bytes = files::read(path, len_max).map_err(input::file("read", path))?;
    bytes.ok_or_else(|| input::file("read", path)(std::io::ErrorKind::NotFound.into()))
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// There is one already, or it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(input::file("make", path))
}

fn passphrase(file: Option<&Path>, what: &Path, new: bool) -> Result<Zeroizing<String>, Failure> {
    if let Some(path) = file {
        return secret_text(path);
    }
    if let Some(text) = std::env::var_os(PASSPHRASE) {
        return text.into_string().map(Zeroizing::new).map_err(|_| Failure::Usage {
            message: format!("{PASSPHRASE} is not UTF-8"),
            help: "Choose a passphrase of letters.".into(),
        });
    }
    let ask = |question: String| {
        rpassword::prompt_password(question).map(Zeroizing::new).map_err(|_| Failure::Usage {
            message: "there is no terminal to ask for a passphrase on".into(),
            help: format!("Use --passphrase-file, or set {PASSPHRASE}."),
        })
    };
    let given = ask(format!("Passphrase for `{}`: ", what.display()))?;
    if new && *ask("Once more: ".into())? != *given {
        return Err(Failure::Usage {
            message: "the passphrases differ".into(),
            help: "Type the same one twice.".into(),
        });
    }
    Ok(given)
}

/// A file with one line, which others must not read.
fn secret_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let file = File::open(path).map_err(input::file("read", path))?;
    let metadata = file.metadata().map_err(input::file("read", path))?;
    let mode = metadata.permissions().mode();
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(Failure::Machine {
            message: format!(
                "others may read the secret in `{}`: its mode is {:04o}",
                path.display(),
                mode & 0o7777
            ),
            help: Some("Take that away, and think about who has read it: chmod 600 FILE".into()),
        });
    }
    // Room for all that can come, so that no part of it stays behind in a smaller buffer.
    let mut bytes = Zeroizing::new(Vec::with_capacity(TEXT_LEN_MAX * 2));
    let limit = TEXT_LEN_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(input::file("read", path))?;
    let strange = || Failure::Refused {
        message: format!("`{}` holds no line of text", path.display()),
        help: None,
    };
    if bytes.len() > TEXT_LEN_MAX {
        return Err(strange());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| strange())?;
    Ok(Zeroizing::new(text.strip_suffix('\n').unwrap_or(text).to_owned()))
}

/// The age key in a file: the first line that is no comment, of which age-keygen writes two.
///
/// # Errors
/// The file cannot be read, or others may.
pub fn age_key(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = secret_text(path)?;
    let line = text.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
    let line = Zeroizing::new(line.unwrap_or_default().to_owned());
    text.zeroize();
    Ok(line)
}
