//! The compiler of the `.gov` policy language.
//!
//! Stages, one type each: texts, tokens and trees (`govc-grammar`), checked policy ([`checked`]),
//! decision table ([`table`]), decision diagrams ([`forest`]), match tables ([`tables`]), image
//! ([`encode`]). It reads no file, clock or environment: the same input gives the same bytes.

pub mod check;
pub mod checked;
pub mod class;
pub mod codes;
pub mod diagram;
pub mod encode;
pub mod forest;
pub mod interpret;
pub mod lock;
pub mod lower;
pub mod names;
pub mod pages;
pub mod sources;
pub mod table;
pub mod tables;
pub mod testing;

mod resolve;
mod suggest;
mod vocabulary;
