//! Counts of rules, which outlive generations.
//!
//! Programs count by rule number, in the buffer whose image decides. A rule that both images hold,
//! by name and meaning, may have counted in both buffers: its count is the sum, whichever is in
//! force, so that neither a flip nor a rollback has to move anything. Before a buffer is filled
//! anew its counts are *handed on*: to the same rules of the image in force, and where it has none,
//! to those of the image to come. The sums are written where nobody reads them yet; then one word
//! makes them count and the buffer's own counts no longer. Whoever dies on either side of that word
//! leaves every packet counted once.

use std::{
    collections::HashMap,
    sync::atomic::{Ordering, fence},
};

use govc_abi::flow::{Control, Counter, rule_counter};
use govc_image::{Image, Names};

use crate::instance::Instance;

/// Entries of `CARRIED`: one for each buffer, a spare one, and since the instance began.
pub(crate) const CARRIED_ENTRIES: usize = 4;
/// The entry of what outlives all generations.
const LIFETIME: usize = 3;

/// Which entries of `CARRIED` belong to which buffer, and the generation whose counts were handed
/// on last. One word, so that all of it changes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ledger(u64);

impl Ledger {
    /// As a new set begins, whose predecessor had handed on a generation.
    pub(crate) fn new(closed: u64) -> Self {
        Self::with(closed, [0, 1])
    }

    fn with(closed: u64, [first, second]: [usize; 2]) -> Self {
        Self(closed << 4 | (second as u64) << 2 | first as u64)
    }

    /// From the word in the map.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word for the map.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The generation that was handed on last; its own counts are none any more.
    pub(crate) fn closed(self) -> u64 {
        self.0 >> 4
    }

    /// The entry of `CARRIED` for a buffer of `COUNTERS`.
    pub(crate) fn entry(self, buffer: usize) -> usize {
        match buffer {
            0 => (self.0 & 3) as usize,
            1 => (self.0 >> 2 & 3) as usize,
            _ => LIFETIME,
        }
    }

    fn spare(self) -> usize {
        LIFETIME.saturating_sub(self.entry(0) + self.entry(1))
    }

    /// The spare entry becomes that of the buffer in force, whose entry is left to the other one.
    fn hand_on(self, in_force: usize, closed: u64) -> Self {
        let (new, left) = (self.spare(), self.entry(in_force));
        Self::with(closed, if in_force == 0 { [new, left] } else { [left, new] })
    }

    /// Whether what a buffer with this generation has counted is still its own.
    fn is_open(self, generation: u64) -> bool {
        generation != 0 && generation != self.closed()
    }
}

/// Hands on what the idle buffer has counted, which nothing counts in any more. Gives what the
/// rules of the image to come begin with: counters with their values.
pub(crate) fn hand_on(instance: &Instance, image: &Image, idle: usize) -> Vec<(u32, Counter)> {
    let (control, ledger) = (instance.control(), instance.ledger());
    let closing = generation(&control, idle);
    let Some(gone) = instance.names(idle).filter(|_| ledger.is_open(closing)) else {
        return Vec::new();
    };
    let in_force = 1 - idle;
    let kept = instance.names(in_force).unwrap_or_default();
    let mut taken = vec![false; gone.rules.len()];
    let entry = ledger.spare();
    instance.carried.zero(entry, 0);
    for (number, same) in (0..).zip(same_rules(&kept, &gone)) {
        let counters = [0, 1].map(|half| rule_counter(number) + half);
        for (half, counter) in (0..).zip(counters) {
            let mut total = instance.carried_count(ledger.entry(in_force), counter);
            if let Some(other) = same {
                add(&mut total, instance.count(idle, rule_counter(other) + half));
            }
            instance.set_carried(entry, counter, total);
        }
        if let Some(taken) = same.and_then(|other| taken.get_mut(other as usize)) {
            *taken = true;
        }
    }
    let mut begin = Vec::new();
    for (number, same) in (0..).zip(same_rules(image.names(), &gone)) {
        let Some(other) = same.filter(|other| taken.get(*other as usize) == Some(&false)) else {
            continue;
        };
        for half in 0..2 {
            let total = instance.count(idle, rule_counter(other) + half);
            begin.push((rule_counter(number) + half, total));
        }
    }
    instance.set_ledger(ledger.hand_on(in_force, closing));
    begin
}

