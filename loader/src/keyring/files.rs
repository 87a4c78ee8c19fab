//! The local key ring: one file for each domain with the keys of its epochs, readable by its
//! owner only.

use std::{
    fs,
    io::Write as _,
    ops::Deref,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use super::DomainKeys;
use crate::error::{LoadError, file};

/// A directory of key files, `<domain number>.keys` each.
#[derive(Clone)]
pub struct KeyRing {
    dir: PathBuf,
    at_rest: Option<Arc<dyn AtRest>>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sealed = self.at_rest.is_some();
        f.debug_struct("KeyRing").field("dir", &self.dir).field("sealed", &sealed).finish()
    }
}

/// What seals key files for the time that they lie in, and opens them. Why it cannot is told in
/// lower case, and holds nothing of what it was to work on.
pub trait AtRest: Send + Sync {
    /// A file that only the node can open, beginning with one of [`SEALED_BEGINS`].
    ///
    /// # Errors
    /// The node's identity cannot be read, or sealing fails.
    fn seal(&self, text: &[u8]) -> Result<Vec<u8>, String>;

    /// What was sealed.
    ///
    /// # Errors
    /// The node's identity cannot be read, or opens nothing of this.
    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// How sealed files begin: age files with armour and without. A key file in the open is JSON.
pub const SEALED_BEGINS: [&[u8]; 2] = [b"-----BEGIN AGE", b"age-encryption.org/"];

/// A ring that nobody else changes until this goes. What is read through it is still there when it
/// is written.
#[derive(Debug)]
pub struct Locked<'r> {
    ring: &'r KeyRing,
    _lock: fs::File,
}

impl Deref for Locked<'_> {
    type Target = KeyRing;

    fn deref(&self) -> &KeyRing {
        self.ring
    }
}

/// The file whose lock is the ring's.
const LOCK: &str = ".lock";

impl KeyRing {
    /// The ring in `dir`, which need not exist. It opens no sealed file and seals none.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), at_rest: None }
    }

    /// The same ring, whose files are sealed from now on as they are written.
    #[must_use]
    pub fn sealed_by(self, at_rest: Arc<dyn AtRest>) -> Self {
        Self { at_rest: Some(at_rest), ..self }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether files are sealed as they are written.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.at_rest.is_some()
    }

    fn path(&self, number: u16) -> PathBuf {
        self.dir.join(format!("{number}.keys"))
    }

    /// The keys of a domain, if there are any.
    ///
    /// # Errors
    /// The file cannot be read or opened, others may read it or put another one in its place, or it
    /// holds something else.
    pub fn read(&self, number: u16) -> Result<Option<DomainKeys>, LoadError> {
        self.check_directory()?;
        let path = self.path(number);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("cannot read key file", path)(error)),
        };
        let bad = |why: String| LoadError::KeyFile { path: path.clone(), why };
        let mode =
            fs::metadata(&path).map_err(file("cannot read key file", &path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(bad(format!(
                "its mode is {:04o}, so that others may read it; wanted 0600",
                mode & 0o7777
            )));
        }
        let sealed = SEALED_BEGINS.iter().any(|begin| bytes.starts_with(begin));
        let bytes = if sealed { self.open(&path, &bytes)? } else { bytes };
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is no text".into()))?;
        let mut keys = DomainKeys::from_text(text).map_err(bad)?;
        if keys.number != number {
            return Err(bad("it is about another domain".into()));
        }
        keys.sealed = sealed;
        Ok(Some(keys))
    }

    fn open(&self, path: &Path, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, LoadError> {
        let no = |why| LoadError::KeyFileSealed { path: path.into(), why };
        match &self.at_rest {
            Some(at_rest) => at_rest.open(sealed).map_err(no),
            None => Err(no("no identity is there that opens it".into())),
        }
    }

    /// Whoever may write to the directory can put a ring of his own in the place of each.
    fn check_directory(&self) -> Result<(), LoadError> {
        let dir = &self.dir;
        match fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() && metadata.permissions().mode() & 0o022 != 0 => {
                let mode = metadata.permissions().mode() & 0o7777;
                Err(LoadError::KeyDirectory { path: dir.clone(), mode })
            }
            // Whatever else is wrong with it shows when something in it is asked for.
            _ => Ok(()),
        }
    }

    /// All domains with keys, by number.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn list(&self) -> Result<Vec<DomainKeys>, LoadError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file("cannot list key files", &self.dir)(error)),
        };
        let mut numbers: Vec<u16> =
            entries.filter_map(|entry| number_of(entry.ok()?.file_name().to_str()?)).collect();
        numbers.sort_unstable();
        let rings = numbers.into_iter().map(|number| self.read(number));
        rings.filter_map(Result::transpose).collect()
    }

    /// Keeps others from changing the ring, and waits until nobody does. Reading needs no lock.
    ///
    /// # Errors
    /// The directory cannot be made, or its lock not be had.
    pub fn lock(&self) -> Result<Locked<'_>, LoadError> {
        let dir = &self.dir;
        let path = dir.join(LOCK);
        let no = |error| file("cannot lock key directory", dir)(error);
        loop {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(file("cannot make key directory", dir))?;
            self.check_directory()?;
            let mut options = fs::OpenOptions::new();
            let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
            let lock = lock.map_err(no)?;
            lock.lock().map_err(no)?;
            // Somebody may have removed the directory since: its lock guards nothing.
            let locked = lock.metadata().map_err(no)?;
            if fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino()))
            {
                return Ok(Locked { ring: self, _lock: lock });
            }
        }
    }

    /// Writes a domain's keys: whole or not at all, mode 0600. Who changes keys that were read
    /// before locks the ring around both, and writes with [`Locked::write`].
    ///
    /// # Errors
    /// As [`Self::lock`], or the file cannot be written.
    pub fn write(&self, keys: &DomainKeys) -> Result<(), LoadError> {
        self.lock()?.write(keys)
    }
}

