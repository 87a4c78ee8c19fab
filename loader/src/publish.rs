//! Putting a policy in force: fill the idle buffer, read it back, flip one word.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use govc_abi::{
    flow::{Control, Counter, Detours, Generation, Interface, Patterns, interface_slot},
    image::{program, rule},
    key::KeyTable,
    label::SLOT_NS,
    limits::{CGROUP_PATTERN_MAX, CGROUPS_WATCHED_MAX, INTERFACE_PROBES, INTERFACES_MAX},
    names,
};
use govc_image::Image;
use serde::Serialize;
use zeroize::Zeroize as _;

use crate::{
    attach::{self, HookChoice},
    authority::{self, Authority},
    cgroup, counts, datagrams,
    error::{LoadError, bpf},
    instance::{Instance, Place},
    keyring::{DomainKeys, KeyRing, slot_now},
    netdev::{self, Netdev, Overhead},
    object::{self, Sizes},
    set,
};

/// What an apply is asked to do.
pub struct Apply<'a> {
    /// Which instance.
    pub place: &'a Place,
    /// The policy.
    pub image: &'a Image,
    /// Interfaces to enforce on, besides those that the instance enforces on already.
    pub interfaces: &'a [String],
    /// Hook for interfaces that are new.
    pub hook: HookChoice,
    /// Keys of the policy's domains.
    pub keys: &'a KeyRing,
    /// What the bundle says that the policy came in, if it came in one.
    pub authority: Option<&'a Authority>,
    /// Make routes leave room for labels.
    pub set_mtu: bool,
    /// Find out whether it would work; change nothing.
    pub dry_run: bool,
}

/// What an apply did.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// The generation in force now.
    pub generation: u64,
    /// Hexadecimal SHA-256 of its image.
    pub digest: String,
    /// Bytes of the image.
    pub image_len: usize,
    /// Rules.
    pub rules: usize,
    /// The interfaces with their zones.
    pub interfaces: Vec<AppliedInterface>,
    /// Cgroups that the policy's patterns match.
    pub cgroups: usize,
    /// Microseconds from the start of filling the buffer to the flip.
    pub publish_us: u64,
    /// The programs were loaded for this.
    pub programs_loaded: bool,
    /// Where packets in quarantine go.
    pub quarantine: Vec<Quarantine>,
}

/// A zone that packets in quarantine leave by.
#[derive(Clone, Debug, Serialize)]
pub struct Quarantine {
    /// Its name.
    pub zone: String,
    /// The interface; without one they are dropped.
    pub interface: Option<String>,
}

/// An interface after an apply.
#[derive(Clone, Debug, Serialize)]
pub struct AppliedInterface {
    /// Its name.
    pub name: String,
    /// The zone that the policy puts it in.
    pub zone: Option<String>,
    /// The hook on the ingress side.
    pub ingress: String,
    /// Largest packet that leaves room for a label.
    pub inner_mtu: u32,
}

/// Puts a policy in force.
///
/// # Errors
/// Whatever goes wrong, the policy that was in force before stays in force.
pub fn apply(request: &Apply<'_>) -> Result<Applied, LoadError> {
    crate::kernel::check()?;
    let devices = find_devices(request)?;
    let detours = Detouring::new(request.image)?;
    key_table(request.image, request.keys)?;
    authority::check(request.authority)?;
    let cpus = object::possible_cpus()?;
    let sizes = Sizes::for_image(
        request.image.words().len() as u32,
        request.image.rule_count() as u32,
        cpus,
    );
    if request.dry_run {
        attach::refuse_elsewhere(request.place)?;
        return Ok(dry_run_report(request, &devices, &detours));
    }
    let _lock = request.place.lock()?;
    // Read once more: keys that were handed over until now must not be those of before again.
    let key_table = key_table(request.image, request.keys)?;
    crate::confirm::refuse_apply(request.place)?;
    attach::refuse_elsewhere(request.place)?;
    let devices = with_attached(request, devices)?;
    detours.check(&devices)?;
    let hook = hook(request)?;
    let first = !request.place.exists();
    let programs_loaded = set::prepare(request.place, sizes)?;
    let instance = Instance::open(request.place)?;
    let control = instance.control();
    if control.settled != control.active {
        // Whoever flipped last did not wait, or died before it had.
        settle(&instance);
    }
    let begin = counts::hand_on(&instance, request.image, idle_buffer(&control));
    let started = std::time::Instant::now();
    let cgroups = fill(&instance, request, &devices, (&key_table, &detours, &begin))?;
    let filled = started.elapsed();
    let mut new = Vec::new();
    let in_force = if first {
        // Hooks without a policy drop everything: the first policy comes before the first hook.
        let flipped = flip(&instance);
        attach_new(&instance, (request, hook), &devices, &mut new).map(|()| flipped)
    } else {
        attach_new(&instance, (request, hook), &devices, &mut new).map(|()| flip(&instance))
    };
    let (generation, flipped_in) = match in_force {
        Ok(flipped) => flipped,
        Err(error) => {
            withdraw(&instance, &devices, &new, first);
            return Err(error);
        }
    };
    let publish_us = (filled + flipped_in).as_micros() as u64;
    settle(&instance);
    Ok(Applied {
        generation,
        programs_loaded,
        publish_us,
        cgroups,
        interfaces: interface_report(request, &devices, &attach::attached(request.place)?),
        ..dry_run_report(request, &devices, &detours)
    })
}

