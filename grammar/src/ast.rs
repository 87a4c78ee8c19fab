//! The syntax tree: what was written, with a span on everything, before any name means anything.
//!
//! Nothing here is checked. A node that could not be parsed is [`Item::Error`] or missing from
//! its list; the syntax error beside it says why.

use serde::Serialize;
use smol_str::{SmolStr, SmolStrBuilder};

use crate::span::Span;

pub use crate::assertion::{Assertion, PacketField, Test, TestCase};
pub use crate::translation::{Becomes, Translate, TranslateKind, TranslatePart};

/// One name as written, without quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Name {
    /// The text.
    pub text: SmolStr,
    /// Where it stands.
    pub span: Span,
}

/// Names joined by dots: `acme.payments.api`. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// The names between the dots.
    pub segments: Vec<Name>,
    /// From the first name to the last.
    pub span: Span,
}

impl Path {
    /// The names with dots between them.
    #[must_use]
    pub fn text(&self) -> SmolStr {
        let mut text = SmolStrBuilder::new();
        for (at, segment) in self.segments.iter().enumerate() {
            if at > 0 {
                text.push('.');
            }
            text.push_str(&segment.text);
        }
        text.finish()
    }
}

/// How far below a path a pattern reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reach {
    /// `a.b`: exactly what the path names.
    Exact,
    /// `a.b.*`: what lies directly below.
    Children,
    /// `a.b.**`: the path and everything below.
    Tree,
}

/// A path with a reach; an index for one subject of a batch: `acme.payments.batch[3]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pattern {
    /// The path before any star.
    pub path: Path,
    /// `[3]`
    pub index: Option<Int>,
    /// The star.
    pub reach: Reach,
    /// All of it.
    pub span: Span,
}

/// A number as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Int {
    /// Its value.
    pub value: u64,
    /// Where it stands.
    pub span: Span,
}

/// A quoted text, escapes resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// The text between the quotes.
    pub text: SmolStr,
    /// With the quotes.
    pub span: Span,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct File {
    /// `package acme.payments`; `None` after a syntax error reported it missing.
    pub package: Option<Path>,
    /// Everything after the package line, in order.
    pub items: Vec<Item>,
    /// Warnings that the author knows of.
    pub expectations: Vec<Expectation>,
    /// `private`, `@deprecated` and documentation.
    pub marks: Vec<Mark>,
    /// The documentation of the file, behind `//!`.
    pub documentation: Option<SmolStr>,
}

impl File {
    /// The packages that it uses.
    pub fn uses(&self) -> impl Iterator<Item = &Path> {
        self.items
            .iter()
            .filter_map(|item| if let Item::Use(path) = item { Some(path) } else { None })
    }

    /// Whether it declares a domain: a lock file lies beside it then.
    #[must_use]
    pub fn has_domain(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Domain(_)))
    }
}

/// What is said about an item, a rule or an entry of a vocabulary in front of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// What is said.
    pub kind: MarkKind,
    /// The mark itself.
    pub span: Span,
    /// What it is about.
    pub covered: Covered,
    /// Where that stands; of an entry, its name.
    pub covers: Span,
}

/// The kinds of marks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum MarkKind {
    /// `private`: other packages do not see the names of the item.
    Private,
    /// `@deprecated "use acme.payments.api instead"`
    Deprecated(Text),
    /// Lines behind `///`.
    Documentation(SmolStr),
}

/// What a mark is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Covered {
    /// An item with all names that it defines.
    Item,
    /// A rule, or another part of a policy.
    Rule,
    /// One name of a vocabulary, inside of braces.
    Entry,
}

/// `@expect GOV4104 "the list is copied from the contract"`, before an item or a rule
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expectation {
    /// The code of the warning.
    pub code: Name,
    /// Why it is fine.
    pub reason: Text,
    /// From `@` to the end of the reason.
    pub span: Span,
    /// The item or rule that it speaks about.
    pub covers: Span,
}

/// A part that stands twice where it can stand once. The first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Repeated {
    /// Its keyword.
    pub word: &'static str,
    /// The part that counts.
    pub first: Span,
    /// The one too many.
    pub second: Span,
}

