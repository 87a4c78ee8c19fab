//! The syntax of translations: what labels of one domain become in another.

use serde::Serialize;

use crate::{
    ast::{Int, Name, Path, Pattern},
    span::Span,
};

/// `translate partner -> acme on lan { .. }`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Translate {
    /// The domain whose labels come in.
    pub from: Name,
    /// The domain whose labels go out.
    pub to: Name,
    /// The zone that they leave by.
    pub zone: Name,
    /// What becomes of them.
    pub parts: Vec<TranslatePart>,
    /// The whole item.
    pub span: Span,
}

/// A part of a translation with its span.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TranslatePart {
    /// What it says.
    pub kind: TranslateKind,
    /// All of it.
    pub span: Span,
}

/// What a part of a translation says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum TranslateKind {
    /// `partner.shop.** -> acme.guest`
    Scope {
        /// Whose labels come in.
        from: Pattern,
        /// What they become.
        to: Pattern,
    },
    /// `cap level public`
    Cap(Name),
    /// `level open -> public, closed -> internal`
    Level(Vec<Becomes<Name>>),
    /// `compartments books -> finance`
    Compartments(Vec<Becomes<Name>>),
    /// `constraints secret -> confidential`
    Constraints(Vec<Becomes<Name>>),
    /// `operation shop.order -> ledger.read`
    Operation(Vec<Becomes<Path>>),
    /// `residency europe -> eu`
    Residency(Vec<Becomes<Name>>),
    /// `route fast -> backbone_eu`
    Route(Vec<Becomes<Name>>),
    /// `drop compartments`, `drop compartments {books}`
    DropCompartments(Option<Vec<Name>>),
    /// `drop constraints {audited}`
    DropConstraints(Vec<Name>),
    /// `add constraints {no_forward}`
    AddConstraints(Vec<Name>),
    /// `radius domain`: at most so far
    Radius(Name),
    /// `life 2`: at most 2^life slots
    Life(Int),
    /// `readdress`: addresses and ports may have changed meanwhile
    Readdress,
}

/// `open -> public`: a name of the one domain, and one of the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Becomes<T> {
    /// What comes in.
    pub from: T,
    /// What it becomes.
    pub to: T,
}
