//! Maps and constants. Sizes that depend on the policy or on the machine are the loader's: it makes
//! `TABLES`, `COUNTERS`, `MEMO`, `MEMO_V6` and `STAMPED` itself and sets what keeps every index inside them.

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    helpers::bpf_get_smp_processor_id,
    macros::btf_map,
};
use govc_abi::{
    attribute,
    declare::Declared,
    event::Event,
    flow::{
        Control, Counter, CpuState, Detours, FlowKey, FlowState, Interface, Patterns,
        interface_slot,
    },
    grant::GrantTable,
    key::{KeyEntry, KeyTable},
    limits,
    memory::{
        AddressesV6, Arrivals, MEMO_WAYS, Memo, Stamped, arrival, arrivals_slot, memo_flag,
        memo_hash, memo_way, memory_slot, stamped_hash,
    },
    walk::{Classes, Tables},
};

use crate::cgroups::Search;

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

#[btf_map]
static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();
#[btf_map]
static TABLES: Array<u32, 2, MMAPABLE> = Array::new();
#[btf_map]
static COUNTERS: Array<Counter, 3, MMAPABLE> = Array::new();
#[btf_map]
static KEYS: Array<KeyTable, 2, MMAPABLE> = Array::new();
#[btf_map]
static GRANTS: Array<GrantTable, 2, MMAPABLE> = Array::new();
#[btf_map]
static INTERFACES: Array<Interface, { limits::INTERFACES_MAX }, MMAPABLE> = Array::new();
#[btf_map]
static DETOURS: Array<Detours, 2, MMAPABLE> = Array::new();
#[btf_map]
static CGROUPS: HashMap<u64, u32, { 2 * limits::CGROUPS_MAX }, 1> = HashMap::new();
#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, FlowState, { limits::FLOWS_MAX }> = LruHashMap::new();
#[btf_map]
pub static OPENINGS: LruHashMap<FlowKey, FlowState, { limits::OPENINGS_MAX }> = LruHashMap::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, { limits::EVENT_RING_LEN }> = RingBuf::new();
#[btf_map]
static CPU: PerCpuArray<CpuState, 1> = PerCpuArray::new();
#[btf_map]
static MEMO: Array<Memo, 1, MMAPABLE> = Array::new();
#[btf_map]
static MEMO_V6: Array<AddressesV6, 1, MMAPABLE> = Array::new();
#[btf_map]
static STAMPED: Array<Stamped, 1, MMAPABLE> = Array::new();
#[btf_map]
static ARRIVALS: Array<Arrivals, 1> = Array::new();
#[btf_map]
static PATTERNS: Array<Patterns, 2, MMAPABLE> = Array::new();
#[btf_map]
static CGROUP_SEARCH: PerCpuArray<Search, 1> = PerCpuArray::new();
#[btf_map]
static SOCKETS: SocketStorage = SocketStorage::new();
#[btf_map]
static DECLARED: Array<u32, 1, MMAPABLE> = Array::new();

/// What the kernel keeps at sockets. Those that a listening socket accepts get a copy, which the
/// definition in `aya_ebpf` has no flag for.
#[repr(C)]
struct SocketStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Declared,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields say to the loader what to make, and nobody reads through them.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}

#[unsafe(no_mangle)]
static RUN_OPERATION: u64 = 0;
#[unsafe(no_mangle)]
static TABLE_MASK: u32 = limits::TABLE_WORDS_MIN as u32 - 1;
#[unsafe(no_mangle)]
static COUNTER_SHIFT: u32 = 0;
#[unsafe(no_mangle)]
static COUNTER_MASK: u32 = 0;
#[unsafe(no_mangle)]
static MEMORY_SHIFT: u32 = 0;

/// Reads a constant that the loader may have set; the verifier knows its value.
#[inline(always)]
fn constant(global: &'static u32) -> u32 {
    // SAFETY: the reference is valid; volatile keeps the compiler from using the initial value.
    unsafe { core::ptr::read_volatile(global) }
}

/// The generation that this packet is decided by, read once.
#[derive(Clone, Copy)]
pub struct Active {
    /// Its number.
    pub generation: u64,
    /// Its buffer.
    pub buffer: u32,
}

