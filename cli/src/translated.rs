//! What labels become where they pass through a gateway, and the transit grants that they are written under.

use std::{collections::BTreeMap, path::Path};

use govc_abi::{
    attribute::{self, Request, state},
    event::hook,
    reason,
};
use govc_authority::transit;
use govc_compiler::{
    analysis::translations,
    checked::{DomainId, Policy},
    interpret,
};
use govc_image::Image;
use serde::Serialize;

use crate::{arguments, commands, failure::Failure};

/// What a label becomes.
#[derive(Serialize)]
pub struct Becomes {
    /// The label in the words of the language; null where it is refused.
    label: Option<String>,
    /// Serial of the transit grant that it is written under; null where nobody named those of the gateway,
    /// where there is none, and within a domain.
    grant: Option<u16>,
    /// Why it is refused, one of the reasons of events.
    refused: Option<&'static str>,
    /// It goes into another domain.
    #[serde(skip)]
    crosses: bool,
    /// Whose grants count was said.
    #[serde(skip)]
    asked: bool,
}

/// The transit grants of a gateway: serials by the numbers of translations.
pub struct Grants(Option<BTreeMap<u32, u16>>);

impl Grants {
    /// Those that the command line names, as far as the policy's translations lie in them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new(arguments: &arguments::Transit, image: &Image) -> Result<Self, Failure> {
        let Some(dir) = &arguments.authority else { return Ok(Self(None)) };
        Ok(Self(Some(serials(dir, image)?)))
    }

    /// What becomes of the label of a request that a policy lets pass; `None` where it stays what it is.
    ///
    /// # Errors
    /// The image makes something else of it than the interpreter.
    pub fn becomes(
        &self,
        (policy, image): (&Policy, &Image),
        at: usize,
        request: &Request,
    ) -> Result<Option<Becomes>, Failure> {
        let get = |attribute| request.scalars.get(usize::from(attribute)).copied().unwrap_or(0);
        if at != usize::from(hook::FORWARD) || get(attribute::STATE) != state::VALID {
            return Ok(None);
        }
        let zone = get(attribute::EGRESS_ZONE) as u8;
        let (domain, label) = translations::label_of(request);
        // A request does not say how long labels live, which decides nothing.
        let found = image.translate(zone, domain, label);
        let wanted = interpret::translate(policy, zone, DomainId(domain as u8), label);
        let wanted = wanted.map(|one| one.map(|(domain, label)| (u32::from(domain.0), label)));
        if found != wanted {
            return Err(Failure::Machine {
                message: "the image translates otherwise than the reference interpreter".into(),
                help: Some("This is a mistake in govc: please report it with the policy.".into()),
            });
        }
        let asked = self.0.is_some();
        Ok(found.map(|found| match found {
            Ok((to, goes)) => Becomes {
                label: Some(translations::words(image, to, &goes)),
                grant: image.translation_of(zone, domain, label).and_then(|one| self.serial(one)),
                refused: None,
                crosses: to != domain,
                asked,
            },
            Err(refused) => Becomes {
                label: None,
                grant: None,
                refused: reason::NAMES.get(usize::from(refused)).copied(),
                crosses: true,
                asked,
            },
        }))
    }

    fn serial(&self, translation: u32) -> Option<u16> {
        self.0.as_ref()?.get(&translation).copied()
    }
}

impl Becomes {
    /// Why it is refused, if it is.
    pub fn refused(&self) -> Option<&'static str> {
        self.refused
    }

    /// `leaves as from acme.guest  level public, under transit grant 12`.
    pub fn tell(&self) -> String {
        let Some(label) = &self.label else {
            let refused = self.refused.unwrap_or_default();
            return format!("is refused where it leaves: {refused}");
        };
        let under = match self.grant {
            Some(serial) => format!(", under transit grant {serial}"),
            None if self.crosses && self.asked => ", under no transit grant".to_owned(),
            None => String::new(),
        };
        format!("leaves as {label}{under}")
    }
}

/// By the numbers of translations the serials of the grants that they lie in, as the kernel is told.
fn serials(dir: &Path, image: &Image) -> Result<BTreeMap<u32, u16>, Failure> {
    let (mappings, held) = commands::held_by(dir)?;
    // What is not covered is refused by `govc apply`, and told by `govc check`.
    let covered = transit::cover(image, &mappings, &held).unwrap_or_default();
    Ok(covered.into_iter().map(|one| (one.number, one.serial)).collect())
}
