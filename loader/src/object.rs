//! From the embedded object to maps and programs in the kernel.

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapData,
    programs::{CgroupSock, CgroupSockopt, SchedClassifier, TracePoint, Xdp},
};
use aya_obj::maps::{LegacyMap, bpf_map_def};
use govc_abi::{flow::COUNTERS_REASONS, limits::TABLE_WORDS_MIN, memory::memory_shift, names};

use crate::{
    error::{LoadError, bpf, refused},
    instance::Instance,
};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Sizes that the loader chooses when it makes the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Words of one table buffer, a power of two.
    pub table_words: u32,
    /// Counters of one CPU, as a power of two.
    pub counter_shift: u32,
    /// CPUs, rounded up to a power of two.
    pub cpus: u32,
}

impl Sizes {
    /// Sizes that fit an image of `words` words and `rules` rules.
    #[must_use]
    pub fn for_image(words: u32, rules: u32, cpus: u32) -> Self {
        let counters = COUNTERS_REASONS.saturating_add(rules.saturating_mul(2));
        Self {
            table_words: words.next_power_of_two().max(TABLE_WORDS_MIN as u32),
            counter_shift: counters.next_power_of_two().trailing_zeros(),
            cpus: cpus.next_power_of_two(),
        }
    }

    /// Sizes of maps that exist.
    #[must_use]
    pub fn of_maps(table_value_len: u32, counter_value_len: u32, cpus: u32) -> Self {
        let cpus = cpus.next_power_of_two();
        let counters = counter_value_len / 16 / cpus;
        Self {
            table_words: table_value_len / 4,
            counter_shift: counters.max(1).trailing_zeros(),
            cpus,
        }
    }

    /// Whether everything that fits `other` fits here too.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.table_words >= other.table_words
            && self.counter_shift >= other.counter_shift
            && self.cpus == other.cpus
    }

    /// Large enough for both.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        Self {
            table_words: self.table_words.max(other.table_words),
            counter_shift: self.counter_shift.max(other.counter_shift),
            cpus: self.cpus.max(other.cpus),
        }
    }

    /// Bytes of one value of `TABLES`.
    #[must_use]
    pub fn table_len(&self) -> u32 {
        self.table_words * 4
    }

    /// Bytes of one value of `CARRIED`.
    #[must_use]
    pub fn carried_len(&self) -> u32 {
        16 << self.counter_shift
    }

    /// Entries of `MEMO`, `MEMO_V6` and `STAMPED`.
    #[must_use]
    pub fn memory_entries(&self) -> u32 {
        self.cpus << memory_shift(self.cpus)
    }

    /// Bytes of one value of `COUNTERS`.
    #[must_use]
    pub fn counters_len(&self) -> u32 {
        (self.cpus << self.counter_shift) * 16
    }
}

/// Number of CPUs that programs may run on.
///
/// # Errors
/// The kernel does not tell.
pub fn possible_cpus() -> Result<u32, LoadError> {
    aya::util::nr_cpus().map(|cpus| cpus as u32).map_err(|(what, source)| LoadError::File {
        what: "cannot read",
        path: PathBuf::from(what),
        source,
    })
}

/// Makes an mmapable array and pins it.
///
/// # Errors
/// The kernel refuses, often for want of memory.
pub fn create_array(
    path: &Path,
    name: &str,
    value_len: u32,
    entries: u32,
) -> Result<(), LoadError> {
    let map = aya_obj::Map::Legacy(LegacyMap {
        def: bpf_map_def {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: value_len,
            max_entries: entries,
            map_flags: BPF_F_MMAPABLE,
            ..Default::default()
        },
        inner_def: None,
        section_index: 0,
        section_kind: aya_obj::EbpfSectionKind::Maps,
        symbol_index: None,
        data: Vec::new(),
    });
    let what = format!(
        "cannot make map `{name}` of {} KiB",
        u64::from(value_len) * u64::from(entries) / 1024
    );
    let map = MapData::create(map, name, None).map_err(bpf(what))?;
    map.pin(path).map_err(bpf(format!("cannot pin map `{name}`")))
}

/// Which file a map is pinned as.
pub type PinOf<'a> = dyn Fn(&str) -> PathBuf + 'a;

