//! What an instance does: generation, interfaces, keys, counters.

use govc_abi::{
    event::hook,
    flow::{Control, CpuState, Generation, control_flag, reason_counter},
    names, reason,
};
use serde::Serialize;

use crate::{
    attach::{self, Attached},
    authority, counts,
    error::{LoadError, bpf},
    instance::{Instance, Place},
    keyring::slot_now,
    netdev, object,
    publish::{forget_interface, hex},
};

/// The state of an instance.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub instance: String,
    /// The generation in force.
    pub generation: GenerationStatus,
    /// The generation that `rollback` returns to.
    pub earlier: Option<GenerationStatus>,
    /// Interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Keys by domain.
    pub keys: Vec<KeyStatus>,
    /// Grants by domain; none for domains whose labels need no grant, and into which nothing is translated
    /// under one.
    pub grants: Vec<GrantStatus>,
    /// Packets by hook and reason since the instance began; none that are zero.
    pub reasons: Vec<ReasonCount>,
    /// Packets by rule, for as long as the rule has been there and has meant the same.
    pub rules: Vec<RuleCount>,
    /// Events.
    pub events: EventCount,
    /// Answers to rejected packets, and to those that leave no room, which were not given because a CPU had given
    /// as many as it may.
    pub answers_withheld: u64,
    /// What returns by itself unless somebody confirms what is in force.
    pub pending: Option<crate::confirm::Pending>,
}

/// A generation.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationStatus {
    /// Its number.
    pub number: u64,
    /// Name of the policy.
    pub policy: String,
    /// Unix time of publication, nanoseconds.
    pub published_ns: u64,
    /// Rules.
    pub rules: u32,
    /// Bytes of the image.
    pub image_len: u64,
    /// Hexadecimal SHA-256 of the image.
    pub digest: String,
    /// First second in which it is good, Unix time; `None` when no bundle says so.
    pub not_before: Option<u64>,
    /// Last second; afterwards everything is dropped.
    pub not_after: Option<u64>,
}

/// An interface with its zone.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceStatus {
    /// Name, index and hook.
    #[serde(flatten)]
    pub attached: Attached,
    /// The zone that the policy in force puts it in.
    pub zone: Option<String>,
}

/// Until when a domain's labels can be stamped and verified.
#[derive(Clone, Debug, Serialize)]
pub struct KeyStatus {
    /// The domain's name.
    pub domain: String,
    /// Whether there is a key for this moment.
    pub valid_now: bool,
    /// Seconds until the last staged epoch ends; enforcement then fails closed.
    pub ends_in_s: u64,
}

/// The grants of a domain in the generation in force.
#[derive(Clone, Debug, Serialize)]
pub struct GrantStatus {
    /// The domain's name.
    pub domain: String,
    /// Grants that labels are stamped under here, by serial.
    pub stamps: Vec<HeldStatus>,
    /// Transit grants that labels are translated into the domain under here, likewise.
    pub translates: Vec<HeldStatus>,
    /// How many serials are revoked.
    pub revoked: u32,
}

/// A grant that labels are stamped or translated under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HeldStatus {
    /// Its serial.
    pub serial: u16,
    /// Last second in which it is good, Unix time; of a transit grant that of the mapping beside it, if that
    /// is earlier.
    pub not_after: u64,
}

/// Packets that left a hook for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonCount {
    /// The hook.
    pub hook: &'static str,
    /// The reason.
    pub reason: &'static str,
    /// Whether they were let through; `None` when rules decided either way.
    pub permitted: Option<bool>,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets that one rule decided.
#[derive(Clone, Debug, Serialize)]
pub struct RuleCount {
    /// `policy.rule`
    pub rule: String,
    /// `file:line`
    pub place: String,
    /// `permit`, `deny` or `pass`
    pub action: &'static str,
    /// Packets that it decided.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that it would have decided, were it enforced.
    pub would: u64,
    /// A digest of its name and meaning: counts go on as long as it stays the same.
    #[serde(skip)]
    pub meaning: [u8; 8],
}

/// What became of events.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EventCount {
    /// Published.
    pub delivered: u64,
    /// Lost because the ring was full.
    pub lost_full: u64,
    /// Lost to the rate limit.
    pub lost_rate: u64,
    /// How many events a CPU publishes in a second at most.
    pub rate: u32,
    /// Permitted packets are reported too.
    pub permits: bool,
    /// A process is reading events. Permits that are reported without one are left over from a
    /// reader that was killed.
    pub reader: bool,
}

/// Reads the state of an instance.
///
/// # Errors
/// There is none, or the kernel refuses.
pub fn status(place: &Place) -> Result<Status, LoadError> {
    for _ in 0..LOOKS_MAX {
        let instance = Instance::open(place)?;
        let before = counts::moment(&instance);
        let status = status_of(&instance);
        // Otherwise buffers were flipped or filled meanwhile, and what was read belongs to both.
        if counts::moment(&instance) == before {
            return status;
        }
    }
    Err(LoadError::Restless(place.name().into()))
}