/// Attaches to the interfaces that are new and lowers MTUs; what was done is noted in `new`, also
/// when something fails.
fn attach_new<'a>(
    instance: &Instance,
    (request, hook): (&Apply<'_>, HookChoice),
    devices: &'a [Netdev],
    new: &mut Vec<&'a Netdev>,
) -> Result<(), LoadError> {
    for device in devices {
        if request.interfaces.contains(&device.name) && attach::attach(instance, device, hook)? {
            new.push(device);
        }
        if request.set_mtu {
            make_room(request.image, device)?;
        }
        datagrams::adjust(request.place, request.image, device)?;
    }
    Ok(())
}

/// Makes the stack leave room for the labels of what it sends. Not where packets pass through with
/// theirs: it would take them for too big. There the hooks tell senders what fits.
fn make_room(image: &Image, device: &Netdev) -> Result<(), LoadError> {
    if passes_on(image) {
        netdev::restore_mtu(device)?;
    } else {
        netdev::lower_mtu(device, Overhead::of(image.names(), device))?;
    }
    Ok(())
}

/// Whether a policy speaks about what passes through this node.
fn passes_on(image: &Image) -> bool {
    image.program(program::FORWARD).is_some_and(|program| program.governed)
}

/// Leaves things as they were before an apply that has failed after it had filled the buffer.
fn withdraw(instance: &Instance, devices: &[Netdev], new: &[&Netdev], first: bool) {
    let place = &instance.place;
    for device in new {
        let undone = attach::detach(place, device.index)
            .and_then(|()| netdev::restore_mtu(device).map(drop))
            .and_then(|()| datagrams::restore(place, device));
        if let Err(error) = undone {
            tracing::warn!(interface = device.name, %error, "cannot detach again");
        }
    }
    let attached = attach::attached(place).unwrap_or_default();
    for device in devices {
        if attached.iter().all(|one| one.interface != device.name) {
            forget_interface(instance, device.index);
        }
    }
    if first {
        if let Err(error) = std::fs::remove_dir_all(place.dir()) {
            tracing::warn!(path = %place.dir().display(), %error, "cannot remove pins");
        }
    } else {
        // Nobody may roll back to what never was in force.
        let idle = idle_buffer(&instance.control());
        instance.control.write(0, record_at(idle), Generation::default());
    }
}

/// Where the control record holds what is known about the generation in a buffer.
fn record_at(buffer: usize) -> usize {
    std::mem::offset_of!(Control, generations) + buffer * size_of::<Generation>()
}

/// Returns to the generation before the one in force; its number stays what it was.
///
/// # Errors
/// There is none.
pub fn rollback(place: &Place) -> Result<u64, LoadError> {
    go_back(place, None)
}

/// Returns to this generation, unless it is in force already: several may want to at once.
pub(crate) fn return_to(place: &Place, number: u64) -> Result<u64, LoadError> {
    go_back(place, Some(number))
}

