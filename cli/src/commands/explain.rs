//! `explain`: a diagnostic code, or why a packet gets its verdict.

mod packet;
mod page;

use crate::{arguments::Explain, failure::Failure, output::Style};

pub fn run(arguments: &Explain, style: &Style) -> Result<(), Failure> {
    match arguments.what.as_slice() {
        [] => page::list(arguments.json, style),
        [code] => page::tell(code, arguments.json, style),
        [files @ .., packet] => packet::tell(arguments, files, packet, style),
    }
}
