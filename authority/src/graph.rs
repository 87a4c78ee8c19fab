//! Sets of grants: who may stamp what, and keys that grant in circles.

use std::collections::BTreeMap;

use petgraph::{
    Direction,
    algo::kosaraju_scc,
    graph::{DiGraph, NodeIndex},
    visit::{Bfs, EdgeFiltered, EdgeRef as _},
};

use crate::{grant, key::KeyId, lattice::Rights};

/// The grants of one domain as a graph: keys are its nodes, blocks its edges.
#[derive(Clone, Debug)]
pub struct Graph {
    graph: DiGraph<Party, Edge>,
    root: NodeIndex,
    keys: BTreeMap<KeyId, NodeIndex>,
}

/// Who grants or holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    /// The root's keys, who sign together.
    Root,
    /// A holder.
    Key(KeyId),
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    serial: u16,
    rights: Rights,
}

/// A key that may stamp a subject, and how it came to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The key.
    pub key: KeyId,
    /// A shortest way from the root: each key with the serial of a block that grants to it.
    pub path: Vec<(KeyId, u16)>,
}

impl Graph {
    /// The grants among these that are about the labels of domain `number`.
    #[must_use]
    pub fn new<'a>(number: u16, grants: impl IntoIterator<Item = &'a grant::Verified>) -> Self {
        let mut graph = DiGraph::new();
        let root = graph.add_node(Party::Root);
        let mut made = Self { graph, root, keys: BTreeMap::new() };
        for grant in grants.into_iter().filter(|grant| grant.domain().number == number) {
            let mut from = root;
            for link in grant.links() {
                let to = made.node(link.holder.id());
                let edge = Edge { serial: link.serial, rights: link.rights.clone() };
                // Grants share their first blocks.
                let known = made.graph.edges_connecting(from, to).any(|e| *e.weight() == edge);
                if !known {
                    made.graph.add_edge(from, to, edge);
                }
                from = to;
            }
        }
        made
    }

    fn node(&mut self, key: KeyId) -> NodeIndex {
        let graph = &mut self.graph;
        *self.keys.entry(key).or_insert_with(|| graph.add_node(Party::Key(key)))
    }

    /// Keys that grant themselves in a circle: nobody gains by one, and nobody means one. Each
    /// comes with its keys ascending, and they ascend.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<KeyId>> {
        // Kosaraju's way needs no recursion, however long the chains are.
        let mut cycles: Vec<Vec<KeyId>> = kosaraju_scc(&self.graph)
            .into_iter()
            .filter(|nodes| match nodes.as_slice() {
                [one] => self.graph.contains_edge(*one, *one),
                _ => true,
            })
            .map(|nodes| {
                let mut keys: Vec<_> =
                    nodes.into_iter().filter_map(|node| self.key(node)).collect();
                keys.sort_unstable();
                keys
            })
            .collect();
        cycles.sort_unstable();
        cycles
    }

    /// Everybody who may stamp a subject, ascending by key.
    #[must_use]
    pub fn may_stamp(&self, subject: u32) -> Vec<Reach> {
        // A block narrows those before it, so whoever has an edge with the subject is reached by
        // edges that have it too.
        let granting = EdgeFiltered::from_fn(&self.graph, |edge| {
            edge.weight().rights.subjects.contains(subject)
        });
        let mut came: BTreeMap<NodeIndex, Vec<(KeyId, u16)>> = BTreeMap::new();
        came.insert(self.root, Vec::new());
        let mut search = Bfs::new(&granting, self.root);
        while let Some(node) = search.next(&granting) {
            let path = came.get(&node).cloned().unwrap_or_default();
            for edge in self.graph.edges_directed(node, Direction::Outgoing) {
                let Some(key) = self.key(edge.target()) else { continue };
                let Edge { serial, rights } = edge.weight();
                if rights.subjects.contains(subject) {
                    came.entry(edge.target())
                        .or_insert_with(|| path.iter().copied().chain([(key, *serial)]).collect());
                }
            }
        }
        let mut reached: Vec<_> = came
            .into_iter()
            .filter_map(|(node, path)| Some(Reach { key: self.key(node)?, path }))
            .collect();
        reached.sort_unstable_by_key(|reach| reach.key);
        reached
    }

    fn key(&self, node: NodeIndex) -> Option<KeyId> {
        match self.graph.node_weight(node)? {
            Party::Root => None,
            Party::Key(key) => Some(*key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Domain,
        grant::{Grant, Terms, Verified},
        intervals::Intervals,
        revocations::Revocations,
        testing::{acme, key, root},
        trust::Root,
    };

    /// From the root to each key of a seed in turn, with the last subject of each.
    fn chain(steps: &[(u8, u32)]) -> Verified {
        chain_in(&root(), steps)
    }

    fn chain_in(root: &Root, steps: &[(u8, u32)]) -> Verified {
        let terms = |at: usize| Terms {
            serial: at as u16 + 1,
            serials: Intervals::span(at as u32 + 2, 100),
            rights: Rights {
                subjects: Intervals::span(1, steps[at].1),
                depth: 10 - at as u8,
                ..Rights::all()
            },
            holder: key(steps[at].0).public(),
        };
        let mut grant = Grant::draft(root.domain.clone(), terms(0)).unwrap();
        grant.sign(&key(1)).unwrap();
        grant.sign(&key(2)).unwrap();
        for at in 1..steps.len() {
            grant = grant.hand_on(terms(at), &key(steps[at - 1].0)).unwrap();
        }
        grant.verify(root, &Revocations::default(), 0).unwrap()
    }

    fn ids(seeds: &[u8]) -> Vec<KeyId> {
        let mut ids: Vec<_> = seeds.iter().map(|seed| key(*seed).id()).collect();
        ids.sort();
        ids
    }

    #[test]
    fn who_may_stamp_a_subject() {
        let grants = [
            chain(&[(10, 100), (11, 50), (12, 7)]),
            chain(&[(10, 100), (13, 80)]),
            chain(&[(14, 7)]),
        ];
        let graph = Graph::new(acme().number, &grants);
        let who = |subject| -> Vec<_> {
            graph.may_stamp(subject).into_iter().map(|reach| reach.key).collect()
        };
        assert_eq!(who(7), ids(&[10, 11, 12, 13, 14]));
        assert_eq!(who(8), ids(&[10, 11, 13]));
        assert_eq!(who(51), ids(&[10, 13]));
        assert_eq!(who(100), ids(&[10]));
        assert!(who(101).is_empty() && who(0).is_empty());
        let reach = graph.may_stamp(7);
        let node = reach.iter().find(|reach| reach.key == key(12).id()).unwrap();
        assert_eq!(node.path, [(key(10).id(), 1), (key(11).id(), 2), (key(12).id(), 3)]);
        assert_eq!(Graph::new(8, &grants).may_stamp(7), []);
    }

    #[test]
    fn a_shorter_way_is_told() {
        let grants = [chain(&[(10, 100), (11, 50), (12, 7)]), chain(&[(12, 5)])];
        let graph = Graph::new(acme().number, &grants);
        let path = |subject| {
            let reach = graph.may_stamp(subject);
            reach.into_iter().find(|reach| reach.key == key(12).id()).unwrap().path.len()
        };
        assert_eq!((path(5), path(6)), (1, 3));
    }

    #[test]
    fn circles_are_found() {
        assert!(
            Graph::new(7, &[chain(&[(10, 9), (11, 9)]), chain(&[(11, 9)])]).cycles().is_empty()
        );
        let itself = chain(&[(10, 9), (10, 9)]);
        assert_eq!(Graph::new(7, [&itself]).cycles(), [ids(&[10])]);
        let round = chain(&[(10, 9), (11, 9), (12, 9), (10, 9)]);
        assert_eq!(Graph::new(7, [&round]).cycles(), [ids(&[10, 11, 12])]);
        // Also by way of two grants,
        let two = [chain(&[(10, 9), (11, 5)]), chain(&[(11, 9), (10, 3)])];
        assert_eq!(Graph::new(7, &two).cycles(), [ids(&[10, 11])]);
        // but not by way of two domains.
        let other = Root { domain: Domain { name: "other".into(), number: 8 }, ..root() };
        let two = [chain(&[(10, 9), (11, 5)]), chain_in(&other, &[(11, 9), (10, 3)])];
        assert!(Graph::new(7, &two).cycles().is_empty());
        assert!(Graph::new(8, &two).cycles().is_empty());
    }
}