fn go_back(place: &Place, wanted: Option<u64>) -> Result<u64, LoadError> {
    crate::kernel::check()?;
    if !place.exists() {
        return Err(LoadError::NoInstance(place.name().into()));
    }
    let _lock = place.lock()?;
    let instance = Instance::open(place)?;
    let control = instance.control();
    if wanted == Some(control.active >> 1) {
        return Ok(control.active >> 1);
    }
    let idle = idle_buffer(&control);
    let none = || LoadError::NoEarlierGeneration(place.name().into());
    let generation = control.generations.get(idle).filter(|g| g.number != 0).ok_or_else(none)?;
    if wanted.is_some_and(|number| number != generation.number) {
        return Err(none());
    }
    // A damaged image must not come into force.
    let image = instance.image(idle)?.ok_or_else(none)?;
    let attached = attach::attached(place)?;
    let mut devices = netdev::list()?;
    devices.retain(|device| attached.iter().any(|one| one.interface == device.name));
    // Some may have come since that generation was in force, which has put them into no zone yet.
    fill_interfaces(&instance, &image, &devices, idle)?;
    for device in &devices {
        datagrams::adjust(place, &image, device)?;
        if passes_on(&image) {
            netdev::restore_mtu(device)?;
        } else {
            netdev::adjust_mtu(device, Overhead::of(image.names(), device))?;
        }
    }
    counts::reopen(&instance, idle);
    // Both buffers stay as they are, so nobody has to be waited for: the next apply does that.
    set_active(&instance, generation.number, idle);
    Ok(generation.number)
}

/// Hands the key ring's present keys to the kernel, for the generation in force and for the one that a rollback
/// returns to. The second may know domains that have no keys any more: those get none, which is for whoever rolls back
/// to see, and no reason to let the first one run out of keys.
///
/// # Errors
/// A domain of the policy in force has no key.
pub fn refresh_keys(place: &Place, keys: &KeyRing) -> Result<(), LoadError> {
    let _lock = place.lock()?;
    let instance = Instance::open(place)?;
    let active = (instance.control().active & 1) as usize;
    if let Some(image) = instance.image(active)? {
        instance.keys.copy(active, 0, &*key_table(&image, keys)?.0);
    }
    let idle = 1 - active;
    if let Ok(Some(image)) = instance.image(idle) {
        let none = |error| tracing::warn!(%error, "the earlier generation has fewer keys");
        instance.keys.copy(idle, 0, &*key_table_without(&image, keys, none).0);
    }
    // Keys are good for a time: whoever brings new ones looks at the clock too.
    crate::clock::keep(place).map(drop)
}

/// Where a policy's quarantine zones lead.
struct Detouring {
    table: Detours,
    zones: Vec<Quarantine>,
}

impl Detouring {
    /// Looks the interfaces up: of several that a zone's patterns match, the oldest.
    fn new(image: &Image) -> Result<Self, LoadError> {
        let mut detouring = Self { table: Detours { interfaces: [0; 256] }, zones: Vec::new() };
        let quarantines = image.rules().filter(|record| record & rule::QUARANTINE != 0);
        let mut numbers: Vec<u32> =
            quarantines.map(|record| record >> rule::ZONE_SHIFT & 0xff).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let devices = if numbers.is_empty() { Vec::new() } else { netdev::list()? };
        let names = image.names();
        for number in numbers {
            let is_in = |device: &&Netdev| names.zone_of(&device.name) == Some(number as usize);
            let device = devices.iter().filter(is_in).min_by_key(|device| device.index);
            if let (Some(place), Some(device)) =
                (detouring.table.interfaces.get_mut(number as usize), device)
            {
                *place = device.index;
            }
            let zone = names.zone(number).unwrap_or_default().to_owned();
            let interface = device.map(|device| device.name.clone());
            detouring.zones.push(Quarantine { zone, interface });
        }
        Ok(detouring)
    }

    /// No interface is for both.
    fn check(&self, devices: &[Netdev]) -> Result<(), LoadError> {
        for Quarantine { zone, interface } in &self.zones {
            let Some(interface) = interface else { continue };
            if devices.iter().any(|device| device.name == *interface) {
                let (zone, interface) = (zone.clone(), interface.clone());
                return Err(LoadError::QuarantineEnforced { zone, interface });
            }
        }
        Ok(())
    }
}

/// Whether a policy has labels that ride in tunnels.
fn tunnels(image: &Image) -> bool {
    image.program(program::CARRIAGE).is_some_and(|program| program.governed)
}

/// The hook for new interfaces: XDP drops what it denies, and cannot answer, nor look into tunnels.
fn hook(request: &Apply<'_>) -> Result<HookChoice, LoadError> {
    let answers = rule::REJECT | rule::QUARANTINE;
    let tunnels = tunnels(request.image);
    if !tunnels && request.image.rules().all(|record| record & answers == 0) {
        return Ok(request.hook);
    }
    let attached = attach::attached(request.place)?;
    let on_xdp = attached.into_iter().find(|one| one.ingress == "xdp").map(|one| one.interface);
    let wanted = request.interfaces.first().filter(|_| request.hook == HookChoice::Xdp);
    match on_xdp.or(wanted.cloned()) {
        Some(interface) if tunnels => Err(LoadError::TunnelsOnXdp { interface }),
        Some(interface) => Err(LoadError::AnswersOnXdp { interface }),
        None => Ok(HookChoice::Tcx),
    }
}

