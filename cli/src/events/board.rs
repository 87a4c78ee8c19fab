//! What `top` and `serve` show: flows between scopes and what rules did, with rates, once a
//! second. Packets and rules come from counters and are exact; flows come from events, of which
//! some may be lost, and say how many they have seen.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use govc_abi::{
    event::{Event, hook},
    node::LEAF_NONE,
    reason,
};
use govc_image::Image;
use govc_loader::{
    confirm::Pending,
    instance::Place,
    status::{self, RuleCount, Status},
};
use serde::Serialize;

use super::{
    describe::{Described, describe, who},
    pace::Kind,
    source::{Live, Next, Source, Tally},
};
use crate::failure::Failure;

/// Flows that are kept apart. Whoever forges labels makes as many as there are packets.
const FLOWS_MAX: usize = 2000;
/// Flows that one view lists at most.
const FLOWS_SHOWN_MAX: usize = 200;
/// Rules that one view lists at most.
const RULES_SHOWN_MAX: usize = 200;
/// Events after which a reader that never catches up looks at the clock.
const EVENTS_AT_ONCE: usize = 4096;
/// Rules whose counts are remembered while they are not in force.
const RULES_REMEMBERED_MAX: usize = 1 << 16;
const SECOND: Duration = Duration::from_secs(1);

/// An instance at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct View {
    /// Name of the instance.
    pub instance: String,
    /// The policy in force.
    pub policy: String,
    /// Its generation; 0 when there is none any more.
    pub generation: u64,
    /// Packets, exactly.
    pub packets: Packets,
    /// What became of events.
    pub events: Tally,
    /// Whether permitted packets are reported, so that flows hold them.
    pub permits: bool,
    /// What returns unless it is confirmed.
    pub pending: Option<Pending>,
    /// Flows, the busiest first.
    pub flows: Vec<Flow>,
    /// Rules of the generation that decided or would have decided anything, the busiest first.
    pub rules: Vec<RuleRate>,
    /// Denials that no rule gave, the busiest first.
    pub denials: Vec<Denial>,
}

/// Packets and their rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Packets {
    /// Let through, in the last second.
    pub permitted_per_s: u64,
    /// Dropped, in the last second.
    pub denied_per_s: u64,
    /// Rules that only observe would have decided so many otherwise, in the last second.
    pub would_per_s: u64,
}

/// Packets of one sender to one workload for one purpose, with one outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// The sender.
    pub from: String,
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
    /// Its number in its generation.
    pub rule_number: Option<u32>,
    /// `policy.rule` that would decide.
    pub would_rule: Option<String>,
    /// Its place.
    pub would_place: Option<String>,
    /// Its number.
    pub would_number: Option<u32>,
    /// Generation of the last event.
    pub generation: u64,
    /// Events that were read.
    pub events: u64,
    /// Of those, in the last second.
    pub per_s: u64,
    /// Addresses of the last packet.
    pub last: String,
    /// Id of the last event.
    pub id: String,
}

/// A rule and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRate {
    /// `policy.rule`.
    pub rule: String,
    /// Its number.
    pub number: u32,
    /// Its `file:line:column`.
    pub place: String,
    /// `permit`, `deny`, `pass`; `observe deny` for rules that decide nothing.
    pub action: &'static str,
    /// Packets decided for as long as the rule has been there and has meant the same.
    pub packets: u64,
    /// In the last second.
    pub per_s: u64,
    /// Packets that it would have decided, and others decided otherwise.
    pub would: u64,
    /// In the last second.
    pub would_per_s: u64,
}

/// Denials for a reason that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Where.
    pub hook: &'static str,
    /// One word.
    pub reason: &'static str,
    /// What that means.
    pub because: &'static str,
    /// Packets since the instance began.
    pub packets: u64,
    /// In the last second.
    pub per_s: u64,
}

/// Reads events and counters of an instance, alone.
pub struct Board {
    source: Source,
    place: Place,
    flows: Flows,
    last: Option<Counted>,
    ticked: Instant,
}

/// Counters of an earlier second.
struct Counted {
    /// Packets decided, and those that would have been, by meaning; also of rules that are not in
    /// force any more, which may come back with what they had counted.
    rules: HashMap<[u8; 8], (u64, u64)>,
    reasons: BTreeMap<(&'static str, &'static str), u64>,
}

impl Counted {
    fn of(status: &Status) -> Self {
        let rules = status.rules.iter();
        let reasons = status.reasons.iter();
        Self {
            rules: rules.map(|rule| (rule.meaning, (rule.packets, rule.would))).collect(),
            reasons: reasons.map(|one| ((one.hook, one.reason), one.packets)).collect(),
        }
    }