/// What stands at the top level of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Item {
    /// `use acme.vocabulary`
    Use(Path),
    /// `domain acme = 7 { .. }`
    Domain(Domain),
    /// `scope acme { .. }`
    Scope(ScopeRoot),
    /// `constraint confidential, no_forward`
    Constraint(Vec<Name>),
    /// `operation ledger { read write }  web { get }`
    Operation(Vec<OperationGroup>),
    /// `residency eu = {de, fr}  anywhere`
    Residency(Vec<Residency>),
    /// `route default, backbone_eu`
    Route(Vec<Name>),
    /// `zone pods = interface "veth*"`
    Zone(Vec<Zone>),
    /// `tier guardrails, default, baseline ordered`
    Tier(Vec<TierDecl>),
    /// `let office = 10.20.0.0/16`
    Let(Vec<Let>),
    /// `template web(who, ports) { from who  proto tcp port ports }`
    Template(Template),
    /// `stamp on pods when .. { .. }`
    Stamp(Stamp),
    /// `deliver on pods when address .. { object .. }`
    Deliver(Deliver),
    /// `legacy from office on wan { .. }`
    Legacy(Legacy),
    /// `translate partner -> acme on lan { .. }`
    Translate(Translate),
    /// `carriage tunnel to office on wan`
    Carriage(Carriage),
    /// `policy ledger { .. }`
    Policy(Policy),
    /// `test "the API reads" { .. }`
    Test(Test),
    /// `assert no_guests { .. }`
    Assert(Assertion),
    /// Text that is no item; a syntax error tells about it.
    Error(Span),
}

/// `domain acme = 7 { level { public < secret }  compartments { finance } }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Domain {
    /// The name.
    pub name: Name,
    /// The number after `=`.
    pub number: Int,
    /// Levels, lowest first.
    pub levels: Vec<Name>,
    /// Compartments.
    pub compartments: Vec<Name>,
    /// The whole item.
    pub span: Span,
}

/// `scope acme { .. }`: the tree of one domain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScopeRoot {
    /// The domain that the tree belongs to.
    pub domain: Name,
    /// The top of the tree.
    pub entries: Vec<Scope>,
    /// The whole item.
    pub span: Span,
}

/// `payments at confidential in {finance} { api ledger batch[64] }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scope {
    /// The name.
    pub name: Name,
    /// `[64]`: as many subjects under one name.
    pub count: Option<Int>,
    /// `at confidential`
    pub level: Option<Name>,
    /// `in {finance}`
    pub compartments: Option<Vec<Name>>,
    /// What lies below.
    pub children: Vec<Scope>,
    /// The entry with its children.
    pub span: Span,
}

/// `ledger { read write export }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationGroup {
    /// The name before the brace.
    pub name: Name,
    /// The operations.
    pub operations: Vec<Name>,
}

/// `eu = {de, fr, nl}`, or a bare name for everywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Residency {
    /// The name.
    pub name: Name,
    /// The jurisdictions; `None` means all.
    pub jurisdictions: Option<Vec<Name>>,
}

/// `vpn = interface "wg0" encrypted`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Zone {
    /// The name.
    pub name: Name,
    /// Interface names, `*` matches any run of characters.
    pub interfaces: Vec<Text>,
    /// Whether what leaves here is encrypted on the wire.
    pub encrypted: bool,
}

/// `baseline ordered`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierDecl {
    /// The name.
    pub name: Name,
    /// First match wins, instead of deny before permit.
    pub ordered: bool,
}

/// `office = 10.20.0.0/16, 2001:db8:20::/48`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Let {
    /// The name.
    pub name: Name,
    /// Its members.
    pub set: Set,
}

/// `office, lab within site except 10.20.7.0/24`: members of the first list that lie in one of the
/// second, if there is one, and in none of the third
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Set {
    /// What belongs to it.
    pub members: Vec<SetMember>,
    /// What is left of that; most sets are lists and nothing else.
    pub narrowed: Option<Box<Narrowed>>,
}

/// `within site except 10.20.7.0/24`
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Narrowed {
    /// What has to contain it; nothing is asked when empty.
    pub within: Vec<SetMember>,
    /// What is taken out.
    pub except: Vec<SetMember>,
}

impl Set {
    /// Everything that is written in it.
    pub fn all(&self) -> impl Iterator<Item = &SetMember> {
        let narrowed = self.narrowed.iter().flat_map(|by| by.within.iter().chain(&by.except));
        self.members.iter().chain(narrowed)
    }
}

/// `acme.** except acme.guest`: scopes or operations, and which of them are not meant
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Selection<T> {
    /// What is meant.
    pub list: Vec<T>,
    /// What is taken out.
    pub except: Vec<Pattern>,
}

impl<T> Default for Selection<T> {
    fn default() -> Self {
        Self { list: Vec::new(), except: Vec::new() }
    }
}

/// A member of a set of prefixes or ports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum SetMember {
    /// `10.20.0.0/16`, `2001:db8::1`
    Prefix(Prefix),
    /// `443`
    Int(Int),
    /// `8000..8099`, both ends belong to it
    Range(Int, Int),
    /// The name of another set.
    Name(Name),
}

/// An address with a prefix length; hosts have the full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Prefix {
    /// The address as written, host bits included.
    pub address: std::net::IpAddr,
    /// Length in bits; `None` when none was written.
    pub length: Option<u8>,
    /// Where it stands.
    pub span: Span,
}

