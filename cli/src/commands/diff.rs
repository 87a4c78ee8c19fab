//! `diff`: what changes from one policy to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use govc_abi::{
    attribute::{Attribute, STATE, SUBJECT},
    image::rule,
};
use govc_compiler::{
    analysis::{
        diff::{self, Change, Diff, DiffError, Kind, Verdict},
        translations, words,
    },
    table::IntervalSet,
};
use govc_image::{Image, Names};
use govc_loader::instance::Instance;
use serde::Serialize;

use super::{apply::place, columns, inspect::read_image};
use crate::{
    arguments::{Diff as Arguments, Sources},
    failure::Failure,
    input::{self, Analysis, Overlay},
    output::{Style, json, line},
};

/// Exit codes beside 0 for no change; see the help of the command.
const ATTRIBUTED: u8 = 10;
const NARROWED: u8 = 11;
const WIDENED: u8 = 12;
const TRANSLATED: u8 = 13;
const ANSWERED: u8 = 14;

#[derive(Serialize)]
struct Report<'d> {
    changes: Vec<ChangeReport<'d>>,
    complete: bool,
    carriages: &'d Sides,
    translations: &'d Sides,
    logs: &'d Sides,
}

/// What is compared besides verdicts.
struct Besides {
    carriages: Sides,
    translations: Sides,
    logs: Sides,
}

impl Besides {
    fn between(old: &Image, new: &Image) -> Self {
        let (logs_old, logs_new) = logs(old, new);
        Self {
            carriages: Sides::between(&carriages(old.names()), &carriages(new.names())),
            translations: Sides::between(&translations::lines(old), &translations::lines(new)),
            logs: Sides::between(&logs_old, &logs_new),
        }
    }

    fn all(&self) -> [&Sides; 3] {
        [&self.carriages, &self.translations, &self.logs]
    }
}

/// What only one side says.
#[derive(Serialize)]
struct Sides {
    removed: Vec<String>,
    added: Vec<String>,
}

impl Sides {
    fn between(old: &[String], new: &[String]) -> Self {
        let only = |ours: &[String], theirs: &[String]| {
            let theirs: BTreeSet<&String> = theirs.iter().collect();
            ours.iter().filter(|line| !theirs.contains(line)).cloned().collect()
        };
        Self { removed: only(old, new), added: only(new, old) }
    }

    fn differ(&self) -> bool {
        !(self.removed.is_empty() && self.added.is_empty())
    }

    fn tell(&self) -> Result<(), Failure> {
        for (sign, lines) in [('-', &self.removed), ('+', &self.added)] {
            lines.iter().try_for_each(|text| line(&format!("{sign} {text}")))?;
        }
        Ok(())
    }
}

/// The carriage rules of an image, as they would be written.
fn carriages(names: &Names) -> Vec<String> {
    let rules = names.carriages.iter().map(|rule| {
        let kind = if rule.tunnel { "tunnel" } else { "option" };
        let zone = names.zone(rule.zone.into()).unwrap_or_default();
        format!("carriage {kind} to {} on {zone}", rule.addresses.join(", "))
    });
    rules.collect()
}

/// What rules report, of those that both images have: a rule that only one has is told by what it decides.
fn logs(old: &Image, new: &Image) -> (Vec<String>, Vec<String>) {
    let by_name = |image: &Image| -> BTreeMap<String, Option<String>> {
        let numbers = 0..u32::try_from(image.names().rules.len()).unwrap_or(u32::MAX);
        let named = numbers.filter_map(|number| {
            let (name, record) = (image.names().rule(number)?, image.rule(number)?);
            (record & rule::OBSERVE == 0).then(|| (name, log(record)))
        });
        named.collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let told = |ours: &BTreeMap<String, Option<String>>, theirs: &BTreeMap<_, _>| {
        let both = ours.iter().filter(|(name, _)| theirs.contains_key(*name));
        both.filter_map(|(name, log)| Some(format!("{} by {name}", log.as_deref()?))).collect()
    };
    (told(&old, &new), told(&new, &old))
}

/// What a rule's record says of reports.
fn log(record: u32) -> Option<String> {
    match record >> rule::SAMPLING_SHIFT {
        _ if record & rule::LOG == 0 => None,
        0 | 1 => Some("log".to_owned()),
        one_in => Some(format!("log 1 in {one_in}")),
    }
}

#[derive(Serialize)]
struct ChangeReport<'d> {
    change: Kind,
    hook: &'static str,
    traffic: Vec<Cell>,
    except: Vec<Cell>,
    old: &'d Verdict,
    new: &'d Verdict,
}

#[derive(Serialize)]
struct Cell {
    attribute: &'static str,
    values: String,
}

