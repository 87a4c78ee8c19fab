//! An instance: the pinned state of one enforcement point, `<bpffs>/govc/v3/<name>/`.
//!
//! Everything that enforcement needs is pinned: maps, programs, links. The process that put it
//! there may die at any moment.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{Ordering, fence},
};

use govc_abi::{
    flow::{Control, Counter},
    image, names,
};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::{
    counts::Ledger,
    error::{LoadError, file},
    mapped::MappedArray,
    object::{self, Sizes},
    set::{self, Set},
};

/// Where bpffs is unless told otherwise.
pub const BPFFS: &str = "/sys/fs/bpf";
/// Name of an instance unless told otherwise.
pub const DEFAULT_NAME: &str = "default";
/// Directory that is locked by whoever reads events.
const READER: &str = "reader";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Names an instance; nothing is opened.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    dir: PathBuf,
}

impl Place {
    /// The instance `name` below a bpffs.
    #[must_use]
    pub fn new(bpffs: &Path, name: &str) -> Self {
        Self { name: name.into(), dir: bpffs.join(names::PIN_ROOT).join(name) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// File that a map is pinned as which is not replaced with [`Set`]s.
    #[must_use]
    pub fn pin(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether an instance is there, as far as this process may look.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.set().is_ok()
    }

    /// The set in use.
    ///
    /// # Errors
    /// There is no instance, or this process may not look.
    pub fn set(&self) -> Result<Set, LoadError> {
        set::current(self)?.ok_or_else(|| LoadError::NoInstance(self.name.clone()))
    }

    /// Makes the directory, mounting bpffs when there is none, and takes the lock that keeps
    /// others from changing the instance until it is dropped.
    ///
    /// # Errors
    /// No bpffs can be had, or somebody else holds the lock.
    pub fn lock(&self) -> Result<Lock, LoadError> {
        self.need_bpffs()?;
        loop {
            fs::create_dir_all(&self.dir).map_err(file("cannot make pin directory", &self.dir))?;
            let no = |error: rustix::io::Errno| {
                file("cannot open pin directory", &self.dir)(error.into())
            };
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
            let fd = rustix::fs::open(&self.dir, flags, Mode::empty()).map_err(no)?;
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(LoadError::Locked(self.name.clone()));
                }
                Err(error) => return Err(no(error)),
            }
            // A detach may have removed the directory since: its lock guards nothing.
            let locked = rustix::fs::fstat(&fd).map_err(no)?.st_ino;
            if rustix::fs::stat(&self.dir).is_ok_and(|there| there.st_ino == locked) {
                return Ok(Lock { _directory: fd });
            }
        }
    }

    /// Makes this process the one that reads the instance's events, until the claim is dropped
    /// or the process ends, however that is.
    ///
    /// # Errors
    /// Another process is, or there is no instance.
    pub fn claim_events(&self) -> Result<Lock, LoadError> {
        self.set()?;
        let path = self.pin(READER);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(file("cannot make", path)(error));
            }
            _ => {}
        }
        // Whoever only looks holds the lock for a moment.
        for _ in 0..10 {
            match self.lock_reader(FlockOperation::NonBlockingLockExclusive) {
                Ok(directory) => return Ok(Lock { _directory: directory }),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Err(error) => return Err(file("cannot lock", path)(error.into())),
            }
        }
        Err(LoadError::EventsTaken(self.name.clone()))
    }

    /// Whether a process reads the instance's events.
    #[must_use]
    pub fn has_reader(&self) -> bool {
        let lock = self.lock_reader(FlockOperation::NonBlockingLockShared);
        lock.is_err_and(|error| error == rustix::io::Errno::WOULDBLOCK)
    }

    fn lock_reader(&self, operation: FlockOperation) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = rustix::fs::open(self.pin(READER), flags, Mode::empty())?;
        rustix::fs::flock(&directory, operation)?;
        Ok(directory)
    }

    /// The bpffs that the instance lives below.
    fn bpffs(&self) -> &Path {
        let above = names::PIN_ROOT.split('/').count() + 1;
        self.dir.ancestors().nth(above).unwrap_or(Path::new(BPFFS))
    }

    /// Whether a bpffs is there, or may be mounted.
    ///
    /// # Errors
    /// Neither: something else is there, or what is mounted would go with this process.
    pub fn find_bpffs(&self) -> Result<Bpffs, LoadError> {
        let path = self.bpffs();
        if rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC) {
            return Ok(Bpffs::Mounted);
        }
        let holds_files = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if holds_files {
            return Err(LoadError::NotBpffs(path.into()));
        }
        if !keeps_mounts() {
            return Err(LoadError::PrivateMounts(path.into()));
        }
        Ok(Bpffs::ToMount)
    }

    fn need_bpffs(&self) -> Result<(), LoadError> {
        let path = self.bpffs();
        if self.find_bpffs()? == Bpffs::Mounted {
            return Ok(());
        }
        let no = |source: std::io::Error| LoadError::NoBpffs { path: path.into(), source };
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(no)?;
        }
        let flags = rustix::mount::MountFlags::NOSUID
            | rustix::mount::MountFlags::NODEV
            | rustix::mount::MountFlags::NOEXEC;
        rustix::mount::mount("bpf", path, "bpf", flags, c"mode=0700")
            .map_err(|error| no(error.into()))
    }
}

