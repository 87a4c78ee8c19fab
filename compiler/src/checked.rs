//! The checked policy: every name is a number, every type fits, every limit holds.
//!
//! Only [`crate::check`] makes one. Lowering and the reference interpreter take nothing else.

use std::{net::IpAddr, sync::Arc};

use govc_grammar::span::Span;
use smol_str::SmolStr;

/// Position of a domain in [`Policy::domains`]; the domain index of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u8);

/// A policy set: all packages that were compiled together.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) domains: Vec<Domain>,
    pub(crate) zones: Vec<Zone>,
    pub(crate) cgroups: Vec<SmolStr>,
    pub(crate) stamps: Vec<Stamp>,
    pub(crate) delivers: Vec<Deliver>,
    pub(crate) legacies: Vec<Legacy>,
    pub(crate) translations: Vec<Translation>,
    pub(crate) carriages: Vec<Carriage>,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) governed: [bool; 3],
    pub(crate) tests: Vec<Test>,
    pub(crate) assertions: Vec<Assertion>,
    pub(crate) times: Vec<u32>,
}

impl Policy {
    /// All moments at which rules begin or end, as slots since the Unix epoch, ascending.
    #[must_use]
    pub fn times(&self) -> &[u32] {
        &self.times
    }
    /// Set of [`govc_abi::attribute::shape`] that rules let through: packets of others are denied
    /// before any rule.
    #[must_use]
    pub fn shapes(&self) -> u32 {
        let rules = self.rules.iter().filter(|rule| rule.action != Action::Deny);
        rules.fold(0, |all, rule| all | rule.matches.shapes)
    }
    /// Domains, by [`DomainId`].
    #[must_use]
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }
    /// Zones; zone `i` has number `i + 1`.
    #[must_use]
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }
    /// Cgroup patterns; pattern `i` has number `i + 1`.
    #[must_use]
    pub fn cgroups(&self) -> &[SmolStr] {
        &self.cgroups
    }
    /// Stamp rules; the first that matches wins.
    #[must_use]
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }
    /// Deliver rules; the first that matches wins.
    #[must_use]
    pub fn delivers(&self) -> &[Deliver] {
        &self.delivers
    }
    /// Legacy rules; the first that matches wins.
    #[must_use]
    pub fn legacies(&self) -> &[Legacy] {
        &self.legacies
    }
    /// Translations; the first scope that matches wins.
    #[must_use]
    pub fn translations(&self) -> &[Translation] {
        &self.translations
    }
    /// Carriage rules; the first that matches wins.
    #[must_use]
    pub fn carriages(&self) -> &[Carriage] {
        &self.carriages
    }
    /// Tiers in the order in which they are tried.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
    /// Rules as written: by file, then by position.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
    /// Whether some policy speaks about a hook, by [`Hook`].
    #[must_use]
    pub fn governed(&self) -> [bool; 3] {
        self.governed
    }
    /// What must hold for all packets.
    #[must_use]
    pub fn assertions(&self) -> &[Assertion] {
        &self.assertions
    }
    /// Tests of the language.
    #[must_use]
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }
}

/// A domain with its vocabulary, all names numbered.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its name.
    pub name: SmolStr,
    /// Its number in labels.
    pub number: u16,
    /// Levels, lowest first, with their numbers.
    pub levels: Vec<(SmolStr, u8)>,
    /// Compartments with their bit numbers.
    pub compartments: Vec<(SmolStr, u8)>,
    /// Constraints with their bit numbers.
    pub constraints: Vec<(SmolStr, u8)>,
    /// Operations as `group.name` with their numbers, from 1.
    pub operations: Vec<(SmolStr, u16)>,
    /// Residency sets, from 1.
    pub residencies: Vec<Residency>,
    /// Route classes with their numbers, from 1.
    pub routes: Vec<(SmolStr, u8)>,
    /// Scopes in tree order; a scope's subtree follows it.
    pub scopes: Vec<Scope>,
}

