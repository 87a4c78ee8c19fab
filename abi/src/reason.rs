//! Why a packet was let through or dropped: a number, a name and a sentence for each way out of
//! the enforcement point.

macro_rules! reasons {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $constant: u8 = $number;)*
        /// Names by number; empty where there is none.
        pub const NAMES: [&str; COUNT] = {
            let mut names = [""; COUNT];
            $(names[$number] = $name;)*
            names
        };
        /// What each means, as half a sentence.
        pub const TEXTS: [&str; COUNT] = {
            let mut texts = [""; COUNT];
            $(texts[$number] = $text;)*
            texts
        };
    };
}

/// Reasons that a hook counts.
pub const COUNT: usize = 64;

reasons! {
    /// A rule decided; the rule's number stands beside the reason.
    RULE = 0, "rule", "a rule decided";
    /// Reply of a permitted flow.
    REPLY = 1, "reply", "reply of a permitted flow";
    /// ARP, neighbour discovery, DHCP, MLD, IGMP.
    LINK_CONTROL = 2, "link_control", "link control is exempt";
    /// No policy speaks about this hook.
    UNGOVERNED = 3, "ungoverned", "no policy speaks about this hook";
    /// Labelled, but no rule permits it.
    NO_RULE = 16, "no_rule", "no rule permits it";
    /// Not labelled, and no rule permits that.
    LABEL_MISSING = 17, "label_missing", "it carries no label, and no rule permits that";
    /// The label has another shape than the one that is allowed.
    MALFORMED = 18, "malformed", "header or label have a wrong shape";
    /// The label is of another version or has reserved flags set.
    VERSION = 19, "version", "label version or flags are unknown";
    /// The policy does not name the label's domain.
    DOMAIN_UNKNOWN = 20, "domain_unknown", "the policy does not know the label's domain";
    /// A constraint bit is set that the vocabulary does not name.
    CONSTRAINT_UNKNOWN = 21, "constraint_unknown", "the label demands an unknown constraint";
    /// The label is older than its life or the verifier's cap.
    SLOT_EXPIRED = 22, "slot_expired", "the label is too old";
    /// The label is from the future.
    SLOT_FUTURE = 23, "slot_future", "the label is from the future";
    /// The label's epoch is not the epoch of its slot.
    EPOCH_MISMATCH = 24, "epoch_mismatch", "the label's epoch does not belong to its slot";
    /// There is no key for the domain and epoch.
    KEY_MISSING = 25, "key_missing", "there is no key for the label's domain and epoch";
    /// The MAC is wrong.
    BAD_MAC = 26, "bad_mac", "the label's MAC is wrong";
    /// A fragment: later fragments show no ports.
    FRAGMENT = 27, "fragment", "fragments are denied";
    /// Neither IP nor ARP.
    NOT_IP = 28, "not_ip", "it is neither IP nor ARP";
    /// Shorter than its headers say.
    TRUNCATED = 29, "truncated", "it is shorter than its headers say";
    /// IP options or extension headers that leave no place for a label.
    OPTIONS = 30, "options", "IP options or extension headers leave no place for a label";
    /// A workload wrote a label of its own.
    LABEL_FORGED = 31, "label_forged", "the workload wrote a label of its own";
    /// No stamp rule names a subject for it.
    NO_SUBJECT = 32, "no_subject", "no stamp rule names a subject for it";
    /// The kernel made no room for the label.
    NO_ROOM = 33, "no_room", "the kernel made no room for the label";
    /// The clock runs behind the moment of the last apply.
    CLOCK_STALE = 34, "clock_stale", "the clock runs behind the last apply";
    /// No generation is in force, or an unknown one.
    GENERATION_UNKNOWN = 35, "generation_unknown", "no policy generation is in force";
    /// The instance does not know the interface.
    INTERFACE_UNKNOWN = 36, "interface_unknown", "the instance does not know the interface";
    /// A kernel helper failed.
    HELPER_FAILED = 37, "helper_failed", "a kernel helper failed";
}

/// Reasons below this number let a packet through; [`RULE`] goes either way.
pub const FIRST_DENY: u8 = 16;
