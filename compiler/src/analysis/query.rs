//! Who may reach whom for what.

use govc_abi::attribute::{self, Attribute};
use govc_image::Names;
use petgraph::{
    dot::{Config, Dot},
    graph::DiGraph,
};
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{
    field::{Field, Ground, NO_RULE, POSSIBLE, REGIONS_FIRST},
    rule_name,
    search::{Found, Question, Reasons, Rules, search},
    words,
};
use crate::{
    checked::{Action, Assertion, Hook, Policy},
    lower::{LowerError, rows_of},
    table::{DecisionTable, IntervalSet, Row},
};

/// Traffic that a rule permits: at least some packets like this are let through by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// `ingress`, `egress`, `forward`.
    pub hook: &'static str,
    /// Who may send.
    pub from: String,
    /// To whom.
    pub to: String,
    /// For what.
    pub operation: String,
    /// Over what.
    pub transport: String,
    /// What else must hold.
    pub conditions: String,
    /// `policy.rule`; `default` where no policy governs the hook.
    pub rule: String,
    /// Position of the rule in the policy.
    #[serde(skip)]
    pub position: Option<usize>,
    /// Some policy speaks about the hook.
    pub governed: bool,
    /// Rules that take some of these packets away.
    pub except: Vec<String>,
}

impl Way {
    /// Why there is no rule: `no policy on egress`.
    #[must_use]
    pub fn open(&self) -> Option<String> {
        (!self.governed).then(|| no_policy(self.hook))
    }
}

/// Why a hook is open.
#[must_use]
pub fn no_policy(hook: &str) -> String {
    format!("no policy on {hook}")
}

/// Rows that the search for one way may look at.
const BUDGET: u64 = 1 << 22;
/// Exceptions that are told.
const EXCEPTIONS_MAX: usize = 8;

/// The ways that a policy leaves open, as far as a filter, written as an assertion, speaks of
/// them; ordered by rule.
///
/// # Errors
/// The filter has too many alternatives.
pub fn ways(
    policy: &Policy,
    table: &DecisionTable,
    names: &Names,
    filter: &Assertion,
) -> Result<Vec<Way>, LowerError> {
    let mut ways = Vec::new();
    let asked = rows_of(policy, &filter.matches)?;
    for &hook in &filter.hooks {
        let ground = Ground::new(policy, table, hook, vec![asked.clone()]);
        let field = Field::new(&ground, policy.rules().len());
        for number in 0..field.deciding() {
            let meta = field.meta(number);
            if meta.action != Action::Permit {
                continue;
            }
            let found = field.region_rows(REGIONS_FIRST).zip(&asked).filter_map(|region| {
                way(policy, &field, names, hook, (number, ground.row(number)?), region)
            });
            for way in found {
                if !ways.contains(&way) {
                    ways.push(way);
                }
            }
        }
    }
    Ok(ways)
}

fn way(
    policy: &Policy,
    field: &Field<'_>,
    names: &Names,
    hook: Hook,
    (number, row): (u32, &Row),
    (region_row, wanted): (u32, &Row),
) -> Option<Way> {
    let meta = field.meta(number);
    let rule = meta.rule;
    let mut except = Rules::default();
    let mut open = false;
    for part in field.within(Some(region_row), POSSIBLE) {
        let Some(region) = part.narrowed(&field.table, number) else { continue };
        let mut rows = field.meeting(&region);
        rows.retain(|&other| other <= number || field.meta(other).rule == rule);
        let before = rows.iter().map(|&row| field.meta(row));
        // What an earlier tier passes comes to this one all the same.
        let takes = before.filter(|other| match other.action {
            Action::Permit => false,
            Action::Deny => true,
            Action::Pass => other.tier == meta.tier,
        });
        except.extend(takes.map(|other| other.rule));
        let mut budget = BUDGET;
        let question = Question::Reaches(rule);
        let found = search(field, &region, &rows, question, &mut budget, &mut Reasons::default());
        // What could not be found out is told rather than left out.
        open |= !matches!(found, Found::Nothing);
    }
    if !open {
        return None;
    }
    let cell = |attribute: Attribute| {
        let of = |row: &Row| {
            row.cells.iter().find(|(other, _)| *other == attribute).map(|(_, set)| set.clone())
        };
        match (of(row), of(wanted)) {
            (Some(own), Some(wanted)) => Some(own.intersect(&wanted)),
            (own, wanted) => own.or(wanted),
        }
    };
    let senders = cell(attribute::SUBJECT);
    let domain = senders.as_ref().and_then(|set| Some((set.intervals().first()?.0 >> 24) as u32));
    // Where no rule speaks of other shapes, only whole packets are asked about.
    let asked = |attribute| attribute != attribute::SHAPE || policy.shapes() != 0;
    let word = |attribute: Attribute| {
        cell(attribute)
            .filter(|_| asked(attribute))
            .map(|set| words::values(names, attribute, domain.or(Some(0)), &set))
    };
    let or_any = |text: Option<String>| text.unwrap_or_else(|| "any".into());
    let mut except: Vec<u32> = except.into_iter().collect();
    except.sort_unstable();
    Some(Way {
        hook: words::hook_name(hook),
        from: match (senders, cell(attribute::STATE).map(|set| senders_of(&set))) {
            // Whether it has a label is told where it matters.
            (Some(_), Some(states)) if states == "legacy" || states == "labelled" => {
                format!("{} ({states})", or_any(word(attribute::SUBJECT)))
            }
            (Some(_), _) => or_any(word(attribute::SUBJECT)),
            (None, states) => or_any(states),
        },
        to: or_any(word(attribute::OBJECT)),
        operation: or_any(word(attribute::OPERATION)),
        transport: transport(&word),
        conditions: conditions(&word),
        rule: rule_name(policy, rule as usize),
        position: (rule != NO_RULE).then_some(rule as usize),
        governed: rule != NO_RULE,
        except: (except.iter().take(EXCEPTIONS_MAX))
            .map(|&rule| rule_name(policy, rule as usize))
            .collect(),
    })
}

