//! `govc`: governance that travels in the packet. The command line; the library exists for the
//! program and its tests.

pub mod arguments;
pub mod commands;
mod demo;
pub mod failure;
pub mod input;
pub mod output;
