//! `inspect`: what an image holds.

use govc_image::Image;
use serde::Serialize;

use super::columns;
use crate::{
    arguments::Inspect,
    failure::Failure,
    input,
    output::{Style, json, line},
};

#[derive(Serialize)]
struct Report {
    policy: String,
    made_by: String,
    bytes: usize,
    digest: String,
    programs: Vec<ProgramReport>,
    rules: Vec<RuleReport>,
    zones: Vec<govc_image::Zone>,
    files: Vec<String>,
    /// Vocabularies: what the numbers in labels mean.
    domains: Vec<govc_image::Domain>,
}

#[derive(Serialize)]
struct ProgramReport {
    name: &'static str,
    governed: bool,
    parts: usize,
    attributes: Vec<&'static str>,
}

#[derive(Serialize)]
struct RuleReport {
    rule: String,
    action: &'static str,
    place: String,
}

/// Reads an image file.
pub fn read_image(path: &std::path::Path) -> Result<Image, Failure> {
    let bytes = std::fs::read(path).map_err(input::file("read", path))?;
    Image::parse(bytes).map_err(|source| Failure::Image { path: path.into(), source })
}

pub fn run(arguments: &Inspect, style: &Style) -> Result<(), Failure> {
    let image = read_image(&arguments.image)?;
    let report = report(&image);
    if arguments.json {
        return json(&report);
    }
    line(&format!("{} {}", style.bold("policy "), report.policy))?;
    line(&format!("{} {}", style.bold("made by"), report.made_by))?;
    line(&format!("{} {} bytes, sha256 {}", style.bold("image  "), report.bytes, report.digest))?;
    for file in &report.files {
        line(&format!("{} {file}", style.bold("source ")))?;
    }
    line("")?;
    let programs = report.programs.iter().map(|program| {
        let governed = if program.governed { "governed" } else { "" };
        vec![
            program.name.to_owned(),
            program.parts.to_string(),
            governed.to_owned(),
            program.attributes.join(" "),
        ]
    });
    let head = ["PROGRAM", "PARTS", "", "ATTRIBUTES"].map(str::to_owned).to_vec();
    columns(&std::iter::once(head).chain(programs).collect::<Vec<_>>())?;
    line("")?;
    let rules = report
        .rules
        .iter()
        .map(|rule| vec![rule.rule.clone(), rule.action.to_owned(), rule.place.clone()]);
    let head = ["RULE", "ACTION", "PLACE"].map(str::to_owned).to_vec();
    columns(&std::iter::once(head).chain(rules).collect::<Vec<_>>())
}

fn report(image: &Image) -> Report {
    let names = image.names();
    let programs = (0..govc_abi::image::program::COUNT as u32).filter_map(|which| {
        let program = image.program(which)?;
        let attributes = govc_abi::attribute::NAMES.iter().enumerate();
        Some(ProgramReport {
            name: govc_abi::image::program::NAMES.get(which as usize)?,
            governed: program.governed,
            parts: program.parts.len(),
            attributes: attributes
                .filter(|(bit, _)| program.attributes >> bit & 1 == 1)
                .map(|(_, name)| *name)
                .collect(),
        })
    });
    Report {
        policy: names.policy_name.clone(),
        made_by: names.tool_version.clone(),
        bytes: image.bytes().len(),
        digest: govc_loader::publish::hex(&image.digest()),
        programs: programs.collect(),
        rules: (0..image.rule_count() as u32)
            .map(|number| RuleReport {
                rule: names.rule(number).unwrap_or_default(),
                action: image.action_name(number),
                place: names.rule_place(number).unwrap_or_default(),
            })
            .collect(),
        zones: names.zones.clone(),
        files: names.files.iter().map(|file| file.name.clone()).collect(),
        domains: names.domains.clone(),
    }
}