/// `stamp on pods when cgroup ".." and address .. { subject .. }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stamp {
    /// The zone that the traffic leaves by.
    pub zone: Name,
    /// All of these must hold.
    pub conditions: Vec<StampCondition>,
    /// What the label says.
    pub fields: Vec<LabelField>,
    /// The whole item.
    pub span: Span,
}

/// A condition of a stamp rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum StampCondition {
    /// `cgroup "/kube.slice/api*"`
    Cgroup(Text),
    /// `address 10.0.0.0/8, office`: the source address.
    Address(Set),
    /// `from zone pods`: the zone that the traffic came in by; forwarded traffic only.
    FromZone(Name),
}

/// A field of a label, in stamp and legacy rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum LabelField {
    /// `subject acme.payments.api`
    Subject(Pattern),
    /// `level public`, `max level public`
    Level(Name),
    /// `compartments {finance}`
    Compartments(Vec<Name>, Span),
    /// `constraints {no_forward}`
    Constraints(Vec<Name>, Span),
    /// `operation ledger.read`; in a stamp rule also `operation ledger.read or ledger.export`. At
    /// least one.
    Operation(Vec<Path>),
    /// `residency eu`
    Residency(Name),
    /// `route backbone_eu`
    Route(Name),
    /// `radius cluster`
    Radius(Name),
    /// `life 2`: the label is good for 2^life slots
    Life(Int),
    /// `fragments`: these are labelled too, each by itself; in a stamp rule
    Fragments(Span),
}

/// `deliver on pods when address 10.0.0.5 { object acme.payments.ledger }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deliver {
    /// The zone that the traffic arrives by.
    pub zone: Name,
    /// The destination address, when the zone alone does not tell.
    pub addresses: Option<Set>,
    /// The local workload.
    pub object: Pattern,
    /// The whole item.
    pub span: Span,
}

/// `legacy from office on wan { subject acme.guest  max level public }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Legacy {
    /// The neighbours' addresses.
    pub addresses: Set,
    /// The zone that they are reached by.
    pub zone: Name,
    /// What their traffic counts as.
    pub fields: Vec<LabelField>,
    /// The whole item.
    pub span: Span,
}

/// `carriage tunnel to office on wan`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Carriage {
    /// How labels ride.
    pub kind: Name,
    /// The addresses of those who get them so.
    pub addresses: Set,
    /// The zone that they are reached by.
    pub zone: Name,
    /// The whole item.
    pub span: Span,
}

/// `observe policy ledger { .. }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// The name.
    pub name: Name,
    /// Only tells what it would do.
    pub observe: bool,
    /// `on ingress to acme.payments.ledger`
    pub hooks: Vec<HookClause>,
    /// `tier baseline`
    pub tier: Option<Name>,
    /// Further `tier` lines, which mean nothing.
    pub repeated: Vec<Repeated>,
    /// The rules in order.
    pub rules: Vec<Rule>,
    /// No part of it was left out because it could not be read.
    #[serde(skip)]
    pub whole: bool,
    /// The whole item.
    pub span: Span,
}

/// `on ingress to acme.payments.ledger`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HookClause {
    /// Where packets are decided.
    pub hook: Hook,
    /// Objects that all rules of the policy are about.
    pub to: Selection<Pattern>,
    /// The clause.
    pub span: Span,
}

/// The places where packets are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Hook {
    /// Arriving at this node.
    Ingress,
    /// Leaving this node.
    Egress,
    /// Passing through.
    Forward,
}

/// What a rule says when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Let through.
    Permit,
    /// Drop.
    Deny,
    /// Leave it to the next tier.
    Pass,
}

/// `permit read "the API reads balances" { .. }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// The name.
    pub name: Name,
    /// What it says.
    pub action: Action,
    /// `observe` stood before the action.
    pub observe: bool,
    /// The quoted description.
    pub description: Option<Text>,
    /// The clauses in order.
    pub clauses: Vec<Clause>,
    /// From the action to the closing brace.
    pub span: Span,
}

/// A clause of a rule with its span.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clause {
    /// What it says.
    pub kind: ClauseKind,
    /// From its keyword to its last token.
    pub span: Span,
}

