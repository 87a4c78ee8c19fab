//! The names section of an image: from numbers back to what was written, and where.

use govc_grammar::span::{FileId, Span};
use govc_image::{
    Carriage, Domain, File, LabelKind, LabelName, Names, Numbered, Object, Rule, Scope,
    TranslationName, Zone,
};
use sha2::{Digest as _, Sha256};

use crate::{
    checked::{self, DomainId, Policy},
    meaning::meaning,
    sources::Source,
    table::{self, DecisionTable},
};

/// Names of everything that the tables number.
#[must_use]
pub fn names(policy: &Policy, table: &DecisionTable, sources: &[Source], title: &str) -> Names {
    let lines: Vec<LineIndex> = sources.iter().map(|source| LineIndex::new(&source.text)).collect();
    let place = |span: Span| {
        let lines = lines.get(span.file.0 as usize);
        let (line, column) = lines.map_or((0, 0), |lines| lines.place(span.start));
        (span.file.0, line, column)
    };
    let rule = |&position: &u32| {
        let rule = policy.rules().get(position as usize)?;
        let (file, line, column) = place(rule.span);
        Some(Rule {
            policy: rule.policy.to_string(),
            name: rule.name.to_string(),
            description: rule.description.as_ref().map(ToString::to_string),
            file,
            line,
            column,
            meaning: meaning(policy, rule),
        })
    };
    let label = |kind, written: &checked::WrittenLabel, span| {
        let (file, line, _) = place(span);
        let text = subject_path(policy, written.domain, written.subject);
        LabelName { kind, text, file, line }
    };
    let stamps = policy.stamps().iter().map(|s| label(LabelKind::Stamp, &s.label, s.span));
    let legacies = policy.legacies().iter().map(|l| label(LabelKind::Legacy, &l.label, l.span));
    let further = policy.stamps().iter().flat_map(|s| {
        let count = s.label.operations.len().saturating_sub(1);
        std::iter::repeat_n(label(LabelKind::Stamp, &s.label, s.span), count)
    });
    let translation = |record: &table::Translation| {
        let item = policy.translations().get(record.transform as usize)?;
        let (file, line, _) = place(item.span);
        let name =
            |id: DomainId| policy.domains().get(usize::from(id.0)).map(|domain| &domain.name);
        let goes = match record.subject {
            Some(subject) => subject_path(policy, item.to, subject),
            None => name(item.to)?.to_string(),
        };
        Some(TranslationName { text: format!("{} -> {goes}", name(item.from)?), file, line })
    };
    Names {
        tool_version: concat!("govc ", env!("CARGO_PKG_VERSION")).to_owned(),
        policy_name: title.to_owned(),
        files: sources.iter().map(source_file).collect(),
        rules: table.rule_positions.iter().filter_map(rule).collect(),
        labels: stamps.chain(legacies).chain(further).collect(),
        objects: policy
            .delivers()
            .iter()
            .map(|d| Object { path: subject_path(policy, d.object.0, d.object.1) })
            .collect(),
        zones: policy.zones().iter().map(zone).collect(),
        cgroups: policy.cgroups().iter().map(ToString::to_string).collect(),
        domains: policy.domains().iter().map(domain).collect(),
        times: policy.times().to_vec(),
        translations: table.translations.iter().filter_map(translation).collect(),
        carriages: policy.carriages().iter().map(|one| carriage(one, place(one.span))).collect(),
    }
}

/// `acme.payments.api` for a subject number; the number itself where it has no name.
#[must_use]
pub fn subject_path(policy: &Policy, domain: DomainId, subject: u32) -> String {
    let Some(domain) = policy.domains().get(usize::from(domain.0)) else {
        return format!("#{subject}");
    };
    let scope = domain.scopes.iter().find(|scope| {
        scope.subjects.is_some_and(|(first, last)| first <= subject && subject <= last)
    });
    match scope.and_then(|scope| Some((&scope.path, scope.subjects?))) {
        Some((path, (first, last))) if first == last => format!("{}.{path}", domain.name),
        Some((path, (first, _))) => format!("{}.{path}[{}]", domain.name, subject - first),
        None => format!("{}#{subject}", domain.name),
    }
}

fn carriage(rule: &checked::Carriage, (file, line, _): (u32, u32, u32)) -> Carriage {
    let prefix = |prefix: &checked::Prefix| format!("{}/{}", prefix.address, prefix.length);
    let addresses = rule.addresses.iter().map(prefix).collect();
    Carriage { tunnel: rule.tunnel, zone: rule.zone, addresses, file, line }
}

fn source_file(source: &Source) -> File {
    File { name: source.name.clone(), sha256: Sha256::digest(source.text.as_bytes()).into() }
}

fn zone(zone: &checked::Zone) -> Zone {
    Zone {
        name: zone.name.to_string(),
        interfaces: zone.interfaces.iter().map(ToString::to_string).collect(),
        encrypted: zone.encrypted,
    }
}

fn domain(domain: &checked::Domain) -> Domain {
    fn numbered<'a, T: Copy + Into<u16>>(
        pairs: impl IntoIterator<Item = (&'a smol_str::SmolStr, T)>,
    ) -> Vec<Numbered> {
        pairs
            .into_iter()
            .map(|(name, number)| Numbered { name: name.to_string(), number: number.into() })
            .collect()
    }
    Domain {
        name: domain.name.to_string(),
        number: domain.number,
        levels: numbered(domain.levels.iter().map(|(name, number)| (name, *number))),
        compartments: numbered(domain.compartments.iter().map(|(name, bit)| (name, *bit))),
        constraints: numbered(domain.constraints.iter().map(|(name, bit)| (name, *bit))),
        operations: numbered(domain.operations.iter().map(|(name, number)| (name, *number))),
        residencies: numbered(domain.residencies.iter().map(|r| (&r.name, r.number))),
        routes: numbered(domain.routes.iter().map(|(name, number)| (name, *number))),
        scopes: domain
            .scopes
            .iter()
            .map(|scope| Scope {
                path: scope.path.to_string(),
                blocks: scope.blocks.clone(),
                subjects: scope.subjects,
            })
            .collect(),
    }
}

/// Where the lines of a text start.
pub struct LineIndex {
    starts: Vec<u32>,
    text: Box<str>,
}

impl LineIndex {
    /// Reads the text once.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(after.map(|(at, _)| at as u32 + 1)).collect();
        Self { starts, text: text.into() }
    }

    /// Line and column of a byte, both from 1; columns count characters.
    #[must_use]
    pub fn place(&self, offset: u32) -> (u32, u32) {
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start as usize..offset as usize).unwrap_or_default();
        (line as u32, before.chars().count() as u32 + 1)
    }
}

/// Line and column of a span's start; see [`LineIndex::place`].
#[must_use]
pub fn place_of(sources: &[Source], span: Span) -> Option<(&str, u32, u32)> {
    let FileId(file) = span.file;
    let source = sources.get(file as usize)?;
    let (line, column) = LineIndex::new(&source.text).place(span.start);
    Some((&source.name, line, column))
}
