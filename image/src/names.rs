//! The names section: what the numbers of an image mean to people.

use serde::{Deserialize, Serialize};

use crate::ImageError;

/// Names of everything that an image numbers, and where it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The compiler that made the image, such as `govc 0.1.0`.
    pub tool_version: String,
    /// Name of the policy set.
    pub policy_name: String,
    /// Source files.
    pub files: Vec<File>,
    /// Rules by rule number.
    pub rules: Vec<Rule>,
    /// Labels of stamp and legacy rules by number.
    pub labels: Vec<LabelName>,
    /// Objects by number.
    pub objects: Vec<Object>,
    /// Zones; zone `i` has number `i + 1`.
    pub zones: Vec<Zone>,
    /// Cgroup patterns; pattern `i` has number `i + 1`.
    pub cgroups: Vec<String>,
    /// Domains by domain index.
    pub domains: Vec<Domain>,
    /// Moments at which rules begin or end, as slots since the Unix epoch, ascending.
    pub times: Vec<u32>,
    /// Translations by number.
    pub translations: Vec<TranslationName>,
    /// Carriage rules; the first that matches counts.
    pub carriages: Vec<Carriage>,
}

/// A source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// As it was named to the compiler.
    pub name: String,
    /// Of its contents.
    pub sha256: [u8; 32],
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its policy.
    pub policy: String,
    /// Its own name; `policy.name` is unique.
    pub name: String,
    /// The quoted description.
    pub description: Option<String>,
    /// Position in [`Names::files`].
    pub file: u32,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// A digest of name and meaning: a rule of another image with the same one is the same rule.
    pub meaning: [u8; 8],
}

/// Which kind of rule a label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelKind {
    /// Written onto packets that leave.
    Stamp,
    /// Stands in for the label of an unlabelled neighbour.
    Legacy,
}

/// A label that a rule writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelName {
    /// Stamp or legacy.
    pub kind: LabelKind,
    /// Whose label it is: `acme.payments.api`.
    pub text: String,
    /// Position in [`Names::files`].
    pub file: u32,
    /// From 1.
    pub line: u32,
}

/// A translation between domains: whose labels become whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslationName {
    /// `partner -> acme.guest`
    pub text: String,
    /// Position in [`Names::files`].
    pub file: u32,
    /// From 1.
    pub line: u32,
}

/// An object: a local workload that packets are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its scope with the domain: `acme.payments.ledger`.
    pub path: String,
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Interface names, with `*`.
    pub interfaces: Vec<String>,
    /// What leaves here is encrypted.
    pub encrypted: bool,
}

/// How labels ride to some addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carriage {
    /// In a tunnel, and not in an option.
    pub tunnel: bool,
    /// Number of the zone that they are reached by.
    pub zone: u8,
    /// The addresses, as prefixes: `10.0.0.0/8`.
    pub addresses: Vec<String>,
    /// Position in [`Names::files`].
    pub file: u32,
    /// From 1.
    pub line: u32,
}

/// A name with its number: a level, a bit, an operation, a residency set, a route class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// The name.
    pub name: String,
    /// The number.
    pub number: u16,
}

/// A domain and its vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its number in labels.
    pub number: u16,
    /// Levels, lowest first.
    pub levels: Vec<Numbered>,
    /// Compartments with their bits.
    pub compartments: Vec<Numbered>,
    /// Constraints with their bits.
    pub constraints: Vec<Numbered>,
    /// Operations as `group.name`.
    pub operations: Vec<Numbered>,
    /// Residency sets.
    pub residencies: Vec<Numbered>,
    /// Route classes.
    pub routes: Vec<Numbered>,
    /// Scopes in tree order; a scope's subtree follows it.
    pub scopes: Vec<Scope>,
}

/// A scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Path below the domain: `payments.api`.
    pub path: String,
    /// Numbers that belong to it and to everything below, both ends inclusive, ascending.
    pub blocks: Vec<(u32, u32)>,
    /// Its own subjects, both ends inclusive; [`None`] for scopes that only group others.
    pub subjects: Option<(u32, u32)>,
}

impl Names {
    /// The bytes of the names section.
    pub fn encode(&self) -> Result<Vec<u8>, ImageError> {
        postcard::to_stdvec(self).map_err(|error| ImageError::Names(error.to_string()))
    }

