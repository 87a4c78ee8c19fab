//! Events of enforcement points: reading them live or from a file, naming, choosing, counting and
//! keeping them.

pub mod board;
pub mod describe;
pub mod filter;
pub mod flows;
pub mod history;
pub mod pace;
pub mod pcapng;
#[cfg(test)]
mod sample;
pub mod source;
