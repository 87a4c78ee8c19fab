//! Secrets at rest: signing keys and key rings, encrypted with age for a passphrase or for the
//! holders of age keys.
//!
//! A sealed file is an armoured age file that any age tool opens. Inside, a first line says what
//! it holds, so that one kind of secret is never taken for another.

use std::io::{Read as _, Write as _};

use age::{
    DecryptError, Decryptor, EncryptError, Encryptor,
    armor::{ArmoredReader, ArmoredWriter, Format},
    scrypt,
    secrecy::SecretString,
    x25519,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::SigningKey;

/// Bytes of a sealed file.
pub const SEALED_LEN_MAX: usize = 1 << 20;
/// Bytes of a secret: armour makes four out of three.
pub const SECRET_LEN_MAX: usize = 1 << 19;
/// Recipients of one file.
pub const RECIPIENTS_MAX: usize = 256;
/// Work that a guess at a passphrase takes unless told otherwise, as a power of two: 256 MiB of
/// memory and about a second.
pub const WORK_FACTOR_DEFAULT: u8 = 18;
/// Most work that is done for a file: it may come from anybody.
pub const WORK_FACTOR_MAX: u8 = 18;

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A private key ([`SigningKey`]).
    SigningKey,
    /// The epoch keys of a domain ([`crate::ring`]).
    KeyRing,
}

/// Who can open a sealed file.
pub struct Recipients(To);

enum To {
    Passphrase(SecretString, u8),
    Keys(Vec<x25519::Recipient>),
}

/// What opens a sealed file.
pub struct Opener(With);

enum With {
    Passphrase(SecretString),
    Key(x25519::Identity),
}

/// Why a secret cannot be sealed or opened. No message holds any part of one.
#[derive(Debug, Error)]
pub enum SealError {
    /// Anybody could open it.
    #[error("the passphrase is empty; choose one of several words")]
    NoPassphrase,
    /// Not the public half of an age key.
    #[error("recipient {0} is not an age public key, which starts with `age1`")]
    Recipient(usize),
    /// Not the private half of an age key.
    #[error("this is not an age key, which starts with `AGE-SECRET-KEY-1`")]
    Identity,
    /// Nobody, or too many.
    #[error("{0} recipients; name from 1 to {RECIPIENTS_MAX}")]
    Recipients(usize),
    /// The work factor is beyond what is ever done.
    #[error("a work factor of {0}; choose one from 1 to {WORK_FACTOR_MAX}")]
    WorkFactor(u8),
    /// Beyond the limit.
    #[error("{len} bytes, more than the {max} that a secret may have; look whether it is the file")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The passphrase or key does not open it.
    #[error("this passphrase or key does not open the file; use the one that it was sealed for")]
    Closed,
    /// Not an age file, or a damaged one.
    #[error("the file is not sealed, or it is damaged; fetch it again")]
    Damaged,
    /// Another kind of secret.
    #[error("the file is no {0}; look whether the files were mixed up")]
    Kind(&'static str),
    /// Encryption failed.
    #[error("cannot seal: {0}; try again")]
    Encrypt(String),
}

impl Recipients {
    /// Whoever knows a passphrase. Guessing takes [`WORK_FACTOR_DEFAULT`].
    ///
    /// # Errors
    /// The passphrase is empty.
    pub fn passphrase(passphrase: &Zeroizing<String>) -> Result<Self, SealError> {
        Self::passphrase_with_work(passphrase, WORK_FACTOR_DEFAULT)
    }

    /// Whoever knows a passphrase, with other work than usual: a power of two.
    ///
    /// # Errors
    /// The passphrase is empty, or the work is 0 or more than [`WORK_FACTOR_MAX`].
    pub fn passphrase_with_work(
        passphrase: &Zeroizing<String>,
        work_factor: u8,
    ) -> Result<Self, SealError> {
        if !(1..=WORK_FACTOR_MAX).contains(&work_factor) {
            return Err(SealError::WorkFactor(work_factor));
        }
        Ok(Self(To::Passphrase(secret(passphrase)?, work_factor)))
    }

