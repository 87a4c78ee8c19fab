//! Which events are wanted.
//!
//! Names are looked up once for each generation: an event is then compared by numbers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use clap::{Args, ValueEnum};
use govc_abi::{
    attribute::SCOPE_NONE,
    event::{Event, verdict},
    node::LEAF_NONE,
    reason,
};
use govc_image::{Image, Names, glob};

use super::describe::{address, grant, has_label, would};
use crate::failure::Failure;

/// Generations whose names are kept looked up.
const GENERATIONS_MAX: usize = 64;
/// Names that are told where one is not known.
const NAMES_TOLD_MAX: usize = 12;

/// Choices that several commands offer.
#[derive(Args, Clone, Default)]
pub struct FilterArguments {
    /// Only what this scope sends, or scopes in it: `acme.web`; `unlabelled` for what has no label;
    /// may be given several times
    #[arg(long, value_name = "SCOPE")]
    pub from: Vec<String>,
    /// Only what is for a workload of this scope
    #[arg(long, value_name = "SCOPE")]
    pub to: Vec<String>,
    /// Only this operation; `ledger.*` for all that begin so
    #[arg(long, value_name = "OPERATION")]
    pub operation: Vec<String>,
    /// Only what this rule decided or would decide: `policy.rule`, or `policy.*`
    #[arg(long, value_name = "POLICY.RULE")]
    pub rule: Vec<String>,
    /// Only for this reason, such as bad_mac
    #[arg(long, value_name = "REASON", value_parser = reason_number)]
    pub reason: Vec<u8>,
    /// Only labels under the grant with this serial
    #[arg(long, value_name = "SERIAL", value_parser = clap::value_parser!(u16).range(1..))]
    pub grant: Vec<u16>,
    /// Only this verdict
    #[arg(long, value_name = "VERDICT")]
    pub verdict: Vec<Verdict>,
    /// Only this interface, by name or index
    #[arg(long = "iface", value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Only from or to addresses in this prefix: 10.1.0.0/16, or a single address
    #[arg(long, value_name = "PREFIX")]
    pub address: Vec<Prefix>,
}

/// Verdicts as one asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// Let through
    Permit,
    /// Dropped
    Deny,
    /// Let through, but a rule that only observes would have denied it
    WouldDeny,
}

fn reason_number(text: &str) -> Result<u8, String> {
    let found = reason::NAMES.iter().position(|name| *name == text && !name.is_empty());
    found.map(|number| number as u8).ok_or_else(|| {
        let names: Vec<&str> =
            reason::NAMES.iter().copied().filter(|name| !name.is_empty()).collect();
        format!("reasons are {}", names.join(", "))
    })
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bits: u128,
    mask: u128,
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither an address nor a prefix such as 10.1.0.0/16");
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (bits, above) = match addr.parse::<IpAddr>().map_err(|_| wrong())? {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), 96),
            IpAddr::V6(v6) => (v6.to_bits(), 0),
        };
        let len = len.unwrap_or(128 - above) + above;
        let shift = 128_u32.checked_sub(len).ok_or_else(wrong)?;
        let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
        Ok(Self { bits: bits & mask, mask })
    }
}

impl Prefix {
    fn holds(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & self.mask == self.bits
    }
}

/// Wanted subjects of one domain.
#[derive(Clone, Copy, Debug)]
struct Block {
    domain: u16,
    index: u32,
    first: u32,
    last: u32,
}

/// The names of one generation as numbers.
#[derive(Default)]
struct Numbers {
    from: Vec<Block>,
    to: Vec<Block>,
    operations: Vec<(u16, u16)>,
    rules: Vec<bool>,
    would_deny: Vec<bool>,
}

/// What names are looked up in.
pub struct Known<'a> {
    /// Who that is, to say who does not know a name.
    pub whose: &'a str,
    /// Of all generations that matter.
    pub images: &'a [Arc<Image>],
    /// By their indices; those without a name are of another network namespace, or gone.
    pub interfaces: &'a BTreeMap<u32, Option<String>>,
}

impl Known<'_> {
    fn unknown(&self, what: &str, name: &str, mut known: Vec<String>) -> Failure {
        known.sort_unstable();
        known.dedup();
        known.truncate(NAMES_TOLD_MAX);
        Failure::Usage {
            message: format!("{} knows no {what} `{name}`", self.whose),
            help: match known.as_slice() {
                [] => format!("There is no {what} in it."),
                names => format!("It knows, among others: {}", names.join(", ")),
            },
        }
    }
}

fn scopes(names: &Names) -> Vec<String> {
    let of = |d: &govc_image::Domain| {
        d.scopes.iter().map(|s| format!("{}.{}", d.name, s.path)).collect::<Vec<_>>()
    };
    names.domains.iter().flat_map(of).collect()
}

