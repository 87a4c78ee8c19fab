//! Sets: the maps whose size depends on the policy or the machine, with the programs made over them.
//!
//! They are replaced together, when a policy outgrows them or the object is another one. A set is
//! a directory `set-<number>` of an instance. The newest one that holds a directory
//! `ready-<object>` is the one in use; bpffs holds no plain files, so the mark is a directory.
//! A set is marked when all links run its programs and all counts have been carried over, so that
//! whoever finds a newer set without a mark knows that its maker died, and makes another one.

use std::{
    fs,
    io::ErrorKind,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::programs::links::FdLink;
use aya_obj::{generated::bpf_attach_type, programs::XdpAttachType};
use govc_abi::{
    flow::{Counter, CpuState, FlowState},
    memory::{AddressesV6, Arrivals, Memo, Stamped},
    names,
};

use crate::{
    attach, cgroup,
    counts::{CARRIED_ENTRIES, Ledger},
    error::{LoadError, bpf, file},
    instance::{Instance, Place, remove_pin},
    link::Link,
    mapped::MappedArray,
    object::{self, Sizes},
    publish::wait_for_readers,
};

/// Buffers of `COUNTERS`: two generations, and since the instance began.
pub(crate) const COUNTER_ENTRIES: usize = 3;
/// Maps of the object that belong to sets.
const HELD: [&str; 5] = [
    names::map::TABLES,
    names::map::COUNTERS,
    names::map::MEMO,
    names::map::MEMO_V6,
    names::map::STAMPED,
];
const DIRECTORY: &str = "set-";
const READY: &str = "ready-";
/// Link of the setsockopt program.
const LISTENING: &str = "listening";

/// A set by its place in bpffs; nothing is opened.
#[derive(Clone, Debug)]
pub struct Set {
    number: u64,
    dir: PathBuf,
    /// The object that its programs were loaded from; `None` when it was never finished.
    object: Option<String>,
}

impl Set {
    /// File that a map or program of this set is pinned as.
    #[must_use]
    pub fn pin(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// File that a map of an instance with this set is pinned as, be it the instance's or the set's.
    #[must_use]
    pub fn pin_of(&self, place: &Place, name: &str) -> PathBuf {
        if HELD.contains(&name) { self.pin(name) } else { place.pin(name) }
    }

    /// A pinned tcx program, ready to be attached.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn classifier(&self, name: &str) -> Result<aya::programs::SchedClassifier, LoadError> {
        aya::programs::SchedClassifier::from_pin(self.pin(name))
            .map_err(bpf(format!("cannot open pinned program `{name}`")))
    }

    /// The pinned XDP program, ready to be attached.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn xdp(&self) -> Result<aya::programs::Xdp, LoadError> {
        let name = names::program::XDP_INGRESS;
        aya::programs::Xdp::from_pin(self.pin(name), XdpAttachType::Interface)
            .map_err(bpf(format!("cannot open pinned program `{name}`")))
    }

    fn remove(&self) -> Result<(), LoadError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(file("cannot remove pins", &self.dir)(error))
            }
            _ => Ok(()),
        }
    }
}

/// All sets of an instance, oldest first; none when there is no instance.
///
/// # Errors
/// This process may not look.
pub(crate) fn list(place: &Place) -> Result<Vec<Set>, LoadError> {
    let look = |dir: &Path| match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().collect::<Vec<_>>()),
        // Another process may just have removed it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(LoadError::Privileges("the pins of instances are for root alone"))
        }
        Err(error) => Err(file("cannot list pins", dir)(error)),
    };
    let mut sets = Vec::new();
    for entry in look(place.dir())? {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY)?.parse().ok());
        let Some(number) = number else { continue };
        let dir = entry.path();
        let marks = look(&dir)?;
        let object = marks
            .into_iter()
            .find_map(|mark| Some(mark.file_name().to_str()?.strip_prefix(READY)?.to_owned()));
        sets.push(Set { number, dir, object });
    }
    sets.sort_unstable_by_key(|set| set.number);
    Ok(sets)
}

/// The set in use; none when there is no instance.
///
/// # Errors
/// This process may not look.
pub(crate) fn current(place: &Place) -> Result<Option<Set>, LoadError> {
    Ok(list(place)?.into_iter().rev().find(|set| set.object.is_some()))
}

