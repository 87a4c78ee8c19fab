//! Being written.
pub mod ast;
pub mod diagnostic;
pub mod span;