fn find_devices(request: &Apply<'_>) -> Result<Vec<Netdev>, LoadError> {
    let devices: Result<Vec<Netdev>, LoadError> =
        request.interfaces.iter().map(|name| netdev::find(name)).collect();
    let devices = devices?;
    for device in &devices {
        netdev::inner_mtu(device, Overhead::of(request.image.names(), device))?;
    }
    Ok(devices)
}

/// Adds the interfaces that the instance enforces on already.
fn with_attached(request: &Apply<'_>, mut devices: Vec<Netdev>) -> Result<Vec<Netdev>, LoadError> {
    let attached = attach::attached(request.place)?;
    for device in netdev::list()? {
        let new = devices.iter().all(|d| d.index != device.index);
        if new && attached.iter().any(|a| a.interface == device.name) {
            netdev::inner_mtu(&device, Overhead::of(request.image.names(), &device))?;
            devices.push(device);
        }
    }
    Ok(devices)
}

/// Keys on their way to the kernel. They lie in one place, which is wiped when they are there.
struct Keys(Box<KeyTable>);

impl Drop for Keys {
    fn drop(&mut self) {
        for entry in &mut self.0.entries {
            entry.k0.zeroize();
            entry.k1.zeroize();
        }
    }
}

fn key_table(image: &Image, ring: &KeyRing) -> Result<Keys, LoadError> {
    let mut failed = None;
    let table = key_table_without(image, ring, |error| {
        failed.get_or_insert(error);
    });
    failed.map_or(Ok(table), Err)
}

/// The keys of a policy's domains, without those that cannot be had, of which `none` is told why.
fn key_table_without(image: &Image, ring: &KeyRing, mut none: impl FnMut(LoadError)) -> Keys {
    let mut table = Keys(Box::new(KeyTable::EMPTY));
    let slot = slot_now();
    for (index, domain) in image.names().domains.iter().enumerate() {
        match ring.read(domain.number) {
            Ok(Some(keys)) => enter_keys(&mut table.0, index, &keys, slot),
            Ok(None) => none(LoadError::NoKey(domain.name.clone())),
            Err(error) => none(error),
        }
    }
    table
}

fn enter_keys(table: &mut KeyTable, index: usize, keys: &DomainKeys, slot: u64) {
    if let Some(shift) = table.epoch_shift.get_mut(index) {
        *shift = keys.epoch_shift;
    }
    if let Some(ends) = table.ends_slot.get_mut(index) {
        *ends = keys.ends_slot();
    }
    if let Some(senders) = table.senders.get_mut(index) {
        *senders = keys.senders.word();
    }
    for (epoch, key) in keys.entries(slot) {
        if let Some(entry) = table.entries.get_mut(index * 16 + epoch) {
            *entry = key;
        }
    }
}

fn idle_buffer(control: &Control) -> usize {
    if control.active == 0 { 0 } else { 1 - (control.active & 1) as usize }
}

/// Fills the idle buffer of every map and compares what was written.
fn fill(
    instance: &Instance,
    &Apply { image, authority, .. }: &Apply<'_>,
    devices: &[Netdev],
    (keys, detours, begin): (&Keys, &Detouring, &[(u32, Counter)]),
) -> Result<usize, LoadError> {
    let (control, ledger) = (instance.control(), instance.ledger());
    let idle = idle_buffer(&control);
    let record_at = record_at(idle);
    crate::events::let_reader_finish(&instance.place);
    // From here on the buffer holds no generation that anybody could return to.
    instance.control.write(0, record_at, Generation::default());
    let fits = instance.tables.write_bytes(idle, 0, image.bytes());
    instance.tables.zero(idle, image.bytes().len());
    instance.counters.zero(idle, 0);
    instance.carried.zero(ledger.entry(idle), 0);
    for &(counter, count) in begin {
        instance.set_carried(ledger.entry(idle), counter, count);
    }
    instance.keys.copy(idle, 0, &*keys.0);
    authority::fill(&instance.grants, idle, image, authority);
    instance.detours.write(idle, 0, detours.table);
    fill_interfaces(instance, image, devices, idle)?;
    let cgroups = fill_cgroups(instance, image, idle)?;
    let back = instance.tables.read_bytes(idle, 0, image.bytes().len());
    let found = govc_image::digest_of(&back);
    if !fits || found != image.digest() {
        return Err(LoadError::ReadBack { found: hex(&found), wanted: hex(&image.digest()) });
    }
    let (not_before_slot, not_after_slot) = authority::slots(authority);
    let newest = control.generations.iter().map(|g| g.number).max().unwrap_or(0);
    let record = Generation {
        // Numbers are given once, also when whoever gave the last one died over it.
        number: newest.max(control.active >> 1).max(ledger.closed()) + 1,
        published_ns: unix_ns(),
        words: image.words().len() as u32,
        rules: image.rule_count() as u32,
        digest: image.digest(),
        not_before_slot,
        not_after_slot,
    };
    instance.control.write(0, record_at, record);
    Ok(cgroups)
}

