//! Running the tests of the language: each packet is decided by the reference interpreter and
//! by the image, which have to agree.

use govc_abi::{
    attribute,
    image::{AT_SHAPES, program},
    node::LEAF_NONE,
};
use govc_grammar::diagnostic::Diagnostic;
use govc_image::Image;

use crate::{
    checked::{Action, ExpectedRule, Policy, TestCase},
    codes,
    interpret::{self, Decision},
    table::DecisionTable,
};

/// What became of one packet of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// Position of the test in [`Policy::tests`].
    pub test: usize,
    /// Position of the packet in the test.
    pub case: usize,
    /// What the interpreter decided.
    pub decision: Decision,
    /// Whether the expectation holds.
    pub passed: bool,
    /// Whether the image decided likewise; anything else is a mistake in govc.
    pub image_agrees: bool,
}

/// Runs all tests.
#[must_use]
pub fn run(policy: &Policy, table: &DecisionTable, image: &Image) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for (test_position, test) in policy.tests().iter().enumerate() {
        for (case_position, case) in test.cases.iter().enumerate() {
            let decision = interpret::decide(policy, case.hook, &case.request);
            results.push(CaseResult {
                test: test_position,
                case: case_position,
                decision,
                passed: meets(case, decision),
                image_agrees: decide_by_image(table, image, case) == decision,
            });
        }
    }
    results
}

fn meets(case: &TestCase, decision: Decision) -> bool {
    decision.permit == case.permit
        && match case.by {
            None => true,
            Some(ExpectedRule::Default) => decision.rule.is_none(),
            Some(ExpectedRule::Rule(position)) => decision.rule == Some(position),
        }
}

/// What the kernel's walk over the image says.
fn decide_by_image(table: &DecisionTable, image: &Image, case: &TestCase) -> Decision {
    decision_of_image(table, image, case.hook, &case.request)
}

/// Decides a request at a hook as the enforcement point does, by the image alone.
#[must_use]
pub fn decision_of_image(
    table: &DecisionTable,
    image: &Image,
    hook: usize,
    request: &attribute::Request,
) -> Decision {
    let which = program::INGRESS + hook as u32;
    let scalar = |attribute| request.scalars.get(usize::from(attribute)).copied().unwrap_or(0);
    let shape = scalar(attribute::SHAPE);
    if shape & !image.word(AT_SHAPES) != 0 {
        return Decision { permit: false, rule: None, pending: None };
    }
    let outcome = image.decide(which, request);
    let position = |number: u32| {
        let known = number != LEAF_NONE;
        known.then(|| table.rule_positions.get(number as usize).map(|&p| p as usize)).flatten()
    };
    let permit = if outcome.winner == LEAF_NONE {
        let governed = image.program(which).is_some_and(|program| program.governed);
        let known = scalar(attribute::STATE) != attribute::state::ABSENT;
        !governed && known && shape == attribute::shape::WHOLE
    } else {
        let record = image.rule(outcome.winner).unwrap_or(0);
        record & govc_abi::image::rule::ACTION_MASK == govc_abi::image::rule::PERMIT
    };
    Decision { permit, rule: position(outcome.winner), pending: position(outcome.pending) }
}

/// Rules that the packets of tests put to use, by position: those that decide a packet, would
/// decide it if they were enforced, or pass it on.
#[must_use]
pub fn covered(policy: &Policy, results: &[CaseResult]) -> Vec<bool> {
    let mut covered = vec![false; policy.rules().len()];
    for result in results {
        let decision = result.decision;
        for position in [decision.rule, decision.pending].into_iter().flatten() {
            covered.get_mut(position).into_iter().for_each(|place| *place = true);
        }
    }
    let cases: Vec<&TestCase> = policy.tests().iter().flat_map(|test| &test.cases).collect();
    for (rule, place) in policy.rules().iter().zip(&mut covered) {
        let passes = rule.action == Action::Pass;
        let applies = |case: &&TestCase| interpret::applies(policy, rule, case.hook, &case.request);
        *place |= passes && cases.iter().any(applies);
    }
    covered
}

/// A failed test as a diagnostic at its expectation.
#[must_use]
pub fn diagnose(policy: &Policy, case: &TestCase, decision: Decision) -> Diagnostic {
    let verdict = |permit| if permit { "permit" } else { "deny" };
    let rule = |position: Option<usize>| position.and_then(|position| policy.rules().get(position));
    let by = rule(decision.rule)
        .map_or_else(|| "default".to_owned(), |rule| format!("{}.{}", rule.policy, rule.name));
    let found = format!("{} by {by}", verdict(decision.permit));
    let diagnostic = Diagnostic::new(
        codes::TEST_FAILED,
        format!("the packet gets `{found}`"),
        case.expect_span,
        "this was expected",
    )
    .and(case.packet_span, format!("this packet gets `{found}`"));
    match rule(decision.rule) {
        Some(rule) => diagnostic
            .and(rule.head, "by this rule")
            .help("Mend the rule when the test says what is meant, and else the test."),
        None => diagnostic.help("No rule matches the packet, and what no rule permits is denied."),
    }
}
