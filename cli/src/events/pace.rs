//! Keeps a terminal readable: lines while there are few, counts by kind while there are many.

use std::{collections::HashMap, time::Duration};

use govc_abi::event::Event;

/// Lines in a second that people can follow.
pub const LINES_MAX: u64 = 50;
/// Kinds that are counted apart in one second. Whoever forges labels makes as many as there are
/// packets.
const KINDS_MAX: usize = 4096;
const WINDOW: Duration = Duration::from_secs(1);

/// Events that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    generation: u64,
    rule: u32,
    pending: u32,
    object: u32,
    subject: u32,
    domain: u16,
    operation: u16,
    reason: u8,
    verdict: u8,
    hook: u8,
    flags: u8,
}

impl Kind {
    /// The generation that decided.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// As [`Self::of`], but all that claim to be somebody are one sender: what is not verified is worth
    /// nothing, and whoever forges labels makes as many as there are packets.
    pub fn of_sender(event: &Event) -> Self {
        let kind = Self::of(event);
        if !super::describe::is_claimed(event.flags) {
            return kind;
        }
        Self { subject: 0, domain: 0, operation: 0, ..kind }
    }

    /// What an event is one of.
    pub fn of(event: &Event) -> Self {
        let label = super::describe::has_label(event.flags).then_some(event.label);
        let label = label.unwrap_or_default();
        Self {
            generation: event.generation,
            rule: event.rule,
            pending: event.pending,
            object: event.object,
            subject: label.subject(),
            domain: label.domain(),
            operation: label.operation(),
            reason: event.reason,
            verdict: event.verdict,
            hook: event.hook,
            flags: event.flags & !govc_abi::event::flag::V6,
        }
    }
}

/// Events of one second.
#[derive(Debug, Default)]
pub struct Second {
    /// All of them.
    pub events: u64,
    /// Each kind with one of its events, the most frequent first.
    pub kinds: Vec<(u64, Event)>,
    /// Events of kinds that are not listed, because there are too many.
    pub others: u64,
}

/// Decides what becomes of each event.
pub struct Pace {
    /// Counts from the start.
    counting: bool,
    always: bool,
    window: Duration,
    /// Events in this second, counted or not.
    seen: u64,
    kinds: HashMap<Kind, (u64, Event)>,
    others: u64,
    quiet: u32,
}

impl Pace {
    /// Counts where there are many events; `always` counts where there are few too.
    pub fn new(always: bool, now: Duration) -> Self {
        Self {
            counting: always,
            always,
            window: now,
            seen: 0,
            kinds: HashMap::new(),
            others: 0,
            quiet: 0,
        }
    }

    /// Whether this event gets a line; otherwise it is counted.
    pub fn admit(&mut self, event: &Event) -> bool {
        self.seen += 1;
        if !self.counting && self.seen <= LINES_MAX {
            return true;
        }
        self.counting = true;
        let kind = Kind::of(event);
        if self.kinds.len() < KINDS_MAX || self.kinds.contains_key(&kind) {
            self.kinds.entry(kind).or_insert((0, *event)).0 += 1;
        } else {
            self.others += 1;
        }
        false
    }

    /// What was counted, when a second is over.
    pub fn due(&mut self, now: Duration) -> Option<Second> {
        if now.saturating_sub(self.window) < WINDOW {
            return None;
        }
        self.window = now;
        self.end_second()
    }

    /// What was counted since the last second ended.
    pub fn end_second(&mut self) -> Option<Second> {
        let seen = std::mem::take(&mut self.seen);
        // One quiet second may be a pause: lines come back after two.
        self.quiet = if seen <= LINES_MAX { self.quiet + 1 } else { 0 };
        self.counting &= self.always || self.quiet < 2;
        let others = std::mem::take(&mut self.others);
        let mut kinds: Vec<(u64, Event)> = self.kinds.drain().map(|(_, counted)| counted).collect();
        if kinds.is_empty() {
            return None;
        }
        kinds.sort_unstable_by_key(|(count, event)| {
            (std::cmp::Reverse(*count), event.reason, event.rule, event.label.subject())
        });
        let events = others + kinds.iter().map(|(count, _)| count).sum::<u64>();
        Some(Second { events, kinds, others })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};

    fn event(rule: u32, port: u16) -> Event {
        Event { rule, source_port: port, ..sample::event() }
    }

    #[test]
    fn few_events_get_lines_and_many_are_counted() {
        let at = Duration::from_millis;
        let mut pace = Pace::new(false, at(0));
        let lines = (0..100_000).filter(|n| pace.admit(&event(u32::from(n % 3 == 0), *n as u16)));
        assert_eq!(lines.count() as u64, LINES_MAX);
        assert!(pace.due(at(999)).is_none());
        let second = pace.due(at(1000)).unwrap();
        assert_eq!(second.events, 100_000 - LINES_MAX);
        assert_eq!(second.kinds.len(), 2, "ports make no kinds");
        assert_eq!(second.kinds.iter().map(|(count, _)| count).sum::<u64>(), second.events);
        assert!(second.kinds[0].0 > second.kinds[1].0);
        // The next second is counted from its first event on, the third has lines again.
        assert!(!pace.admit(&event(1, 1)));
        assert_eq!(pace.due(at(2000)).unwrap().events, 1);
        assert!(!pace.admit(&event(1, 1)));
        assert_eq!(pace.due(at(3000)).unwrap().events, 1);
        assert!(pace.admit(&event(1, 1)));
        assert!(pace.due(at(4000)).is_none());
    }

    #[test]
    fn kinds_are_bounded_and_nothing_is_left_out() {
        let mut pace = Pace::new(true, Duration::ZERO);
        for rule in 0..10_000 {
            assert!(!pace.admit(&event(rule, 1)));
        }
        let second = pace.end_second().unwrap();
        assert_eq!((second.events, second.kinds.len()), (10_000, KINDS_MAX));
        assert_eq!(second.others, 10_000 - KINDS_MAX as u64);
    }
}