/// Compares; how it ends tells whether something widens.
pub fn run(arguments: &Arguments, style: &Style) -> Result<(), Failure> {
    let (old, new) = match (arguments.running, arguments.files.as_slice()) {
        (false, [old, new]) => (read(old, arguments, style)?, read(new, arguments, style)?),
        (true, [new]) => {
            let (_, running) = Instance::open(&place(&arguments.instance.place))?.active_image()?;
            (running, read(new, arguments, style)?)
        }
        (false, _) => return Err(usage("a comparison takes two files")),
        (true, _) => return Err(usage("with --running, a comparison takes the new file only")),
    };
    let diff = diff::diff(&old, &new).map_err(|error| Failure::Machine {
        message: error.to_string(),
        help: Some(match error {
            DiffError::Renumbered(_) => "Build both images from the same lock file.".into(),
            DiffError::Damaged(_) => {
                "No compiler makes such an image: build it again from its policy.".into()
            }
        }),
    })?;
    let names = Names { times: diff.times.clone(), ..new.names().clone() };
    let besides = Besides::between(&old, &new);
    if arguments.instance.json {
        json(&report(&diff, &names, &besides))?;
    } else {
        tell(&diff, &names, &besides, style)?;
    }
    let has = |kind| diff.changes.iter().any(|change| change.kind == kind);
    let differ = |sides: &Sides| sides.differ();
    match () {
        () if has(Kind::Permitted) => Err(Failure::Different(WIDENED)),
        () if diff.incomplete => Err(Failure::Machine {
            message: "the policies differ too much to be compared to the end".into(),
            help: Some("Compare smaller steps.".into()),
        }),
        // Whether labels become more or less by it, whoever reads it has to say.
        () if besides.translations.differ() => Err(Failure::Different(TRANSLATED)),
        () if has(Kind::Denied) => Err(Failure::Different(NARROWED)),
        () if has(Kind::Answered) => Err(Failure::Different(ANSWERED)),
        () if has(Kind::Attributed) || besides.all().into_iter().any(differ) => {
            Err(Failure::Different(ATTRIBUTED))
        }
        () => Ok(()),
    }
}

fn usage(message: &str) -> Failure {
    Failure::Usage {
        message: message.into(),
        help: "Write `govc diff OLD NEW`, or `govc diff --running NEW`.".into(),
    }
}

/// Reads an image, or makes one of a source.
fn read(path: &Path, arguments: &Arguments, style: &Style) -> Result<Image, Failure> {
    let is_source = path.extension().is_some_and(|extension| extension == "gov");
    if !is_source {
        return read_image(path);
    }
    let sources = Sources::plain(vec![path.to_path_buf()], arguments.include.clone());
    let mut input = input::read(&sources, false, &Overlay::new(), Analysis::None)?;
    input.report(style)?;
    input.compiled.take().map(|compiled| compiled.image).ok_or(Failure::Told)
}

/// The words for what packets have in common.
fn traffic(change: &Change, names: &Names) -> Vec<Cell> {
    // Who is named has a label, or a rule that speaks for it.
    let named = change.cells.iter().any(|(attribute, _)| *attribute == SUBJECT);
    let told = change.cells.iter().filter(|(attribute, _)| *attribute != STATE || !named);
    told.map(|cell| in_words(cell, change, names)).collect()
}

/// The words for packets among these that do not change.
fn except(change: &Change, names: &Names) -> Vec<Cell> {
    change.except.iter().map(|cell| in_words(cell, change, names)).collect()
}

fn in_words((attribute, set): &(Attribute, IntervalSet), change: &Change, names: &Names) -> Cell {
    let subjects = change.cells.iter().find(|(attribute, _)| *attribute == SUBJECT);
    let domain = subjects.and_then(|(_, set)| Some((set.intervals().first()?.0 >> 24) as u32));
    let domain = domain.filter(|domain| names.domain(*domain).is_some()).or(Some(0));
    let attribute_word = words::attribute_word(*attribute);
    Cell { attribute: attribute_word, values: words::values(names, *attribute, domain, set) }
}

fn report<'d>(diff: &'d Diff, names: &Names, besides: &'d Besides) -> Report<'d> {
    let changes = diff.changes.iter().map(|change| ChangeReport {
        change: change.kind,
        hook: words::hook_name(change.hook),
        traffic: traffic(change, names),
        except: except(change, names),
        old: &change.old,
        new: &change.new,
    });
    let Besides { carriages, translations, logs } = besides;
    let changes = changes.collect();
    Report { changes, complete: !diff.incomplete, carriages, translations, logs }
}

fn tell(diff: &Diff, names: &Names, besides: &Besides, style: &Style) -> Result<(), Failure> {
    let differ = besides.all().into_iter().any(Sides::differ);
    if !diff.changes.is_empty() || diff.incomplete {
        tell_changes(diff, names)?;
    } else if differ {
        line(
            "verdicts and rules stay the same for every packet, and what comes with them changes:",
        )?;
    } else {
        let ok = style.good("ok");
        line(&format!("{ok} every packet gets the same verdict by the same rule"))?;
    }
    besides.all().into_iter().try_for_each(Sides::tell)
}

fn tell_changes(diff: &Diff, names: &Names) -> Result<(), Failure> {
    let verdict = |verdict: &Verdict| {
        let word = if verdict.permit { "permit" } else { "deny" };
        let answer = verdict.answer.as_ref().map(|answer| format!(" ({answer})"));
        let rule = verdict.rule.as_deref().unwrap_or("default");
        format!("{word} by {rule}{}", answer.unwrap_or_default())
    };
    let mut rows = vec![["CHANGE", "HOOK", "TRAFFIC", "OLD", "NEW"].map(str::to_owned).to_vec()];
    for change in &diff.changes {
        let word = match change.kind {
            Kind::Permitted => "+ permitted",
            Kind::Denied => "- denied",
            Kind::Answered => "~ denied otherwise",
            Kind::Attributed => "~ attributed",
        };
        let text = |cells: Vec<Cell>| {
            let each = cells.iter().map(|cell| format!("{} {}", cell.attribute, cell.values));
            each.collect::<Vec<_>>().join("; ")
        };
        let mut all = text(traffic(change, names));
        if !change.except.is_empty() {
            let start = if all.is_empty() { "everything " } else { "; " };
            all.push_str(&format!("{start}except ({})", text(except(change, names))));
        } else if all.is_empty() {
            all.push_str("everything");
        }
        rows.push(vec![
            word.to_owned(),
            words::hook_name(change.hook).to_owned(),
            all,
            verdict(&change.old),
            verdict(&change.new),
        ]);
    }
    columns(&rows)
}