    /// The holders of these age keys, `age1..` each.
    ///
    /// # Errors
    /// There are none or more than [`RECIPIENTS_MAX`], or a text is no age key.
    pub fn keys<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, SealError> {
        let parse = |(text, at): (&str, usize)| text.parse().map_err(|_| SealError::Recipient(at));
        let texts = texts.into_iter().take(RECIPIENTS_MAX + 1);
        let keys: Vec<_> = texts.zip(1..).map(parse).collect::<Result<_, _>>()?;
        if keys.is_empty() || keys.len() > RECIPIENTS_MAX {
            return Err(SealError::Recipients(keys.len()));
        }
        Ok(Self(To::Keys(keys)))
    }

    /// Whoever holds what opens: for what nobody else shall read.
    #[must_use]
    pub fn of(opener: &Opener) -> Self {
        Self(match &opener.0 {
            With::Passphrase(passphrase) => To::Passphrase(passphrase.clone(), WORK_FACTOR_DEFAULT),
            With::Key(key) => To::Keys(vec![key.to_public()]),
        })
    }
}

impl Opener {
    /// By a passphrase.
    ///
    /// # Errors
    /// It is empty.
    pub fn passphrase(passphrase: &Zeroizing<String>) -> Result<Self, SealError> {
        Ok(Self(With::Passphrase(secret(passphrase)?)))
    }

    /// By an age key, `AGE-SECRET-KEY-1..`.
    ///
    /// # Errors
    /// The text is none.
    pub fn key(text: &Zeroizing<String>) -> Result<Self, SealError> {
        Ok(Self(With::Key(text.trim().parse().map_err(|_| SealError::Identity)?)))
    }
}

/// The copy has no spare capacity, so that nothing of it is left behind when it goes.
fn secret(text: &Zeroizing<String>) -> Result<SecretString, SealError> {
    if text.is_empty() { Err(SealError::NoPassphrase) } else { Ok(text.as_str().into()) }
}

/// An armoured age file that only these recipients can open.
///
/// # Errors
/// The secret is longer than [`SECRET_LEN_MAX`], or encryption fails.
pub fn seal(kind: Kind, secret: &[u8], to: &Recipients) -> Result<Vec<u8>, SealError> {
    if secret.len() > SECRET_LEN_MAX {
        return Err(SealError::TooLong { len: secret.len(), max: SECRET_LEN_MAX });
    }
    let encryptor = match &to.0 {
        To::Passphrase(passphrase, work_factor) => {
            let mut recipient = scrypt::Recipient::new(passphrase.clone());
            recipient.set_work_factor(*work_factor);
            Encryptor::with_recipients([&recipient as &dyn age::Recipient].into_iter())
        }
        To::Keys(keys) => {
            Encryptor::with_recipients(keys.iter().map(|key| key as &dyn age::Recipient))
        }
    };
    let failed = |error: &dyn std::fmt::Display| SealError::Encrypt(error.to_string());
    let encryptor = encryptor.map_err(|error: EncryptError| failed(&error))?;
    let write = || -> std::io::Result<Vec<u8>> {
        let armour = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armour)?;
        writer.write_all(kind.line())?;
        writer.write_all(secret)?;
        writer.finish()?.finish()
    };
    write().map_err(|error| failed(&error))
}

/// The secret of this kind in an age file, armoured or not.
///
/// # Errors
/// The file is longer than [`SEALED_LEN_MAX`], damaged, sealed for somebody else, takes more work
/// than [`WORK_FACTOR_MAX`], or holds another kind of secret.
pub fn open(kind: Kind, sealed: &[u8], with: &Opener) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if sealed.len() > SEALED_LEN_MAX {
        return Err(SealError::TooLong { len: sealed.len(), max: SEALED_LEN_MAX });
    }
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed)).map_err(refused)?;
    let reader = match &with.0 {
        With::Passphrase(passphrase) => {
            let mut identity = scrypt::Identity::new(passphrase.clone());
            identity.set_max_work_factor(WORK_FACTOR_MAX);
            decryptor.decrypt([&identity as &dyn age::Identity].into_iter())
        }
        With::Key(key) => decryptor.decrypt([key as &dyn age::Identity].into_iter()),
    };
    let mut reader = reader.map_err(refused)?;
    let mut line = [0; Kind::LINE_LEN];
    reader.read_exact(&mut line).map_err(|_| SealError::Damaged)?;
    // Room for all that can come, so that no part of it stays behind in a smaller buffer.
    let mut secret = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut secret).map_err(|_| SealError::Damaged)?;
    if line == *kind.line() { Ok(secret) } else { Err(SealError::Kind(kind.name())) }
}