/// The control record and the generation in force.
#[inline(always)]
pub fn control() -> Option<(&'static Control, Active)> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: the map holds one `Control`; the loader writes `active` as one aligned word.
    let active = unsafe { core::ptr::read_volatile(&raw const (*control).active) };
    if active == 0 {
        return None;
    }
    // SAFETY: array values live as long as the program; fields other than `active` change only
    // in ways that any mix of old and new values is valid for.
    let control = unsafe { &*control };
    Some((control, Active { generation: active >> 1, buffer: active as u32 & 1 }))
}

/// The storage of what sockets declare, for helpers.
#[inline(always)]
pub fn sockets() -> *mut core::ffi::c_void {
    (&raw const SOCKETS).cast_mut().cast()
}

/// Whether any socket ever declared anything: the others need not be asked.
#[inline(always)]
pub fn any_declared() -> bool {
    // SAFETY: the value is an aligned word.
    DECLARED.get_ptr(0).is_some_and(|word| unsafe { core::ptr::read_volatile(word) } != 0)
}

/// Notes that a socket has declared something.
#[inline(always)]
pub fn note_declared() -> bool {
    let Some(word) = DECLARED.get_ptr_mut(0) else { return false };
    // SAFETY: likewise.
    unsafe { core::ptr::write_volatile(word, 1) };
    true
}

/// The tables of one generation.
#[derive(Clone, Copy)]
pub struct Table {
    words: *const u32,
    /// [`TABLE_MASK`], read once.
    mask: u32,
    buffer: u32,
}

impl Table {
    /// The buffer of a generation.
    #[inline(always)]
    pub fn of(active: Active) -> Option<Self> {
        Self::of_buffer(active.buffer)
    }

    /// A buffer by number.
    #[inline(always)]
    pub fn of_buffer(buffer: u32) -> Option<Self> {
        TABLES.get_ptr(buffer).map(|words| Self { words, mask: constant(&TABLE_MASK), buffer })
    }

    /// The number of its buffer.
    #[inline(always)]
    pub fn buffer(&self) -> u32 {
        self.buffer
    }
}

impl Tables for Table {
    #[inline(always)]
    fn word(&self, index: u32) -> u32 {
        let index = index & self.mask;
        // SAFETY: the loader makes the value `TABLE_MASK + 1` words long; the verifier checks.
        unsafe { *self.words.add(index as usize) }
    }

    #[inline(always)]
    fn header(&self, index: u32) -> u32 {
        // SAFETY: no value is shorter than the header, and callers pass constants; the verifier
        // checks.
        unsafe { *self.words.add(index as usize) }
    }

    #[inline(always)]
    fn descend(&self, entry: u32, _: &Classes) -> u32 {
        crate::decide::govc_descend(self.buffer, entry)
    }

    #[inline(always)]
    fn becomes(&self, at: u32, bits: u32) -> u32 {
        crate::translate::govc_becomes(self.buffer, at, bits)
    }
}

/// Empties the request under decision but for its zones, which [`crate::decide::begin`] has set. Word by
/// word: the compiler would make it a call of `memset`, which goes byte by byte.
#[inline(always)]
pub fn clear_request(mut cpu: Cpu) {
    const ZONES: [usize; 2] = [attribute::INGRESS_ZONE as usize, attribute::EGRESS_ZONE as usize];
    let zones = ZONES.map(|zone| cpu.request.scalars[zone]);
    clear(&raw mut cpu.request);
    let scalars = &mut cpu.request.scalars;
    [scalars[ZONES[0]], scalars[ZONES[1]]] = zones;
    scalars[attribute::SUBJECT as usize] = attribute::SCOPE_NONE;
    scalars[attribute::OBJECT as usize] = attribute::SCOPE_NONE;
}

/// Sets the 8-byte words of a plain value to zero, one store each.
#[inline(always)]
pub fn clear<T>(at: *mut T) {
    let words = at.cast::<u64>();
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // SAFETY: inside the value, which is aligned to 8 bytes.
        unsafe { core::ptr::write_volatile(words.add(index), 0) };
        index += 1;
    }
}

