//! Flows: who speaks to whom for what, with which outcome, counted from events.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use govc_abi::{
    event::{Event, hook},
    node::LEAF_NONE,
};
use serde::Serialize;

use super::{
    board::{image_name, per_second},
    describe::{Described, describe, is_claimed, who},
    pace::Kind,
    source::Source,
};

/// Flows that are kept apart.
const FLOWS_MAX: usize = 2000;
/// Flows that one view lists at most.
const FLOWS_SHOWN_MAX: usize = 200;
/// What events say in numbers that flows are known by.
const KEYS_MAX: usize = 4 * FLOWS_MAX;
/// Seconds after which a flow that is not seen any more makes room for others.
const IDLE_S: u64 = 10;
/// What several claims of one flow are called.
const SEVERAL: &str = "claims several names";

/// Packets of one sender to one workload for one purpose, with one outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// The sender. All whose labels are not verified are one.
    pub from: String,
    /// Whether that is a claim which nobody has verified.
    pub claimed: bool,
    /// Whom it is for.
    pub to: String,
    /// The operation.
    pub operation: Option<String>,
    /// `ingress`, `egress`, `forward`.
    pub hook: &'static str,
    /// What is enforced.
    pub verdict: &'static str,
    /// What a rule that only observes would do.
    pub would: Option<&'static str>,
    /// One word.
    pub reason: &'static str,
    /// What that means.
    pub because: &'static str,
    /// `policy.rule` that decided.
    pub rule: Option<String>,
    /// Its `file:line:column`.
    pub place: Option<String>,
    /// Its number in its image.
    pub rule_number: Option<u32>,
    /// `policy.rule` that would decide.
    pub would_rule: Option<String>,
    /// Its place.
    pub would_place: Option<String>,
    /// Its number.
    pub would_number: Option<u32>,
    /// Generation of the last event.
    pub generation: u64,
    /// Which image the rules are of; none when it is gone.
    pub image: Option<String>,
    /// Events that were read.
    pub events: u64,
    /// Of those, in the last second.
    pub per_s: u64,
    /// Addresses of the last packet.
    pub last: String,
}

/// What tells flows apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    from: String,
    to: String,
    operation: Option<String>,
    hook: &'static str,
    verdict: &'static str,
    would: Option<&'static str>,
    reason: &'static str,
    rule: Option<String>,
    would_rule: Option<String>,
}

impl Name {
    fn of(flow: &Flow) -> Self {
        let flow = flow.clone();
        Self {
            from: if flow.claimed { String::new() } else { flow.from },
            to: flow.to,
            operation: if flow.claimed { None } else { flow.operation },
            hook: flow.hook,
            verdict: flow.verdict,
            would: flow.would,
            reason: flow.reason,
            rule: flow.rule,
            would_rule: flow.would_rule,
        }
    }
}

struct Row {
    flow: Flow,
    latest: Event,
    this_second: u64,
    /// The second in which it was seen last.
    seen_s: u64,
}

/// Flows since somebody looks.
#[derive(Default)]
pub struct Flows {
    /// Numbers of rows by what events say in numbers: no names are looked up twice. What is missing
    /// here is found by its names.
    known: HashMap<(Kind, u32), u64>,
    named: HashMap<Name, u64>,
    rows: BTreeMap<u64, Row>,
    next: u64,
    now_s: u64,
    others: u64,
}

impl Flows {
    /// Counts an event.
    pub fn add(&mut self, event: &Event, unix_ns: u64, source: &mut Source) {
        self.add_with(event, |event| {
            let image = source.image(event.generation).map(|image| image_name(&image));
            Flow { image, ..Flow::new(event, &source.describe(event, unix_ns)) }
        });
    }