/// What a clause of a rule says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum ClauseKind {
    /// `from acme.payments.api, partner.**`
    From(Selection<FromItem>),
    /// `to acme.payments.ledger`
    To(Selection<Pattern>),
    /// `operation ledger.read, web.*`
    Operation(Selection<Pattern>),
    /// `where level >= internal, residency within eu`: all of them
    Where(Vec<Condition>),
    /// `proto tcp port 443 source port 1024..65535`; several clauses are alternatives
    Proto(Proto),
    /// `source office`: source addresses
    Source(Set),
    /// `destination 10.0.0.0/8`: destination addresses
    Destination(Set),
    /// `log`, `log 1 in 100`
    Log(Option<Sampling>),
    /// `since "2026-12-01T00:00Z"`
    Since(Text),
    /// `until "2026-12-31T18:00Z"`
    Until(Text),
    /// `reject`: the sender is told
    Reject,
    /// `quarantine decoys`: what is denied goes to a zone instead
    Quarantine(Name),
    /// `fragments`, `options`: packets of such shapes too
    Shape(Shape),
    /// `like web(who = acme.api  ports = 443, 8443)`: all clauses of a template
    Like(Like),
}

/// What packets may be besides one header and what it carries
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Shape {
    /// `fragments`, of a packet `fragment`
    Fragments,
    /// `options`: other IPv4 options or IPv6 extension headers than a label
    Options,
}

/// `1 in 100`: how many of the packets that match are reported
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sampling {
    /// So many are taken.
    pub taken: Int,
    /// Of so many.
    pub of: Int,
}

/// `template web(who, ports) { from who  proto tcp port ports }`: clauses that rules share
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Template {
    /// The name.
    pub name: Name,
    /// Names in its clauses that stand for what a rule says.
    pub parameters: Vec<Name>,
    /// The clauses.
    pub clauses: Vec<Clause>,
    /// The whole item.
    pub span: Span,
}

/// `web(who = acme.api  ports = 443, 8443)`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Like {
    /// The template.
    pub template: Name,
    /// What its parameters stand for.
    pub arguments: Vec<Argument>,
}

/// `ports = 443, 8443`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Argument {
    /// The parameter.
    pub name: Name,
    /// What it stands for.
    pub values: Vec<ArgumentValue>,
}

/// What a parameter of a template stands for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum ArgumentValue {
    /// A name of any kind, or scopes.
    Pattern(Pattern),
    /// An address, a number or a range.
    Member(SetMember),
}

/// Who a packet is from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum FromItem {
    /// Subjects of a scope.
    Scope(Pattern),
    /// `anyone`: labelled or not.
    Anyone(Span),
    /// `labelled`: whoever has a valid label.
    Labelled(Span),
    /// `legacy`: neighbours that a legacy rule speaks for.
    Legacy(Span),
    /// `unlabelled`: no label, and no legacy rule speaks for it.
    Unlabelled(Span),
}

/// `tcp port 443`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proto {
    /// The protocol.
    pub kind: ProtoKind,
    /// Destination ports, when said.
    pub ports: Option<Set>,
    /// Source ports, when said.
    pub source_ports: Option<Set>,
    /// ICMP types, when said.
    pub icmp_types: Option<Set>,
    /// ICMP codes, when said.
    pub icmp_codes: Option<Set>,
    /// Further lists of the same kind, which mean nothing.
    pub repeated: Vec<Repeated>,
    /// After `proto`.
    pub span: Span,
}

/// The protocols with a name, and any other by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ProtoKind {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
    /// `icmp`
    Icmp,
    /// `icmpv6`
    Icmpv6,
    /// A number of the IANA registry.
    Number(Int),
}

/// A condition of a `where` clause.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// What it says.
    pub kind: ConditionKind,
    /// All of it.
    pub span: Span,
}

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum ConditionKind {
    /// `a and b`; a longer chain is a balanced tree, so that it stays shallow
    And(Box<Condition>, Box<Condition>),
    /// `a or b`; balanced as well
    Or(Box<Condition>, Box<Condition>),
    /// `not a`
    Not(Box<Condition>),
    /// `level >= internal`; the attribute and the value are checked later
    Test {
        /// What is looked at.
        attribute: Attribute,
        /// Where the attribute stands.
        attribute_span: Span,
        /// How it is compared.
        operator: Operator,
        /// Where the operator stands.
        operator_span: Span,
        /// What it is compared with.
        value: Value,
    },
    /// Text that is no condition; a syntax error tells about it.
    Error,
}

/// What a condition can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Attribute {
    /// `level`
    Level,
    /// `compartments`
    Compartments,
    /// `constraints`
    Constraints,
    /// `residency`
    Residency,
    /// `route`
    Route,
    /// `radius`
    Radius,
    /// `operation`
    Operation,
    /// `ingress zone`
    IngressZone,
    /// `egress zone`
    EgressZone,
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Operator {
    /// `is`, `==`
    Is,
    /// `!=`
    IsNot,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `within`
    Within,
    /// `includes`, `has`
    Includes,
}

/// The right side of a condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Value {
    /// `internal`, `ledger.read`
    Path(Path),
    /// `{finance, audit}`
    Set(Vec<Name>, Span),
}
