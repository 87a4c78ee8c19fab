//! An instance: the pinned state of one enforcement point, `<bpffs>/govc/v1/<name>/`.
//!
//! Everything that enforcement needs is pinned: maps, programs, links. The process that put it
//! there may die at any moment.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use govc_abi::{flow::Control, names};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::{
    error::{LoadError, bpf, file},
    mapped::MappedArray,
    object::{self, Sizes},
};

/// Where bpffs is unless told otherwise.
pub const BPFFS: &str = "/sys/fs/bpf";
/// Name of an instance unless told otherwise.
pub const DEFAULT_NAME: &str = "default";
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

    /// File that a map or program is pinned as.
    #[must_use]
    pub fn pin(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether anything is pinned.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.pin(names::map::CONTROL).exists()
    }

    /// Makes the directory, mounting bpffs when there is none, and takes the lock that keeps
    /// others from changing the instance until it is dropped.
    ///
    /// # Errors
    /// No bpffs can be had, or somebody else holds the lock.
    pub fn lock(&self) -> Result<Lock, LoadError> {
        self.need_bpffs()?;
        fs::create_dir_all(&self.dir).map_err(file("cannot make pin directory", &self.dir))?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::open(&self.dir, flags, Mode::empty())
            .map_err(|e| file("cannot open pin directory", &self.dir)(e.into()))?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _directory: fd }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LoadError::Locked(self.name.clone())),
            Err(error) => Err(file("cannot lock pin directory", &self.dir)(error.into())),
        }
    }

    /// The bpffs that the instance lives below.
    fn bpffs(&self) -> &Path {
        let above = names::PIN_ROOT.split('/').count() + 1;
        self.dir.ancestors().nth(above).unwrap_or(Path::new(BPFFS))
    }

    fn need_bpffs(&self) -> Result<(), LoadError> {
        let path = self.bpffs();
        let is_bpffs = rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC);
        if is_bpffs {
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
    pub(crate) keys: MappedArray,
    pub(crate) interfaces: MappedArray,
    pub(crate) sizes: Sizes,
}

impl Instance {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// Nothing is pinned, or it cannot be opened.
    pub fn open(place: &Place) -> Result<Self, LoadError> {
        if !place.exists() {
            return Err(LoadError::NoInstance(place.name.clone()));
        }
        let map = |name: &'static str, value_len: usize| {
            let map = object::map_array(&place.pin(name))?;
            if map.value_len() < value_len {
                return Err(LoadError::Layout { map: name });
            }
            Ok(map)
        };
        let tables = map(names::map::TABLES, govc_abi::image::HEADER_WORDS * 4)?;
        let counters = map(names::map::COUNTERS, size_of::<govc_abi::flow::Counter>())?;
        let sizes = Sizes::of_maps(
            tables.value_len() as u32,
            counters.value_len() as u32,
            object::possible_cpus()?,
        );
        Ok(Self {
            place: place.clone(),
            control: map(names::map::CONTROL, size_of::<Control>())?,
            tables,
            counters,
            keys: map(names::map::KEYS, size_of::<govc_abi::key::KeyTable>())?,
            interfaces: map(names::map::INTERFACES, size_of::<govc_abi::flow::Interface>())?,
            sizes,
        })
    }

    /// Which instance it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
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

