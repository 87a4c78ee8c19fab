//! Policies of any number of rules, as text, and requests that their rules decide.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use govc_compiler::{
    check,
    class::Classification,
    encode,
    forest::{Budgets, Forest},
    lock::Locks,
    lower, names,
    sources::Source,
};
use govc_grammar::{
    diagnostic::{Diagnostic, Severity},
    span::FileId,
};
use govc_image::{Image, Names};

use crate::{error::BenchError, random::Random};

/// Number of the domain.
pub const DOMAIN: u16 = 77;
/// Workloads that the node has.
pub const OBJECTS_MAX: u32 = 256;
const OPERATIONS: u16 = 64;
const SUBJECTS_MAX: u32 = 50_000;
const PORTS: u16 = 2000;
const PORT_FIRST: u16 = 1024;
/// One rule in so many denies. Its packets keep their label, so that a program may be repeated
/// on them.
const DENY_EVERY: u32 = 8;
/// How often a compilation is timed.
const COMPILATIONS: usize = 3;

/// A rule of a generated policy.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Position of the subject in its scope.
    pub subject: u32,
    /// Position of the object in its scope.
    pub object: u32,
    /// Position of the operation.
    pub operation: u16,
    /// TCP destination port.
    pub port: u16,
    /// Permit or deny.
    pub permits: bool,
}

/// A policy as text.
pub struct Generated {
    /// The text.
    pub text: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a generated policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Where packets arrive: rules name the object.
    Ingress,
    /// Where they pass through: rules name its address.
    Forward,
}

/// Writes a policy: every rule names one subject, one object, one operation and one port.
pub fn generate(count: u32) -> Generated {
    generate_at(count, Hook::Ingress)
}

/// Likewise for a hook.
pub fn generate_at(count: u32, hook: Hook) -> Generated {
    let subjects = count.clamp(4, SUBJECTS_MAX);
    let objects = count.clamp(4, OBJECTS_MAX);
    let random = &mut Random::new(u64::from(count));
    let rules: Vec<Rule> = (0..count)
        .map(|number| Rule {
            subject: random.below(subjects),
            object: random.below(objects),
            operation: random.below(u32::from(OPERATIONS)) as u16,
            port: PORT_FIRST + random.below(u32::from(PORTS)) as u16,
            permits: number % DENY_EVERY != DENY_EVERY - 1,
        })
        .collect();
    let mut text = vocabulary(subjects, objects);
    if hook == Hook::Ingress {
        deliver(&mut text, objects);
    }
    let place = if hook == Hook::Ingress { "ingress" } else { "forward" };
    let _ = writeln!(text, "\npolicy load {{\n    on {place}");
    for (number, rule) in rules.iter().enumerate() {
        let Rule { subject, object, operation, port, permits } = rule;
        let action = if *permits { "permit" } else { "deny" };
        let whom = match hook {
            Hook::Ingress => format!("to bench.server[{object}]"),
            Hook::Forward => format!("destination {}", object_v4(*object)),
        };
        let _ = writeln!(
            text,
            "    {action} r{number} {{ from bench.client[{subject}] {whom} operation \
             call.c{operation} proto tcp port {port} }}"
        );
    }
    text.push_str("}\n");
    Generated { text, rules }
}

fn vocabulary(subjects: u32, objects: u32) -> String {
    let mut text = format!(
        "package bench.load\n\ndomain bench = {DOMAIN}\nscope bench {{ client[{subjects}] \
         server[{objects}] }}\noperation call {{"
    );
    for number in 0..OPERATIONS {
        let _ = write!(text, " c{number}");
    }
    text.push_str(" }\nzone node = interface \"lo\"\n\n");
    text
}

fn deliver(text: &mut String, objects: u32) {
    for number in 0..objects {
        let (v4, v6) = (object_v4(number), object_v6(number));
        let _ = writeln!(
            text,
            "deliver on node when address {v4}, {v6} {{ object bench.server[{number}] }}"
        );
    }
}

/// Address of an object.
pub fn object_v4(number: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(0x0a4f_0100 + number)
}

/// Address of an object.
pub fn object_v6(number: u32) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::from_bits(0xfd79 << 112 | u128::from(1 + number))
}

/// What the words of a policy are in labels.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    subject_first: u32,
    operation_first: u16,
}

impl Numbers {
    /// Looks them up.
    pub fn find(names: &Names) -> Option<Self> {
        let domain = names.domains.iter().find(|domain| domain.number == DOMAIN)?;
        let clients = domain.scopes.iter().find(|scope| scope.path == "client")?;
        let first = domain.operations.iter().find(|operation| operation.name == "call.c0")?;
        Some(Self { subject_first: clients.subjects?.0, operation_first: first.number })
    }

    /// Subject number of a rule's sender.
    pub fn subject(&self, rule: &Rule) -> u32 {
        self.subject_first + rule.subject
    }

    /// Operation number of a rule.
    pub fn operation(&self, rule: &Rule) -> u16 {
        self.operation_first + rule.operation
    }
}

/// How long the stages took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Text to tree.
    pub parse: Duration,
    /// Tree to checked policy.
    pub check: Duration,
    /// Checked policy to decision table.
    pub lower: Duration,
    /// Decision table to forest.
    pub diagrams: Duration,
    /// Forest to sealed image, with the names section.
    pub encode: Duration,
}

impl Times {
    /// Text to image.
    pub fn total(&self) -> Duration {
        self.parse + self.check + self.lower + self.diagrams + self.encode
    }
}

