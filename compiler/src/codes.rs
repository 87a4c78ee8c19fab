//! The stable codes of the checker's diagnostics, each declared once.
//!
//! A number is never given to another mistake; a code that is no longer used keeps its line.

use govc_grammar::diagnostic::{Code, Severity};

macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $severity:ident;)*) => {
        $(
            #[doc = concat!("`", $id, "`: ", $title)]
            pub const $name: Code =
                Code { id: $id, title: $title, severity: Severity::$severity };
        )*

        /// All codes of the checker, in the order of their numbers.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    // GOV01xx: analysis.
    NEVER_MATCHES = "GOV0100", "rule that no packet matches", Warning;
    SHADOWED = "GOV0101", "rule whose packets others decide otherwise", Warning;
    REDUNDANT = "GOV0102", "rule that changes no verdict", Warning;
    CONFLICT = "GOV0103", "rules that contradict each other", Advice;
    GAP = "GOV0104", "traffic that no rule speaks of", Advice;
    UNDECIDED_TEST = "GOV0105", "test that no rule decides", Advice;
    ASSERTION_FAILS = "GOV0106", "assertion that does not hold", Error;
    ASSERTION_OPEN = "GOV0107", "assertion that could not be decided", Error;
    UNUSED_HERE = "GOV0108", "name that nothing here uses", Advice;

    // GOV1xxx: names.
    UNKNOWN_PACKAGE = "GOV1001", "unknown package", Error;
    UNKNOWN_SCOPE = "GOV1002", "unknown scope", Error;
    UNKNOWN_NAME = "GOV1003", "unknown name of a vocabulary", Error;
    UNKNOWN_OPERATION = "GOV1004", "unknown operation", Error;
    UNKNOWN_ZONE = "GOV1005", "unknown zone", Error;
    UNKNOWN_TIER = "GOV1006", "unknown tier", Error;
    UNKNOWN_SET = "GOV1007", "unknown set", Error;
    UNKNOWN_RADIUS = "GOV1008", "unknown radius", Error;
    WRONG_KIND = "GOV1009", "name of another kind", Error;
    PACKAGE_NOT_USED = "GOV1010", "package is not used", Error;
    DEFINED_TWICE = "GOV1011", "name defined twice", Error;
    AMBIGUOUS = "GOV1012", "ambiguous name", Error;
    MIXED_DOMAINS = "GOV1013", "names of two domains in one place", Error;
    GROUPING_SCOPE = "GOV1014", "scope without subjects of its own", Error;
    NO_CHILD_SUBJECTS = "GOV1015", "no subjects directly below", Error;
    BAD_INDEX = "GOV1016", "index outside a batch", Error;
    NOT_ONE_SUBJECT = "GOV1017", "not exactly one subject", Error;
    SET_CYCLE = "GOV1018", "set that contains itself", Error;
    OPERATION_GROUP = "GOV1019", "group where an operation is wanted", Error;
    SAID_TWICE = "GOV1020", "said twice", Error;
    UNKNOWN_CODE = "GOV1021", "unknown diagnostic code", Error;
    UNKNOWN_TEMPLATE = "GOV1022", "unknown template", Error;
    WRONG_ARGUMENTS = "GOV1023", "arguments that are not the template's parameters", Error;
    TEMPLATE_CYCLE = "GOV1024", "template that is like itself", Error;
    USE_CYCLE = "GOV1030", "packages that use each other", Error;
    PRIVATE_NAME = "GOV1031", "private name of another package", Error;
    UNKNOWN_CARRIAGE = "GOV1032", "unknown carriage", Error;

    // GOV2xxx: types.
    TYPE_MISMATCH = "GOV2001", "comparison with a value of another type", Error;
    OPERATOR_MISMATCH = "GOV2002", "operator that the attribute does not have", Error;
    VALUE_SHAPE = "GOV2003", "set where one name is wanted", Error;
    MIXED_SET = "GOV2004", "prefixes and ports in one set", Error;
    SET_MISMATCH = "GOV2005", "set of another type", Error;
    HOST_BITS = "GOV2006", "host bits in a prefix", Error;
    PREFIX_LENGTH = "GOV2007", "prefix longer than its address", Error;
    REVERSED_RANGE = "GOV2008", "reversed range", Error;
    PORT_TOO_LARGE = "GOV2009", "port above 65535", Error;
    PROTO_WITHOUT_PORTS = "GOV2010", "ports of a protocol that has none", Error;
    PROTO_WITHOUT_TYPES = "GOV2011", "ICMP type of a protocol that has none", Error;
    ICMP_TOO_LARGE = "GOV2012", "ICMP type or code above 255", Error;
    PROTO_TOO_LARGE = "GOV2013", "protocol number above 255", Error;
    OBSERVED_PASS = "GOV2014", "`pass` that only observes", Error;
    NO_HOOK = "GOV2015", "policy without `on`", Error;
    LEVEL_RAISED = "GOV2016", "label above its subject's level", Error;
    COMPARTMENTS_ADDED = "GOV2017", "label with compartments that its subject lacks", Error;
    SUBJECT_MISSING = "GOV2018", "label without subject", Error;
    LIFE_TOO_LONG = "GOV2019", "label that lives too long", Error;
    EXPECTED_ERROR = "GOV2020", "expectation of an error", Error;
    ASSERTION_LOGS = "GOV2021", "assertion that logs", Error;
    WRONG_ARGUMENT = "GOV2022", "argument that does not fit where it goes", Error;
    BAD_TIME = "GOV2023", "time that cannot be read", Error;
    EMPTY_TIME = "GOV2024", "time that ends before it begins", Error;
    ANSWER_WITHOUT_DENIAL = "GOV2025", "answer in a rule that denies nothing", Error;
    BAD_SAMPLING = "GOV2026", "sampling that is not `1 in N`", Error;
    UNDECLARABLE = "GOV2027", "operations that nobody can declare", Error;
    NOTHING_LEFT = "GOV2030", "exceptions that leave nothing", Error;
    EXCEPTION_OF_ALL = "GOV2031", "exception from senders that are no scopes", Error;
    TRANSLATION_UNCAPPED = "GOV2032", "translation without a highest level", Error;
    TRANSLATION_WIDENS = "GOV2033", "translation that widens", Error;
    TRANSLATION_RENAMES = "GOV2034", "translation that renames within a domain", Error;
    CARRIAGE_OF_NOTHING = "GOV2035", "carriage for neighbours that get no labels", Error;
    CARRIAGES_CONTRADICT = "GOV2036", "carriages that contradict each other", Error;

    FRAGMENT_PORTS = "GOV2040", "fragments by their ports or types", Error;
    SHAPE_OF_DENIAL = "GOV2041", "`fragments` or `options` where they are meant anyway", Error;

    // GOV3xxx: vocabulary and lock file.
    NO_DOMAIN = "GOV3001", "vocabulary without a domain", Error;
    SECOND_DOMAIN = "GOV3002", "second domain in a package", Error;
    BAD_DOMAIN_NUMBER = "GOV3003", "domain number out of range", Error;
    DOMAIN_NUMBER_TAKEN = "GOV3004", "domain number used twice", Error;
    FOREIGN_SCOPES = "GOV3005", "scopes of a domain that the package does not own", Error;
    COUNT_ON_GROUP = "GOV3006", "count on a scope that groups others", Error;
    COUNT_ZERO = "GOV3007", "batch without subjects", Error;
    LEVEL_ABOVE_PARENT = "GOV3008", "scope above its parent's level", Warning;
    BAD_LOCK = "GOV3009", "lock file that cannot be trusted", Error;
    DOMAIN_RENUMBERED = "GOV3010", "domain number differs from the lock file", Error;
    NO_LEVEL_GAP = "GOV3011", "no number left between two levels", Error;
    LEVELS_REORDERED = "GOV3012", "levels in another order than in the lock file", Error;
    BATCH_CANNOT_GROW = "GOV3013", "batch that cannot grow where it is", Error;
    STALE_LOCK = "GOV3014", "lock file that would have to change", Error;

    // GOV41xx: what is probably not meant.
    UNUSED = "GOV4101", "defined and never used", Warning;
    UNREACHABLE_ITEM = "GOV4102", "item that an earlier one covers", Warning;
    NEVER_KNOWN = "GOV4103", "attribute that is never known at this hook", Warning;
    OVERLAP = "GOV4104", "overlapping members of a set", Warning;
    EMPTY_POLICY = "GOV4105", "policy without rules", Warning;
    PASS_IN_LAST_TIER = "GOV4106", "`pass` in the last tier", Warning;
    REPEATED = "GOV4107", "repeated without effect", Warning;
    NEVER_HOLDS = "GOV4108", "condition that never holds", Warning;
    UNFULFILLED = "GOV4109", "expectation that is not fulfilled", Warning;
    EMPTY_TEST = "GOV4110", "test without packets", Warning;
    NO_EXCEPTION = "GOV4120", "exception that takes nothing out", Warning;
    DEPRECATED = "GOV4121", "deprecated name", Warning;
    CAP_UNREACHED = "GOV4122", "highest level that nothing becomes", Warning;

    // GOV5xxx: limits.
    TOO_MANY_DOMAINS = "GOV5001", "too many domains", Error;
    TOO_MANY_LEVELS = "GOV5002", "too many levels", Error;
    TOO_MANY_COMPARTMENTS = "GOV5003", "too many compartments", Error;
    TOO_MANY_CONSTRAINTS = "GOV5004", "too many constraints", Error;
    TOO_MANY_OPERATIONS = "GOV5005", "too many operations", Error;
    TOO_MANY_RESIDENCIES = "GOV5006", "too many residency sets", Error;
    TOO_MANY_ROUTES = "GOV5007", "too many route classes", Error;
    TOO_MANY_SUBJECTS = "GOV5008", "too many subjects", Error;
    TOO_MANY_ZONES = "GOV5009", "too many zones", Error;
    TOO_MANY_CGROUPS = "GOV5010", "too many cgroup patterns", Error;
    TOO_MANY_LABELS = "GOV5011", "too many stamp and legacy rules", Error;
    TOO_MANY_RULES = "GOV5012", "too many rules", Error;
    TOO_MANY_ALTERNATIVES = "GOV5013", "too many alternatives in rules", Error;
    TABLES_TOO_BIG = "GOV5014", "tables that are too big", Error;

    TOO_MANY_TIMES = "GOV5015", "too many moments at which rules begin or end", Error;
    EXPANSION_TOO_LARGE = "GOV5016", "templates that write out too much", Error;
    TOO_MANY_DECLARABLE = "GOV5017", "too many operations in a stamp rule", Error;

    // GOV6xxx: tests.
    SENDER_MISSING = "GOV6001", "packet without `from`", Error;
    NOT_ONE_SENDER = "GOV6002", "packet from more than one sender", Error;
    FIELD_WITHOUT_LABEL = "GOV6003", "label field of an unlabelled packet", Error;
    NO_LEGACY_RULE = "GOV6004", "no legacy rule for this packet", Error;
    PORT_MISSING = "GOV6005", "packet without port", Error;
    NOT_ONE_VALUE = "GOV6006", "more than one value in a packet", Error;
    NOT_A_HOST = "GOV6007", "prefix where one address is wanted", Error;
    MIXED_FAMILIES = "GOV6008", "IPv4 and IPv6 in one packet", Error;
    UNKNOWN_RULE = "GOV6009", "unknown rule", Error;
    IMPOSSIBLE_VERDICT = "GOV6010", "verdict that the rule never gives", Error;
    FIELD_NOT_DECIDED = "GOV6011", "label field that no rule looks at", Error;
    TEST_FAILED = "GOV6012", "test that fails", Error;

    // GOV7xxx: authority. What the compiler is not told; `govc` holds a policy to it.
    STAMP_NOT_GRANTED = "GOV7001", "stamp rule outside of the grants", Error;
    TRANSLATION_NOT_GRANTED = "GOV7002", "translation outside of mappings or grants", Error;
}

/// Whether a code is told by the analysis of a policy that is right, GOV01xx.
#[must_use]
pub fn is_analysis(code: &str) -> bool {
    code.starts_with("GOV01")
}

/// Whether a code is only told to who asks for it.
#[must_use]
pub fn is_on_demand(code: &str) -> bool {
    [CONFLICT, GAP, UNUSED_HERE].iter().any(|one| one.id == code)
}
