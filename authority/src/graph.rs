//! Keys that grant in circles.

use std::collections::BTreeMap;

use petgraph::{
    algo::kosaraju_scc,
    graph::{DiGraph, NodeIndex},
};

use crate::{grant::Terms, key::KeyId};

/// Keys that grant themselves in a circle, by way of chains of blocks from the root on of one domain: nobody gains
/// by one, and nobody means one. Each comes with its keys ascending, and they ascend.
#[must_use]
pub fn circles<'a>(chains: impl IntoIterator<Item = &'a [Terms]>) -> Vec<Vec<KeyId>> {
    let mut graph = DiGraph::new();
    let mut nodes: BTreeMap<KeyId, NodeIndex> = BTreeMap::new();
    for chain in chains {
        // Nobody grants to the root, so that it is in no circle.
        let mut from = None;
        for link in chain {
            let key = link.holder.id();
            let to = *nodes.entry(key).or_insert_with(|| graph.add_node(key));
            if let Some(from) = from {
                graph.update_edge(from, to, ());
            }
            from = Some(to);
        }
    }
    // Kosaraju's way needs no recursion, however long the chains are.
    let mut circles: Vec<Vec<KeyId>> = kosaraju_scc(&graph)
        .into_iter()
        .filter(|nodes| match nodes.as_slice() {
            [one] => graph.contains_edge(*one, *one),
            _ => true,
        })
        .map(|nodes| {
            let mut keys: Vec<_> =
                nodes.iter().filter_map(|node| graph.node_weight(*node).copied()).collect();
            keys.sort_unstable();
            keys
        })
        .collect();
    circles.sort_unstable();
    circles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{intervals::Intervals, lattice::Rights, testing::key};

    /// From the root to each key of a seed in turn.
    fn chain(seeds: &[u8]) -> Vec<Terms> {
        let terms = |(seed, serial): (&u8, u16)| Terms {
            serial,
            serials: Intervals::EMPTY,
            rights: Rights::all(),
            holder: key(*seed).public(),
        };
        seeds.iter().zip(1..).map(terms).collect()
    }

    fn found(chains: &[&[u8]]) -> Vec<Vec<KeyId>> {
        let chains: Vec<_> = chains.iter().map(|seeds| chain(seeds)).collect();
        circles(chains.iter().map(Vec::as_slice))
    }

    fn ids(seeds: &[u8]) -> Vec<KeyId> {
        let mut ids: Vec<_> = seeds.iter().map(|seed| key(*seed).id()).collect();
        ids.sort();
        ids
    }

    #[test]
    fn circles_are_found() {
        assert!(found(&[]).is_empty());
        assert!(found(&[&[10, 11], &[11], &[10, 12, 11]]).is_empty());
        assert_eq!(found(&[&[10, 10]]), [ids(&[10])]);
        assert_eq!(found(&[&[9, 10, 11, 12, 10]]), [ids(&[10, 11, 12])]);
        // Also by way of two grants.
        assert_eq!(found(&[&[10, 11], &[11, 10]]), [ids(&[10, 11])]);
    }
}
