//! Kinds of names, as diagnostics call them.

use govc_grammar::diagnostic::Code;

use crate::codes;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the nouns of the language say themselves what they are")]
pub enum Kind {
    Level,
    Compartment,
    Constraint,
    Residency,
    Route,
    Operation,
    OperationGroup,
    Domain,
    Scope,
    Zone,
    Tier,
    Prefixes,
    Ports,
    Policy,
    Rule,
    Package,
    Template,
    Parameter,
}

/// A kind whose names are one word and belong to a domain; an index into arrays of five.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flat {
    Level,
    Compartment,
    Constraint,
    Residency,
    Route,
}

impl Flat {
    pub(crate) const ALL: [Self; 5] =
        [Self::Level, Self::Compartment, Self::Constraint, Self::Residency, Self::Route];

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Level => Kind::Level,
            Self::Compartment => Kind::Compartment,
            Self::Constraint => Kind::Constraint,
            Self::Residency => Kind::Residency,
            Self::Route => Kind::Route,
        }
    }
}

impl Kind {
    /// The noun with its article: `a level`.
    #[must_use]
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Level => "a level",
            Self::Compartment => "a compartment",
            Self::Constraint => "a constraint",
            Self::Residency => "a residency",
            Self::Route => "a route class",
            Self::Operation => "an operation",
            Self::OperationGroup => "a group of operations",
            Self::Domain => "a domain",
            Self::Scope => "a scope",
            Self::Zone => "a zone",
            Self::Tier => "a tier",
            Self::Prefixes => "a set of prefixes",
            Self::Ports => "a set of ports",
            Self::Policy => "a policy",
            Self::Rule => "a rule",
            Self::Package => "a package",
            Self::Template => "a template",
            Self::Parameter => "a parameter",
        }
    }

    /// Likewise, for a place that asks for one: what a set must contain is told elsewhere.
    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Prefixes | Self::Ports => "a set",
            _ => self.with_article(),
        }
    }

    /// The bare noun: `level`.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Prefixes | Self::Ports => "set",
            _ => self.with_article().split_once(' ').map_or("name", |(_, noun)| noun),
        }
    }

    /// The noun for several: `levels`.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Level => "levels",
            Self::Compartment => "compartments",
            Self::Constraint => "constraints",
            Self::Residency => "residencies",
            Self::Route => "route classes",
            Self::Operation => "operations",
            Self::OperationGroup => "groups of operations",
            Self::Domain => "domains",
            Self::Scope => "scopes",
            Self::Zone => "zones",
            Self::Tier => "tiers",
            Self::Prefixes | Self::Ports => "sets",
            Self::Policy => "policies",
            Self::Rule => "rules",
            Self::Package => "packages",
            Self::Template => "templates",
            Self::Parameter => "parameters",
        }
    }

    /// The code for a name of this kind that does not exist.
    pub(crate) fn unknown(self) -> Code {
        match self {
            Self::Level | Self::Compartment | Self::Constraint | Self::Residency | Self::Route => {
                codes::UNKNOWN_NAME
            }
            Self::Operation | Self::OperationGroup => codes::UNKNOWN_OPERATION,
            Self::Domain | Self::Scope => codes::UNKNOWN_SCOPE,
            Self::Zone => codes::UNKNOWN_ZONE,
            Self::Tier => codes::UNKNOWN_TIER,
            Self::Prefixes | Self::Ports => codes::UNKNOWN_SET,
            Self::Policy | Self::Rule => codes::UNKNOWN_RULE,
            Self::Package => codes::UNKNOWN_PACKAGE,
            Self::Template | Self::Parameter => codes::UNKNOWN_TEMPLATE,
        }
    }

    /// How one is declared, for kinds with a short declaration.
    pub(crate) fn declaration(self) -> &'static str {
        match self {
            Self::Level => "add it to `level {}` of its `domain`",
            Self::Compartment => "add it to `compartments {}` of its `domain`",
            Self::Constraint => "declare it with `constraint NAME`",
            Self::Residency => "declare it with `residency NAME = {de, fr}`",
            Self::Route => "declare it with `route NAME`",
            Self::Operation | Self::OperationGroup => "declare it with `operation GROUP { NAME }`",
            Self::Domain => "declare it with `domain NAME = NUMBER {}`",
            Self::Scope => "declare it with `scope DOMAIN { NAME }`",
            Self::Zone => "declare it with `zone NAME = interface \"eth0\"`",
            Self::Tier => "declare it with `tier NAME`",
            Self::Prefixes => "declare it with `let NAME = 10.0.0.0/8`",
            Self::Ports => "declare it with `let NAME = 80, 443`",
            Self::Policy => "declare it with `policy NAME {}`",
            Self::Rule => "declare it with `permit NAME {}` in a policy",
            Self::Package => "begin a file with `package NAME`",
            Self::Template => "declare it with `template NAME {}`",
            Self::Parameter => "name it in `template NAME(..) {}`",
        }
    }

    /// Whether a name of kind `found` is what a place for this kind asks for.
    pub(crate) fn takes(self, found: Self) -> bool {
        let sets = [Self::Prefixes, Self::Ports];
        self == found || sets.contains(&self) && sets.contains(&found)
    }
}
