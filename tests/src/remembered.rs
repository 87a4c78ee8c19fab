//! What CPUs remember, asked and changed.

use std::{mem::offset_of, thread, time::Duration};

use govc_abi::memory::{
    MEMO_WAYS, Memo, Stamped, memo_flag, memo_hash, memo_way, memory_shift, memory_slot,
};
use govc_loader::{keyring::slot_now, mapped::MappedArray, object, status};

use crate::kernel::{Answer, Hook, Kernel, sure_slot};

/// Waits for the beginning of a slot, so that what is remembered for one lasts for the test.
pub fn await_slot() {
    let now = slot_now();
    while sure_slot().is_none_or(|slot| slot == now) {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Packets that each rule has decided, or would have.
pub fn counts(kernel: &Kernel) -> Vec<u64> {
    let status = kernel.namespace.run(|| status::status(&kernel.place)).unwrap();
    status.rules.iter().flat_map(|rule| [rule.packets, rule.would]).collect()
}

/// Asks with and without the memory, within one slot; both have to say the same.
pub fn ask_both(kernel: &mut Kernel, hook: Hook, frame: &[u8]) -> Answer {
    loop {
        let slot = sure_slot();
        let remembered = kernel.ask(hook, frame);
        status::use_memo(&kernel.place, false).unwrap();
        let computed = kernel.ask(hook, frame);
        status::use_memo(&kernel.place, true).unwrap();
        // Labels of the next slot are others.
        if slot.is_some() && sure_slot() == slot {
            assert_eq!(remembered.told(), computed.told(), "{hook:?} {frame:02x?}");
            return remembered;
        }
    }
}

/// A memory, as user space may change it.
pub struct Memory {
    map: MappedArray,
    cpus: u32,
    shift: u32,
}

impl Memory {
    /// The one of this name.
    pub fn of(kernel: &Kernel, name: &str) -> Self {
        let pin = kernel.place.set().unwrap().pin(name);
        let cpus = object::possible_cpus().unwrap().next_power_of_two();
        Self { map: object::map_array(&pin).unwrap(), cpus, shift: memory_shift(cpus) }
    }

    /// Where a CPU looks for it first.
    pub fn slot(&self, cpu: u32, mac: u64) -> u32 {
        memory_slot(cpu, self.shift, memo_hash(mac))
    }

    /// Changes what CPUs keep about a label with this MAC, and tells whether one did.
    pub fn decide(&self, mac: u64, permit: bool) -> bool {
        let homes = (0..self.cpus).map(|cpu| self.slot(cpu, mac));
        let ways = |home| (0..MEMO_WAYS).map(move |number| memo_way(home, number) as usize);
        let is_it = |entry: &usize| self.map.read(*entry, offset_of!(Memo, mac)) == Some(mac);
        let found: Vec<_> = homes.flat_map(ways).filter(is_it).collect();
        let (at, bit) = (offset_of!(Memo, pending), u32::from(memo_flag::PERMIT) << 24);
        for entry in &found {
            let pending: u32 = self.map.read(*entry, at).unwrap();
            self.map.write(*entry, at, if permit { pending | bit } else { pending & !bit });
        }
        !found.is_empty()
    }

    /// Changes MACs that flows are labelled with, and tells how many.
    pub fn replace(&self, mac: u64, new: u64) -> usize {
        let at = offset_of!(Stamped, mac);
        let all = 0..(self.cpus << self.shift) as usize;
        let found: Vec<_> = all.filter(|entry| self.map.read(*entry, at) == Some(mac)).collect();
        found.iter().for_each(|entry| self.map.write(*entry, at, new));
        found.len()
    }
}