    fn add_with(&mut self, event: &Event, describe: impl FnOnce(&Event) -> Flow) {
        let key = (Kind::of_sender(event), event.ifindex);
        let row = self.known.get(&key).and_then(|number| self.rows.get_mut(number));
        if let Some(row) = row.filter(|row| row.flow.generation == event.generation) {
            row.count(event, self.now_s);
            return;
        }
        let flow = describe(event);
        let name = Name::of(&flow);
        let number = match self.named.get(&name) {
            Some(number) => *number,
            None if self.rows.len() >= FLOWS_MAX => {
                self.others += 1;
                return;
            }
            None => {
                self.next += 1;
                self.named.insert(name, self.next);
                self.next
            }
        };
        self.remember(key, number);
        let now_s = self.now_s;
        match self.rows.get_mut(&number) {
            Some(row) => {
                row.count(event, now_s);
                let Flow { events, per_s, .. } = row.flow;
                let from =
                    if row.flow.from == SEVERAL { SEVERAL.into() } else { flow.from.clone() };
                let known = row.flow.operation.take();
                let operation = if flow.claimed { known } else { flow.operation.clone() };
                row.flow = Flow { from, operation, events, per_s, ..flow };
            }
            None => {
                let flow = Flow { events: 0, ..flow };
                let mut row = Row { flow, latest: *event, this_second: 0, seen_s: now_s };
                row.count(event, now_s);
                self.rows.insert(number, row);
            }
        }
    }

    /// Notes which row events with these numbers belong to. Where that are too many, those of other
    /// generations are found by name again.
    fn remember(&mut self, key: (Kind, u32), number: u64) {
        if self.known.len() >= KEYS_MAX {
            self.known.retain(|(kind, _), _| kind.generation() == key.0.generation());
        }
        if self.known.len() >= KEYS_MAX {
            self.known.clear();
        }
        self.known.insert(key, number);
    }

    /// Events of flows that are not kept apart, or not any more.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// Turns counts into rates, and begins to count anew. Where there are as many flows as are kept
    /// apart, those that are over make room.
    pub fn end_second(&mut self, elapsed: Duration) -> Vec<Flow> {
        self.now_s += 1;
        for row in self.rows.values_mut() {
            row.flow.per_s = per_second(std::mem::take(&mut row.this_second), elapsed);
        }
        if self.rows.len() >= FLOWS_MAX {
            self.forget_idle();
        }
        self.list()
    }

    /// Forgets those that were not seen for the longest, a quarter of all at most.
    fn forget_idle(&mut self) {
        let idle = self.rows.iter().filter(|(_, row)| self.now_s - row.seen_s > IDLE_S);
        let mut idle: Vec<(u64, u64)> = idle.map(|(number, row)| (row.seen_s, *number)).collect();
        idle.sort_unstable();
        for (_, number) in idle.into_iter().take(FLOWS_MAX / 4) {
            self.others += self.rows.remove(&number).map_or(0, |row| row.flow.events);
        }
        self.named.retain(|_, number| self.rows.contains_key(number));
        self.known.retain(|_, number| self.rows.contains_key(number));
    }

    /// All flows, the busiest first.
    pub fn list(&self) -> Vec<Flow> {
        let now = |row: &Row| Flow { last: ends(&describe(&row.latest, None)), ..row.flow.clone() };
        let mut flows: Vec<Flow> = self.rows.values().map(now).collect();
        flows.sort_by_key(|flow| std::cmp::Reverse((flow.per_s, flow.events)));
        flows.truncate(FLOWS_SHOWN_MAX);
        flows
    }
}

impl Row {
    fn count(&mut self, event: &Event, now_s: u64) {
        let claim = |event: &Event| (event.label.domain(), event.label.subject());
        if self.flow.claimed && is_claimed(event.flags) {
            if claim(event) != claim(&self.latest) {
                self.flow.from = SEVERAL.into();
            }
            if event.label.operation() != self.latest.label.operation() {
                self.flow.operation = None;
            }
        }
        self.latest = *event;
        self.seen_s = now_s;
        self.this_second += 1;
        self.flow.events += 1;
    }
}

/// Transport and addresses of a packet.
fn ends(described: &Described) -> String {
    format!("{}{}", described.protocol, described.ends())
}

