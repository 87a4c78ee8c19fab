//! `check --grants`, `check --authority`: stamp rules held to grants.

use std::path::Path;

use govc_authority::{
    grant::Verified,
    lattice::Outside,
    mapping::Mapping,
    revocations::Revocations,
    stamps::{self, Uncovered},
    transit,
};
use govc_compiler::codes;
use govc_grammar::diagnostic::Diagnostic;
use govc_image::Image;

use super::{grant, mapping};
use crate::{
    arguments::{Check, StateArguments},
    failure::Failure,
    input::Input,
    state::{self, State},
    times,
};

/// Adds a diagnostic for each stamp rule that no grant covers, if there are grants to hold it to.
///
/// # Errors
/// A grant cannot be read, or one that is named does not hold.
pub fn check(input: &mut Input, arguments: &Check) -> Result<(), Failure> {
    let mut mappings = Vec::new();
    let held = match (&arguments.root, &arguments.authority) {
        (Some(root), _) => {
            let root = state::read_root(root)?;
            let verify = |path: &std::path::PathBuf| {
                let (grant, _) = state::read_grant(path)?;
                let verified = grant.verify(&root, &Revocations::default(), times::now());
                verified.map_err(|error| Failure::refused_in(path, &error))
            };
            for path in &arguments.mappings {
                mappings.push(mapping::verified(path, &root)?);
            }
            arguments.grants.iter().map(verify).collect::<Result<Vec<_>, _>>()?
        }
        (None, Some(dir)) => {
            let (held_mappings, held) = held_by(dir)?;
            mappings = held_mappings;
            held
        }
        (None, None) => return Ok(()),
    };
    let Some(compiled) = &input.compiled else { return Ok(()) };
    // The labels of an image begin with those of the stamp rules, in their order.
    let stamps = stamps::cover(&compiled.image, &held).err().unwrap_or_default();
    let stamps = stamps.iter().filter_map(|one| {
        let rule = compiled.policy.stamps().get(one.number as usize)?;
        Some(diagnose(one, rule.span, &compiled.image))
    });
    let translations = transit::cover(&compiled.image, &mappings, &held).err().unwrap_or_default();
    let items = compiled.table.translations.iter().map(|one| one.transform as usize);
    let translations = translations.iter().filter_map(|one| {
        let item = items.clone().nth(one.number as usize)?;
        let translation = compiled.policy.translations().get(item)?;
        Some(diagnose_translation(one, translation.head, &compiled.image))
    });
    let told: Vec<Diagnostic> = stamps.chain(translations).collect();
    if told.is_empty() {
        return Ok(());
    }
    input.diagnostics.extend(told);
    input.compiled = None;
    Ok(())
}

/// The mappings and grants, its own and those of other domains, of the node with this state directory.
///
/// # Errors
/// They cannot be read, or the node has no root of trust.
pub fn held_by(dir: &Path) -> Result<(Vec<Mapping>, Vec<Verified>), Failure> {
    let state = State::new(&StateArguments { state: dir.to_path_buf() });
    let trust = state.expect_trust()?;
    let (mappings, abroad, _) = mapping::accepted(&state, &trust, &trust.authority())?;
    Ok((mappings, held(&state)?.into_iter().chain(abroad).collect()))
}

/// The grants of a node that hold; the others are told beside.
fn held(state: &State) -> Result<Vec<Verified>, Failure> {
    let trust = state.expect_trust()?;
    let kept = state.grants(&trust.authority(), &state.revocations(&trust)?, times::now())?;
    let hold = kept.into_iter().filter_map(|kept| match kept.verified {
        Ok(verified) => Some(verified),
        Err(error) => {
            tracing::warn!("a grant does not hold: {error}");
            None
        }
    });
    Ok(hold.collect())
}

fn diagnose(one: &Uncovered, span: govc_grammar::span::Span, image: &Image) -> Diagnostic {
    let reasons = one.why.iter().map(|(serial, Outside(excess))| {
        let named = grant::named(*excess, Some(image), one.domain);
        format!("{}{named}", excess.tell("by this rule", &format!("by grant {serial}")))
    });
    let reasons: Vec<String> = reasons.collect();
    let label = match reasons.as_slice() {
        [] => format!("no grant is for domain {}", one.domain),
        reasons => reasons.join("; "),
    };
    let message = format!("no grant allows to stamp the label of `{}`", one.name);
    Diagnostic::new(codes::STAMP_NOT_GRANTED, message, span, label)
        .help("ask the owners of the domain for a wider grant, or stamp less")
}

fn diagnose_translation(
    one: &transit::Uncovered,
    span: govc_grammar::span::Span,
    image: &Image,
) -> Diagnostic {
    let message = format!("`{}` goes further than this gateway may", one.name);
    let code = codes::TRANSLATION_NOT_GRANTED;
    Diagnostic::new(code, message, span, mapping::why(one, image))
        .help("ask the receiving domain for a wider mapping or grant, or translate less")
}