/// Makes the idle buffer the one in force: one aligned store, which every hook on every
/// interface reads. Gives its number and how long that took.
fn flip(instance: &Instance) -> (u64, Duration) {
    let started = std::time::Instant::now();
    let control = instance.control();
    let idle = idle_buffer(&control);
    let next = control.generations.get(idle).copied().unwrap_or_default();
    set_clock(instance, next.not_before_slot);
    set_active(instance, next.number, idle);
    (next.number, started.elapsed())
}

fn set_active(instance: &Instance, number: u64, buffer: usize) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    instance.control.write(0, std::mem::offset_of!(Control, active), number << 1 | buffer as u64);
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Tells the kernel how its TAI clock differs from Unix time, and that it is not earlier than
/// now, nor than the beginning of what comes into force. Clocks of one machine differ by less than
/// a slot.
fn set_clock(instance: &Instance, not_before_slot: u64) {
    crate::clock::set(instance);
    let control = &instance.control;
    control.write(
        0,
        std::mem::offset_of!(Control, slot_floor),
        slot_now().saturating_sub(CLOCK_STEP_SLOTS).max(not_before_slot.saturating_sub(1)),
    );
    if instance.control().event_rate == 0 {
        control.write(
            0,
            std::mem::offset_of!(Control, event_rate),
            govc_abi::limits::EVENT_RATE_DEFAULT,
        );
    }
}

/// How far the clock may step back behind the last apply: an hour.
const CLOCK_STEP_SLOTS: u64 = 3_600_000_000_000 / SLOT_NS;

/// Waits until the generation word is the only one that packets are decided by, and notes that.
fn settle(instance: &Instance) {
    let active = instance.control().active;
    wait_for_readers();
    instance.control.write(0, std::mem::offset_of!(Control, settled), active);
}

