//! `check`, `test`, `build`: everything that needs no kernel.

use govc_compiler::{
    checked::{self, Policy},
    codes,
    testing::{self, CaseResult},
};
use govc_grammar::diagnostic::Severity;

use super::{
    coverage::{self, Coverage},
    fix, granted, plural,
};
use crate::{
    arguments::{Build, Check, Format, Stage, Test},
    failure::Failure,
    input::{self, Analysis, Compiled, Input, Overlay},
    levels::Target,
    output::{Style, line},
    report::junit,
    translated::Grants,
};

pub fn check(arguments: &Check, style: &Style) -> Result<(), Failure> {
    if arguments.fix {
        return fix::fix(arguments, style);
    }
    let mut input = input::read(
        &arguments.sources,
        arguments.shorthand.json,
        &Overlay::new(),
        findings(arguments),
    )?;
    granted::check(&mut input, arguments)?;
    input.finish(&arguments.sources, style)?;
    match arguments.emit {
        Some(stage) => emit(stage, &input),
        None => conclude(&input, style),
    }
}

/// What `check` looks for; a stage is printed without.
pub fn findings(arguments: &Check) -> Analysis {
    match arguments.emit {
        Some(_) => Analysis::None,
        None => {
            // Whoever gives a code a level wants to be told.
            let levels = arguments.sources.deny.iter().chain(&arguments.sources.warn);
            let named = |code| levels.clone().any(|target| *target == Target::Code(code));
            Analysis::Findings {
                gaps: arguments.gaps || named(codes::GAP),
                conflicts: arguments.conflicts || named(codes::CONFLICT),
                unused: arguments.unused || named(codes::UNUSED_HERE),
            }
        }
    }
}