/// Makes sure that maps of sufficient size and the programs are pinned. Tells whether programs
/// were loaded anew, and then [`crate::attach::refresh`] has to move the links over.
///
/// An instance whose buffers are too small gets larger ones with the same content; until the
/// links are moved the old programs go on with the old maps, and both decide alike.
///
/// # Errors
/// The kernel refuses maps or programs.
pub fn prepare(place: &Place, wanted: Sizes) -> Result<bool, LoadError> {
    let programs_pinned =
        [names::program::TC_INGRESS, names::program::TC_EGRESS, names::program::XDP_INGRESS]
            .iter()
            .all(|name| place.pin(name).exists());
    let old = if place.exists() && place.pin(names::map::COUNTERS).exists() {
        Some(Instance::open(place)?)
    } else {
        None
    };
    if let Some(instance) = &old
        && instance.sizes.holds(&wanted)
        && programs_pinned
        && object_is_current(place)?
    {
        return Ok(false);
    }
    let sizes = old.as_ref().map_or(wanted, |instance| instance.sizes.join(&wanted));
    let staged = |name: &str| match name {
        names::map::TABLES | names::map::COUNTERS => place.pin(&format!("{name}-next")),
        _ => place.pin(name),
    };
    for (name, len, entries) in [
        (names::map::TABLES, sizes.table_len(), 2),
        (names::map::COUNTERS, sizes.counters_len(), 3),
    ] {
        remove_pin(&staged(name))?;
        object::create_array(&staged(name), name, len, entries)?;
    }
    let mut programs = object::load(sizes, &staged)?;
    if let Some(instance) = &old {
        copy_content(instance, &staged)?;
    }
    for name in [names::program::TC_INGRESS, names::program::TC_EGRESS] {
        let path = place.pin(&format!("{name}-next"));
        remove_pin(&path)?;
        programs
            .classifier(name)?
            .pin(&path)
            .map_err(bpf(format!("cannot pin program `{name}`")))?;
    }
    let xdp = names::program::XDP_INGRESS;
    remove_pin(&place.pin(&format!("{xdp}-next")))?;
    programs
        .xdp()?
        .pin(place.pin(&format!("{xdp}-next")))
        .map_err(bpf(format!("cannot pin program `{xdp}`")))?;
    for name in [
        names::map::TABLES,
        names::map::COUNTERS,
        names::program::TC_INGRESS,
        names::program::TC_EGRESS,
        xdp,
    ] {
        rename_pin(&place.pin(&format!("{name}-next")), &place.pin(name))?;
    }
    write_object_mark(place)?;
    Ok(true)
}

/// Name of the empty file whose name tells which object the programs were loaded from: bpffs
/// holds directories but no plain files, so the mark is a directory.
fn object_mark() -> String {
    let digest = govc_runtime_ebpf::BUILD_RECORD
        .lines()
        .find_map(|line| line.strip_prefix("object_sha256 = "))
        .unwrap_or_default();
    let digest: String = digest.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    format!("object-{digest}")
}

fn object_is_current(place: &Place) -> Result<bool, LoadError> {
    Ok(place.pin(&object_mark()).is_dir())
}

fn write_object_mark(place: &Place) -> Result<(), LoadError> {
    let entries = fs::read_dir(&place.dir).map_err(file("cannot list pins", &place.dir))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("object-") {
            fs::remove_dir(entry.path()).map_err(file("cannot remove mark", entry.path()))?;
        }
    }
    let mark = place.pin(&object_mark());
    fs::create_dir(&mark).map_err(file("cannot make mark", mark))
}

/// Copies both buffers and all counters into the larger maps that replace them.
fn copy_content(old: &Instance, staged: &object::PinOf<'_>) -> Result<(), LoadError> {
    let tables = object::map_array(&staged(names::map::TABLES))?;
    let counters = object::map_array(&staged(names::map::COUNTERS))?;
    let new =
        Sizes::of_maps(tables.value_len() as u32, counters.value_len() as u32, old.sizes.cpus);
    for buffer in 0..2 {
        let bytes = old.tables.read_bytes(buffer, 0, old.tables.value_len());
        if !tables.write_bytes(buffer, 0, &bytes) {
            return Err(bpf("cannot copy tables")(std::io::Error::other("they do not fit")));
        }
    }
    let stripe = 16_usize << old.sizes.counter_shift;
    for entry in 0..3 {
        for cpu in 0..old.sizes.cpus as usize {
            let bytes = old.counters.read_bytes(entry, cpu * stripe, stripe);
            let at = cpu * (16_usize << new.counter_shift);
            if !counters.write_bytes(entry, at, &bytes) {
                return Err(bpf("cannot copy counters")(std::io::Error::other("they do not fit")));
            }
        }
    }
    Ok(())
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

fn rename_pin(from: &Path, to: &Path) -> Result<(), LoadError> {
    fs::rename(from, to).map_err(file("cannot rename pin", to))
}