/// Waits until no program runs that has read the generation word before the flip, so that the
/// buffer which is idle now may be filled.
pub(crate) fn wait_for_readers() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no memory is passed. The kernel runs synchronize_rcu(), and programs run inside
    // read-side critical sections.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0;
    if failed {
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn fill_interfaces(
    instance: &Instance,
    image: &Image,
    devices: &[Netdev],
    buffer: usize,
) -> Result<(), LoadError> {
    for device in devices {
        let mut record = Interface::default();
        let slot = (0..INTERFACE_PROBES as u32)
            .map(|probe| interface_slot(device.index.wrapping_add(probe)) as usize)
            .find(|slot| {
                record = read_interface(instance, *slot);
                record.ifindex == 0 || record.ifindex == device.index
            })
            .ok_or_else(|| LoadError::TooManyInterfaces(device.name.clone()))?;
        let overhead = Overhead::of(image.names(), device);
        let mss = |headers| u16::try_from(device.mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
        record.mtu = device.mtu;
        record.l2_len = device.l2_len;
        record.mss_v4 = mss(overhead.v4 + 40);
        record.mss_v6 = mss(overhead.v6 + 60);
        if let Some(zone) = record.zones.get_mut(buffer) {
            *zone = image.names().zone_of(&device.name).map_or(0, |number| number as u8);
        }
        record.ifindex = device.index;
        instance.interfaces.write(slot, 0, record);
    }
    Ok(())
}

fn read_interface(instance: &Instance, slot: usize) -> Interface {
    instance.interfaces.read(slot, 0).unwrap_or_default()
}

/// Forgets an interface that is not enforced on any more.
pub(crate) fn forget_interface(instance: &Instance, index: u32) {
    for slot in 0..INTERFACES_MAX {
        if read_interface(instance, slot).ifindex == index {
            instance.interfaces.write(slot, 0, Interface::default());
        }
    }
}

/// Finds all cgroups that the image's patterns match, and lets the kernel find those that are made
/// from now on.
fn fill_cgroups(instance: &Instance, image: &Image, buffer: usize) -> Result<usize, LoadError> {
    // Until both are written nothing is found for this buffer, which holds no generation yet.
    instance.patterns.write(buffer, 0, Patterns::default());
    with_cgroups(instance, |map| {
        let side = (buffer as u64) << 63;
        let stale: Vec<u64> =
            map.keys().filter_map(Result::ok).filter(|key| key & 1 << 63 == side).collect();
        stale.into_iter().try_for_each(|key| map.remove(&key))
    })?;
    instance.patterns.write(buffer, 0, watched(&image.names().cgroups));
    let found = cgroup::matching(&image.names().cgroups);
    insert_cgroups(instance, &found, buffer)?;
    Ok(found.len())
}

/// Gives a cgroup a number under the generation in force.
pub(crate) fn note_cgroup(instance: &Instance, id: u64, number: u32) -> Result<(), LoadError> {
    insert_cgroups(instance, &[(id, number)], (instance.control().active & 1) as usize)
}

fn insert_cgroups(
    instance: &Instance,
    found: &[(u64, u32)],
    buffer: usize,
) -> Result<(), LoadError> {
    let side = (buffer as u64) << 63;
    with_cgroups(instance, |map| {
        found.iter().try_for_each(|(id, number)| map.insert(id | side, number, 0))
    })
}

fn with_cgroups(
    instance: &Instance,
    change: impl FnOnce(&mut BpfHashMap<&mut MapData, u64, u32>) -> Result<(), aya::maps::MapError>,
) -> Result<(), LoadError> {
    let what = "cannot write cgroups";
    let data: MapData = object::open_map(&instance.place.pin(names::map::CGROUPS))?;
    let mut map = Map::from_map_data(data).map_err(bpf(what))?;
    let mut map: BpfHashMap<&mut MapData, u64, u32> = (&mut map).try_into().map_err(bpf(what))?;
    change(&mut map).map_err(bpf(what))
}

/// The patterns as the kernel compares them; none when they are too many or too long for it.
fn watched(patterns: &[String]) -> Patterns {
    let mut watched = Patterns::default();
    if patterns.len() > CGROUPS_WATCHED_MAX
        || patterns.iter().any(|pattern| pattern.len() > CGROUP_PATTERN_MAX)
    {
        tracing::warn!(
            "cgroups made later are found at the next apply only: the kernel watches \
             {CGROUPS_WATCHED_MAX} patterns of {CGROUP_PATTERN_MAX} bytes"
        );
        return watched;
    }
    for (pattern, (text, len)) in
        patterns.iter().zip(watched.texts.iter_mut().zip(&mut watched.lens))
    {
        for (to, from) in text.iter_mut().zip(pattern.bytes()) {
            *to = from;
        }
        *len = pattern.len() as u32;
    }
    watched.count = patterns.len() as u32;
    watched
}

fn dry_run_report(request: &Apply<'_>, devices: &[Netdev], detours: &Detouring) -> Applied {
    Applied {
        generation: 0,
        digest: hex(&request.image.digest()),
        image_len: request.image.bytes().len(),
        rules: request.image.rule_count(),
        interfaces: interface_report(request, devices, &[]),
        cgroups: cgroup::matching(&request.image.names().cgroups).len(),
        publish_us: 0,
        programs_loaded: false,
        quarantine: detours.zones.clone(),
    }
}

fn interface_report(
    request: &Apply<'_>,
    devices: &[Netdev],
    attached: &[attach::Attached],
) -> Vec<AppliedInterface> {
    let names = request.image.names();
    devices
        .iter()
        .map(|device| AppliedInterface {
            name: device.name.clone(),
            zone: names
                .zone_of(&device.name)
                .and_then(|number| names.zones.get(number.checked_sub(1)?))
                .map(|zone| zone.name.clone()),
            ingress: attached
                .iter()
                .find(|a| a.index == device.index)
                .map_or_else(String::new, |a| a.ingress.clone()),
            inner_mtu: device.mtu.saturating_sub(Overhead::of(names, device).v4),
        })
        .collect()
}

fn unix_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Hexadecimal digits of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