/// A residency set.
#[derive(Clone, Debug)]
pub struct Residency {
    /// Its name.
    pub name: SmolStr,
    /// Its number, from 1.
    pub number: u8,
    /// Its jurisdictions, sorted; `None` means everywhere.
    pub jurisdictions: Option<Vec<SmolStr>>,
}

/// A scope.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Path below the domain: `payments.api`.
    pub path: SmolStr,
    /// Numbers that belong to it and to everything below, inclusive, ascending.
    pub blocks: Vec<(u32, u32)>,
    /// Its own subjects, inclusive; `None` for scopes that only group others.
    pub subjects: Option<(u32, u32)>,
    /// Level of its subjects.
    pub level: u8,
    /// Compartments of its subjects.
    pub compartments: u16,
}

/// Numbers of one domain, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeRange {
    /// The domain.
    pub domain: DomainId,
    /// First number.
    pub first: u32,
    /// Last number.
    pub last: u32,
}

/// A zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its name.
    pub name: SmolStr,
    /// Interface names with `*`.
    pub interfaces: Vec<SmolStr>,
    /// What leaves here is encrypted.
    pub encrypted: bool,
}

/// What a label says before it is stamped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenLabel {
    /// Domain of everything else.
    pub domain: DomainId,
    /// The sender.
    pub subject: u32,
    /// Trust level.
    pub level: u8,
    /// Bitmap.
    pub compartments: u16,
    /// Bitmap.
    pub constraints: u16,
    /// Number, 0 for none; what a socket that declares nothing gets.
    pub operation: u16,
    /// The operations that a socket may declare, by name and number: that one first.
    pub operations: Vec<(SmolStr, u16)>,
    /// Index, 0 for none.
    pub residency: u8,
    /// Index, 0 for none.
    pub route: u8,
    /// One of [`govc_abi::label::radius`].
    pub radius: u8,
    /// Good for 2^life slots.
    pub life: u8,
}

/// An address prefix; host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// Its length in bits.
    pub length: u8,
}

/// A stamp rule.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Number of the zone that the traffic leaves by.
    pub zone: u8,
    /// Number of the cgroup pattern, when one is asked for.
    pub cgroup: Option<u16>,
    /// Fragments are labelled too, each by itself.
    pub fragments: bool,
    /// Source addresses, when some are asked for.
    pub addresses: Option<Vec<Prefix>>,
    /// Number of the zone that forwarded traffic came in by; none for what the node sends itself, or what
    /// came in where it does not enforce.
    pub from_zone: Option<u8>,
    /// The label.
    pub label: WrittenLabel,
    /// The item.
    pub span: Span,
}

/// A deliver rule.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// Number of the zone that the traffic arrives by.
    pub zone: u8,
    /// Destination addresses, when some are asked for.
    pub addresses: Option<Vec<Prefix>>,
    /// The object's domain and number.
    pub object: (DomainId, u32),
    /// The item.
    pub span: Span,
}

/// A legacy rule.
#[derive(Clone, Debug)]
pub struct Legacy {
    /// The neighbours' addresses.
    pub addresses: Vec<Prefix>,
    /// Number of the zone that they are reached by.
    pub zone: u8,
    /// What their traffic counts as.
    pub label: WrittenLabel,
    /// The item.
    pub span: Span,
}

/// What labels of one domain become where they leave by a zone.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The domain whose labels come in.
    pub from: DomainId,
    /// The domain whose labels go out; the same one where names and numbers stay what they are.
    pub to: DomainId,
    /// Number of the zone that they leave by.
    pub zone: u8,
    /// Whose labels become whose, in order; those of nobody else pass. Empty within one domain, where
    /// everybody stays who they are.
    pub scopes: Vec<TranslatedScope>,
    /// What becomes of everything but the subject.
    pub transform: Transform,
    /// The item.
    pub span: Span,
    /// From `translate` to the zone.
    pub head: Span,
}

/// Subjects that become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslatedScope {
    /// Numbers of the one domain, inclusive, ascending.
    pub ranges: Vec<(u32, u32)>,
    /// The subject of the other domain.
    pub subject: u32,
}

