//! The syntax of tests and assertions: what must become of packets.

use serde::Serialize;

use crate::{
    ast::{Clause, FromItem, Hook, LabelField, Name, Path, Pattern, Prefix, Proto, Shape, Text},
    span::Span,
};

/// `test "the API reads" { packet { .. } expect permit by ledger.read }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Test {
    /// The title.
    pub title: Text,
    /// What is tried.
    pub cases: Vec<TestCase>,
    /// The whole item.
    pub span: Span,
}

/// `assert no_guests "guests stay out" { never permit from acme.guest unless where .. }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assertion {
    /// The name.
    pub name: Name,
    /// The quoted description.
    pub description: Option<Text>,
    /// Where it holds; ingress when nothing is said.
    pub hooks: Vec<(Hook, Span)>,
    /// `always permit`; otherwise `never permit`.
    pub always: bool,
    /// Which packets it is about.
    pub clauses: Vec<Clause>,
    /// Packets that it leaves out: those of any of these.
    pub unless: Vec<Vec<Clause>>,
    /// The whole item.
    pub span: Span,
}

/// A packet and what must become of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestCase {
    /// The packet's fields in order.
    pub fields: Vec<PacketField>,
    /// From `packet` to the closing brace.
    pub packet_span: Span,
    /// Expected to be let through.
    pub permit: bool,
    /// `by ledger.read`: policy and rule; `by default` has one segment.
    pub by: Option<Path>,
    /// The expectation.
    pub expect_span: Span,
}

/// A field of a test packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum PacketField {
    /// `on egress`; ingress when not said
    On(Hook, Span),
    /// `from acme.payments.api`
    From(FromItem),
    /// `to acme.payments.ledger`
    To(Pattern),
    /// `proto tcp port 443`
    Proto(Proto),
    /// `source 10.0.0.1`
    Source(Prefix),
    /// `destination 10.0.0.2`
    Destination(Prefix),
    /// `ingress zone pods`
    IngressZone(Name),
    /// `egress zone wan`
    EgressZone(Name),
    /// `at "2026-12-24T10:00Z"`
    At(Text),
    /// `fragment`, `options`
    Shape(Shape, Span),
    /// `level internal`, `operation ledger.read` and so on; `subject` and `fragments` do not occur
    Label(LabelField),
}