/// Whether pins have a place to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bpffs {
    /// It is there.
    Mounted,
    /// An apply mounts it.
    ToMount,
}

/// Whether what this process mounts stays when it ends: its mounts are those of the machine, or of the
/// container. `ip netns exec` makes a namespace of mounts that lives as long as its command, and pins in it
/// would go with that, and enforcement with them.
///
/// A mount has a number of its own in each namespace. Those of process 1 may be read where its namespace
/// may not be asked for; who may not read them either is not to mount.
fn keeps_mounts() -> bool {
    let [own, first] = ["self", "1"].map(|process| {
        let list = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        list.lines().filter_map(mount_number).collect::<BTreeSet<u64>>()
    });
    !own.is_disjoint(&first)
}

/// The number of a mount, with which a line of mountinfo begins.
fn mount_number(line: &str) -> Option<u64> {
    line.split(' ').next()?.parse().ok()
}

/// Held while an instance changes.
pub struct Lock {
    _directory: OwnedFd,
}

/// The mapped state of an instance.
pub struct Instance {
    pub(crate) place: Place,
    pub(crate) control: MappedArray,
    pub(crate) tables: MappedArray,
    pub(crate) counters: MappedArray,
    pub(crate) carried: MappedArray,
    ledger: MappedArray,
    pub(crate) keys: MappedArray,
    pub(crate) grants: MappedArray,
    pub(crate) interfaces: MappedArray,
    pub(crate) detours: MappedArray,
    pub(crate) patterns: MappedArray,
    pub(crate) set: Set,
    pub(crate) sizes: Sizes,
}

impl Instance {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// Nothing is pinned, or it cannot be opened.
    pub fn open(place: &Place) -> Result<Self, LoadError> {
        let mut tried = None;
        loop {
            let set = place.set()?;
            let number = Some(set.pin(""));
            match Self::open_set(place, set) {
                // Another process may have replaced the set meanwhile.
                Err(_) if tried != number => tried = number,
                result => return result,
            }
        }
    }