fn operation_names(names: &Names) -> Vec<String> {
    names.domains.iter().flat_map(|d| &d.operations).map(|o| o.name.clone()).collect()
}

fn rules(names: &Names) -> Vec<String> {
    (0..names.rules.len() as u32).filter_map(|number| names.rule(number)).collect()
}

/// Chooses events.
pub struct Filter {
    wanted: FilterArguments,
    unlabelled: bool,
    numbers: BTreeMap<u64, Numbers>,
}

impl Filter {
    /// What the command line says.
    pub fn new(wanted: &FilterArguments) -> Self {
        let unlabelled = wanted.from.iter().any(|scope| scope == "unlabelled");
        Self { wanted: wanted.clone(), unlabelled, numbers: BTreeMap::new() }
    }

    /// Refuses names that nobody knows, which would silently choose nothing.
    pub fn check(&self, known: &Known<'_>) -> Result<(), Failure> {
        let all = |list: &dyn Fn(&Names) -> Vec<String>| {
            known.images.iter().flat_map(|image| list(image.names())).collect::<Vec<_>>()
        };
        let images = || known.images.iter();
        for scope in self.wanted.from.iter().chain(&self.wanted.to) {
            if scope != "unlabelled" && images().all(|image| blocks(scope, image).is_empty()) {
                return Err(known.unknown("scope", scope, all(&scopes)));
            }
        }
        for operation in &self.wanted.operation {
            if images().all(|image| operations(operation, image).next().is_none()) {
                return Err(known.unknown("operation", operation, all(&operation_names)));
            }
        }
        for rule in &self.wanted.rule {
            let names = all(&rules);
            if !names.iter().any(|name| glob(rule, name)) {
                return Err(known.unknown("rule", rule, names));
            }
        }
        for wanted in &self.wanted.interfaces {
            let is = |(index, name): (&u32, &Option<String>)| {
                index.to_string() == *wanted || name.as_ref() == Some(wanted)
            };
            if !known.interfaces.iter().any(is) {
                let told = |(index, name): (&u32, &Option<String>)| match name {
                    Some(name) => name.clone(),
                    None => format!("{index} (of another network namespace, or gone)"),
                };
                let list: Vec<String> = known.interfaces.iter().map(told).collect();
                return Err(Failure::Usage {
                    message: format!("no events come from an interface `{wanted}`"),
                    help: match list.as_slice() {
                        [] => "They come from none.".into(),
                        list => format!("They come from {}", list.join(", ")),
                    },
                });
            }
        }
        Ok(())
    }

    /// Whether names are asked for at all.
    pub fn names_anything(&self) -> bool {
        let wanted = &self.wanted;
        [&wanted.from, &wanted.to, &wanted.operation, &wanted.rule, &wanted.interfaces]
            .iter()
            .any(|names| !names.is_empty())
    }

    /// Whether an event is wanted. `image` is asked for once in a generation, and only when names
    /// are to be compared; without it nothing that has to do with names is chosen.
    pub fn admits(
        &mut self,
        event: &Event,
        interface: impl FnOnce() -> Option<String>,
        image: impl FnOnce() -> Option<Arc<Image>>,
    ) -> bool {
        self.admits_numbers(event) && self.admits_interface(event, interface) && {
            let wanted = &self.wanted;
            let named = !(wanted.from.is_empty()
                && wanted.to.is_empty()
                && wanted.operation.is_empty()
                && wanted.rule.is_empty()
                && wanted.verdict.is_empty());
            !named || self.admits_names(event, image)
        }
    }

    fn admits_numbers(&self, event: &Event) -> bool {
        let wanted = &self.wanted;
        (wanted.reason.is_empty() || wanted.reason.contains(&event.reason))
            && (wanted.grant.is_empty()
                || grant(event).is_some_and(|serial| wanted.grant.contains(&serial)))
            && (wanted.address.is_empty() || {
                let ends = [address(event.source), address(event.destination)];
                wanted.address.iter().any(|prefix| ends.iter().any(|end| prefix.holds(*end)))
            })
    }

    fn admits_interface(&self, event: &Event, interface: impl FnOnce() -> Option<String>) -> bool {
        let wanted = &self.wanted.interfaces;
        if wanted.is_empty() || wanted.contains(&event.ifindex.to_string()) {
            return true;
        }
        interface().is_some_and(|name| wanted.contains(&name))
    }