/// Working memory of this CPU. Hooks run with bottom halves off and do not nest.
///
/// A copyable handle instead of a `&mut`: [`crate::decide::govc_walk`] finds the same memory by
/// itself, and no reference may claim to be the only way to it meanwhile.
#[derive(Clone, Copy)]
pub struct Cpu(*mut CpuState);

impl core::ops::Deref for Cpu {
    type Target = CpuState;

    #[inline(always)]
    fn deref(&self) -> &CpuState {
        // SAFETY: array values live as long as the program; nobody else writes on this CPU while
        // the reference lives, which is shorter than any call of a global function.
        unsafe { &*self.0 }
    }
}

impl core::ops::DerefMut for Cpu {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut CpuState {
        // SAFETY: as above.
        unsafe { &mut *self.0 }
    }
}

/// The working memory of the CPU that runs this.
#[inline(always)]
pub fn cpu() -> Option<Cpu> {
    CPU.get_ptr_mut(0).map(Cpu)
}

/// What this CPU may remember of a label with this MAC, and where: one of the four entries that it has for such.
#[inline(always)]
pub fn memo(mac: u64) -> Option<(u32, &'static mut Memo)> {
    let home = own(memo_hash(mac));
    let memo = memo_at(home)?;
    if memo.mac == mac {
        return Some((home, memo));
    }
    let slot = govc_memo_away(mac, home);
    memo_at(slot).map(|memo| (slot, memo))
}

#[inline(always)]
fn memo_at(slot: u32) -> Option<&'static mut Memo> {
    // SAFETY: as for [`Cpu`]: the entries are this CPU's, and hooks do not nest.
    MEMO.get_ptr_mut(slot).map(|memo| unsafe { &mut *memo })
}

/// Addresses of the IPv6 packet that an entry is about.
#[inline(always)]
pub fn memo_v6(slot: u32) -> Option<&'static AddressesV6> {
    MEMO_V6.get(slot)
}

/// Where else than at home a label with this MAC is remembered; home for nowhere.
///
/// A global function, as [`crate::decide::govc_walk`] is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_memo_away(mac: u64, home: u32) -> u32 {
    let mut number = 1;
    while number < MEMO_WAYS {
        let slot = memo_way(home, number);
        if memo_at(slot).is_some_and(|memo| memo.mac == mac) {
            return slot;
        }
        number += 1;
    }
    home
}

/// Where this CPU is to remember a label with this MAC. What was there moves on to an entry beside it, if somebody
/// asks for it.
#[inline(always)]
pub fn memo_to_write(mac: u64, active: Active, now: u64) -> Option<(u32, &'static mut Memo)> {
    let home = own(memo_hash(mac));
    govc_move_on(mac, home, Memo::decided(active.generation, 0), now);
    memo_at(home).map(|memo| (home, memo))
}

/// Likewise.
#[inline(always)]
pub fn memo_v6_to_write(slot: u32) -> Option<&'static mut AddressesV6> {
    // SAFETY: likewise.
    MEMO_V6.get_ptr_mut(slot).map(|addresses| unsafe { &mut *addresses })
}

/// Moves what is at home on to an entry that nobody has asked for of late, whose label is too old or that is of
/// another generation. Where there is none all are to be asked for again, and one is lost.
///
/// A sender makes a new label in each slot: of the entries that are still good, most are for labels that do
/// not come any more. A global function for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_move_on(mac: u64, home: u32, decided: u32, now: u64) -> u32 {
    let is_kept = |memo: &Memo| {
        memo.flags() & memo_flag::USED != 0
            && memo.other_generation(decided) == 0
            && memo.is_young(now)
            && memo.mac != mac
    };
    let Some(old) = memo_at(home) else { return 0 };
    if !is_kept(old) {
        return 0;
    }
    let mut chosen = 0;
    let mut number = 1;
    while number < MEMO_WAYS {
        if memo_at(memo_way(home, number)).is_some_and(|memo| !is_kept(memo)) {
            chosen = number;
        }
        number += 1;
    }
    if chosen == 0 {
        chosen = 1 + (mac >> 32) as u32 % (MEMO_WAYS - 1);
        let mut number = 0;
        while number < MEMO_WAYS {
            if let Some(memo) = memo_at(memo_way(home, number)) {
                memo.set_used(false);
            }
            number += 1;
        }
    }
    let away = memo_way(home, chosen);
    let (Some(old), Some(place)) = (memo_at(home), memo_at(away)) else { return 0 };
    *place = *old;
    if old.flags() & memo_flag::V6 != 0
        && let (Some(from), Some(to)) = (MEMO_V6.get(home), MEMO_V6.get_ptr_mut(away))
    {
        // SAFETY: as for [`Cpu`], and the two are different entries.
        unsafe { *to = *from };
    }
    1
}