/// The domain whose key file has this name. There is one name for each: `07.keys` is none.
fn number_of(name: &str) -> Option<u16> {
    let digits = name.strip_suffix(".keys")?;
    let number: u16 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

impl Locked<'_> {
    /// Writes a domain's keys: whole or not at all, mode 0600, and sealed where the ring is.
    ///
    /// # Errors
    /// The file cannot be sealed or written.
    pub fn write(&self, keys: &DomainKeys) -> Result<(), LoadError> {
        let path = self.path(keys.number);
        let temporary = path.with_extension("tmp");
        let text = keys.to_text().map_err(|e| file("cannot write key file", &path)(e.into()))?;
        let no = |why| LoadError::KeyFileSealed { path: path.clone(), why };
        let text = match &self.at_rest {
            Some(at_rest) => Zeroizing::new(at_rest.seal(&text).map_err(no)?),
            None => text,
        };
        // Only who holds the lock writes: what lies there was left by somebody who died.
        let _ = fs::remove_file(&temporary);
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut f| f.write_all(&text).and_then(|()| f.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| fs::File::open(&self.dir)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(file("cannot write key file", path))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::slot_now, *};

    fn scratch(name: &str) -> KeyRing {
        let dir = std::env::temp_dir().join(format!("govc-keyring-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        KeyRing::new(dir)
    }

    #[test]
    fn a_ring_comes_back_as_it_was_written() {
        let ring = scratch("round-trip");
        let keys = DomainKeys::generate("acme", 7, 14, 5).unwrap();
        ring.write(&keys).unwrap();
        let mode = fs::metadata(ring.path(7)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let again = ring.read(7).unwrap().unwrap();
        assert!(again.epochs().eq(keys.epochs()));
        assert_eq!(again.epochs().count(), 6);
        let slot = slot_now();
        let (a, b): (Vec<_>, Vec<_>) =
            (keys.entries(slot).collect(), again.entries(slot).collect());
        assert!(a.iter().zip(&b).all(|(x, y)| x.0 == y.0 && x.1.k0 == y.1.k0 && x.1.k1 == y.1.k1));
        assert!(!format!("{keys:?}").contains(&keys.epochs[0].key));
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    #[test]
    fn a_readable_file_is_refused() {
        let ring = scratch("mode");
        ring.write(&DomainKeys::generate("acme", 7, 14, 0).unwrap()).unwrap();
        fs::set_permissions(ring.path(7), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ring.read(7), Err(LoadError::KeyFile { .. })));
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    #[test]
    fn changes_wait_for_each_other() {
        let ring = scratch("lock");
        ring.write(&DomainKeys::generate("acme", 7, 14, 0).unwrap()).unwrap();
        let before = ring.read(7).unwrap().unwrap().sequence();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let lock = ring.lock().unwrap();
                        let mut keys = lock.read(7).unwrap().unwrap();
                        // A clock that stands still: each change counts one.
                        keys.rotate(0, 2).unwrap();
                        lock.write(&keys).unwrap();
                    }
                });
            }
        });
        assert_eq!(ring.read(7).unwrap().unwrap().sequence(), before + 100);
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    #[test]
    fn what_a_dead_writer_left_is_in_nobodys_way() {
        let ring = scratch("left");
        ring.write(&DomainKeys::generate("acme", 7, 14, 0).unwrap()).unwrap();
        let left = ring.dir().join("7.tmp");
        fs::write(&left, "half a key").unwrap();
        ring.write(&DomainKeys::generate("acme", 7, 14, 3).unwrap()).unwrap();
        assert!(!left.exists());
        assert_eq!(ring.read(7).unwrap().unwrap().epochs().count(), 4);
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    #[test]
    fn a_domain_has_one_name() {
        let ring = scratch("names");
        ring.write(&DomainKeys::generate("acme", 7, 14, 0).unwrap()).unwrap();
        for name in ["07.keys", "+7.keys", "7.keys.keys", "65536.keys", ".keys"] {
            fs::copy(ring.path(7), ring.dir().join(name)).unwrap();
        }
        assert_eq!(ring.list().unwrap().len(), 1);
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let ring = scratch("directory");
        let keys = DomainKeys::generate("acme", 7, 14, 0).unwrap();
        ring.write(&keys).unwrap();
        for mode in [0o770, 0o702, 0o1777] {
            fs::set_permissions(ring.dir(), fs::Permissions::from_mode(mode)).unwrap();
            let refused = |error: LoadError| matches!(error, LoadError::KeyDirectory { .. });
            assert!(refused(ring.read(7).unwrap_err()), "{mode:o}");
            assert!(refused(ring.list().unwrap_err()), "{mode:o}");
            assert!(refused(ring.write(&keys).unwrap_err()), "{mode:o}");
        }
        fs::set_permissions(ring.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(ring.list().unwrap().len(), 1, "that others see names is no harm");
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    /// Seals by a byte that is put before each, which is enough to see what is done with it.
    struct Toy(u8);

    impl AtRest for Toy {
        fn seal(&self, text: &[u8]) -> Result<Vec<u8>, String> {
            Ok([SEALED_BEGINS[0], &[self.0], text].concat())
        }

        fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
            let text = sealed.strip_prefix(SEALED_BEGINS[0]).unwrap();
            match text.split_first() {
                Some((by, text)) if *by == self.0 => Ok(Zeroizing::new(text.to_vec())),
                _ => Err("another one sealed it".into()),
            }
        }
    }

    #[test]
    fn sealed_files_are_opened_by_who_sealed_them() {
        let open = scratch("sealed");
        let sealed = open.clone().sealed_by(Arc::new(Toy(1)));
        open.write(&DomainKeys::generate("acme", 7, 14, 0).unwrap()).unwrap();
        // What lies open is read, and sealed when it is written again.
        let keys = sealed.read(7).unwrap().unwrap();
        assert!(!keys.sealed);
        sealed.write(&keys).unwrap();
        assert!(sealed.read(7).unwrap().unwrap().sealed);
        assert!(sealed.list().unwrap()[0].epochs().eq(keys.epochs()));
        for other in [open.clone(), open.clone().sealed_by(Arc::new(Toy(2)))] {
            assert!(matches!(other.read(7), Err(LoadError::KeyFileSealed { .. })));
        }
        fs::remove_dir_all(open.dir()).unwrap();
    }
}
