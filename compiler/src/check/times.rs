//! Moments at which rules begin and end.

use govc_abi::label::SLOT_NS;
use govc_abi::limits::TIMES_MAX;
use govc_grammar::ast;
use govc_grammar::diagnostic::Diagnostic;
use jiff::Timestamp;

use super::sink::Sink;
use crate::checked::{Assertion, Match, Moment, Rule};
use crate::codes;

/// The first slot that begins at or after a time of RFC 3339 whose seconds may be missing.
pub(crate) fn moment(text: &ast::Text, sink: &mut Sink) -> Option<Moment> {
    let told = |message: String, label: &str| {
        Diagnostic::new(codes::BAD_TIME, message, text.span, label).help(
            "write date, time and offset from UTC, such as \"2026-12-31T18:00Z\" or \
             \"2026-12-31T19:00+01:00\"",
        )
    };
    let Ok(time) = text.text.parse::<Timestamp>() else {
        return sink.fail(told(format!("`{}` is no moment", text.text), "cannot be read"));
    };
    let ns = u128::try_from(time.as_nanosecond()).ok();
    let slot = ns.map(|ns| ns.div_ceil(u128::from(SLOT_NS)));
    // The image has 32 bits for a moment, and all of them set stand for none.
    match slot.and_then(|slot| u32::try_from(slot).ok()).filter(|slot| *slot != u32::MAX) {
        Some(slot) => Some(Moment { slot, span: text.span }),
        None => {
            let message = format!("`{}` is before 1970 or after 2242", text.text);
            sink.fail(told(message, "out of reach"))
        }
    }
}

/// The moments of a rule, of which the first has to be before the second.
pub(crate) fn ordered(since: Option<Moment>, until: Option<Moment>, sink: &mut Sink) -> bool {
    let (Some(since), Some(until)) = (since, until) else { return true };
    if since.slot < until.slot {
        return true;
    }
    let message = "the rule ends before it begins";
    sink.push(
        Diagnostic::new(codes::EMPTY_TIME, message, until.span, "ends here")
            .and(since.span, "begins here")
            .help("exchange the two, or remove the rule"),
    );
    false
}

/// All moments, as slots, ascending.
pub(crate) fn all(rules: &[Rule], assertions: &[Assertion], sink: &mut Sink) -> Vec<u32> {
    let rules = rules.iter().map(|rule| &rule.matches);
    let assertions = assertions
        .iter()
        .flat_map(|assertion| std::iter::once(&assertion.matches).chain(&assertion.unless));
    let of = |one: &Match| [one.since, one.until];
    let moments = || rules.clone().chain(assertions.clone()).flat_map(of).flatten();
    let mut times: Vec<u32> = Vec::new();
    for moment in moments() {
        let Err(place) = times.binary_search(&moment.slot) else { continue };
        if times.len() == TIMES_MAX {
            let message = format!("rules begin and end at more than {TIMES_MAX} moments");
            sink.push(
                Diagnostic::new(codes::TOO_MANY_TIMES, message, moment.span, "one too many").help(
                    "packets are compared with all of them: let rules begin and end together",
                ),
            );
            break;
        }
        times.insert(place, moment.slot);
    }
    times
}
