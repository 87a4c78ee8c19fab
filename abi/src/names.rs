//! Names of maps, programs and pins.

/// Directory of all pins below a bpffs, with the ABI version: kernel state of another version
/// lives elsewhere.
pub const PIN_ROOT: &str = "govc/v3";

/// Maps, as they are called in the object and under the instance's directory.
pub mod map {
    /// `Array<Control, 1>`, mapped.
    pub const CONTROL: &str = "CONTROL";
    /// `Array<[u32; N], 2>`, mapped: the two buffers.
    pub const TABLES: &str = "TABLES";
    /// `Array<[Counter; N], 3>`, mapped: by buffer, and since the instance began.
    pub const COUNTERS: &str = "COUNTERS";
    /// Like `COUNTERS` for a single CPU, and known to the loader only: what was counted in maps
    /// that have been replaced since, and by generations before for rules that are still there.
    pub const CARRIED: &str = "CARRIED";
    /// `Array<u64, 1>`, known to the loader only: which entry of `CARRIED` belongs to which buffer.
    pub const LEDGER: &str = "LEDGER";
    /// `Array<KeyTable, 2>`: by buffer.
    pub const KEYS: &str = "KEYS";
    /// `Array<GrantTable, 2>`, mapped: by buffer.
    pub const GRANTS: &str = "GRANTS";
    /// `Array<Interface, 1024>`: open hash by index.
    pub const INTERFACES: &str = "INTERFACES";
    /// `Array<Detours>`: by buffer.
    pub const DETOURS: &str = "DETOURS";
    /// `Hash<u64, u32>`: cgroup id to pattern number, by buffer in the upper half.
    pub const CGROUPS: &str = "CGROUPS";
    /// `Array<Patterns>`: by buffer.
    pub const PATTERNS: &str = "PATTERNS";
    /// `PerCpuArray`, of the eBPF program alone: the path of a cgroup while it is compared.
    pub const CGROUP_SEARCH: &str = "CGROUP_SEARCH";
    /// `LruHash<FlowKey, FlowState>`: flows of which both ends speak.
    pub const FLOWS: &str = "FLOWS";
    /// Likewise: flows that nothing has answered, and tickets.
    pub const OPENINGS: &str = "OPENINGS";
    /// Ring buffer of events.
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<CpuState, 1>`.
    pub const CPU: &str = "CPU";
    /// `Array<Memo>`, mapped: by CPU and entry.
    pub const MEMO: &str = "MEMO";
    /// `Array<AddressesV6>`, likewise: of the same entries.
    pub const MEMO_V6: &str = "MEMO_V6";
    /// `Array<Stamped>`, likewise.
    pub const STAMPED: &str = "STAMPED";
    /// `Array<Arrivals, 1>`.
    pub const ARRIVALS: &str = "ARRIVALS";
    /// `SkStorage<Declared>`: what sockets have declared.
    pub const SOCKETS: &str = "SOCKETS";
    /// `Array<u32, 1>`: 1 once a socket has.
    pub const DECLARED: &str = "DECLARED";
    /// All that the object knows.
    pub const ALL: [&str; 20] = [
        CONTROL,
        TABLES,
        COUNTERS,
        KEYS,
        GRANTS,
        INTERFACES,
        DETOURS,
        CGROUPS,
        PATTERNS,
        CGROUP_SEARCH,
        FLOWS,
        OPENINGS,
        EVENTS,
        CPU,
        MEMO,
        MEMO_V6,
        STAMPED,
        ARRIVALS,
        SOCKETS,
        DECLARED,
    ];
}

/// Programs.
pub mod program {
    /// tcx ingress: verify, decide, strip.
    pub const TC_INGRESS: &str = "govc_ingress";
    /// tcx egress: choose the label, decide, stamp.
    pub const TC_EGRESS: &str = "govc_egress";
    /// XDP: verify, decide, strip.
    pub const XDP_INGRESS: &str = "govc_xdp";
    /// setsockopt in all cgroups: what a socket declares.
    pub const DECLARE: &str = "govc_declare";
    /// Sockets made in the cgroup of `govc run`: what they are for.
    pub const SOCKET_MADE: &str = "govc_socket_made";
    /// A cgroup was made.
    pub const CGROUP_MADE: &str = "govc_cgroup_made";
    /// A cgroup has gone.
    pub const CGROUP_GONE: &str = "govc_cgroup_gone";
}

/// Constants of the object that the loader sets before loading.
pub mod global {
    /// Words of one table buffer minus one; the size is a power of two.
    pub const TABLE_MASK: &str = "TABLE_MASK";
    /// Counters of one CPU in one buffer, as a power of two.
    pub const COUNTER_SHIFT: &str = "COUNTER_SHIFT";
    /// Counters of all CPUs in one buffer minus one; the size is a power of two.
    pub const COUNTER_MASK: &str = "COUNTER_MASK";
    /// Entries of `MEMO`, `MEMO_V6` and `STAMPED` that one CPU has, as a power of two.
    pub const MEMORY_SHIFT: &str = "MEMORY_SHIFT";
    /// What sockets made in the cgroup of one `govc run` declare: the hash of an operation's name.
    pub const RUN_OPERATION: &str = "RUN_OPERATION";
}
