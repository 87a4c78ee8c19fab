//! `explain`: a diagnostic code, or why a packet gets its verdict or got it.

mod captured;
mod event;
mod packet;
mod page;

use crate::{arguments::Explain, failure::Failure, output::Style};

pub fn run(arguments: &Explain, style: &Style) -> Result<(), Failure> {
    if let (Some(events), [files @ .., id]) = (&arguments.events, arguments.what.as_slice()) {
        return event::tell(arguments, events, files, id, style);
    }
    match arguments.what.as_slice() {
        [] => page::list(arguments.json, style),
        [code] => page::tell(code, arguments.json, style),
        [files @ .., packet] => packet::tell(arguments, files, packet, style),
    }
}