    fn admits_names(&mut self, event: &Event, image: impl FnOnce() -> Option<Arc<Image>>) -> bool {
        while self.numbers.len() >= GENERATIONS_MAX && !self.numbers.contains_key(&event.generation)
        {
            self.numbers.pop_first();
        }
        let wanted = &self.wanted;
        // An image that is not there yet may be there the next time.
        if !self.numbers.contains_key(&event.generation)
            && let Some(image) = image()
        {
            self.numbers.insert(event.generation, Numbers::new(wanted, &image));
        }
        let none = Numbers::default();
        let numbers = self.numbers.get(&event.generation).unwrap_or(&none);
        (wanted.verdict.is_empty() || numbers.has_verdict(event, &wanted.verdict))
            && (wanted.rule.is_empty() || numbers.has_rule(event))
            && (wanted.operation.is_empty() || numbers.has_operation(event))
            && (wanted.from.is_empty() || numbers.is_from(event, self.unlabelled))
            && (wanted.to.is_empty() || numbers.is_to(event))
    }
}

impl Numbers {
    fn new(wanted: &FilterArguments, image: &Image) -> Self {
        let names = image.names();
        let rules = 0..names.rules.len() as u32;
        let is_wanted = |number: u32| {
            names
                .rule(number)
                .is_some_and(|name| wanted.rule.iter().any(|pattern| glob(pattern, &name)))
        };
        Self {
            from: wanted.from.iter().flat_map(|scope| blocks(scope, image)).collect(),
            to: wanted.to.iter().flat_map(|scope| blocks(scope, image)).collect(),
            operations: wanted.operation.iter().flat_map(|text| operations(text, image)).collect(),
            would_deny: rules.clone().map(|n| would(n, Some(image)) == Some("deny")).collect(),
            rules: if wanted.rule.is_empty() { Vec::new() } else { rules.map(is_wanted).collect() },
        }
    }

    fn has_verdict(&self, event: &Event, wanted: &[Verdict]) -> bool {
        let permitted = event.verdict == verdict::PERMIT;
        wanted.iter().any(|wanted| match wanted {
            Verdict::Permit => permitted,
            Verdict::Deny => !permitted,
            Verdict::WouldDeny => {
                permitted
                    && event.pending != LEAF_NONE
                    && self.would_deny.get(event.pending as usize) == Some(&true)
            }
        })
    }

    fn has_rule(&self, event: &Event) -> bool {
        [event.rule, event.pending]
            .iter()
            .any(|&rule| rule != LEAF_NONE && self.rules.get(rule as usize) == Some(&true))
    }

    fn has_operation(&self, event: &Event) -> bool {
        let label = (event.label.domain(), event.label.operation());
        has_label(event.flags) && self.operations.contains(&label)
    }

    fn is_from(&self, event: &Event, unlabelled: bool) -> bool {
        if !has_label(event.flags) {
            return unlabelled;
        }
        let (domain, subject) = (event.label.domain(), event.label.subject());
        self.from.iter().any(|b| b.domain == domain && (b.first..=b.last).contains(&subject))
    }

    fn is_to(&self, event: &Event) -> bool {
        let (index, subject) = (event.object >> 24, event.object & 0x00ff_ffff);
        event.object != SCOPE_NONE
            && self.to.iter().any(|b| b.index == index && (b.first..=b.last).contains(&subject))
    }
}

/// The subjects of a scope and of those in it; `acme.batch[3]` is one of several.
fn blocks(scope: &str, image: &Image) -> Vec<Block> {
    let scope = scope.trim_end_matches(".**").trim_end_matches(".*");
    let (path, position) = match scope.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        Some((path, position)) => (path, position.parse::<u32>().ok()),
        None => (scope, None),
    };
    let mut found = Vec::new();
    for (index, domain) in (0..).zip(&image.names().domains) {
        let number = domain.number;
        let mut push = |first, last| found.push(Block { domain: number, index, first, last });
        let Some(rest) = path.strip_prefix(domain.name.as_str()) else { continue };
        if rest.is_empty() {
            push(0, u32::MAX);
            continue;
        }
        let Some(rest) = rest.strip_prefix('.') else { continue };
        for scope in &domain.scopes {
            let inside =
                scope.path.strip_prefix(rest).is_some_and(|r| r.is_empty() || r.starts_with('.'));
            match (inside, position, scope.subjects) {
                (true, None, _) => scope.blocks.iter().for_each(|&(first, last)| push(first, last)),
                (true, Some(position), Some((first, last))) if scope.path == rest => {
                    let one = first.saturating_add(position);
                    if one <= last {
                        push(one, one);
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// Domain and number of the operations that a pattern means.
fn operations<'a>(pattern: &'a str, image: &'a Image) -> impl Iterator<Item = (u16, u16)> + 'a {
    image.names().domains.iter().flat_map(move |domain| {
        let known = domain.operations.iter().filter(move |o| glob(pattern, &o.name));
        known.map(|operation| (domain.number, operation.number))
    })
}
