//! Names of maps, programs and pins.

/// Directory of all pins below a bpffs, with the ABI version: kernel state of another version
/// lives elsewhere.
pub const PIN_ROOT: &str = "govc/v1";

/// Maps, as they are called in the object and under the instance's directory.
pub mod map {
    /// `Array<Control, 1>`, mapped.
    pub const CONTROL: &str = "CONTROL";
    /// `Array<[u32; N], 2>`, mapped: the two buffers.
    pub const TABLES: &str = "TABLES";
    /// `Array<[Counter; N], 3>`, mapped: by buffer, and since the instance began.
    pub const COUNTERS: &str = "COUNTERS";
    /// Like `COUNTERS` for a single CPU, and known to the loader only: what was counted in maps
    /// that have been replaced since.
    pub const CARRIED: &str = "CARRIED";
    /// `Array<KeyTable, 2>`: by buffer.
    pub const KEYS: &str = "KEYS";
    /// `Array<Interface, 1024>`: open hash by index.
    pub const INTERFACES: &str = "INTERFACES";
    /// `Hash<u64, u32>`: cgroup id to pattern number, by buffer in the upper half.
    pub const CGROUPS: &str = "CGROUPS";
    /// `LruHash<FlowKey, FlowState>`.
    pub const FLOWS: &str = "FLOWS";
    /// Ring buffer of events.
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<CpuState, 1>`.
    pub const CPU: &str = "CPU";
    /// `PerCpuArray<Memo, 4096>`.
    pub const MEMO: &str = "MEMO";
    /// All that the object knows.
    pub const ALL: [&str; 10] =
        [CONTROL, TABLES, COUNTERS, KEYS, INTERFACES, CGROUPS, FLOWS, EVENTS, CPU, MEMO];
}

/// Programs.
pub mod program {
    /// tcx ingress: verify, decide, strip.
    pub const TC_INGRESS: &str = "govc_ingress";
    /// tcx egress: choose the label, decide, stamp.
    pub const TC_EGRESS: &str = "govc_egress";
    /// XDP: verify, decide, strip.
    pub const XDP_INGRESS: &str = "govc_xdp";
}

/// Constants of the object that the loader sets before loading.
pub mod global {
    /// Words of one table buffer minus one; the size is a power of two.
    pub const TABLE_MASK: &str = "TABLE_MASK";
    /// Counters of one CPU in one buffer, as a power of two.
    pub const COUNTER_SHIFT: &str = "COUNTER_SHIFT";
    /// Counters of all CPUs in one buffer minus one; the size is a power of two.
    pub const COUNTER_MASK: &str = "COUNTER_MASK";
}
