//! The `.gov` policy language: tokens, grammar, syntax tree and syntax errors.
//!
//! [`parse`] never fails: it returns what it understood, and what is wrong with the rest.

pub mod ast;
pub mod codes;
pub mod diagnostic;
pub mod span;

mod assertion;
mod chunk;
mod expected;
mod lexer;
mod lexical_error;
mod literal;
mod marks;
mod parse;
mod problems;
mod repair;
mod suggest;
mod syntax_error;
mod translation;
mod tree;

pub use lexer::{Token, tokens};
pub use parse::{item_starts, parse};

/// Syntax errors that are told per file.
pub const DIAGNOSTICS_MAX: usize = 20;

/// Braces, parentheses and `not` that may stand within each other.
pub const NESTING_MAX: usize = 64;

/// Size of a source file; places are 32 bit wide, and no honest policy is larger.
pub const FILE_BYTES_MAX: usize = 64 << 20;

lalrpop_util::lalrpop_mod!(
    #[allow(
        clippy::all,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
        unused,
        unused_qualifications,
        reason = "the generated parser"
    )]
    gov
);
