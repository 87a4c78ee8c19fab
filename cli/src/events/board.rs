//! What `top` and `serve` show: flows between scopes and what rules did, with rates, once a
//! second. Packets and rules come from counters and are exact; flows come from events, of which
//! some may be lost, and say how many they have seen.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use govc_abi::reason;
use govc_image::Image;
use govc_loader::{
    LoadError,
    confirm::Pending,
    instance::Place,
    status::{self, RuleCount, Status},
};
use serde::Serialize;

use super::{
    flows::{Flow, Flows},
    source::{Live, Next, Source, Tally},
};
use crate::failure::Failure;

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
    /// Events of flows that are not kept apart, or not any more.
    pub others: u64,
    /// Which image the rules are of, as in [`Flow::image`].
    pub image: Option<String>,
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
    /// None while there is no instance.
    source: Option<Source>,
    permits: bool,
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
            source: Some(Source::Live(Box::new(live))),
            permits,
            place,
            flows: Flows::default(),
            last: Some(Counted::of(&status)),
            ticked: Instant::now(),
        })
    }

    /// Reads what there is, waiting for it up to `wait`.
    pub fn read(&mut self, wait: Duration) -> Result<(), Failure> {
        let Some(source) = &mut self.source else {
            std::thread::sleep(wait);
            return Ok(());
        };
        let mut wait = wait;
        for _ in 0..EVENTS_AT_ONCE {
            let Next::Event(event, unix_ns) = source.next(wait)? else { break };
            wait = Duration::ZERO;
            // Neighbours looking for each other are no flow of anybody.
            if event.reason != reason::LINK_CONTROL {
                self.flows.add(&event, unix_ns, source);
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
        match self.view(elapsed) {
            // It may be taken down while one looks.
            Err(Failure::Load(LoadError::NoInstance(_) | LoadError::Detached(_))) => {
                self.forget();
                Ok(Some(View { instance: self.place.name().into(), ..View::default() }))
            }
            view => view.map(Some),
        }
    }

    /// The images of a view's flows and rules, by what flows call them.
    pub fn images(&mut self, view: &View) -> BTreeMap<String, Arc<Image>> {
        let Some(source) = &mut self.source else { return BTreeMap::new() };
        let mut numbers: Vec<u64> = view.flows.iter().map(|flow| flow.generation).collect();
        numbers.push(view.generation);
        numbers.sort_unstable();
        numbers.dedup();
        let images = numbers.into_iter().filter_map(|number| source.image(number));
        images.map(|image| (image_name(&image), image)).collect()
    }

    /// What belonged to an instance that is gone: its numbers are given anew in the next one.
    fn forget(&mut self) {
        self.source = None;
        self.flows = Flows::default();
        self.last = None;
    }

    fn view(&mut self, elapsed: Duration) -> Result<View, Failure> {
        // An instance that was made anew has a ring of its own. Whoever reads the old one gives up its
        // claim first.
        if !self.source.as_ref().is_some_and(Source::is_current) {
            self.forget();
            let live = Live::open(&self.place, false, self.permits)?;
            self.source = Some(Source::Live(Box::new(live)));
        }
        let status = status::status(&self.place)?;
        let last = self.last.take().unwrap_or_else(|| Counted::of(&status));
        self.last = Some(last.then(&status));
        let per_s = |count: u64| per_second(count, elapsed);
        let (rules, by_rule) = rules(&status, &last, &per_s);
        let (denials, by_reason) = reasons(&status, &last, &per_s);
        let tally = self.source.as_ref().map(Source::tally).transpose()?.flatten();
        Ok(View {
            instance: status.instance.clone(),
            policy: status.generation.policy.clone(),
            generation: status.generation.number,
            packets: Packets {
                permitted_per_s: by_rule.permitted_per_s + by_reason.permitted_per_s,
                denied_per_s: by_rule.denied_per_s + by_reason.denied_per_s,
                would_per_s: by_rule.would_per_s,
            },
            events: tally.unwrap_or_default(),
            permits: status.events.permits,
            pending: status.pending,
            flows: self.flows.end_second(elapsed),
            others: self.flows.others(),
            image: status.generation.digest.get(..IMAGE_NAME_LEN).map(str::to_owned),
            rules,
            denials,
        })
    }
}

/// Digits of a digest that tell an image from all others of a machine.
const IMAGE_NAME_LEN: usize = 16;

/// What views call an image: the beginning of its digest. A generation's number is given again when an
/// instance is made anew.
pub fn image_name(image: &Image) -> String {
    let mut name = govc_loader::publish::hex(&image.digest());
    name.truncate(IMAGE_NAME_LEN);
    name
}

/// So many in a second.
pub fn per_second(count: u64, elapsed: Duration) -> u64 {
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