    /// Names from a names section, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        match postcard::take_from_bytes(bytes) {
            Ok((names, [])) => Ok(names),
            Ok(_) => Err(ImageError::Names("bytes are left over".into())),
            Err(error) => Err(ImageError::Names(error.to_string())),
        }
    }

    /// The domain with this index.
    #[must_use]
    pub fn domain(&self, domain_index: u32) -> Option<&Domain> {
        self.domains.get(domain_index as usize)
    }

    /// `policy.name` of a rule.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<String> {
        let rule = self.rules.get(number as usize)?;
        Some(format!("{}.{}", rule.policy, rule.name))
    }

    /// `file:line:column` of a rule.
    #[must_use]
    pub fn rule_place(&self, number: u32) -> Option<String> {
        let rule = self.rules.get(number as usize)?;
        let file = self.files.get(rule.file as usize)?;
        Some(format!("{}:{}:{}", file.name, rule.line, rule.column))
    }

    /// The name of a zone; zone 0 has none.
    #[must_use]
    pub fn zone(&self, number: u32) -> Option<&str> {
        Some(self.zones.get(number.checked_sub(1)? as usize)?.name.as_str())
    }

    /// Whether some label that leaves by a zone rides in a tunnel.
    #[must_use]
    pub fn tunnels_from(&self, zone: u32) -> bool {
        self.carriages.iter().any(|rule| rule.tunnel && u32::from(rule.zone) == zone)
    }

    /// The cgroup pattern with this number; number 0 has none.
    #[must_use]
    pub fn cgroup(&self, number: u32) -> Option<&str> {
        Some(self.cgroups.get(number.checked_sub(1)? as usize)?.as_str())
    }

    /// `domain.scope` of a subject. Looks at all scopes; [`SubjectIndex`] is for many lookups.
    #[must_use]
    pub fn subject(&self, domain_index: u32, subject: u32) -> Option<String> {
        let domain = self.domain(domain_index)?;
        Some(domain.subject_path(domain.scope(subject)?, subject))
    }
}

impl Domain {
    /// The innermost scope that a subject belongs to.
    #[must_use]
    pub fn scope(&self, subject: u32) -> Option<&Scope> {
        let holds = |&(first, last): &(u32, u32)| (first..=last).contains(&subject);
        // Inner scopes follow the ones that they lie in.
        self.scopes.iter().rev().find(|scope| scope.blocks.iter().any(holds))
    }

    /// The name of a level.
    #[must_use]
    pub fn level(&self, number: u16) -> Option<&str> {
        name_of(&self.levels, number)
    }

    /// The name of an operation; operation 0 has none.
    #[must_use]
    pub fn operation(&self, number: u16) -> Option<&str> {
        name_of(&self.operations, number)
    }

    /// The name of a residency set; set 0 has none.
    #[must_use]
    pub fn residency(&self, number: u16) -> Option<&str> {
        name_of(&self.residencies, number)
    }

    /// The name of a route class; class 0 has none.
    #[must_use]
    pub fn route(&self, number: u16) -> Option<&str> {
        name_of(&self.routes, number)
    }

    /// The names of the compartments in a bitmap; unknown bits as `bit 7`.
    #[must_use]
    pub fn compartments(&self, bits: u16) -> Vec<String> {
        bit_names(&self.compartments, bits)
    }

    /// The names of the constraints in a bitmap; unknown bits as `bit 7`.
    #[must_use]
    pub fn constraints(&self, bits: u16) -> Vec<String> {
        bit_names(&self.constraints, bits)
    }

    /// A subject's scope with the domain; subjects of scopes with several get their position:
    /// `acme.payments.batch[3]`.
    fn subject_path(&self, scope: &Scope, subject: u32) -> String {
        match scope.subjects {
            Some((first, last)) if first < last && (first..=last).contains(&subject) => {
                format!("{}.{}[{}]", self.name, scope.path, subject - first)
            }
            _ => format!("{}.{}", self.name, scope.path),
        }
    }
}

fn name_of(list: &[Numbered], number: u16) -> Option<&str> {
    list.iter().find(|entry| entry.number == number).map(|entry| entry.name.as_str())
}

fn bit_names(list: &[Numbered], bits: u16) -> Vec<String> {
    (0..16)
        .filter(|bit| bits & 1 << bit != 0)
        .map(|bit| name_of(list, bit).map_or_else(|| format!("bit {bit}"), str::to_owned))
        .collect()
}

/// Finds the scope of a subject in logarithmic time.
#[derive(Clone, Debug)]
pub struct SubjectIndex<'a> {
    names: &'a Names,
    /// By domain: ascending starts, each with the position of the innermost scope from there.
    starts: Vec<Vec<(u32, Option<u32>)>>,
}