/// Makes sure that an instance has a set of sufficient size, loaded from this version's object,
/// and that all links run its programs. Tells whether a new one was made.
///
/// Until all links have moved the old programs go on over the old maps; both decide alike.
///
/// # Errors
/// The kernel refuses maps or programs; the set in use stays so.
pub fn prepare(place: &Place, wanted: Sizes) -> Result<bool, LoadError> {
    let sets = list(place)?;
    let in_use = sets.iter().rposition(|set| set.object.is_some());
    let old = in_use.map(|_| Instance::open(place)).transpose()?;
    // Sets without a mark that are newer: their makers died, and links may run their programs.
    let unfinished = sets.get(in_use.map_or(0, |at| at + 1)..).unwrap_or_default();
    if let (Some(old), Some(set)) = (&old, in_use.and_then(|at| sets.get(at)))
        && unfinished.is_empty()
        && old.sizes.holds(&wanted)
        && set.object.as_deref() == Some(object_digest())
    {
        remove_all_but(&sets, set.number)?;
        return Ok(false);
    }
    let number = sets.last().map_or(0, |set| set.number + 1);
    let dir = place.dir().join(format!("{DIRECTORY}{number}"));
    let next = Set { number, dir, object: None };
    let sizes = old.as_ref().map_or(wanted, |instance| instance.sizes.join(&wanted));
    if let Err(error) = make(&next, place, sizes, old.as_ref()) {
        // Nothing runs these programs yet.
        let _ = next.remove();
        return Err(error);
    }
    attach::refresh(place, &next)?;
    wait_for_readers();
    carry(&next, old.as_ref(), unfinished, sizes.cpus)?;
    let mark = next.pin(&format!("{READY}{}", object_digest()));
    fs::create_dir(&mark).map_err(file("cannot make mark", mark))?;
    remove_all_but(&sets, number)?;
    Ok(true)
}

fn remove_all_but(sets: &[Set], number: u64) -> Result<(), LoadError> {
    sets.iter().filter(|set| set.number != number).try_for_each(Set::remove)
}

/// Makes and pins maps and programs, with the tables of the set in use.
fn make(set: &Set, place: &Place, sizes: Sizes, old: Option<&Instance>) -> Result<(), LoadError> {
    fs::create_dir(&set.dir).map_err(file("cannot make pin directory", &set.dir))?;
    for (name, len, entries) in [
        (names::map::TABLES, sizes.table_len(), 2),
        (names::map::COUNTERS, sizes.counters_len(), COUNTER_ENTRIES as u32),
        (names::map::CARRIED, sizes.carried_len(), CARRIED_ENTRIES as u32),
        (names::map::LEDGER, size_of::<u64>() as u32, 1),
        (names::map::MEMO, size_of::<Memo>() as u32, sizes.memory_entries()),
        (names::map::MEMO_V6, size_of::<AddressesV6>() as u32, sizes.memory_entries()),
        (names::map::STAMPED, size_of::<Stamped>() as u32, sizes.memory_entries()),
    ] {
        object::create_array(&set.pin(name), name, len, entries)?;
    }
    forget_other_layouts(place)?;
    let mut programs = object::load(sizes, &|name| set.pin_of(place, name))?;
    if let Some(old) = old {
        let tables = object::map_array(&set.pin(names::map::TABLES))?;
        for buffer in 0..2 {
            let bytes = old.tables.read_bytes(buffer, 0, old.tables.value_len());
            if !tables.write_bytes(buffer, 0, &bytes) {
                return Err(bpf("cannot copy tables")(std::io::Error::other("they do not fit")));
            }
        }
    }
    for name in [names::program::TC_INGRESS, names::program::TC_EGRESS] {
        let what = format!("cannot pin program `{name}`");
        programs.classifier(name)?.pin(set.pin(name)).map_err(bpf(what))?;
    }
    let name = names::program::XDP_INGRESS;
    let what = format!("cannot pin program `{name}`");
    programs.xdp()?.pin(set.pin(name)).map_err(bpf(what))?;
    listen(set, &mut programs)?;
    watch_cgroups(set, &mut programs);
    Ok(())
}

/// Lets go of maps whose values another version's object had another layout for, and which hold nothing that has
/// to stay: flows, which are remembered anew, and working memory. The old programs keep theirs until
/// they end.
fn forget_other_layouts(place: &Place) -> Result<(), LoadError> {
    for (name, value_len) in [
        (names::map::FLOWS, size_of::<FlowState>()),
        (names::map::OPENINGS, size_of::<FlowState>()),
        (names::map::CPU, size_of::<CpuState>()),
        (names::map::ARRIVALS, size_of::<Arrivals>()),
    ] {
        let path = place.pin(name);
        if !path.exists() {
            continue;
        }
        let map = object::open_map(&path)?;
        let info = map.info().map_err(bpf("cannot ask the kernel about a map"))?;
        if info.value_size() as usize != value_len {
            remove_pin(&path)?;
            // What arrives is numbered by what `CPU` counts, which begins anew.
            if name == names::map::CPU {
                remove_pin(&place.pin(names::map::ARRIVALS))?;
            }
        }
    }
    Ok(())
}

