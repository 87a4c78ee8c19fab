//! Handing out subject numbers: aligned power-of-two blocks along the scope tree, so that every
//! scope is an interval of numbers (or few), whatever is added later.
//!
//! Free numbers of a scope are kept as a buddy allocator keeps them: aligned chunks whose size
//! is a power of two. The smallest chunk that fits is split, so nothing is lost to alignment.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::lock::{LockedScope, SUBJECT_LAST, joined};

/// Size of the smallest block of a scope with children, as a power of two: 16 numbers.
const GROUP_ORDER_MIN: u8 = 4;
/// Size of a whole domain, as a power of two.
const DOMAIN_ORDER: u8 = 24;

/// A scope that wants numbers. Parents stand before their children.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) path: SmolStr,
    /// Position of the parent in the list.
    pub(crate) parent: Option<usize>,
    /// How many subjects; `None` for scopes that only group others.
    pub(crate) subjects: Option<u32>,
}

/// Why a scope gets no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The domain has not that many numbers left in one piece.
    Full,
    /// What lies behind the batch belongs to somebody else; it had this many subjects.
    Stuck(u32),
}

/// Free numbers as aligned chunks: size as a power of two, first number.
#[derive(Debug, Default)]
struct Free(BTreeSet<(u8, u32)>);

impl Free {
    /// Adds a range, cut into the largest aligned chunks.
    fn add(&mut self, first: u32, last: u32) {
        self.0.extend(chunks(first, last).map(|(start, order)| (order, start)));
    }

    /// The smallest chunk that holds a chunk of this order.
    fn fitting(&self, order: u8) -> Option<(u8, u32)> {
        self.0.range((order, 0)..).next().copied()
    }

    /// Takes a chunk out of the smallest one that holds it, from its beginning.
    fn take(&mut self, order: u8) -> Option<u32> {
        let (found, start) = self.fitting(order)?;
        self.split(found, start, order, start);
        Some(start)
    }

    /// The free chunk that contains the chunk at `start`.
    fn around(&self, start: u32, order: u8) -> Option<(u8, u32)> {
        (order..=DOMAIN_ORDER)
            .map(|larger| (larger, start >> larger << larger))
            .find(|chunk| self.0.contains(chunk))
    }

    /// Takes exactly the chunk at `start`, when it is free.
    fn take_at(&mut self, start: u32, order: u8) -> bool {
        let Some((found, found_start)) = self.around(start, order) else { return false };
        self.split(found, found_start, order, start);
        true
    }

    /// Removes a chunk and puts back all of it but the part at `start`.
    fn split(&mut self, mut found: u8, mut found_start: u32, order: u8, start: u32) {
        self.0.remove(&(found, found_start));
        while found > order {
            found -= 1;
            let upper = found_start | 1 << found;
            let (kept, freed) =
                if start >= upper { (upper, found_start) } else { (found_start, upper) };
            self.0.insert((found, freed));
            found_start = kept;
        }
    }
}

/// The largest aligned chunks that make up an inclusive range, ascending: start and order.
fn chunks(first: u32, last: u32) -> impl Iterator<Item = (u32, u8)> {
    let mut next = u64::from(first);
    let end = u64::from(last) + 1;
    std::iter::from_fn(move || {
        let left = end.checked_sub(next).filter(|&left| left > 0)?;
        let order = next.trailing_zeros().min(left.ilog2()).min(DOMAIN_ORDER.into());
        let start = u32::try_from(next).ok()?;
        next += 1 << order;
        Some((start, u8::try_from(order).ok()?))
    })
}

/// Smallest order whose chunk holds `count` numbers.
fn order_of(count: u64) -> u8 {
    u8::try_from(count.max(1).next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX)
}

#[derive(Debug)]
struct Node {
    parent: usize,
    scope: LockedScope,
    free: Free,
    /// Numbers that children without a block still need.
    pending: u64,
}

/// The scope tree of one domain with everything that was ever handed out.
#[derive(Debug)]
pub(crate) struct Space {
    /// Node 0 is the domain itself.
    nodes: Vec<Node>,
    by_path: FxHashMap<SmolStr, usize>,
}