/// Says in a line that all is well, where people want to know.
pub fn conclude(input: &Input, style: &Style) -> Result<(), Failure> {
    let compiled = input.compiled()?;
    if !input.format().is_chatty() {
        return Ok(());
    }
    let warnings = input.diagnostics.iter().filter(|d| d.severity() == Severity::Warning).count();
    let warnings = match warnings {
        0 => String::new(),
        _ => format!(", {}", plural(warnings, "warning")),
    };
    line(&format!("{} {}{warnings}", style.good("ok"), summary(&compiled.policy)))
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

fn emit(stage: Stage, input: &Input) -> Result<(), Failure> {
    let stages = |compiled: &Compiled| {
        govc_compiler::stages(&compiled.policy, &input.sources, &input.title())
            .map_err(|_| Failure::Told)
    };
    let text = match stage {
        Stage::Tokens => {
            for source in input.sources.iter().take(1) {
                for (token, range) in govc_grammar::tokens(&source.text) {
                    let text = source.text.get(range.clone()).unwrap_or_default();
                    line(&format!("{:>6}..{:<6} {token:?} {text:?}", range.start, range.end))?;
                }
            }
            return Ok(());
        }
        Stage::Ast => {
            let tree = input.files.first().map(|(_, file)| file);
            serde_json::to_string_pretty(&tree).map_err(std::io::Error::other)?
        }
        Stage::Checked => format!("{:#?}", input.compiled()?.policy),
        Stage::Table => input.compiled()?.table.dump(),
        Stage::Diagram => {
            let (_, stages) = stages(input.compiled()?)?;
            stages.forest.dump(&stages.classification).to_string()
        }
        Stage::Tables => stages(input.compiled()?)?.1.tables.to_string(),
    };
    line(text.trim_end())
}

pub fn test(arguments: &Test, style: &Style) -> Result<(), Failure> {
    let (sources, json) = (&arguments.sources, arguments.shorthand.json);
    let mut input = input::read(sources, json, &Overlay::new(), Analysis::Assertions)?;
    let chatty = input.format().is_chatty();
    let Some(compiled) = input.compiled.take() else {
        input.report(style)?;
        return Err(Failure::Told);
    };
    if chatty || input.format() == Format::Junit {
        // What is known so far comes before the tests; their failures stand beside their titles.
        input.report(style)?;
        input.diagnostics.clear();
    }
    let results = testing::run(&compiled.policy, &compiled.table, &compiled.image);
    let (mut outcomes, failed) = outcomes(arguments, &mut input, &compiled, &results, style)?;
    let coverage = coverage::measure(&input, &compiled.policy, &results, arguments);
    if chatty {
        line(&format!("{} passed, {failed} failed", results.len() - failed))?;
    } else if input.format() == Format::Junit {
        outcomes.extend(coverage.as_ref().and_then(Coverage::outcome));
        line(junit::render(&input.title(), &outcomes)?.trim_end())?;
    } else {
        input.report(style)?;
    }
    if let Some(coverage) = &coverage {
        if input.format() == Format::Json {
            line(&coverage.json()?)?;
        }
        coverage.tell(input.format(), style)?;
    }
    input.compiled = Some(compiled);
    input.keep_locks(&arguments.sources)?;
    let enough = coverage.as_ref().is_none_or(Coverage::is_enough);
    if failed == 0 && enough { Ok(()) } else { Err(Failure::Told) }
}

/// What became of each test, told where people look, and how many packets failed; their diagnostics
/// are added to those of the policy.
fn outcomes(
    arguments: &Test,
    input: &mut Input,
    Compiled { policy, image, .. }: &Compiled,
    results: &[CaseResult],
    style: &Style,
) -> Result<(Vec<junit::Outcome>, usize), Failure> {
    let chatty = input.format().is_chatty();
    let grants = Grants::new(&arguments.transit, image)?;
    let mut outcomes = Vec::new();
    let mut failed = 0;
    for (position, test) in policy.tests().iter().enumerate() {
        let mut failures = Vec::new();
        for result in results.iter().filter(|result| result.test == position) {
            if !result.image_agrees {
                return Err(disagreement(&test.title));
            }
            let case = test.cases.get(result.case).filter(|_| !result.passed);
            failures.extend(case.map(|case| testing::diagnose(policy, case, result.decision)));
        }
        failed += failures.len();
        if chatty {
            tell_test(input, test, &failures, style)?;
            for case in &test.cases {
                let pair = (policy, image);
                let becomes = grants.becomes(pair, case.hook, &case.request)?;
                if let Some(becomes) = becomes.filter(|_| case.permit) {
                    line(&style.dim(format!("     {}", becomes.tell())).to_string())?;
                }
            }
        }
        let shown = |one: &_| input.render(one, style);
        let file = input.sources.get(test.span.file.0 as usize).map(|file| file.name.clone());
        outcomes.push(junit::Outcome {
            title: test.title.to_string(),
            file: file.unwrap_or_default(),
            kind: codes::TEST_FAILED.id,
            failures: failures.iter().map(|one| (one.message.clone(), shown(one))).collect(),
        });
        input.diagnostics.append(&mut failures);
    }
    Ok((outcomes, failed))
}

/// A line for the test, and what is wrong with it.
fn tell_test(
    input: &Input,
    test: &checked::Test,
    failures: &[govc_grammar::diagnostic::Diagnostic],
    style: &Style,
) -> Result<(), Failure> {
    let mark = match (failures, test.cases.as_slice()) {
        // It tries nothing, of which a warning tells.
        ([], []) => style.dim("none"),
        ([], _) => style.good("ok  "),
        _ => style.bad("FAIL"),
    };
    line(&format!("{mark} {}", test.title))?;
    for failure in failures {
        line(input.render(failure, style).trim_end())?;
    }
    Ok(())
}

fn disagreement(title: &str) -> Failure {
    Failure::Machine {
        message: format!("the image decides otherwise than the policy in test `{title}`"),
        help: Some("This is a mistake in govc: please report it with the policy.".into()),
    }
}

pub fn build(arguments: &Build, style: &Style) -> Result<(), Failure> {
    let (sources, json) = (&arguments.sources, arguments.shorthand.json);
    let input = input::read(sources, json, &Overlay::new(), Analysis::Assertions)?;
    input.finish(&arguments.sources, style)?;
    let image = &input.compiled()?.image;
    input::write_whole(&arguments.output, image.bytes())?;
    if input.format().is_chatty() {
        line(&format!(
            "{}: {} bytes, {}, sha256 {}",
            arguments.output.display(),
            image.bytes().len(),
            plural(image.rule_count(), "rule"),
            govc_loader::publish::hex(&image.digest()),
        ))?;
    }
    Ok(())
}