    /// What a rule had counted; nothing when it was not there yet.
    fn rule(&self, rule: &RuleCount) -> (u64, u64) {
        self.rules.get(&rule.meaning).copied().unwrap_or_default()
    }

    /// What is counted now, after this.
    fn then(&self, status: &Status) -> Self {
        let mut now = Self::of(status);
        if self.rules.len() < RULES_REMEMBERED_MAX {
            self.rules.iter().for_each(|(rule, count)| {
                now.rules.entry(*rule).or_insert(*count);
            });
        }
        now
    }
}

impl Board {
    /// Begins to watch. With `permits`, permitted packets are reported until this is dropped.
    ///
    /// # Errors
    /// There is no instance, or somebody else reads its events.
    pub fn open(place: Place, permits: bool) -> Result<Self, Failure> {
        let live = Live::open(&place, false, permits)?;
        let status = status::status(&place)?;
        Ok(Self {
            source: Source::Live(Box::new(live)),
            place,
            flows: Flows::default(),
            last: Some(Counted::of(&status)),
            ticked: Instant::now(),
        })
    }

    /// Reads what there is, waiting for it up to `wait`.
    pub fn read(&mut self, wait: Duration) -> Result<(), Failure> {
        let mut wait = wait;
        for _ in 0..EVENTS_AT_ONCE {
            let Next::Event(event, unix_ns) = self.source.next(wait)? else { break };
            wait = Duration::ZERO;
            // Neighbours looking for each other are no flow of anybody.
            if event.reason != reason::LINK_CONTROL {
                self.flows.add(&event, unix_ns, &mut self.source);
            }
        }
        Ok(())
    }

    /// What happened, when a second is over.
    pub fn due(&mut self) -> Result<Option<View>, Failure> {
        let elapsed = self.ticked.elapsed();
        if elapsed < SECOND {
            return Ok(None);
        }
        self.ticked = Instant::now();
        self.view(elapsed).map(Some)
    }

    /// The images of the generations in a view's flows and rules.
    pub fn images(&mut self, view: &View) -> BTreeMap<u64, Arc<Image>> {
        let mut numbers: Vec<u64> = view.flows.iter().map(|flow| flow.generation).collect();
        numbers.push(view.generation);
        numbers.sort_unstable();
        numbers.dedup();
        numbers
            .into_iter()
            .filter_map(|number| Some((number, self.source.image(number)?)))
            .collect()
    }

    fn view(&mut self, elapsed: Duration) -> Result<View, Failure> {
        let status = match status::status(&self.place) {
            Ok(status) => status,
            Err(govc_loader::LoadError::NoInstance(_)) => {
                return Ok(View { instance: self.place.name().into(), ..View::default() });
            }
            Err(error) => return Err(error.into()),
        };
        let last = self.last.take().unwrap_or_else(|| Counted::of(&status));
        self.last = Some(last.then(&status));
        let per_s = |count: u64| per_second(count, elapsed);
        let (rules, by_rule) = rules(&status, &last, &per_s);
        let (denials, by_reason) = reasons(&status, &last, &per_s);
        Ok(View {
            instance: status.instance.clone(),
            policy: status.generation.policy.clone(),
            generation: status.generation.number,
            packets: Packets {
                permitted_per_s: by_rule.permitted_per_s + by_reason.permitted_per_s,
                denied_per_s: by_rule.denied_per_s + by_reason.denied_per_s,
                would_per_s: by_rule.would_per_s,
            },
            events: self.source.tally()?.unwrap_or_default(),
            permits: status.events.permits,
            pending: status.pending,
            flows: self.flows.end_second(elapsed),
            rules,
            denials,
        })
    }
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64()).round() as u64
}

fn rules(status: &Status, last: &Counted, per_s: &impl Fn(u64) -> u64) -> (Vec<RuleRate>, Packets) {
    let mut sum = Packets::default();
    let mut rates = Vec::new();
    for (number, rule) in status.rules.iter().enumerate() {
        let before = last.rule(rule);
        let rate = per_s(rule.packets.saturating_sub(before.0));
        let would_rate = per_s(rule.would.saturating_sub(before.1));
        match rule.action {
            "permit" => sum.permitted_per_s += rate,
            "deny" => sum.denied_per_s += rate,
            _ => {}
        }
        sum.would_per_s += would_rate;
        if rule.packets > 0 || rule.would > 0 {
            let RuleCount { rule, place, action, packets, would, .. } = rule.clone();
            rates.push(RuleRate {
                rule,
                number: number as u32,
                place,
                action,
                packets,
                per_s: rate,
                would,
                would_per_s: would_rate,
            });
        }
    }
    rates.sort_by_key(|r| std::cmp::Reverse((r.per_s + r.would_per_s, r.packets + r.would)));
    rates.truncate(RULES_SHOWN_MAX);
    (rates, sum)
}