fn refused(error: DecryptError) -> SealError {
    match error {
        DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed
        | DecryptError::NoMatchingKeys => SealError::Closed,
        DecryptError::ExcessiveWork { required, .. } => SealError::WorkFactor(required),
        _ => SealError::Damaged,
    }
}

impl Kind {
    /// Bytes of the first line, the same for all kinds.
    const LINE_LEN: usize = 19;

    /// The first line.
    const fn line(self) -> &'static [u8; Self::LINE_LEN] {
        match self {
            Self::SigningKey => b"govc signing-key 1\n",
            Self::KeyRing => b"govc key-ring    1\n",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::SigningKey => "signing key",
            Self::KeyRing => "key ring",
        }
    }
}

impl SigningKey {
    /// The key's file, which only these recipients can open.
    ///
    /// # Errors
    /// As [`seal`].
    pub fn seal(&self, to: &Recipients) -> Result<Vec<u8>, SealError> {
        let text = Zeroizing::new(STANDARD.encode(self.seed().as_slice()));
        seal(Kind::SigningKey, text.as_bytes(), to)
    }

    /// The key in a file.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(sealed: &[u8], with: &Opener) -> Result<Self, SealError> {
        let text = open(Kind::SigningKey, sealed, with)?;
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let seed = STANDARD.decode(text).map(Zeroizing::new).map_err(|_| SealError::Damaged)?;
        let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| SealError::Damaged)?;
        Ok(Self::from_seed(seed))
    }
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            To::Passphrase(..) => f.write_str("Recipients(a passphrase)"),
            To::Keys(keys) => f.debug_list().entries(keys.iter().map(ToString::to_string)).finish(),
        }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            With::Passphrase(_) => "Opener(a passphrase)",
            With::Key(_) => "Opener(an age key)",
        })
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;
    use crate::testing::key;

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.into())
    }

    /// Little work, so that the tests are quick.
    fn to_passphrase(words: &str) -> Recipients {
        Recipients::passphrase_with_work(&text(words), 2).unwrap()
    }

    fn by_passphrase(words: &str) -> Opener {
        Opener::passphrase(&text(words)).unwrap()
    }

    /// The public half, and what opens.
    fn age_key() -> (String, Opener) {
        let identity = x25519::Identity::generate();
        let private = text(identity.to_string().expose_secret());
        (identity.to_public().to_string(), Opener::key(&private).unwrap())
    }

    #[test]
    fn a_signing_key_comes_back() {
        let sealed = key(5).seal(&to_passphrase("correct horse")).unwrap();
        assert!(sealed.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
        let opened = SigningKey::open(&sealed, &by_passphrase("correct horse")).unwrap();
        assert_eq!(opened.id(), key(5).id());
        assert!(matches!(
            SigningKey::open(&sealed, &by_passphrase("wrong horse")),
            Err(SealError::Closed)
        ));
        assert!(matches!(SigningKey::open(&sealed, &age_key().1), Err(SealError::Closed)));
    }

    #[test]
    fn several_recipients_can_open() {
        let (a, b, c) = (age_key(), age_key(), age_key());
        let to = Recipients::keys([a.0.as_str(), &b.0]).unwrap();
        let sealed = seal(Kind::KeyRing, b"{}", &to).unwrap();
        for opener in [&a.1, &b.1] {
            assert_eq!(open(Kind::KeyRing, &sealed, opener).unwrap().as_slice(), b"{}");
        }
        assert!(matches!(open(Kind::KeyRing, &sealed, &c.1), Err(SealError::Closed)));
        let words = by_passphrase("words");
        assert!(matches!(open(Kind::KeyRing, &sealed, &words), Err(SealError::Closed)));
    }

    #[test]
    fn who_seals_for_himself_opens_it() {
        let (a, b) = (age_key().1, age_key().1);
        let sealed = seal(Kind::KeyRing, b"{}", &Recipients::of(&a)).unwrap();
        assert_eq!(open(Kind::KeyRing, &sealed, &a).unwrap().as_slice(), b"{}");
        assert!(matches!(open(Kind::KeyRing, &sealed, &b), Err(SealError::Closed)));
    }

    #[test]
    fn kinds_are_not_mixed_up() {
        let (public, opener) = age_key();
        let to = Recipients::keys([public.as_str()]).unwrap();
        let sealed = seal(Kind::KeyRing, STANDARD.encode([7; 32]).as_bytes(), &to).unwrap();
        assert!(matches!(SigningKey::open(&sealed, &opener), Err(SealError::Kind("signing key"))));
        let short = seal(Kind::SigningKey, STANDARD.encode([7; 31]).as_bytes(), &to).unwrap();
        assert!(matches!(SigningKey::open(&short, &opener), Err(SealError::Damaged)));
    }

    #[test]
    fn no_change_opens_as_something_else() {
        let (public, opener) = age_key();
        let sealed = key(5).seal(&Recipients::keys([public.as_str()]).unwrap()).unwrap();
        for at in 0..sealed.len() {
            for flip in [1, 0x20, 0x80] {
                let mut wrong = sealed.clone();
                wrong[at] ^= flip;
                // Armour may be laid out differently; what is inside is the same or refused.
                if let Ok(opened) = SigningKey::open(&wrong, &opener) {
                    assert_eq!(opened.id(), key(5).id(), "byte {at} ^ {flip}");
                }
            }
        }
        for len in 0..sealed.len() - 1 {
            assert!(SigningKey::open(&sealed[..len], &opener).is_err(), "{len} bytes");
        }
        for wrong in [&b""[..], b"\xff\xff", &vec![b'-'; SEALED_LEN_MAX + 1]] {
            assert!(SigningKey::open(wrong, &opener).is_err());
        }
    }

    #[test]
    fn work_is_bounded() {
        for work_factor in [0, 19, 64] {
            assert!(matches!(
                Recipients::passphrase_with_work(&text("words"), work_factor),
                Err(SealError::WorkFactor(_))
            ));
        }
        let sealed = key(5).seal(&to_passphrase("words")).unwrap();
        let mut binary = Vec::new();
        ArmoredReader::new(sealed.as_slice()).read_to_end(&mut binary).unwrap();
        // The header is plain text; the work stands at the end of its second line.
        let at = binary.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
        let heavy = [&binary[..at - 1], b"19", &binary[at..]].concat();
        assert!(matches!(
            SigningKey::open(&heavy, &by_passphrase("words")),
            Err(SealError::WorkFactor(19))
        ));
        assert!(SigningKey::open(&binary, &by_passphrase("words")).is_ok(), "without armour");
    }

    #[test]
    fn recipients_are_checked() {
        assert!(matches!(Recipients::passphrase(&text("")), Err(SealError::NoPassphrase)));
        assert!(matches!(Opener::passphrase(&text("")), Err(SealError::NoPassphrase)));
        assert!(matches!(Recipients::keys([]), Err(SealError::Recipients(0))));
        let public = age_key().0;
        let many = vec![public.as_str(); 257];
        assert!(matches!(Recipients::keys(many), Err(SealError::Recipients(257))));
        assert!(matches!(
            Recipients::keys([public.as_str(), "age1nonsense"]),
            Err(SealError::Recipient(2))
        ));
        assert!(matches!(Opener::key(&text(&public)), Err(SealError::Identity)));
        let long = vec![0; SECRET_LEN_MAX + 1];
        let to = Recipients::keys([public.as_str()]).unwrap();
        assert!(matches!(seal(Kind::KeyRing, &long, &to), Err(SealError::TooLong { .. })));
        let sealed = seal(Kind::KeyRing, &long[1..], &to).unwrap();
        assert!(sealed.len() <= SEALED_LEN_MAX);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let identity = x25519::Identity::generate();
        let private = text(identity.to_string().expose_secret());
        let shown = format!(
            "{:?} {:?} {:?}",
            to_passphrase("correct horse"),
            by_passphrase("correct horse"),
            Opener::key(&private).unwrap()
        );
        assert!(!shown.contains("horse") && !shown.contains("AGE-SECRET"), "{shown}");
    }
}
