//! The stable codes of all diagnostics, each declared once: number, title, gravity.
//!
//! A number is never given to another mistake; a code that is no longer used keeps its line.

use crate::diagnostic::{Code, Severity};

macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $severity:ident;)*) => {
        $(
            #[doc = concat!("`", $id, "`: ", $title)]
            pub const $name: Code =
                Code { id: $id, title: $title, severity: Severity::$severity };
        )*

        /// All codes, in the order of their numbers.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    // GOV0xxx: lexical and syntax errors, found by this crate.
    UNEXPECTED = "GOV0001", "unexpected text", Error;
    UNKNOWN_CHARACTER = "GOV0002", "unknown character", Error;
    UNTERMINATED_TEXT = "GOV0003", "text without a closing quote", Error;
    BAD_ESCAPE = "GOV0004", "unknown escape in a text", Error;
    BAD_ADDRESS = "GOV0005", "ill-formed address", Error;
    BAD_NUMBER = "GOV0006", "ill-formed number", Error;
    BAD_NAME = "GOV0007", "ill-formed name", Error;
    WRONG_QUOTES = "GOV0008", "wrong quotes", Error;
    FOREIGN_COMMENT = "GOV0009", "comment of another language", Error;
    SEMICOLON = "GOV0010", "semicolon", Error;
    FOREIGN_OPERATOR = "GOV0011", "operator of another language", Error;
    ASSIGNMENT_IN_CONDITION = "GOV0012", "`=` in a condition", Error;
    KEYWORD_AS_NAME = "GOV0013", "keyword used as a name", Error;
    RESERVED_KEYWORD = "GOV0014", "reserved keyword", Error;
    MISSING_PACKAGE = "GOV0015", "missing `package` line", Error;
    MISPLACED_PACKAGE = "GOV0016", "misplaced `package` line", Error;
    UNCLOSED = "GOV0017", "unclosed brace or parenthesis", Error;
    UNOPENED = "GOV0018", "closing brace without an opening one", Error;
    MISSING_COMMA = "GOV0019", "missing comma", Error;
    UNKNOWN_KEYWORD = "GOV0020", "unknown keyword", Error;
    FOREIGN_ACTION = "GOV0021", "action of another language", Error;
    UNNAMED_RULE = "GOV0022", "rule without a name", Error;
    RULE_OUTSIDE_POLICY = "GOV0023", "rule outside a policy", Error;
    PORT_WITHOUT_PROTO = "GOV0024", "ports or protocol without `proto`", Error;
    NESTED_TOO_DEEP = "GOV0025", "nested too deep", Error;
    FILE_TOO_LARGE = "GOV0026", "file too large", Error;
    MORE_ERRORS = "GOV0027", "more errors left out", Advice;
    MISPLACED_EXPECTATION = "GOV0028", "expectation without an item or rule", Error;

    MISPLACED_DOCUMENTATION = "GOV0040", "documentation of nothing", Warning;
    USELESS_PRIVATE = "GOV0041", "`private` before an item without names", Error;
    MISPLACED_DEPRECATION = "GOV0042", "deprecation of nothing", Error;

    // GOV1xxx: names.

    // GOV2xxx: types.

    // GOV3xxx: vocabulary and lock file.

    // GOV4xxx: analysis.

    // GOV5xxx: limits.

    // GOV6xxx: tests.
}

/// The code with this id, in any case: `GOV0001`, `gov0001`.
#[must_use]
pub fn find(id: &str) -> Option<Code> {
    ALL.iter().find(|code| code.id.eq_ignore_ascii_case(id)).copied()
}