/// Lets a buffer count again whose counts were handed on by somebody who died before filling it.
pub(crate) fn reopen(instance: &Instance, buffer: usize) {
    let ledger = instance.ledger();
    if ledger.is_open(generation(&instance.control(), buffer)) {
        return;
    }
    instance.counters.zero(buffer, 0);
    instance.carried.zero(ledger.entry(buffer), 0);
    let entries = [ledger.entry(0), ledger.entry(1)];
    instance.set_ledger(Ledger::with(0, entries));
}

/// What the rules of the image in `buffer` have decided, and what those in observe mode would have,
/// by rule number. The other buffer's names tell which rules it has in common.
pub(crate) fn totals(
    instance: &Instance,
    names: &Names,
    buffer: usize,
    other: Option<&Names>,
) -> Vec<[Counter; 2]> {
    let opposite = 1 - buffer;
    let open = instance.ledger().is_open(generation(&instance.control(), opposite));
    let same = match other.filter(|_| open) {
        Some(other) => same_rules(names, other),
        None => vec![None; names.rules.len()],
    };
    (0..)
        .zip(same)
        .map(|(number, same)| {
            [0, 1].map(|half| {
                let mut total = instance.count(buffer, rule_counter(number) + half);
                if let Some(other) = same {
                    add(&mut total, instance.count(opposite, rule_counter(other) + half));
                }
                total
            })
        })
        .collect()
}

/// What tells whether anything was flipped, filled or handed on between two looks.
pub(crate) fn moment(instance: &Instance) -> (u64, [u64; 2], u64) {
    fence(Ordering::SeqCst);
    let control = instance.control();
    let moment = (control.active, control.generations.map(|g| g.number), instance.ledger().word());
    fence(Ordering::SeqCst);
    moment
}

fn generation(control: &Control, buffer: usize) -> u64 {
    control.generations.get(buffer).map_or(0, |generation| generation.number)
}

fn add(total: &mut Counter, more: Counter) {
    total.packets += more.packets;
    total.bytes += more.bytes;
}

/// For each rule of `names`, the number of the same rule in `others`.
fn same_rules(names: &Names, others: &Names) -> Vec<Option<u32>> {
    // The digest is short: two rules have to have one name, too.
    fn who(rule: &govc_image::Rule) -> ([u8; 8], &str, &str) {
        (rule.meaning, &rule.policy, &rule.name)
    }
    if names.rules.iter().map(who).eq(others.rules.iter().map(who)) {
        return (0..names.rules.len() as u32).map(Some).collect();
    }
    let known: HashMap<_, u32> = others.rules.iter().map(who).zip(0..).collect();
    names.rules.iter().map(|rule| known.get(&who(rule)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rules: &[(&str, u8)]) -> Names {
        let rule = |(name, meaning): &(&str, u8)| govc_image::Rule {
            policy: "p".into(),
            name: (*name).into(),
            description: None,
            file: 0,
            line: 1,
            column: 1,
            meaning: [*meaning; 8],
        };
        Names { rules: rules.iter().map(rule).collect(), ..Names::default() }
    }

    #[test]
    fn rules_are_the_same_by_name_and_meaning() {
        let before = names(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(same_rules(&before, &before), [Some(0), Some(1), Some(2)]);
        let after = names(&[("new", 9), ("c", 3), ("b", 7), ("renamed", 1)]);
        assert_eq!(same_rules(&after, &before), [None, Some(2), None, None]);
        assert_eq!(same_rules(&before, &names(&[])), [None; 3]);
    }

    #[test]
    fn entries_are_never_shared() {
        let mut ledger = Ledger::new(0);
        for (generation, in_force) in [(1, 0), (2, 1), (3, 1), (4, 0), (5, 0), (6, 0), (7, 1)] {
            let spare = ledger.spare();
            ledger = ledger.hand_on(in_force, generation);
            assert_eq!(ledger.entry(in_force), spare);
            let mut all = [ledger.entry(0), ledger.entry(1), ledger.spare(), ledger.entry(2)];
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3]);
            assert_eq!(ledger.closed(), generation);
            assert!(!ledger.is_open(generation) && ledger.is_open(generation + 1));
            assert_eq!(Ledger::from_word(ledger.word()), ledger);
        }
    }
}
