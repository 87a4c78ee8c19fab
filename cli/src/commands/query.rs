//! `query`: who may reach whom for what.

use govc_compiler::{analysis::query, names::place_of};

use super::columns;
use crate::{
    arguments::{PolicyHook, Query},
    failure::Failure,
    input::{self, Compiled},
    output::{Style, json, line},
};

pub fn run(arguments: &Query, style: &Style) -> Result<(), Failure> {
    let input = input::read_with_item(&arguments.sources, &filter(arguments))?;
    input.report(style)?;
    let Compiled { policy, table, image } = input.compiled()?;
    let Some(filter) = policy.assertions().last() else { return Err(Failure::Told) };
    let ways = query::ways(policy, table, image.names(), filter);
    let ways = ways.map_err(|error| Failure::Usage {
        message: error.to_string(),
        help: "Ask for less at a time.".into(),
    })?;
    if arguments.json {
        return json(&ways);
    }
    if arguments.dot {
        return line(query::dot(&ways).trim_end());
    }
    if ways.is_empty() {
        return line("nobody: no rule permits such traffic");
    }
    let head = ["HOOK", "FROM", "TO", "OPERATION", "OVER", "IF", "BY", "AT", "EXCEPT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for way in &ways {
        let span = way.position.and_then(|at| policy.rules().get(at)).map(|rule| rule.head);
        let place = span.and_then(|span| place_of(&input.sources, span));
        rows.push(vec![
            way.hook.to_owned(),
            way.from.clone(),
            way.to.clone(),
            way.operation.clone(),
            way.transport.clone(),
            way.conditions.clone(),
            way.rule.clone(),
            place.map(|(file, row, _)| format!("{file}:{row}")).or(way.open()).unwrap_or_default(),
            way.except.join(", "),
        ]);
    }
    columns(&rows)
}

/// The filter in the words of the language, so that it means what it means in a rule.
fn filter(arguments: &Query) -> String {
    let mut text = String::from("assert query {");
    let all = [PolicyHook::Ingress, PolicyHook::Egress, PolicyHook::Forward];
    for hook in if arguments.on.is_empty() { &all } else { arguments.on.as_slice() } {
        text.push_str(match hook {
            PolicyHook::Ingress => " on ingress",
            PolicyHook::Egress => " on egress",
            PolicyHook::Forward => " on forward",
        });
    }
    text.push_str(" never permit");
    for (word, value) in [
        ("from", &arguments.from),
        ("to", &arguments.to),
        ("operation", &arguments.operation),
        ("where", &arguments.conditions),
        ("proto", &arguments.proto),
    ] {
        if let Some(value) = value {
            text.push_str(&format!(" {word} {value}"));
        }
    }
    text.push_str(" }");
    text
}