/// How often to look again when policies change faster than they can be read.
const LOOKS_MAX: usize = 1000;

/// Whether the generation in force came in a signed bundle, which it then has an end by. Not where nothing is.
///
/// # Errors
/// The kernel refuses.
pub fn signed(place: &Place) -> Result<bool, LoadError> {
    if !place.exists() {
        return Ok(false);
    }
    let control = Instance::open(place)?.control();
    let generation = control.generations.get((control.active & 1) as usize);
    let slots = generation.map(|known| (known.not_before_slot, known.not_after_slot));
    Ok(control.active != 0 && slots.and_then(authority::seconds).is_some())
}

fn status_of(instance: &Instance) -> Result<Status, LoadError> {
    let place = instance.place();
    let control = instance.control();
    let buffer = (control.active & 1) as usize;
    let (number, image) = instance.active_image()?;
    let describe = |buffer: usize, image: &govc_image::Image| {
        let generation = control.generations.get(buffer).copied().unwrap_or_default();
        describe(&generation, image)
    };
    let generation = describe(buffer, &image);
    if generation.number != number {
        return Err(LoadError::NoInstance(place.name().into()));
    }
    let earlier = instance.image(1 - buffer)?;
    let interfaces = attach::attached(place)?
        .into_iter()
        .map(|attached| InterfaceStatus {
            zone: image
                .names()
                .zone_of(&attached.interface)
                .and_then(|number| image.names().zones.get(number.checked_sub(1)?))
                .map(|zone| zone.name.clone()),
            attached,
        })
        .collect();
    Ok(Status {
        instance: place.name().into(),
        generation,
        earlier: earlier.as_ref().map(|image| describe(1 - buffer, image)),
        interfaces,
        keys: key_status(instance, &image, buffer),
        grants: authority::status(instance, &image, buffer),
        reasons: reason_counts(instance),
        rules: rule_counts(instance, &image, buffer, earlier.as_ref()),
        events: event_count(place)?,
        answers_withheld: answers_withheld(place)?,
        pending: crate::confirm::pending(place),
    })
}

fn describe(generation: &Generation, image: &govc_image::Image) -> GenerationStatus {
    let good = authority::seconds((generation.not_before_slot, generation.not_after_slot));
    GenerationStatus {
        number: generation.number,
        policy: image.names().policy_name.clone(),
        published_ns: generation.published_ns,
        rules: generation.rules,
        image_len: u64::from(generation.words) * 4,
        digest: hex(&generation.digest),
        not_before: good.map(|(first, _)| first),
        not_after: good.map(|(_, last)| last),
    }
}

fn key_status(instance: &Instance, image: &govc_image::Image, buffer: usize) -> Vec<KeyStatus> {
    let table: govc_abi::key::KeyTable =
        instance.keys.read(buffer, 0).unwrap_or(govc_abi::key::KeyTable::EMPTY);
    let slot = slot_now();
    let domains = image.names().domains.iter().zip(table.entries.chunks(govc_abi::limits::EPOCHS));
    domains
        .map(|(domain, entries)| {
            let mut end = slot;
            // Epochs may be missing in the middle: what counts is how long it goes on from now.
            while let Some(entry) = entries.iter().find(|entry| entry.covers(end)) {
                end = entry.not_after_slot;
            }
            KeyStatus {
                domain: domain.name.clone(),
                valid_now: end > slot,
                ends_in_s: (end - slot) * (govc_abi::label::SLOT_NS / 1_000_000_000),
            }
        })
        .collect()
}

fn reason_counts(instance: &Instance) -> Vec<ReasonCount> {
    let mut counts = Vec::new();
    for hook in [hook::INGRESS, hook::EGRESS, hook::FORWARD] {
        for (number, name) in reason::NAMES.iter().enumerate() {
            let total = instance.count(2, reason_counter(hook, number as u8));
            if total.packets != 0 {
                let number = number as u8;
                counts.push(ReasonCount {
                    hook: hook::NAMES.get(hook as usize).copied().unwrap_or_default(),
                    reason: name,
                    permitted: (number != reason::RULE).then_some(number < reason::FIRST_DENY),
                    packets: total.packets,
                    bytes: total.bytes,
                });
            }
        }
    }
    counts
}