fn reasons(status: &Status, last: &Counted, per_s: &impl Fn(u64) -> u64) -> (Vec<Denial>, Packets) {
    let mut sum = Packets::default();
    let mut denials = Vec::new();
    for one in &status.reasons {
        let before = last.reasons.get(&(one.hook, one.reason)).copied().unwrap_or(0);
        let rate = per_s(one.packets.saturating_sub(before));
        match one.permitted {
            Some(true) => sum.permitted_per_s += rate,
            Some(false) => {
                sum.denied_per_s += rate;
                let at = reason::NAMES.iter().position(|name| *name == one.reason);
                let because = at.and_then(|at| reason::TEXTS.get(at)).copied().unwrap_or_default();
                denials.push(Denial {
                    hook: one.hook,
                    reason: one.reason,
                    because,
                    packets: one.packets,
                    per_s: rate,
                });
            }
            // Its rules are counted by themselves.
            None => {}
        }
    }
    denials.sort_by_key(|denial| std::cmp::Reverse((denial.per_s, denial.packets)));
    (denials, sum)
}

/// Flows since somebody looks.
#[derive(Default)]
pub struct Flows {
    /// Positions of flows by what events say in numbers: no names are looked up twice.
    known: HashMap<(Kind, u32), usize>,
    rows: Vec<Row>,
    /// Events of flows that are not kept apart.
    pub others: u64,
}

struct Row {
    flow: Flow,
    latest: Event,
    this_second: u64,
}

impl Flows {
    /// Counts an event.
    pub fn add(&mut self, event: &Event, unix_ns: u64, source: &mut Source) {
        let key = (Kind::of(event), event.ifindex);
        if let Some(row) = self.known.get(&key).and_then(|at| self.rows.get_mut(*at)) {
            row.latest = *event;
            row.this_second += 1;
            row.flow.events += 1;
            return;
        }
        if self.known.len() >= FLOWS_MAX {
            self.others += 1;
            return;
        }
        let described = source.describe(event, unix_ns);
        self.insert(key, event, Flow::new(event, &described));
    }

    /// The same flow may have come by the numbers of another generation.
    fn insert(&mut self, key: (Kind, u32), event: &Event, flow: Flow) {
        let at = match self.rows.iter().position(|row| row.flow.is_same(&flow)) {
            Some(at) => at,
            None => {
                let flow = Flow { events: 0, ..flow.clone() };
                self.rows.push(Row { flow, latest: *event, this_second: 0 });
                self.rows.len() - 1
            }
        };
        self.known.insert(key, at);
        if let Some(row) = self.rows.get_mut(at) {
            let events = row.flow.events + 1;
            row.flow = Flow { events, per_s: row.flow.per_s, ..flow };
            row.latest = *event;
            row.this_second += 1;
        }
    }

    /// Turns counts into rates, and begins to count anew.
    fn end_second(&mut self, elapsed: Duration) -> Vec<Flow> {
        for row in &mut self.rows {
            row.flow.per_s = per_second(std::mem::take(&mut row.this_second), elapsed);
        }
        self.list()
    }

    /// All flows, the busiest first.
    pub fn list(&self) -> Vec<Flow> {
        let now = |row: &Row| {
            let described = describe(&row.latest, None);
            Flow { last: ends(&described), id: described.id, ..row.flow.clone() }
        };
        let mut flows: Vec<Flow> = self.rows.iter().map(now).collect();
        flows.sort_by_key(|flow| std::cmp::Reverse((flow.per_s, flow.events)));
        flows.truncate(FLOWS_SHOWN_MAX);
        flows
    }
}

/// Transport and addresses of a packet.
fn ends(described: &Described) -> String {
    format!("{} {} -> {}", described.protocol, described.source, described.destination)
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
            events: 1,
            per_s: 0,
            last: ends(described),
            id: described.id.clone(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.hook, self.verdict, self.would, self.reason)
            == (other.hook, other.verdict, other.would, other.reason)
            && (&self.from, &self.to) == (&other.from, &other.to)
            && (&self.operation, &self.rule, &self.would_rule)
                == (&other.operation, &other.rule, &other.would_rule)
    }

    /// Let through, and a rule that only observes would drop it.
    #[must_use]
    pub fn would_break(&self) -> bool {
        self.verdict == "permit" && self.would == Some("deny")
    }
}
