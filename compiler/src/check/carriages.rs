//! Carriage rules: how labels ride to whom.

use govc_grammar::{ast, diagnostic::Diagnostic};

use super::{labels::Edges, sets, sink::Sink};
use crate::{
    checked::{Carriage, Prefix},
    codes, lower,
    resolve::Lookup,
    suggest,
    table::IntervalSet,
};

/// The carriages by their names, and whether they are tunnels.
const KINDS: [(&str, bool); 2] = [("option", false), ("tunnel", true)];

/// Checks one rule by itself.
pub(super) fn check(
    lookup: Lookup<'_, '_>,
    rule: &ast::Carriage,
    sink: &mut Sink,
) -> Option<Carriage> {
    let kind = kind(&rule.kind, sink);
    let addresses = sets::prefixes(lookup, &rule.addresses, "to", sink);
    let zone = lookup.zone(&rule.zone, sink);
    Some(Carriage { tunnel: kind?, addresses: addresses?, zone: zone?, span: rule.kind.span })
}

fn kind(name: &ast::Name, sink: &mut Sink) -> Option<bool> {
    let known = KINDS.iter().find(|(kind, _)| *kind == name.text);
    if let Some((_, tunnel)) = known {
        return Some(*tunnel);
    }
    let message = format!("unknown carriage `{}`", name.text);
    let told = Diagnostic::new(codes::UNKNOWN_CARRIAGE, message, name.span, "no carriage");
    let kinds = KINDS.map(|(kind, _)| kind);
    sink.fail(match suggest::near_word(&name.text, kinds) {
        Some(near) => near.offer(told.help(format!("did you mean `{}`?", near.name)), name.span),
        None => told.help(format!("the carriages are {}", suggest::list(kinds, kinds.len()))),
    })
}

/// Holds the rules against each other, and against the neighbours that get no labels.
pub(super) fn compare(edges: &Edges, sink: &mut Sink) {
    let of = |addresses: &[Prefix]| lower::prefixes(addresses);
    let sets: Vec<IntervalSet> = edges.carriages.iter().map(|rule| of(&rule.addresses)).collect();
    for (at, (rule, set)) in edges.carriages.iter().zip(&sets).enumerate() {
        without_labels(edges, rule, sink);
        let earlier = edges.carriages.iter().zip(&sets).take(at);
        for (first, its) in earlier.filter(|(first, _)| first.zone == rule.zone) {
            let both = its.intersect(set);
            // What comes first may be an exception from what follows.
            if both.is_empty() || both == *its && both != *set {
                continue;
            }
            if first.tunnel != rule.tunnel {
                contradiction(first, rule, sink);
                break;
            }
            if both == *set {
                covered(first, rule, sink);
                break;
            }
        }
    }
}

/// Neighbours that know no labels get none in a tunnel either.
fn without_labels(edges: &Edges, rule: &Carriage, sink: &mut Sink) {
    for legacy in edges.legacies.iter().filter(|legacy| legacy.zone == rule.zone) {
        let theirs = lower::prefixes(&legacy.addresses);
        let within = |prefix: &&Prefix| {
            let set = lower::prefixes(std::slice::from_ref(*prefix));
            set.intersect(&theirs) == set
        };
        let Some(prefix) = rule.addresses.iter().find(within) else { continue };
        let (address, length) = (prefix.address, prefix.length);
        let message = format!("{address}/{length} gets no labels that could ride in any way");
        sink.push(
            Diagnostic::new(codes::CARRIAGE_OF_NOTHING, message, rule.span, "labels for these")
                .and(legacy.span, "this legacy rule says that they know none")
                .help("remove the legacy rule if they verify labels now, or leave them out here"),
        );
        return;
    }
}

fn contradiction(first: &Carriage, rule: &Carriage, sink: &mut Sink) {
    let word = |rule: &Carriage| if rule.tunnel { "tunnel" } else { "option" };
    let message = format!(
        "some addresses get labels by `{}` here and by `{}` in an earlier rule",
        word(rule),
        word(first)
    );
    sink.push(
        Diagnostic::new(codes::CARRIAGES_CONTRADICT, message, rule.span, "this one comes too late")
            .and(first.span, "the first rule that matches counts")
            .help("put exceptions first, with addresses that all lie in those of the later rule"),
    );
}

fn covered(first: &Carriage, rule: &Carriage, sink: &mut Sink) {
    let message = "this carriage rule never applies: an earlier one takes all its traffic";
    sink.push(
        Diagnostic::new(codes::UNREACHABLE_ITEM, message, rule.span, "never applies")
            .and(first.span, "this one comes first")
            .help("remove it"),
    );
}