fn rule_counts(
    instance: &Instance,
    image: &govc_image::Image,
    buffer: usize,
    other: Option<&govc_image::Image>,
) -> Vec<RuleCount> {
    let names = image.names();
    let totals = counts::totals(instance, names, buffer, other.map(|image| image.names()));
    (0..)
        .zip(totals)
        .zip(&names.rules)
        .map(|((number, [decided, would]), rule)| RuleCount {
            rule: names.rule(number).unwrap_or_default(),
            place: names.rule_place(number).unwrap_or_default(),
            action: image.action_name(number),
            packets: decided.packets,
            bytes: decided.bytes,
            would: would.packets,
            meaning: rule.meaning,
        })
        .collect()
}

/// What became of an instance's events.
///
/// # Errors
/// There is no such instance.
pub fn event_count(place: &Place) -> Result<EventCount, LoadError> {
    let control = Instance::open(place)?.control();
    let permits = control.flags & control_flag::REPORT_PERMITS != 0;
    let (rate, reader) = (control.event_rate, place.has_reader());
    let mut count = EventCount { rate, permits, reader, ..EventCount::default() };
    for state in cpu_states(place)? {
        count.delivered += state.events_delivered;
        count.lost_full += state.events_lost_full;
        count.lost_rate += state.events_lost_rate;
    }
    Ok(count)
}

/// See [`Status::answers_withheld`].
///
/// # Errors
/// There is no such instance.
pub fn answers_withheld(place: &Place) -> Result<u64, LoadError> {
    Ok(cpu_states(place)?.iter().map(|state| state.answers_withheld).sum())
}

/// What each CPU keeps.
fn cpu_states(place: &Place) -> Result<Vec<CpuState>, LoadError> {
    let what = "cannot read the CPUs' state";
    let data = object::open_map(&place.pin(names::map::CPU))?;
    let map = aya::maps::Map::from_map_data(data).map_err(bpf(what))?;
    let map: aya::maps::PerCpuArray<_, PodCpuState> = map.try_into().map_err(bpf(what))?;
    Ok(map.get(&0, 0).map_err(bpf(what))?.iter().map(|state| state.0).collect())
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodCpuState(CpuState);
// SAFETY: a `repr(C)` structure of integers.
unsafe impl aya::Pod for PodCpuState {}

/// Stops enforcing: on some interfaces, or on all and then removes the instance.
///
/// # Errors
/// There is no such instance or interface.
pub fn detach(place: &Place, interfaces: &[String]) -> Result<Vec<String>, LoadError> {
    crate::kernel::check()?;
    if !place.dir().exists() {
        return Err(LoadError::NoInstance(place.name().into()));
    }
    let lock = place.lock()?;
    let attached = attach::attached(place)?;
    if let Some(unknown) =
        interfaces.iter().find(|name| attached.iter().all(|a| a.interface != **name))
    {
        return Err(LoadError::NoInterface(unknown.clone()));
    }
    let devices = netdev::list()?;
    let mut detached = Vec::new();
    for one in &attached {
        // Those of other namespaces have no name here.
        let chosen = interfaces.is_empty() || interfaces.contains(&one.interface);
        if let Some(device) = devices.iter().find(|device| device.name == one.interface)
            && chosen
        {
            attach::detach(place, one.index)?;
            // Without a set nothing was ever enforced.
            if let Ok(instance) = Instance::open(place) {
                forget_interface(&instance, one.index);
            }
            netdev::restore_mtu(device)?;
            crate::datagrams::restore(place, device)?;
            detached.push(one.interface.clone());
        }
    }
    if interfaces.is_empty() || detached.len() == attached.len() {
        attach::detach_all(place)?;
        drop(lock);
        std::fs::remove_dir_all(place.dir())
            .map_err(crate::error::file("cannot remove pins", place.dir()))?;
    }
    Ok(detached)
}

/// Whether permitted packets are reported besides those that rules say `log` for.
///
/// # Errors
/// There is no such instance.
pub fn report_permits(place: &Place, on: bool) -> Result<(), LoadError> {
    set_flag(place, control_flag::REPORT_PERMITS, on)
}

/// Whether CPUs remember decisions about labels that they have verified. Verdicts do not depend
/// on it; tests and measurements turn it off.
///
/// # Errors
/// There is no such instance.
pub fn use_memo(place: &Place, on: bool) -> Result<(), LoadError> {
    set_flag(place, control_flag::NO_MEMO, !on)
}

fn set_flag(place: &Place, flag: u32, on: bool) -> Result<(), LoadError> {
    let instance = Instance::open(place)?;
    let flags = instance.control().flags;
    let flags = if on { flags | flag } else { flags & !flag };
    instance.control.write(0, std::mem::offset_of!(Control, flags), flags);
    Ok(())
}

/// Sets how many events one CPU may publish in a second.
///
/// # Errors
/// There is no such instance.
pub fn set_event_rate(place: &Place, per_second: u32) -> Result<(), LoadError> {
    let instance = Instance::open(place)?;
    instance.control.write(0, std::mem::offset_of!(Control, event_rate), per_second);
    Ok(())
}