impl Space {
    /// The tree that a trusted lock describes; all scopes are retired until [`Space::place`]
    /// finds them in the source.
    pub(crate) fn new(locked: &BTreeMap<SmolStr, LockedScope>) -> Self {
        let whole = LockedScope { blocks: vec![(1, SUBJECT_LAST)], ..LockedScope::default() };
        let root = Node { parent: 0, scope: whole, free: Free::default(), pending: 0 };
        let mut space = Self { nodes: vec![root], by_path: FxHashMap::default() };
        let mut taken: Vec<Vec<(u32, u32)>> = vec![Vec::new()];
        // A parent's path is a prefix of its children's, so it comes first.
        for (path, scope) in locked {
            let parent = path.rsplit_once('.').and_then(|(above, _)| space.by_path.get(above));
            let parent = parent.copied().unwrap_or(0);
            if let Some(taken) = taken.get_mut(parent) {
                taken.extend_from_slice(&scope.blocks);
            }
            taken.push(scope.subjects.into_iter().collect());
            let scope = LockedScope { retired: true, ..scope.clone() };
            space.by_path.insert(path.clone(), space.nodes.len());
            space.nodes.push(Node { parent, scope, free: Free::default(), pending: 0 });
        }
        for (node, mut taken) in space.nodes.iter_mut().zip(taken) {
            taken.sort_unstable();
            free_numbers(&joined(&node.scope.blocks), &taken, &mut node.free);
        }
        space
    }

    /// Gives every wanted scope its numbers and answers with them in the order of `wanted`.
    pub(crate) fn place(&mut self, wanted: &[Wanted]) -> Vec<Result<LockedScope, Trouble>> {
        let sizes = sizes(wanted);
        let mut nodes: Vec<usize> = Vec::with_capacity(wanted.len());
        for (scope, &size) in wanted.iter().zip(&sizes) {
            let parent = scope.parent.and_then(|at| nodes.get(at)).map_or(0, |&node| node);
            let node = self.node_of(&scope.path, parent);
            let new = self.nodes_without_block(node);
            if let Some(at) = self.nodes.get_mut(parent).filter(|_| new) {
                at.pending += 1_u64 << size.min(DOMAIN_ORDER + 1);
            }
            nodes.push(node);
        }
        let mut troubles: Vec<Option<Trouble>> = Vec::with_capacity(wanted.len());
        for ((scope, &size), &node) in wanted.iter().zip(&sizes).zip(&nodes) {
            troubles.push(self.settle(node, size, scope.subjects).err());
        }
        // Blocks of a scope may grow until its last descendant has settled.
        nodes
            .iter()
            .zip(troubles)
            .map(|(&node, trouble)| match (trouble, self.nodes.get(node)) {
                (None, Some(node)) => Ok(node.scope.clone()),
                (trouble, _) => Err(trouble.unwrap_or(Trouble::Full)),
            })
            .collect()
    }

    /// The tree as a lock keeps it.
    pub(crate) fn into_locked(self) -> BTreeMap<SmolStr, LockedScope> {
        let Self { mut nodes, by_path } = self;
        by_path
            .into_iter()
            .filter_map(|(path, node)| {
                let scope = std::mem::take(&mut nodes.get_mut(node)?.scope);
                (!scope.blocks.is_empty()).then_some((path, scope))
            })
            .collect()
    }