impl<'a> SubjectIndex<'a> {
    /// Indexes all domains.
    #[must_use]
    pub fn new(names: &'a Names) -> Self {
        Self { names, starts: names.domains.iter().map(|d| innermost(&d.scopes)).collect() }
    }

    /// As [`Names::subject`].
    #[must_use]
    pub fn subject(&self, domain_index: u32, subject: u32) -> Option<String> {
        let starts = self.starts.get(domain_index as usize)?;
        let after = starts.partition_point(|&(start, _)| start <= subject);
        let (_, scope) = *starts.get(after.checked_sub(1)?)?;
        let domain = self.names.domain(domain_index)?;
        Some(domain.subject_path(domain.scopes.get(scope? as usize)?, subject))
    }
}

/// Cuts nested blocks into stretches with one innermost scope each.
fn innermost(scopes: &[Scope]) -> Vec<(u32, Option<u32>)> {
    let mut blocks: Vec<(u32, u32, u32)> = Vec::new();
    for (position, scope) in scopes.iter().enumerate() {
        blocks.extend(scope.blocks.iter().map(|&(first, last)| (first, last, position as u32)));
    }
    blocks.sort_unstable_by_key(|&(first, last, scope)| (first, std::cmp::Reverse(last), scope));
    let mut starts: Vec<(u32, Option<u32>)> = Vec::new();
    let mut put = |start, scope| match starts.last_mut() {
        Some(last) if last.0 == start => last.1 = scope,
        _ => starts.push((start, scope)),
    };
    let mut open: Vec<(u32, u32)> = Vec::new();
    let close = |open: &mut Vec<(u32, u32)>, put: &mut dyn FnMut(u32, Option<u32>)| {
        if let Some((last, _)) = open.pop()
            && let Some(next) = last.checked_add(1)
        {
            put(next, open.last().map(|&(_, scope)| scope));
        }
    };
    for (first, last, scope) in blocks {
        while open.last().is_some_and(|&(end, _)| end < first) {
            close(&mut open, &mut put);
        }
        put(first, Some(scope));
        open.push((last, scope));
    }
    while !open.is_empty() {
        close(&mut open, &mut put);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(path: &str, blocks: &[(u32, u32)], subjects: Option<(u32, u32)>) -> Scope {
        Scope { path: path.into(), blocks: blocks.to_vec(), subjects }
    }

    fn names() -> Names {
        let numbered = |name: &str, number| Numbered { name: name.into(), number };
        let domain = Domain {
            name: "acme".into(),
            number: 7,
            levels: vec![numbered("public", 0), numbered("secret", 3)],
            compartments: vec![numbered("finance", 0), numbered("health", 2)],
            operations: vec![numbered("ledger.read", 1)],
            scopes: vec![
                scope("web", &[(1, 1)], Some((1, 1))),
                scope("payments", &[(10, 99), (200, 209)], None),
                scope("payments.api", &[(10, 10)], Some((10, 10))),
                scope("payments.batch", &[(20, 39), (200, 209)], Some((20, 29))),
                scope("payments.batch.deep", &[(39, 39)], Some((39, 39))),
            ],
            ..Domain::default()
        };
        Names { domains: vec![domain], ..Names::default() }
    }

    #[test]
    fn subjects_have_paths() {
        let names = names();
        assert_eq!(names.subject(0, 1).as_deref(), Some("acme.web"));
        assert_eq!(names.subject(0, 10).as_deref(), Some("acme.payments.api"));
        assert_eq!(names.subject(0, 22).as_deref(), Some("acme.payments.batch[2]"));
        assert_eq!(names.subject(0, 0), None);
        assert_eq!(names.subject(1, 1), None);
    }

    #[test]
    fn the_index_agrees_with_the_scan() {
        let names = names();
        let index = SubjectIndex::new(&names);
        for subject in (0..300).chain([u32::MAX]) {
            assert_eq!(index.subject(0, subject), names.subject(0, subject), "{subject}");
        }
    }

    #[test]
    fn numbers_have_names() {
        let names = names();
        let domain = names.domain(0).unwrap();
        assert_eq!(domain.level(3), Some("secret"));
        assert_eq!(domain.level(1), None);
        assert_eq!(domain.operation(1), Some("ledger.read"));
        assert_eq!(domain.compartments(0b111), ["finance", "bit 1", "health"]);
    }

    #[test]
    fn damaged_names_do_not_decode_and_do_not_panic() {
        let bytes = names().encode().unwrap();
        assert_eq!(Names::decode(&bytes), Ok(names()));
        for len in 0..bytes.len() {
            assert!(Names::decode(&bytes[..len]).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Names::decode(&damaged);
        }
    }
}