/// Who a set of label states stands for, in the words of `from`.
fn senders_of(states: &IntervalSet) -> String {
    let holds = |state: u32| states.contains(state.into());
    use attribute::state::{ABSENT, LEGACY, VALID};
    match (holds(ABSENT), holds(LEGACY), holds(VALID)) {
        (true, true, true) => "anyone".into(),
        (false, true, true) => "labelled, legacy".into(),
        (false, false, true) => "labelled".into(),
        (false, true, false) => "legacy".into(),
        (true, false, false) => "unlabelled".into(),
        _ => "some".into(),
    }
}

fn transport(word: &impl Fn(Attribute) -> Option<String>) -> String {
    let Some(mut text) = word(attribute::PROTOCOL) else { return "any".into() };
    for attribute in [attribute::DESTINATION_PORT, attribute::SOURCE_PORT, attribute::ICMP] {
        if let Some(values) = word(attribute) {
            let name = words::attribute_word(attribute);
            let name = if attribute == attribute::ICMP { "" } else { name };
            text = format!("{text} {name} {values}").replace("  ", " ");
        }
    }
    text
}

fn conditions(word: &impl Fn(Attribute) -> Option<String>) -> String {
    let told = [
        attribute::LEVEL,
        attribute::COMPARTMENTS,
        attribute::CONSTRAINTS,
        attribute::RESIDENCY,
        attribute::ROUTE,
        attribute::RADIUS,
        attribute::INGRESS_ZONE,
        attribute::EGRESS_ZONE,
        attribute::SOURCE,
        attribute::DESTINATION,
        attribute::SHAPE,
        attribute::TIME,
    ];
    let parts = told.into_iter().filter_map(|attribute| {
        Some(format!("{} {}", words::attribute_word(attribute), word(attribute)?))
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// The ways as a graph for Graphviz: senders and receivers, and what leads from one to the other.
#[must_use]
pub fn dot(ways: &[Way]) -> String {
    let mut graph: DiGraph<&str, String> = DiGraph::new();
    let mut nodes = FxHashMap::default();
    for way in ways {
        let mut node = |name| *nodes.entry(name).or_insert_with(|| graph.add_node(name));
        let (from, to) = (node(way.from.as_str()), node(way.to.as_str()));
        let rule =
            way.open().map_or_else(|| way.rule.clone(), |open| format!("{}: {open}", way.rule));
        graph.add_edge(from, to, format!("{} {}\n{rule}", way.operation, way.transport));
    }
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let edge = |_, edge: petgraph::graph::EdgeReference<'_, String>| {
        format!("label = \"{}\"", escape(edge.weight()))
    };
    let node = |_, (_, name): (_, &&str)| format!("label = \"{}\"", escape(name));
    let plain = [Config::NodeNoLabel, Config::EdgeNoLabel];
    let dot = Dot::with_attr_getters(&graph, &plain, &edge, &node);
    format!("{dot:?}")
}
