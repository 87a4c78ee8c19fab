//! `check`, `test`, `build`: everything that needs no kernel.

use govc_compiler::{checked::Policy, testing};
use govc_grammar::diagnostic::Severity;

use crate::{
    arguments::{Build, Check, Format, Stage, Test},
    failure::Failure,
    input::{self, Input},
    output::{Style, line},
};

pub fn check(arguments: &Check, style: &Style) -> Result<(), Failure> {
    let input = input::read(&arguments.sources, style)?;
    if let Some(stage) = arguments.emit {
        return emit(stage, &input, arguments, style);
    }
    // Limits are the last mistakes to be found: compile, and throw the image away.
    let compiled = input.compile_unproven(arguments.sources.format, style)?;
    let policy = input.checked()?;
    let found = super::analysis::report(&input, &compiled, arguments, style)?;
    if arguments.sources.format == Format::Human {
        let all = input.diagnostics.iter().chain(&found);
        let warnings = all.filter(|d| d.severity() == Severity::Warning).count();
        line(&format!(
            "{} {}{}",
            style.good("ok"),
            summary(policy),
            if warnings == 0 {
                String::new()
            } else {
                format!(", {}", plural(warnings, "warning"))
            }
        ))?;
    }
    Ok(())
}

fn summary(policy: &Policy) -> String {
    let subjects: u64 = policy
        .domains()
        .iter()
        .flat_map(|domain| &domain.scopes)
        .filter_map(|scope| scope.subjects)
        .map(|(first, last)| u64::from(last - first) + 1)
        .sum();
    let mut policies: Vec<&str> = policy.rules().iter().map(|rule| rule.policy.as_str()).collect();
    policies.dedup();
    format!(
        "{} in {}, {}, {}",
        plural(policy.rules().len(), "rule"),
        plural(policies.len(), "policy"),
        plural(subjects as usize, "subject"),
        plural(policy.tests().len(), "test"),
    )
}

/// `1 rule`, `2 rules`, `2 policies`.
pub fn plural(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

fn emit(stage: Stage, input: &Input, arguments: &Check, style: &Style) -> Result<(), Failure> {
    match stage {
        Stage::Tokens => {
            for source in input.sources.iter().take(1) {
                for (token, range) in govc_grammar::tokens(&source.text) {
                    let text = source.text.get(range.clone()).unwrap_or_default();
                    line(&format!("{:>6}..{:<6} {token:?} {text:?}", range.start, range.end))?;
                }
            }
            Ok(())
        }
        Stage::Ast => {
            let tree = input.files.first().map(|(_, file)| file);
            let text = serde_json::to_string_pretty(&tree).map_err(std::io::Error::other)?;
            line(&text)
        }
        Stage::Checked => line(&format!("{:#?}", input.checked()?)),
        Stage::Table => {
            let compiled = input.compile(arguments.sources.format, style)?;
            line(compiled.table.dump().trim_end())
        }
        Stage::Diagram | Stage::Tables => {
            let policy = input.checked()?;
            input.compile(arguments.sources.format, style)?;
            let title = input.title();
            let (_, stages) =
                govc_compiler::stages(policy, &input.sources, &title).map_err(|_| Failure::Told)?;
            let text = if stage == Stage::Diagram {
                stages.forest.dump(&stages.classification).to_string()
            } else {
                stages.tables.to_string()
            };
            line(text.trim_end())
        }
    }
}

pub fn test(arguments: &Test, style: &Style) -> Result<(), Failure> {
    let input = input::read(&arguments.sources, style)?;
    let compiled = input.compile(arguments.sources.format, style)?;
    let policy = input.checked()?;
    let results = testing::run(policy, &compiled.table, &compiled.image);
    let mut failed = 0;
    for (position, test) in policy.tests().iter().enumerate() {
        let cases: Vec<_> = results.iter().filter(|result| result.test == position).collect();
        let passed = cases.iter().all(|result| result.passed && result.image_agrees);
        line(&format!(
            "{} {}",
            if passed { style.good("ok  ") } else { style.bad("FAIL") },
            test.title
        ))?;
        for result in cases {
            if !result.image_agrees {
                return Err(Failure::Machine {
                    message: format!(
                        "the image decides otherwise than the policy in test `{}`",
                        test.title
                    ),
                    help: Some(
                        "This is a mistake in govc: please report it with the policy.".into(),
                    ),
                });
            }
            if !result.passed {
                failed += 1;
                line(&explain_failure(&input, policy, result, style))?;
            }
        }
    }
    let total = results.len();
    line(&format!("{} passed, {failed} failed", total - failed))?;
    let enough = super::coverage::report(&input, policy, &results, arguments, style)?;
    if failed == 0 && enough { Ok(()) } else { Err(Failure::Told) }
}

fn explain_failure(
    input: &Input,
    policy: &Policy,
    result: &testing::CaseResult,
    style: &Style,
) -> String {
    let case = policy.tests().get(result.test).and_then(|test| test.cases.get(result.case));
    let Some(case) = case else { return String::new() };
    let diagnostic = testing::diagnose(policy, case, result.decision);
    style.diagnostic(&diagnostic, &input.sources).trim_end().to_owned()
}

pub fn build(arguments: &Build, style: &Style) -> Result<(), Failure> {
    let input = input::read(&arguments.sources, style)?;
    let compiled = input.compile(arguments.sources.format, style)?;
    input::write_whole(&arguments.output, compiled.image.bytes())?;
    if arguments.sources.format == Format::Human {
        line(&format!(
            "{}: {} bytes, {}, sha256 {}",
            arguments.output.display(),
            compiled.image.bytes().len(),
            plural(compiled.image.rule_count(), "rule"),
            govc_loader::publish::hex(&compiled.image.digest()),
        ))?;
    }
    Ok(())
}