/// A compiled policy, and what it took.
pub struct Compiled {
    /// The image.
    pub image: Image,
    /// Parts of the ingress program.
    pub parts: usize,
    /// Edges of its diagrams.
    pub edges: usize,
    /// Medians, stage by stage.
    pub times: Times,
}

/// Compiles a text several times.
pub fn compile(policy: Generated) -> Result<(Compiled, Vec<Rule>), BenchError> {
    let Generated { text, rules } = policy;
    let sources = [Source { name: "bench.gov".to_owned(), text }];
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..COMPILATIONS {
        crate::interrupt::check()?;
        drop(last.take());
        let compiled = compile_once(&sources, rules.len())?;
        times.push(compiled.times);
        last = Some(compiled);
    }
    let median = |stage: fn(&Times) -> Duration| {
        let mut all: Vec<Duration> = times.iter().map(stage).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let compiled = last.ok_or(BenchError::Interrupted)?;
    let times = Times {
        parse: median(|times| times.parse),
        check: median(|times| times.check),
        lower: median(|times| times.lower),
        diagrams: median(|times| times.diagrams),
        encode: median(|times| times.encode),
    };
    Ok((Compiled { times, ..compiled }, rules))
}

/// Compiles a policy that nobody times.
pub fn image(text: String) -> Result<Image, BenchError> {
    let sources = [Source { name: "bench.gov".to_owned(), text }];
    Ok(compile_once(&sources, 0)?.image)
}

fn compile_once(sources: &[Source], count: usize) -> Result<Compiled, BenchError> {
    let refused = |message: String| BenchError::Policy { rules: count, message };
    let text = sources.first().map_or("", |source| source.text.as_str());
    let (parsed, parse) = timed(|| govc_grammar::parse(FileId(0), text));
    let (file, diagnostics) = parsed;
    if let Some(error) = first_error(&diagnostics) {
        return Err(refused(error.message.clone()));
    }
    let files = [(FileId(0), file)];
    let (checked, check) = timed(|| check::check(&files, &Locks::default()));
    let Some(policy) = checked.policy else {
        let message = first_error(&checked.diagnostics).map(|error| error.message.clone());
        return Err(refused(message.unwrap_or_default()));
    };
    let (table, lower) = timed(|| lower::lower(&policy));
    let table = table.map_err(|error| refused(error.to_string()))?;
    // The encoder makes its own forest; what this one took is taken off what that takes.
    let budgets = Budgets::default();
    let (forest, diagrams) = timed(|| {
        let classification = Classification::new(&table);
        Forest::new(&table, &classification, budgets)
    });
    drop(forest.map_err(|error| refused(error.to_string()))?);
    let (stages, all) = timed(|| {
        let names = || names::names(&policy, &table, sources, "bench");
        encode::encode_stages(&table, names, budgets)
    });
    let stages = stages.map_err(|error| refused(error.to_string()))?;
    let ingress = stages.forest.programs.get(govc_abi::image::program::INGRESS as usize);
    let parts = ingress.map_or(&[][..], Vec::as_slice);
    Ok(Compiled {
        parts: parts.len(),
        edges: parts.iter().map(|part| part.diagram.edge_count()).sum(),
        times: Times { parse, check, lower, diagrams, encode: all.saturating_sub(diagrams) },
        image: stages.image,
    })
}

fn first_error(diagnostics: &[Diagnostic]) -> Option<&Diagnostic> {
    diagnostics.iter().find(|diagnostic| diagnostic.severity() == Severity::Error)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let value = work();
    (value, started.elapsed())
}

#[cfg(test)]
mod tests {
    use govc_abi::{
        attribute::{self, Request, scope_key, state},
        image::{program, rule},
    };

    use super::*;

    #[test]
    fn the_same_rules_decide_what_passes_through() {
        let (here, passing) = (generate(100), generate_at(100, Hook::Forward));
        let image = image(passing.text).unwrap();
        assert_eq!(image.rule_count(), 100);
        assert!(image.program(program::FORWARD).is_some_and(|program| program.governed));
        let told = |rules: &[Rule]| format!("{rules:?}");
        assert_eq!(told(&here.rules), told(&passing.rules));
    }

    #[test]
    fn each_rule_decides_its_own_packets() {
        let (compiled, rules) = compile(generate(1000)).unwrap();
        let image = &compiled.image;
        let numbers = Numbers::find(image.names()).unwrap();
        let servers = image.names().domains[0].scopes.iter().find(|s| s.path == "server").unwrap();
        for (number, rule) in rules.iter().enumerate() {
            let mut request = Request::EMPTY;
            let object = servers.subjects.unwrap().0 + rule.object;
            for (attribute, value) in [
                (attribute::STATE, state::VALID),
                (attribute::SUBJECT, scope_key(0, numbers.subject(rule))),
                (attribute::OBJECT, scope_key(0, object)),
                (attribute::OPERATION, numbers.operation(rule).into()),
                (attribute::PROTOCOL, 6),
                (attribute::DESTINATION_PORT, rule.port.into()),
            ] {
                request.scalars[usize::from(attribute)] = value;
            }
            let outcome = image.decide(program::INGRESS, &request);
            let record = image.rule(outcome.winner).unwrap_or_default();
            let permits = record & rule::ACTION_MASK == rule::PERMIT;
            assert_eq!(permits, rule.permits, "r{number}");
        }
    }
}