/// What becomes of the fields of a label but its subject. What stands in no list is refused; within
/// one domain it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// The level that each level becomes, by number.
    pub levels: [u8; govc_abi::limits::LEVELS_MAX],
    /// Bit numbers of compartments and what they become; `None` is nothing.
    pub compartments: Vec<(u8, Option<u8>)>,
    /// Bit numbers of constraints likewise.
    pub constraints: Vec<(u8, Option<u8>)>,
    /// Bitmap of the constraints that are added.
    pub added: u16,
    /// Numbers of operations, and what they become.
    pub operations: Vec<(u16, u16)>,
    /// Numbers of residency sets likewise.
    pub residencies: Vec<(u16, u16)>,
    /// Numbers of route classes likewise.
    pub routes: Vec<(u16, u16)>,
    /// Largest radius, one of [`govc_abi::label::radius`].
    pub radius: u8,
    /// Longest life, as a power of two of slots.
    pub life: u8,
    /// Addresses and ports may be others than those that the label came with.
    pub readdress: bool,
}

/// A carriage rule.
#[derive(Clone, Debug)]
pub struct Carriage {
    /// Labels ride in a tunnel, and not in an option.
    pub tunnel: bool,
    /// The addresses of those who get them so.
    pub addresses: Vec<Prefix>,
    /// Number of the zone that they are reached by.
    pub zone: u8,
    /// The item.
    pub span: Span,
}

/// A tier.
#[derive(Clone, Debug)]
pub struct Tier {
    /// Its name.
    pub name: SmolStr,
    /// First match wins; otherwise deny comes before pass, pass before permit.
    pub ordered: bool,
}

/// Index of a hook: 0 ingress, 1 egress, 2 forward, as in [`govc_abi::event::hook`].
pub type Hook = usize;

pub use govc_grammar::ast::Action;

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Name of its policy.
    pub policy: SmolStr,
    /// Its name; `policy.name` is unique.
    pub name: SmolStr,
    /// The quoted description.
    pub description: Option<SmolStr>,
    /// Position of its tier in [`Policy::tiers`].
    pub tier: usize,
    /// What it says.
    pub action: Action,
    /// Only tells what it would do.
    pub observe: bool,
    /// Report packets: one of so many.
    pub log: Option<u16>,
    /// What becomes of a packet that the rule denies.
    pub answer: Answer,
    /// For each hook: does the rule hold there, and for which objects (`None`: for all).
    /// All rules of a policy share it.
    pub hooks: Arc<[Option<HookScope>; 3]>,
    /// What a packet must be.
    pub matches: Match,
    /// The action and the name.
    pub head: Span,
    /// From the action to the closing brace.
    pub span: Span,
}

/// What becomes of a packet that is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// It is gone.
    #[default]
    Silence,
    /// Its sender is told.
    Reject,
    /// It leaves by this zone, as it came.
    Quarantine(u8),
}

/// A moment, and where it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Slots since the Unix epoch.
    pub slot: u32,
    /// The text.
    pub span: Span,
}

/// Objects that a policy's `on .. to ..` clause restricts its rules to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookScope {
    /// `None` when the clause names no object.
    pub objects: Option<Vec<ScopeRange>>,
}

/// What a packet must be: all of it.
#[derive(Clone, Debug)]
pub struct Match {
    /// One of these. Never empty.
    pub from: Vec<From>,
    /// The domain whose vocabulary the rule speaks: packets that count as labelled (valid or
    /// legacy) must be of this domain.
    pub domain: Option<DomainId>,
    /// The object is one of these, when said.
    pub to: Option<Vec<ScopeRange>>,
    /// The operation is one of these, when said. Numbers of `domain`.
    pub operations: Option<Vec<u16>>,
    /// All of these.
    pub conditions: Vec<Condition>,
    /// One of these, when any is said. Fragments show neither ports nor types: these are held to the
    /// number alone.
    pub protocols: Vec<Protocol>,
    /// Set of [`govc_abi::attribute::shape`] that it may have. What denies is about packets of all
    /// shapes, whatever it says; what lets through is about whole packets and those that it names.
    pub shapes: u32,
    /// The source address lies in one of these, when said.
    pub sources: Option<Vec<Prefix>>,
    /// The destination address lies in one of these, when said.
    pub destinations: Option<Vec<Prefix>>,
    /// It is not before this, when said.
    pub since: Option<Moment>,
    /// It is before this, when said.
    pub until: Option<Moment>,
}