/// Where this CPU remembers how it has labelled a flow.
#[inline(always)]
pub fn stamped(addresses: [u64; 4], ends: u64) -> Option<&'static mut Stamped> {
    // SAFETY: likewise.
    STAMPED.get_ptr_mut(own(stamped_hash(addresses, ends))).map(|stamped| unsafe { &mut *stamped })
}

/// The last flow that came in of what may be flows between these ends.
#[inline(always)]
pub fn last_arrival(addresses: [u64; 4], ports: u32, protocol: u8) -> u64 {
    ARRIVALS.get(0).map_or(0, |arrivals| arrivals[arrivals_slot(addresses, ports, protocol)])
}

/// Tells of one that the flow table knows by now.
#[inline(always)]
pub fn note_arrival(addresses: [u64; 4], ports: u32, protocol: u8, mut cpu: Cpu) {
    let Some(arrivals) = ARRIVALS.get_ptr_mut(0) else { return };
    cpu.arrived = cpu.arrived.wrapping_add(1);
    // SAFETY: no arguments, no side effects.
    let number = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: the entry is as long as all slots are. CPUs may write one at a time, and no two write the same.
    unsafe {
        (*arrivals)[arrivals_slot(addresses, ports, protocol)] = arrival(number, cpu.arrived)
    };
}

/// This CPU's entry for a hash.
#[inline(always)]
fn own(hash: u32) -> u32 {
    // SAFETY: no arguments, no side effects.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    memory_slot(cpu, constant(&MEMORY_SHIFT) & 31, hash)
}

/// What is known about an interface.
#[inline(always)]
pub fn interface(ifindex: u32) -> Option<&'static Interface> {
    let mut probe = 0;
    while probe < limits::INTERFACE_PROBES as u32 {
        let interface = INTERFACES.get(interface_slot(ifindex.wrapping_add(probe)))?;
        if interface.ifindex == ifindex {
            return Some(interface);
        }
        probe += 1;
    }
    None
}

/// Zone of an interface under a generation.
#[inline(always)]
pub fn zone(interface: &Interface, active: Active) -> u32 {
    // Without a branch, which would double the states that the verifier has to look at.
    // SAFETY: the index is below 2, the length of `zones`.
    (unsafe { *interface.zones.get_unchecked((active.buffer & 1) as usize) }) as u32
}

/// Zone that a packet which leaves came in by, at the interface with this index; 0 when it was sent on this node, or
/// came in where nothing is enforced, and [`attribute::ZONE_UNNAMED`] where something is outside all zones.
#[inline(always)]
pub fn zone_entered(ifindex: u32, active: Active) -> u32 {
    if ifindex == 0 {
        return 0;
    }
    interface(ifindex).map_or(0, |from| match zone(from, active) {
        0 => attribute::ZONE_UNNAMED,
        zone => zone,
    })
}

/// The interface that packets leave by that a zone keeps in quarantine; 0 for none.
#[inline(always)]
pub fn detour(active: Active, zone: u32) -> u32 {
    // SAFETY: the index is below 256, the length of `interfaces`.
    DETOURS
        .get(active.buffer)
        .map_or(0, |detours| unsafe { *detours.interfaces.get_unchecked((zone & 0xff) as usize) })
}