impl Flow {
    fn new(event: &Event, described: &Described) -> Self {
        let number = |rule: u32| (rule != LEAF_NONE).then_some(rule);
        let interface = described.interface.as_deref().unwrap_or("an interface");
        let to = match (&described.object, event.hook) {
            (Some(object), _) => object.clone(),
            // Who lives beyond an interface is not this node's to know.
            (None, hook::EGRESS) => format!("beyond {interface}"),
            (None, _) => "this node".to_owned(),
        };
        Self {
            from: who(described.label, described.subject.as_deref()),
            claimed: is_claimed(event.flags),
            to,
            operation: described.operation.clone(),
            hook: described.hook,
            verdict: described.verdict,
            would: described.would,
            reason: described.reason,
            because: described.because,
            rule: described.rule.clone(),
            place: described.place.clone(),
            rule_number: number(event.rule),
            would_rule: described.would_rule.clone(),
            would_place: described.would_place.clone(),
            would_number: number(event.pending),
            generation: event.generation,
            image: None,
            events: 1,
            per_s: 0,
            last: ends(described),
        }
    }

    /// Let through, and a rule that only observes would drop it.
    #[must_use]
    pub fn would_break(&self) -> bool {
        self.verdict == "permit" && self.would == Some("deny")
    }
}

#[cfg(test)]
mod tests {
    use govc_abi::{event::flag, label::Label};

    use super::{super::sample, *};

    fn event(subject: u32, flags: u8, generation: u64) -> Event {
        let label = Label::default().with_subject(subject).with_domain(7);
        Event { generation, flags, label, ..sample::event() }
    }

    fn add(flows: &mut Flows, event: &Event) {
        flows.add_with(event, |event| Flow::new(event, &describe(event, None)));
    }

    fn counted(flows: &Flows) -> u64 {
        flows.rows.values().map(|row| row.flow.events).sum::<u64>() + flows.others()
    }

    #[test]
    fn forged_labels_are_one_sender() {
        let mut flows = Flows::default();
        add(&mut flows, &event(5, flag::CLAIMED, 1));
        assert_eq!(flows.list()[0].from, "claims domain 7 subject 5");
        for subject in 0..10_000 {
            add(&mut flows, &event(subject, flag::CLAIMED, 1));
        }
        add(&mut flows, &event(5, flag::LABELLED, 1));
        let list = flows.list();
        assert_eq!(list.len(), 2, "{list:#?}");
        assert_eq!(
            (list[0].from.as_str(), list[0].claimed, list[0].events),
            (SEVERAL, true, 10_001)
        );
        assert_eq!((list[1].from.as_str(), list[1].claimed), ("domain 7 subject 5", false));
        assert_eq!((counted(&flows), flows.others()), (10_002, 0));
    }

    #[test]
    fn flows_that_are_over_make_room() {
        let mut flows = Flows::default();
        let second = Duration::from_secs(1);
        for subject in 0..FLOWS_MAX as u32 + 10 {
            add(&mut flows, &event(subject, flag::LABELLED, 1));
        }
        // Nothing is silent about what finds no room.
        assert_eq!((flows.rows.len(), flows.others()), (FLOWS_MAX, 10));
        let late = event(1 << 20, flag::LABELLED, 1);
        for _ in 0..=IDLE_S {
            add(&mut flows, &event(3, flag::LABELLED, 1));
            flows.end_second(second);
        }
        add(&mut flows, &late);
        let list = flows.end_second(second);
        let from = |subject: u32| format!("domain 7 subject {subject}");
        assert!(list.iter().any(|flow| flow.from == from(1 << 20)), "the late one is seen");
        assert!(list.iter().any(|flow| flow.from == from(3)), "the one that goes on stays");
        assert_eq!(counted(&flows), FLOWS_MAX as u64 + 10 + IDLE_S + 2);
    }

    #[test]
    fn generations_do_not_use_flows_up() {
        let mut flows = Flows::default();
        for generation in 1..5000 {
            for subject in 0..3 {
                add(&mut flows, &event(subject, flag::LABELLED, generation));
            }
        }
        let list = flows.list();
        assert_eq!(list.len(), 3);
        assert!(list.iter().all(|flow| flow.events == 4999 && flow.generation == 4999), "{list:?}");
        assert!(flows.known.len() <= KEYS_MAX && flows.others() == 0);
        // After a rollback they are those of the older generation again.
        add(&mut flows, &event(1, flag::LABELLED, 4998));
        let back = flows.list().into_iter().find(|flow| flow.events == 5000).unwrap();
        assert_eq!(back.generation, 4998);
    }
}