/// Lets the kernel find patterns for cgroups that are made later. Without its tracepoints they are
/// found at the next apply.
fn watch_cgroups(set: &Set, programs: &mut object::Programs) {
    cgroup::mount_tracing();
    for (name, record) in [
        (names::program::CGROUP_MADE, "cgroup_mkdir"),
        (names::program::CGROUP_GONE, "cgroup_rmdir"),
    ] {
        let watched = (|| {
            let what = || format!("cannot attach to `cgroup:{record}`");
            let program = programs.tracepoint(name)?;
            let id = program.attach("cgroup", record).map_err(bpf(what()))?;
            let link = program.take_link(id).map_err(bpf(what()))?;
            let link: FdLink = link.try_into().map_err(bpf(what()))?;
            link.pin(set.pin(record)).map_err(bpf(what()))
        })();
        if let Err(error) = watched {
            tracing::warn!("cgroups made later are found at the next apply only: {error}");
        }
    }
}

/// Lets sockets of all cgroups declare what they do. The link goes with the set; two at a time note
/// the same twice.
fn listen(set: &Set, programs: &mut object::Programs) -> Result<(), LoadError> {
    let Some(root) = cgroup::root() else {
        tracing::warn!("no cgroup2 hierarchy is mounted: sockets cannot declare operations");
        return Ok(());
    };
    let what = || format!("cannot attach to the setsockopt hook of `{}`", root.display());
    let directory = fs::File::open(&root).map_err(file("cannot open", &root))?;
    let program = programs.sockopt()?;
    let program = program.fd().map_err(bpf(what()))?.as_fd();
    let kind = bpf_attach_type::BPF_CGROUP_SETSOCKOPT;
    let link = Link::to_cgroup(program, directory.as_fd(), kind).map_err(bpf(what()))?;
    let path = set.pin(LISTENING);
    link.pin(&path).map_err(bpf(format!("cannot pin link `{}`", path.display())))
}

/// Adds up what the sets before have counted, now that nothing counts there any more.
///
/// The sum goes into a map that no program writes: the new counters count already. It is written
/// as a whole, from maps that do not change, so that doing it twice does no harm.
fn carry(
    next: &Set,
    old: Option<&Instance>,
    unfinished: &[Set],
    cpus: u32,
) -> Result<(), LoadError> {
    let carried = object::map_array(&next.pin(names::map::CARRIED))?;
    let mut sources = Vec::new();
    for set in unfinished {
        // Its maker may have died before it had made them, and then nothing was counted.
        if let Ok(counters) = object::map_array(&set.pin(names::map::COUNTERS)) {
            sources.push(counters);
        }
    }
    let closed = old.map_or(0, |old| old.ledger().closed());
    let ledger = Ledger::new(closed);
    for buffer in 0..COUNTER_ENTRIES {
        for number in 0..(carried.value_len() / size_of::<Counter>()) as u32 {
            let mut total = old.map_or_else(Counter::default, |old| old.count(buffer, number));
            for counters in &sources {
                let len = counters.value_len() as u32;
                let shift = Sizes::of_maps(0, len, cpus).counter_shift;
                add_stripes(&mut total, counters, buffer, number, shift, cpus);
            }
            let at = number as usize * size_of::<Counter>();
            carried.write(ledger.entry(buffer), at, total);
        }
    }
    object::map_array(&next.pin(names::map::LEDGER))?.write(0, 0, ledger.word());
    Ok(())
}

/// Adds one counter of all CPUs to a total.
pub(crate) fn add_stripes(
    total: &mut Counter,
    counters: &MappedArray,
    entry: usize,
    number: u32,
    shift: u32,
    cpus: u32,
) {
    if number >> shift != 0 {
        return;
    }
    for cpu in 0..cpus {
        let index = ((cpu << shift) + number) as usize;
        let one: Counter = counters.read(entry, index * size_of::<Counter>()).unwrap_or_default();
        total.packets += one.packets;
        total.bytes += one.bytes;
    }
}

/// The beginning of the digest of the object that this version embeds.
fn object_digest() -> &'static str {
    let digest = govc_runtime_ebpf::BUILD_RECORD
        .lines()
        .find_map(|line| line.strip_prefix("object_sha256 = "))
        .unwrap_or_default()
        .trim_matches(['"', ' ']);
    digest.get(..16).unwrap_or(digest)
}