/// Loads the object over the maps that `pin_of` names; maps that are not pinned yet are made and
/// pinned there.
///
/// # Errors
/// The kernel refuses the object.
pub fn load(sizes: Sizes, pin_of: &PinOf<'_>) -> Result<Programs, LoadError> {
    let table_mask = sizes.table_words - 1;
    let counter_mask = (sizes.cpus << sizes.counter_shift) - 1;
    let memory_shift = memory_shift(sizes.cpus);
    let mut loader = EbpfLoader::new();
    loader
        .override_global(names::global::TABLE_MASK, &table_mask, true)
        .override_global(names::global::COUNTER_SHIFT, &sizes.counter_shift, true)
        .override_global(names::global::COUNTER_MASK, &counter_mask, true)
        .override_global(names::global::MEMORY_SHIFT, &memory_shift, true);
    for name in names::map::ALL {
        loader.map_pin_path(name, pin_of(name));
    }
    let mut object = loader
        .load(govc_runtime_ebpf::OBJECT)
        .map_err(bpf("the kernel refuses the enforcement point's maps"))?;
    for name in [names::program::TC_INGRESS, names::program::TC_EGRESS] {
        classifier(&mut object, name)?.load().map_err(refused(name))?;
    }
    xdp(&mut object)?.load().map_err(refused(names::program::XDP_INGRESS))?;
    sockopt(&mut object)?.load().map_err(refused(names::program::DECLARE))?;
    for name in [names::program::CGROUP_MADE, names::program::CGROUP_GONE] {
        tracepoint(&mut object, name)?.load().map_err(refused(name))?;
    }
    Ok(Programs { object })
}

/// Loads the one program that declares an operation for sockets of a cgroup, over the maps of an
/// instance.
///
/// # Errors
/// The kernel refuses it.
pub fn load_run(instance: &Instance, operation: u64) -> Result<Programs, LoadError> {
    let mut loader = EbpfLoader::new();
    loader.override_global(names::global::RUN_OPERATION, &operation, true);
    for name in names::map::ALL {
        loader.map_pin_path(name, instance.pin(name));
    }
    let mut object = loader
        .load(govc_runtime_ebpf::OBJECT)
        .map_err(bpf("the kernel refuses the enforcement point's maps"))?;
    let name = names::program::SOCKET_MADE;
    socket_made(&mut object)?.load().map_err(refused(name))?;
    Ok(Programs { object })
}

/// The loaded programs.
pub struct Programs {
    object: Ebpf,
}

impl Programs {
    /// A tcx program by name.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, LoadError> {
        classifier(&mut self.object, name)
    }

    /// The program that notes what sockets declare.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn sockopt(&mut self) -> Result<&mut CgroupSockopt, LoadError> {
        sockopt(&mut self.object)
    }

    /// The program that declares for sockets of one cgroup.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn socket_made(&mut self) -> Result<&mut CgroupSock, LoadError> {
        socket_made(&mut self.object)
    }

    /// A program that hears of cgroups, by name.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn tracepoint(&mut self, name: &str) -> Result<&mut TracePoint, LoadError> {
        tracepoint(&mut self.object, name)
    }

    /// The XDP program.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        xdp(&mut self.object)
    }
}

fn sockopt(object: &mut Ebpf) -> Result<&mut CgroupSockopt, LoadError> {
    let name = names::program::DECLARE;
    object
        .program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(bpf(format!("`{name}` is no setsockopt program")))
}

fn socket_made(object: &mut Ebpf) -> Result<&mut CgroupSock, LoadError> {
    let name = names::program::SOCKET_MADE;
    object
        .program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(bpf(format!("`{name}` is no program for sockets")))
}

fn tracepoint<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut TracePoint, LoadError> {
    object
        .program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(bpf(format!("`{name}` is no tracepoint program")))
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, LoadError> {
    object
        .program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(bpf(format!("`{name}` is no classifier")))
}

fn xdp(object: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    let name = names::program::XDP_INGRESS;
    object.program_mut(name).ok_or_else(|| missing(name))?.try_into().map_err(bpf("no XDP program"))
}

fn missing(name: &str) -> LoadError {
    bpf("the embedded object is not this version's")(std::io::Error::other(format!(
        "no program `{name}`"
    )))
}

/// Opens a pinned map.
///
/// # Errors
/// There is none, or it cannot be opened.
pub fn open_map(path: &Path) -> Result<MapData, LoadError> {
    MapData::from_pin(path).map_err(bpf(format!("cannot open pinned map `{}`", path.display())))
}

/// The kernel's number for a pinned map, which no other map ever gets while the machine is up.
///
/// # Errors
/// As [`open_map`].
pub fn map_id(path: &Path) -> Result<u32, LoadError> {
    let map = open_map(path)?;
    Ok(map.info().map_err(bpf("cannot ask the kernel about a map"))?.id())
}

/// Maps a pinned array.
///
/// # Errors
/// It cannot be opened or mapped.
pub fn map_array(path: &Path) -> Result<crate::mapped::MappedArray, LoadError> {
    let map = open_map(path)?;
    let info = map.info().map_err(bpf("cannot ask the kernel about a map"))?;
    crate::mapped::MappedArray::new(
        map.fd().as_fd(),
        info.value_size() as usize,
        info.max_entries() as usize,
    )
    .map_err(bpf(format!("cannot map `{}`", path.display())))
}
