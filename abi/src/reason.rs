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
    /// The socket declared an operation that its stamp rule does not grant.
    OPERATION_UNGRANTED = 38, "operation_ungranted", "its socket declared an operation that its stamp rule does not grant";
    /// The grant that the label was stamped under was taken back.
    REVOKED = 48, "revoked", "the grant that its label was stamped under is revoked";
    /// The label names no grant, and the domain's labels have to.
    UNGRANTED = 49, "ungranted", "its label names no grant, and the domain asks for one";
    /// The grant that the label would be stamped or translated under has ended, or the mapping that it is
    /// translated by.
    GRANT_EXPIRED = 53, "grant_expired", "the grant that its label is stamped or translated under has ended";
    /// The bundle in force has ended.
    POLICY_EXPIRED = 50, "policy_expired", "the time of the policy in force is over";
    /// The last staged epoch of the domain has ended.
    EPOCH_EXPIRED = 51, "epoch_expired", "the last staged key of the label's domain has ended";
    /// The only key for the domain is that of another sender.
    SENDER_KEY = 52, "sender_key", "the only key for the label's domain is that of another sender";
    /// No translation speaks of the label's subject where it leaves.
    UNTRANSLATED = 56, "untranslated", "no translation speaks of its subject";
    /// A compartment is neither translated nor dropped.
    COMPARTMENTS_UNTRANSLATED = 57, "compartments_untranslated", "a compartment of the label is neither translated nor dropped";
    /// A constraint is neither translated nor dropped.
    CONSTRAINTS_UNTRANSLATED = 58, "constraints_untranslated", "a constraint of the label is neither translated nor dropped";
    /// The operation is not translated.
    OPERATION_UNTRANSLATED = 59, "operation_untranslated", "the label's operation is not translated";
    /// The residency set is not translated.
    RESIDENCY_UNTRANSLATED = 60, "residency_untranslated", "the label's residency set is not translated";
    /// The route class is not translated.
    ROUTE_UNTRANSLATED = 61, "route_untranslated", "the label's route class is not translated";
    /// The label may not leave its domain.
    RADIUS_EXCEEDED = 62, "radius_exceeded", "the label's radius does not reach into another domain";
    /// Labels of this domain are translated where they leave by this zone, and none comes back.
    DOMAIN_FOREIGN = 63, "domain_foreign", "labels of this domain do not come in by this zone";
    /// The packet in a tunnel is between other addresses than the tunnel.
    TUNNEL_ENDS = 42, "tunnel_ends", "the packet in its tunnel is between other addresses than the tunnel";
}

/// Reasons below this number let a packet through; [`RULE`] goes either way.
pub const FIRST_DENY: u8 = 16;