/// Who a packet may be from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// Valid or legacy label of one of these subjects.
    Scope(Vec<ScopeRange>),
    /// Labelled or not.
    Anyone,
    /// A valid or legacy label. This is what a rule without `from` means when it permits or
    /// passes; a deny rule without `from` means [`From::Anyone`].
    Identified,
    /// A valid label.
    Labelled,
    /// A legacy label.
    Legacy,
    /// No label, and no legacy rule.
    Unlabelled,
}

/// A condition over attributes. On a packet without label and legacy rule all label attributes
/// are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// At least one.
    Or(Box<Condition>, Box<Condition>),
    /// Not this one.
    Not(Box<Condition>),
    /// The level lies in this interval, both ends inclusive.
    Level(u8, u8),
    /// The radius lies in this interval, both ends inclusive.
    Radius(u8, u8),
    /// All bits of the mask are set.
    CompartmentsInclude(u16),
    /// No bit outside the mask is set.
    CompartmentsWithin(u16),
    /// Exactly the mask.
    CompartmentsAre(u16),
    /// All bits of the mask are set.
    ConstraintsInclude(u16),
    /// No bit outside the mask is set.
    ConstraintsWithin(u16),
    /// Exactly the mask.
    ConstraintsAre(u16),
    /// One of these indices. (`residency within eu`: all sets that lie within `eu`.)
    Residency(Vec<u8>),
    /// This index.
    Route(u8),
    /// One of these numbers.
    Operation(Vec<u16>),
    /// One of these zone numbers.
    IngressZone(Vec<u8>),
    /// One of these zone numbers.
    EgressZone(Vec<u8>),
}

/// A protocol with ports or ICMP types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// IANA number.
    pub number: u8,
    /// Destination ports, inclusive ranges, when said.
    pub ports: Option<Vec<(u16, u16)>>,
    /// Source ports, inclusive ranges, when said.
    pub source_ports: Option<Vec<(u16, u16)>>,
    /// ICMP types, inclusive ranges, when said.
    pub icmp_types: Option<Vec<(u8, u8)>>,
    /// ICMP codes, inclusive ranges, when said.
    pub icmp_codes: Option<Vec<(u8, u8)>>,
}

/// What must hold for all packets of a kind.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// Its name.
    pub name: SmolStr,
    /// The quoted description.
    pub description: Option<SmolStr>,
    /// Where it holds.
    pub hooks: Vec<Hook>,
    /// All of the packets are permitted; otherwise none is.
    pub always: bool,
    /// The packets that it is about.
    pub matches: Match,
    /// The packets that it leaves out: those that match any of these.
    pub unless: Vec<Match>,
    /// The item.
    pub span: Span,
    /// From `assert` to the name.
    pub head: Span,
}

/// A test of the language.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its title.
    pub title: SmolStr,
    /// What is tried.
    pub cases: Vec<TestCase>,
    /// The item.
    pub span: Span,
}

/// A packet and what must become of it.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// Where it is decided.
    pub hook: Hook,
    /// The packet, in the attributes of decisions.
    pub request: govc_abi::attribute::Request,
    /// Expected to be let through.
    pub permit: bool,
    /// Expected to be decided by the rule at this position in [`Policy::rules`], or by none.
    pub by: Option<ExpectedRule>,
    /// The packet's text.
    pub packet_span: Span,
    /// The expectation's text.
    pub expect_span: Span,
}

/// What a test expects to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedRule {
    /// The rule at this position.
    Rule(usize),
    /// No rule: the default.
    Default,
}