/// What sockets declare that are made under this `govc run`.
#[inline(always)]
pub fn run_operation() -> u64 {
    // SAFETY: the reference is valid; volatile keeps the compiler from using the initial value.
    unsafe { core::ptr::read_volatile(&raw const RUN_OPERATION) }
}

/// Where a cgroup's number is kept. Ids count up from 1 and never come near 2^63; the top bit
/// tells the buffers apart.
#[inline(always)]
pub fn cgroup_key(cgroup: u64, buffer: u32) -> u64 {
    cgroup | (buffer as u64) << 63
}

/// The map of cgroups, for helpers.
#[inline(always)]
pub fn cgroups() -> *mut core::ffi::c_void {
    (&raw const CGROUPS).cast_mut().cast()
}

/// The patterns of a buffer.
#[inline(always)]
pub fn patterns(buffer: u32) -> Option<*mut Patterns> {
    PATTERNS.get_ptr_mut(buffer)
}

/// Where the path of a cgroup is compared.
#[inline(always)]
pub fn cgroup_search() -> Option<*mut Search> {
    CGROUP_SEARCH.get_ptr_mut(0)
}

/// Number of the cgroup pattern that a cgroup matches under a generation; 0 for none.
#[inline(always)]
pub fn cgroup_pattern(cgroup: u64, active: Active) -> u32 {
    let key = cgroup_key(cgroup, active.buffer);
    // SAFETY: the value is copied at once.
    unsafe { CGROUPS.get(&key) }.map_or(0, |number| *number)
}

/// The key of a domain in an epoch, and the domain's epoch length as a power of two of slots.
#[inline(always)]
pub fn keys(active: Active) -> Option<&'static KeyTable> {
    KEYS.get(active.buffer)
}

/// Position in a key table of a domain index and an epoch.
#[inline(always)]
pub fn key_index(domain_index: u32, epoch: u64) -> u8 {
    ((domain_index & 15) << 4 | (epoch as u32 & 15)) as u8
}

/// An entry of `table`.
#[inline(always)]
pub fn key(table: &KeyTable, index: u8) -> &KeyEntry {
    // SAFETY: `entries` has 256 of them.
    unsafe { table.entries.get_unchecked(index as usize) }
}

/// The grants of a generation.
#[inline(always)]
pub fn grants(buffer: u32) -> Option<&'static GrantTable> {
    GRANTS.get(buffer)
}

/// The epoch length of a domain.
#[inline(always)]
pub fn epoch_shift(table: &KeyTable, domain_index: u32) -> u32 {
    // SAFETY: the index is below 16, the length of `epoch_shift`.
    unsafe { *table.epoch_shift.get_unchecked((domain_index & 15) as usize) }
}

/// First slot behind the last epoch of a domain that has a key; 0 where none ever had.
#[inline(always)]
pub fn ends_slot(table: &KeyTable, domain_index: u32) -> u64 {
    // SAFETY: the index is below 16, the length of `ends_slot`.
    unsafe { *table.ends_slot.get_unchecked((domain_index & 15) as usize) }
}

/// Whom the keys of a domain belong to.
#[inline(always)]
pub fn sender(table: &KeyTable, domain_index: u32) -> u32 {
    // SAFETY: the index is below 16, the length of `senders`.
    unsafe { *table.senders.get_unchecked((domain_index & 15) as usize) }
}

/// Buffer number of the counters that outlive generations.
pub const LIFETIME: u32 = 2;

/// Counts a packet in one counter of a buffer, or of [`LIFETIME`].
#[inline(always)]
pub fn count(buffer: u32, counter: u32, len: u32) {
    let Some(counters) = COUNTERS.get_ptr_mut(buffer) else { return };
    // SAFETY: no arguments, no side effects.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let shift = constant(&COUNTER_SHIFT) & 31;
    let index = ((cpu << shift).wrapping_add(counter)) & constant(&COUNTER_MASK);
    // SAFETY: the loader makes the value `COUNTER_MASK + 1` counters long; the verifier checks.
    // Each CPU has counters of its own, so that plain additions lose nothing.
    unsafe {
        let counter = counters.add(index as usize);
        (*counter).packets += 1;
        (*counter).bytes += len as u64;
    }
}
