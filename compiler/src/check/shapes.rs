//! `fragments` and `options`: packets that are more than one header and what it carries.

use govc_abi::attribute::shape;
use govc_grammar::ast::{self, Action};
use govc_grammar::diagnostic::{Applicability, Diagnostic};
use govc_grammar::span::Span;

use super::sink::Sink;
use crate::codes;

/// The shapes that packets may have; `None` after an error.
///
/// What denies is about all of them: a fragment that hides its ports is no way around a denial.
pub(crate) fn allowed<'a>(
    action: Action,
    fragments: Option<Span>,
    options: Option<Span>,
    protocols: impl Iterator<Item = (&'a ast::Proto, Span)>,
    sink: &mut Sink,
) -> Option<u32> {
    if action == Action::Deny {
        let mut fine = Some(shape::ALL);
        for (word, span) in [("fragments", fragments), ("options", options)] {
            let Some(span) = span else { continue };
            let message = format!("what denies is about packets with `{word}` in any case");
            fine = sink.fail(
                Diagnostic::new(codes::SHAPE_OF_DENIAL, message, span, "says nothing")
                    .help("remove it: such packets are denied unless a permit rule names them")
                    .replace(span, "", Applicability::MaybeIncorrect),
            );
        }
        return fine;
    }
    let mut shapes = shape::WHOLE;
    if options.is_some() {
        shapes |= shape::OPTIONS;
    }
    let Some(word) = fragments else { return Some(shapes) };
    hidden(word, protocols, sink)?;
    Some(shapes | shape::FRAGMENT)
}

/// Nothing is said of ports and types where `word` says that there are fragments.
pub(crate) fn hidden<'a>(
    word: Span,
    protocols: impl Iterator<Item = (&'a ast::Proto, Span)>,
    sink: &mut Sink,
) -> Option<()> {
    for (proto, span) in protocols {
        let named = [
            (&proto.ports, "ports"),
            (&proto.source_ports, "source ports"),
            (&proto.icmp_types, "types"),
            (&proto.icmp_codes, "codes"),
        ];
        let Some((_, what)) = named.into_iter().find(|(set, _)| set.is_some()) else { continue };
        let message = format!("fragments are not known by their {what}");
        return sink.fail(
            Diagnostic::new(codes::FRAGMENT_PORTS, message, span, format!("names {what}"))
                .and(word, "fragments")
                .help(
                    "only the first fragment shows ports and types: write a second rule for \
                     fragments, with the protocol alone",
                ),
        );
    }
    Some(())
}