    fn nodes_without_block(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.scope.blocks.is_empty())
    }

    fn node_of(&mut self, path: &SmolStr, parent: usize) -> usize {
        if let Some(&node) = self.by_path.get(path) {
            if let Some(node) = self.nodes.get_mut(node) {
                node.scope.retired = false;
            }
            return node;
        }
        let scope = LockedScope::default();
        self.by_path.insert(path.clone(), self.nodes.len());
        self.nodes.push(Node { parent, scope, free: Free::default(), pending: 0 });
        self.nodes.len() - 1
    }

    /// Gives one scope its block and its subjects; its parent has settled before.
    fn settle(&mut self, node: usize, size: u8, subjects: Option<u32>) -> Result<(), Trouble> {
        let parent = self.nodes.get(node).map_or(0, |node| node.parent);
        if self.nodes_without_block(node) {
            // A group may do without its slack; a leaf has none.
            let smaller = if subjects.is_none() { size.saturating_sub(1) } else { size };
            let taken = match self.allocate(parent, size) {
                Some(start) => Some((start, size)),
                None => self.allocate(parent, smaller).map(|start| (start, smaller)),
            };
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.pending = parent.pending.saturating_sub(1 << size.min(DOMAIN_ORDER + 1));
            }
            let (start, order) = taken.ok_or(Trouble::Full)?;
            self.grant(node, start, order);
        }
        let Some(count) = subjects else { return Ok(()) };
        match self.nodes.get(node).and_then(|node| node.scope.subjects) {
            Some((first, last)) if last - first + 1 >= count => Ok(()),
            Some((first, last)) => {
                // The last number cannot overflow: counts were checked against the domain.
                let end = first.saturating_add(count - 1);
                if self.extend(node, parent, last + 1, end) {
                    self.set_subjects(node, first, end);
                    Ok(())
                } else {
                    Err(Trouble::Stuck(last - first + 1))
                }
            }
            None => {
                // It grouped others until now, or has just got a block of the right size.
                let order = order_of(count.into());
                let first = self.allocate_exactly(node, order).ok_or(Trouble::Full)?;
                let unused = (first + count, first + (1 << order) - 1);
                self.set_subjects(node, first, first + count - 1);
                if let Some(node) = self.nodes.get_mut(node) {
                    node.free.add(unused.0, unused.1);
                }
                Ok(())
            }
        }
    }

    fn set_subjects(&mut self, node: usize, first: u32, last: u32) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.scope.subjects = Some((first, last));
        }
    }

    /// A new block for a scope, wholly free.
    fn grant(&mut self, node: usize, start: u32, order: u8) {
        if let Some(node) = self.nodes.get_mut(node) {
            let last = start + ((1 << order) - 1);
            node.scope.blocks.push((start, last));
            node.scope.blocks.sort_unstable();
            node.scope.blocks = joined(&node.scope.blocks);
            node.free.add(start, last);
        }
    }

    /// A chunk of a scope's numbers; when it has none left, a further block from the nearest
    /// scope above that has. New blocks leave slack when there is room for it.
    fn allocate(&mut self, node: usize, order: u8) -> Option<u32> {
        match self.growth(node, order, true) {
            Some(growth) => self.grow(growth, node, order),
            None => self.allocate_exactly(node, order),
        }
    }

    /// Likewise, with blocks no larger than they must be.
    fn allocate_exactly(&mut self, node: usize, order: u8) -> Option<u32> {
        let growth = self.growth(node, order, false)?;
        self.grow(growth, node, order)
    }

    fn grow(&mut self, growth: Vec<(usize, u8)>, node: usize, order: u8) -> Option<u32> {
        for (scope, size) in growth.into_iter().rev() {
            let parent = self.nodes.get(scope)?.parent;
            let start = self.nodes.get_mut(parent)?.free.take(size)?;
            self.grant(scope, start, size);
        }
        self.nodes.get_mut(node)?.free.take(order)
    }

    /// The scopes from `node` upwards that need a further block, and of which order, before
    /// `node` has a free chunk; nothing when the whole domain has none.
    fn growth(&self, node: usize, order: u8, slack: bool) -> Option<Vec<(usize, u8)>> {
        let mut growth = Vec::new();
        let (mut at, mut order) = (node, order);
        while order <= DOMAIN_ORDER {
            let here = self.nodes.get(at)?;
            if here.free.fitting(order).is_some() {
                return Some(growth);
            }
            if at == 0 {
                return None;
            }
            if slack {
                let needed = here.pending.max(1 << order);
                order = order_of(2 * needed).max(GROUP_ORDER_MIN);
            }
            growth.push((at, order));
            at = here.parent;
        }
        None
    }

    /// Takes the numbers behind a batch, from its own blocks or from its parent's free numbers.
    fn extend(&mut self, node: usize, parent: usize, first: u32, last: u32) -> bool {
        let wanted: Vec<_> = chunks(first, last).collect();
        let available = |space: &Self, node: usize, start, order| {
            space.nodes.get(node).is_some_and(|node| node.free.around(start, order).is_some())
        };
        let all = wanted.iter().all(|&(start, order)| {
            available(self, node, start, order) || available(self, parent, start, order)
        });
        if !all || last > SUBJECT_LAST {
            return false;
        }
        for (start, order) in wanted {
            if self.nodes.get_mut(node).is_some_and(|node| node.free.take_at(start, order)) {
                continue;
            }
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.free.take_at(start, order);
            }
            self.grant(node, start, order);
            if let Some(node) = self.nodes.get_mut(node) {
                node.free.take_at(start, order);
            }
        }
        true
    }
}

/// What `taken` (ascending) leaves of `blocks` (ascending).
fn free_numbers(blocks: &[(u32, u32)], taken: &[(u32, u32)], free: &mut Free) {
    let mut taken = taken.iter().peekable();
    for &(first, last) in blocks {
        let mut next = first;
        while let Some(&&(start, end)) = taken.peek() {
            if start > last {
                break;
            }
            if start > next {
                free.add(next, start - 1);
            }
            next = end.saturating_add(1);
            taken.next();
        }
        if next <= last {
            free.add(next, last);
        }
    }
}

/// Orders of the blocks that the scopes would get if all were new: leaves as many numbers as
/// they have subjects, groups twice what their children need.
fn sizes(wanted: &[Wanted]) -> Vec<u8> {
    let mut needs = vec![0_u64; wanted.len()];
    let mut orders = vec![0_u8; wanted.len()];
    for (at, scope) in wanted.iter().enumerate().rev() {
        let need = needs.get(at).copied().unwrap_or(0);
        let order = match scope.subjects {
            Some(count) => order_of(count.into()),
            None => order_of(2 * need).max(GROUP_ORDER_MIN),
        };
        if let Some(parent) = scope.parent.and_then(|parent| needs.get_mut(parent)) {
            *parent = parent.saturating_add(1 << order.min(DOMAIN_ORDER + 1));
        }
        if let Some(slot) = orders.get_mut(at) {
            *slot = order;
        }
    }
    orders
}