    fn open_set(place: &Place, set: Set) -> Result<Self, LoadError> {
        let map = |path: PathBuf, name: &'static str, value_len: usize| {
            let map = object::map_array(&path)?;
            if map.value_len() < value_len {
                return Err(LoadError::Layout { map: name });
            }
            Ok(map)
        };
        let of_set = |name, value_len| map(set.pin(name), name, value_len);
        let own = |name, value_len| map(place.pin(name), name, value_len);
        let tables = of_set(names::map::TABLES, image::HEADER_WORDS * 4)?;
        let counters = of_set(names::map::COUNTERS, size_of::<Counter>())?;
        let sizes = Sizes::of_maps(
            tables.value_len() as u32,
            counters.value_len() as u32,
            object::possible_cpus()?,
        );
        Ok(Self {
            place: place.clone(),
            control: own(names::map::CONTROL, size_of::<Control>())?,
            tables,
            counters,
            carried: of_set(names::map::CARRIED, sizes.carried_len() as usize)?,
            ledger: of_set(names::map::LEDGER, size_of::<u64>())?,
            keys: own(names::map::KEYS, size_of::<govc_abi::key::KeyTable>())?,
            grants: own(names::map::GRANTS, size_of::<govc_abi::grant::GrantTable>())?,
            interfaces: own(names::map::INTERFACES, size_of::<govc_abi::flow::Interface>())?,
            detours: own(names::map::DETOURS, size_of::<govc_abi::flow::Detours>())?,
            patterns: own(names::map::PATTERNS, size_of::<govc_abi::flow::Patterns>())?,
            set,
            sizes,
        })
    }

    /// Which instance it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// File that a map is pinned as, be it the instance's own or its set's.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.set.pin_of(&self.place, name)
    }

    /// One counter of a buffer, over all CPUs and all sets that the instance has had.
    #[must_use]
    pub fn count(&self, buffer: usize, number: u32) -> Counter {
        let mut total = self.carried_count(self.ledger().entry(buffer), number);
        let Sizes { counter_shift, cpus, .. } = self.sizes;
        set::add_stripes(&mut total, &self.counters, buffer, number, counter_shift, cpus);
        total
    }

    /// One counter of an entry of `CARRIED`.
    pub(crate) fn carried_count(&self, entry: usize, number: u32) -> Counter {
        self.carried.read(entry, number as usize * size_of::<Counter>()).unwrap_or_default()
    }

    pub(crate) fn set_carried(&self, entry: usize, number: u32, count: Counter) {
        self.carried.write(entry, number as usize * size_of::<Counter>(), count);
    }

    /// Which entries of `CARRIED` hold what.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::from_word(self.ledger.read(0, 0).unwrap_or_default())
    }

    /// Everything that was written before counts from here on, and nothing that is written later.
    pub(crate) fn set_ledger(&self, ledger: Ledger) {
        fence(Ordering::SeqCst);
        self.ledger.write(0, 0, ledger.word());
        fence(Ordering::SeqCst);
    }

    /// The names section of the image in a buffer, which was verified when it was put there; [`None`]
    /// when it holds none.
    pub(crate) fn names(&self, buffer: usize) -> Option<govc_image::Names> {
        let generation = *self.control().generations.get(buffer)?;
        if generation.number == 0 {
            return None;
        }
        let word = |at: u32| self.tables.read::<u32>(buffer, at as usize * 4);
        let (at, len) = (word(image::AT_NAMES)?, word(image::AT_NAMES_LEN)?);
        let bytes = self.tables.read_bytes(buffer, at as usize * 4, len as usize);
        govc_image::Names::decode(&bytes).ok()
    }

    /// The control record.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.read(0, 0).unwrap_or(Control::EMPTY)
    }

    /// The image in a buffer, `None` when it holds none.
    ///
    /// # Errors
    /// The buffer holds something that is no image.
    pub fn image(&self, buffer: usize) -> Result<Option<govc_image::Image>, LoadError> {
        let Some(generation) = self.control().generations.get(buffer).copied() else {
            return Ok(None);
        };
        if generation.number == 0 {
            return Ok(None);
        }
        let bytes = self.tables.read_bytes(buffer, 0, generation.words as usize * 4);
        Ok(Some(govc_image::Image::parse(bytes)?))
    }

    /// The image in force with its generation's number.
    ///
    /// # Errors
    /// As [`Self::image`]; there is none.
    pub fn active_image(&self) -> Result<(u64, govc_image::Image), LoadError> {
        let active = self.control().active;
        match self.image((active & 1) as usize)? {
            Some(image) if active != 0 => Ok((active >> 1, image)),
            _ => Err(LoadError::NoInstance(self.place.name.clone())),
        }
    }
}

/// Removes a pin if it is there.
pub(crate) fn remove_pin(path: &Path) -> Result<(), LoadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file("cannot remove pin", path)(error))
        }
        _ => Ok(()),
    }
}
