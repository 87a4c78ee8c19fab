//! `govc`: governance that travels in the packet. The command line; the library exists for the
//! program and its tests.

#[expect(missing_docs, reason = "the help texts are the documentation")]
pub mod arguments;
pub mod commands;
mod demo;
pub mod failure;
pub mod input;
pub mod levels;
mod markdown;
pub mod output;
mod progress;
pub mod report;
