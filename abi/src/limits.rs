//! Every limit, with its name and its reason. The compiler reports an overflow as a diagnostic;
//! nothing is ever cut off silently.

/// Domains in one image: an index of 4 bits, one value kept for "none".
pub const DOMAINS_MAX: usize = 16;
/// Domains that a policy can name; the last index means "none".
pub const DOMAINS_NAMED_MAX: usize = DOMAINS_MAX - 1;
/// Key epochs that a label can tell apart: 4 bits.
pub const EPOCHS: usize = 16;
/// Levels of a domain: 4 bits.
pub const LEVELS_MAX: usize = 16;
/// Compartments of a domain: a bitmap of 16.
pub const COMPARTMENTS_MAX: usize = 16;
/// Constraints of a domain: a bitmap of 16.
pub const CONSTRAINTS_MAX: usize = 16;
/// Operations of a domain: 16 bits, 0 means none.
pub const OPERATIONS_MAX: usize = 65_535;
/// Residency sets of a domain: 8 bits, 0 means none.
pub const RESIDENCIES_MAX: usize = 255;
/// Route classes of a domain: 8 bits, 0 means none.
pub const ROUTES_MAX: usize = 255;
/// Subjects of a domain: 24 bits.
pub const SUBJECTS_MAX: u32 = 1 << 24;
/// Zones of a node: 8 bits, 0 means none.
pub const ZONES_MAX: usize = 254;
/// Cgroup patterns of a node's stamp rules, 0 means none.
pub const CGROUPS_MAX: usize = 65_534;
/// Cgroup patterns that the kernel itself compares with cgroups made after a policy was applied; of
/// policies with more, those are found at the next apply.
pub const CGROUPS_WATCHED_MAX: usize = 64;
/// Bytes of such a pattern.
pub const CGROUP_PATTERN_MAX: usize = 128;
/// Bytes of a cgroup's path that the kernel looks at, with the closing zero.
pub const CGROUP_PATH_MAX: usize = 512;
/// Stamp and legacy rules together; each operation of a stamp rule but the first is one more.
pub const LABELS_MAX: usize = 65_536;
/// Serials of grants that a label can tell apart: 16 bits, 0 means none.
pub const SERIALS: usize = 1 << 16;
/// Grants that one node stamps and translates under; one that serves several mappings counts for each
/// end that it has by them.
pub const GRANTS_HELD_MAX: usize = 1024;
/// Runs of subjects that translations name: as many as labels.
pub const TRANSLATIONS_MAX: usize = 65_536;
/// Operations of a stamp rule.
pub const DECLARABLE_MAX: usize = 16;
/// Rules of a policy set: two counters each, per CPU.
pub const RULES_MAX: usize = 1 << 20;
/// Rows of the decision table: a rule has one for each alternative that it names.
pub const ROWS_MAX: usize = 1 << 22;
/// Moments at which rules begin or end, in a whole policy: every computed packet looks at them.
pub const TIMES_MAX: usize = 16;
/// Largest `N` of `log 1 in N`: 16 bits of a rule record.
pub const SAMPLING_MAX: u32 = 65_535;
/// Bytes of source that templates write out: what a policy of that size takes to check.
pub const EXPANSION_MAX: usize = 1 << 26;
/// Alternatives of one rule: what its `or`, its lists and its `proto` clauses multiply to.
pub const ALTERNATIVES_MAX: usize = 1 << 14;
/// Parts of the forest that one decision walks: bounds the walk and what the verifier explores.
pub const PARTS_MAX: usize = 16;
/// Attributes that a decision can test; bounds the depth of a diagram.
pub const ATTRIBUTES_MAX: usize = 32;
/// Words of an image: 256 MiB, the reach of a diagram entry.
pub const IMAGE_WORDS_MAX: usize = 1 << 26;
/// Smallest table that the loader makes: 64 KiB.
pub const TABLE_WORDS_MIN: usize = 1 << 14;
/// Interfaces that one instance enforces on; a power of two, slots of an open hash.
pub const INTERFACES_MAX: usize = 1024;
/// Slots that the kernel looks at for one interface.
pub const INTERFACE_PROBES: usize = 8;
/// Flows of which both ends speak that an instance remembers for replies; the one that nothing asked
/// for the longest time goes first.
pub const FLOWS_MAX: usize = 1 << 16;
/// Flows that nothing has answered yet, apart from the others: a flood of them pushes out its own.
pub const OPENINGS_MAX: usize = 1 << 15;
/// Bytes of what all CPUs together remember of decisions and of labels of flows, as long as that
/// leaves each the fewest entries.
pub const MEMORY_LEN_MAX: usize = 64 << 20;
/// Decisions that one CPU remembers at the fewest, and labels of flows, as a power of two: less than
/// a megabyte of both.
pub const MEMORY_SHIFT_MIN: u32 = 12;
/// Likewise, at the most: as many as there are flows.
pub const MEMORY_SHIFT_MAX: u32 = FLOWS_MAX.trailing_zeros();
/// Bytes of a packet with options or extension headers that are looked at; a power of two.
pub const HEADERS_LEN: usize = 256;
/// Extension headers before the transport header of such a packet.
pub const EXTENSIONS_MAX: usize = 4;
/// Bytes of the event ring.
pub const EVENT_RING_LEN: usize = 1 << 20;
/// Events that one CPU may publish in a second unless told otherwise.
pub const EVENT_RATE_DEFAULT: u32 = 10_000;
/// Into so many parts the budget for events is cut that rules are sure of: a rule, or a reason where no rule
/// decided, may publish one part more when others have used up what all share. Rules share parts by
/// their number.
pub const EVENT_SHARES: usize = 64;
/// Answers that one CPU gives in a second, a tenth of it at a time: to what rules reject, and to what leaves
/// no room for a label.
pub const ANSWER_RATE: u64 = 1_000;
/// Longest life of a label that a verifier accepts, as a power of two of slots, unless told
/// otherwise: 16 slots, 32 seconds.
pub const LIFE_MAX_DEFAULT: u8 = 4;
/// Life of a label unless its stamp rule says otherwise: 4 slots, 8 seconds.
pub const LIFE_DEFAULT: u8 = 2;
