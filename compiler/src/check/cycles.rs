//! Things that refer to each other in a circle.

use govc_grammar::diagnostic::{Code, Diagnostic};
use govc_grammar::span::Span;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

/// What a circle consists of, for its diagnostic.
pub(crate) struct Circle<F> {
    pub(crate) code: Code,
    /// What one of them is: `set`.
    pub(crate) noun: &'static str,
    /// What one of them does: `contains itself`.
    pub(crate) does: &'static str,
    /// What a further place does: `refers to`.
    pub(crate) refers: &'static str,
    pub(crate) help: &'static str,
    /// How a node is called.
    pub(crate) name: F,
}

/// Strongly connected nodes in reverse topological order, what is referred to first; each with the
/// first of them if it is in a circle.
pub(crate) fn components(graph: &DiGraph<(), Span>) -> Vec<(Vec<NodeIndex>, Option<NodeIndex>)> {
    let circle = |component: Vec<NodeIndex>| {
        let first = component.iter().min().copied();
        let first = first.filter(|&one| component.len() > 1 || graph.contains_edge(one, one));
        (component, first)
    };
    kosaraju_scc(graph).into_iter().map(circle).collect()
}

impl<F: Fn(NodeIndex) -> SmolStr> Circle<F> {
    /// The shortest way round from `first`, with every place on it.
    pub(crate) fn diagnostic(
        &self,
        graph: &DiGraph<(), Span>,
        component: &[NodeIndex],
        first: NodeIndex,
    ) -> Diagnostic {
        let way = way_round(graph, component, first);
        let names = std::iter::once(first).chain(way.iter().map(|(_, node)| *node));
        let names: Vec<String> = names.map(|node| format!("`{}`", (self.name)(node))).collect();
        let message = format!(
            "{} {} {}: {}",
            self.noun,
            names.first().map_or("", String::as_str),
            self.does,
            names.join(" -> ")
        );
        let mut way = way.into_iter();
        let mut diagnostic = match way.next() {
            Some((span, _)) => Diagnostic::new(self.code, message, span, "the cycle starts here"),
            None => Diagnostic::without_place(self.code, message),
        };
        for (span, target) in way {
            diagnostic = diagnostic.and(span, format!("{} `{}`", self.refers, (self.name)(target)));
        }
        diagnostic.help(self.help)
    }
}

/// The places from `first` round to it, each with what stands there.
fn way_round(
    graph: &DiGraph<(), Span>,
    component: &[NodeIndex],
    first: NodeIndex,
) -> Vec<(Span, NodeIndex)> {
    let mut came_from: FxHashMap<NodeIndex, (NodeIndex, Span)> = FxHashMap::default();
    let mut reached = vec![first];
    let mut next = 0;
    while let Some(&node) = reached.get(next)
        && !came_from.contains_key(&first)
    {
        next += 1;
        // Edges come newest first; the chain shall start with what was written first.
        let mut edges: Vec<_> =
            graph.edges(node).map(|edge| (*edge.weight(), edge.target())).collect();
        edges.sort_unstable();
        for (span, target) in edges {
            if component.contains(&target) && !came_from.contains_key(&target) {
                came_from.insert(target, (node, span));
                reached.push(target);
            }
        }
    }
    let mut way = Vec::new();
    let mut at = first;
    while let Some(&(from, span)) = came_from.get(&at) {
        way.push((span, at));
        at = from;
        if at == first {
            break;
        }
    }
    way.reverse();
    way
}
