//! Putting a policy in force: fill the idle buffer, read it back, flip one word.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use govc_abi::{
    flow::{Control, Generation, Interface, interface_slot},
    key::KeyTable,
    label::{BLOCK_LEN, SLOT_NS},
    limits::{INTERFACE_PROBES, INTERFACES_MAX},
    names,
};
use govc_image::Image;
use serde::Serialize;

use crate::{
    attach::{self, HookChoice},
    cgroup,
    error::{LoadError, bpf},
    instance::{Instance, Place},
    keyring::{KeyRing, slot_now},
    netdev::{self, Netdev},
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
    let key_table = key_table(request.image, request.keys)?;
    let cpus = object::possible_cpus()?;
    let sizes = Sizes::for_image(
        request.image.words().len() as u32,
        request.image.rule_count() as u32,
        cpus,
    );
    if request.dry_run {
        return Ok(dry_run_report(request, &devices));
    }
    let _lock = request.place.lock()?;
    let devices = with_attached(request.place, devices)?;
    let first = !request.place.exists();
    let programs_loaded = set::prepare(request.place, sizes)?;
    let instance = Instance::open(request.place)?;
    let started = std::time::Instant::now();
    let cgroups = fill(&instance, request.image, &devices, &key_table)?;
    let filled = started.elapsed();
    let mut new = Vec::new();
    let in_force = if first {
        // Hooks without a policy drop everything: the first policy comes before the first hook.
        let flipped = flip(&instance);
        attach_new(&instance, request, &devices, &mut new).map(|()| flipped)
    } else {
        attach_new(&instance, request, &devices, &mut new).map(|()| flip(&instance))
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
        ..dry_run_report(request, &devices)
    })
}

/// Attaches to the interfaces that are new and lowers MTUs; what was done is noted in `new`, also
/// when something fails.
fn attach_new<'a>(
    instance: &Instance,
    request: &Apply<'_>,
    devices: &'a [Netdev],
    new: &mut Vec<&'a Netdev>,
) -> Result<(), LoadError> {
    for device in devices {
        if request.interfaces.contains(&device.name)
            && attach::attach(instance, device, request.hook)?
        {
            new.push(device);
        }
        if request.set_mtu {
            netdev::lower_mtu(device)?;
        }
    }
    Ok(())
}

/// Leaves things as they were before an apply that has failed after it had filled the buffer.
fn withdraw(instance: &Instance, devices: &[Netdev], new: &[&Netdev], first: bool) {
    let place = &instance.place;
    for device in new {
        let undone = attach::detach(place, device.index)
            .and_then(|()| netdev::restore_mtu(device).map(drop));
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
    crate::kernel::check()?;
    if !place.exists() {
        return Err(LoadError::NoInstance(place.name().into()));
    }
    let _lock = place.lock()?;
    let instance = Instance::open(place)?;
    let control = instance.control();
    let idle = idle_buffer(&control);
    let none = || LoadError::NoEarlierGeneration(place.name().into());
    let generation = control.generations.get(idle).filter(|g| g.number != 0).ok_or_else(none)?;
    // A damaged image must not come into force.
    instance.image(idle)?.ok_or_else(none)?;
    // Both buffers stay as they are, so nobody has to be waited for: the next apply does that.
    set_active(&instance, generation.number, idle);
    Ok(generation.number)
}

/// Hands the key ring's present keys to the kernel, for both generations.
///
/// # Errors
/// A domain of the policy has no key.
pub fn refresh_keys(place: &Place, keys: &KeyRing) -> Result<(), LoadError> {
    let _lock = place.lock()?;
    let instance = Instance::open(place)?;
    for buffer in 0..2 {
        if let Some(image) = instance.image(buffer)? {
            instance.keys.write(buffer, 0, key_table(&image, keys)?);
        }
    }
    Ok(())
}

fn find_devices(request: &Apply<'_>) -> Result<Vec<Netdev>, LoadError> {
    let devices: Result<Vec<Netdev>, LoadError> =
        request.interfaces.iter().map(|name| netdev::find(name)).collect();
    let devices = devices?;
    for device in &devices {
        netdev::inner_mtu(device)?;
    }
    Ok(devices)
}

/// Adds the interfaces that the instance enforces on already.
fn with_attached(place: &Place, mut devices: Vec<Netdev>) -> Result<Vec<Netdev>, LoadError> {
    let attached = attach::attached(place)?;
    for device in netdev::list()? {
        let new = devices.iter().all(|d| d.index != device.index);
        if new && attached.iter().any(|a| a.interface == device.name) {
            netdev::inner_mtu(&device)?;
            devices.push(device);
        }
    }
    Ok(devices)
}

fn key_table(image: &Image, ring: &KeyRing) -> Result<KeyTable, LoadError> {
    let mut table = KeyTable::EMPTY;
    let slot = slot_now();
    for (index, domain) in image.names().domains.iter().enumerate() {
        let Some(keys) = ring.read(domain.number)? else {
            return Err(LoadError::NoKey(domain.name.clone()));
        };
        if let Some(shift) = table.epoch_shift.get_mut(index) {
            *shift = keys.epoch_shift;
        }
        for (epoch, key) in keys.entries(slot) {
            if let Some(entry) = table.entries.get_mut(index * 16 + epoch) {
                *entry = key;
            }
        }
    }
    Ok(table)
}

fn idle_buffer(control: &Control) -> usize {
    if control.active == 0 { 0 } else { 1 - (control.active & 1) as usize }
}

/// Fills the idle buffer of every map and compares what was written.
fn fill(
    instance: &Instance,
    image: &Image,
    devices: &[Netdev],
    keys: &KeyTable,
) -> Result<usize, LoadError> {
    let control = instance.control();
    let idle = idle_buffer(&control);
    if control.settled != control.active {
        // Whoever flipped last did not wait, or died before it had.
        settle(instance);
    }
    let record_at = record_at(idle);
    // From here on the buffer holds no generation that anybody could return to.
    instance.control.write(0, record_at, Generation::default());
    let fits = instance.tables.write_bytes(idle, 0, image.bytes());
    instance.tables.zero(idle, image.bytes().len());
    instance.counters.zero(idle, 0);
    instance.carried.zero(idle, 0);
    instance.keys.write(idle, 0, *keys);
    fill_interfaces(instance, image, devices, idle)?;
    let cgroups = fill_cgroups(instance, image, idle)?;
    let back = instance.tables.read_bytes(idle, 0, image.bytes().len());
    let found = govc_image::digest_of(&back);
    if !fits || found != image.digest() {
        return Err(LoadError::ReadBack { found: hex(&found), wanted: hex(&image.digest()) });
    }
    let newest = control.generations.iter().map(|g| g.number).max().unwrap_or(0);
    let record = Generation {
        number: newest.max(control.active >> 1) + 1,
        published_ns: unix_ns(),
        words: image.words().len() as u32,
        rules: image.rule_count() as u32,
        digest: image.digest(),
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
    let number = control.generations.get(idle).map_or(0, |g| g.number);
    set_clock(instance);
    set_active(instance, number, idle);
    (number, started.elapsed())
}

fn set_active(instance: &Instance, number: u64, buffer: usize) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    instance.control.write(0, std::mem::offset_of!(Control, active), number << 1 | buffer as u64);
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Tells the kernel how its TAI clock differs from Unix time, and that it is not earlier than
/// now.
fn set_clock(instance: &Instance) {
    use rustix::time::{ClockId, DynamicClockId, clock_gettime, clock_gettime_dynamic};
    let ns = |time: rustix::time::Timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
    let real = ns(clock_gettime(ClockId::Realtime));
    let tai_offset = clock_gettime_dynamic(DynamicClockId::Tai).map_or(0, |tai| real - ns(tai));
    // Whole seconds: the two clocks are read one after the other.
    let seconds = (tai_offset + 500_000_000).div_euclid(1_000_000_000);
    let control = &instance.control;
    control.write(
        0,
        std::mem::offset_of!(Control, tai_offset_ns),
        (seconds * 1_000_000_000) as u64,
    );
    control.write(
        0,
        std::mem::offset_of!(Control, slot_floor),
        slot_now().saturating_sub(CLOCK_STEP_SLOTS),
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
        let inner = device.mtu.saturating_sub(BLOCK_LEN as u32);
        record.mtu = device.mtu;
        record.l2_len = device.l2_len;
        record.mss_v4 = u16::try_from(inner.saturating_sub(40)).unwrap_or(u16::MAX);
        record.mss_v6 = u16::try_from(inner.saturating_sub(60)).unwrap_or(u16::MAX);
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

fn fill_cgroups(instance: &Instance, image: &Image, buffer: usize) -> Result<usize, LoadError> {
    let what = "cannot write cgroups";
    let data: MapData = object::open_map(&instance.place.pin(names::map::CGROUPS))?;
    let mut map = Map::from_map_data(data).map_err(bpf(what))?;
    let mut map: BpfHashMap<&mut MapData, u64, u32> = (&mut map).try_into().map_err(bpf(what))?;
    let side = (buffer as u64) << 63;
    let stale: Vec<u64> =
        map.keys().filter_map(Result::ok).filter(|key| key & 1 << 63 == side).collect();
    for key in stale {
        map.remove(&key).map_err(bpf(what))?;
    }
    let found = cgroup::matching(&image.names().cgroups);
    for (id, number) in &found {
        map.insert(id | side, number, 0).map_err(bpf(what))?;
    }
    Ok(found.len())
}

fn dry_run_report(request: &Apply<'_>, devices: &[Netdev]) -> Applied {
    Applied {
        generation: 0,
        digest: hex(&request.image.digest()),
        image_len: request.image.bytes().len(),
        rules: request.image.rule_count(),
        interfaces: interface_report(request, devices, &[]),
        cgroups: cgroup::matching(&request.image.names().cgroups).len(),
        publish_us: 0,
        programs_loaded: false,
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
            inner_mtu: device.mtu.saturating_sub(BLOCK_LEN as u32),
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
