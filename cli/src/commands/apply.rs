//! `apply`, `rollback`, `detach`: what changes the kernel.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use govc_authority::{
    audit::Event,
    bundle,
    digest::Digest,
    key::KeyId,
    lattice::Outside,
    stamps::{self, Covered, Uncovered},
    transit,
    trust::{Root, Trust},
};
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    authority::{Abroad, Authority, Held},
    confirm::{self, Pending},
    instance::Place,
    publish::{self, Applied},
    status,
};
use serde::Serialize;

use super::{
    grant,
    keys::duration,
    mapping, plural,
    trial::{self, Trial},
    unsigned,
};
use crate::{
    arguments::{Apply, Detach, Format, Hook, PlaceArguments, Rollback},
    failure::Failure,
    input::{self, Analysis, Overlay},
    output::{Style, json, line},
    ring,
    state::{self, State},
    times,
};

/// The instance that the command line names.
pub fn place(arguments: &PlaceArguments) -> Place {
    Place::new(&arguments.bpffs, &arguments.instance)
}

pub fn apply(arguments: &Apply, style: &Style) -> Result<(), Failure> {
    let state = State::new(&arguments.state);
    match (state.trust()?, arguments.sources.files.as_slice()) {
        (Some(trust), files) => apply_bundle(arguments, (&state, &trust), files, style),
        (None, [path]) if state::is_bundle(path)? => Err(Failure::Usage {
            message: format!("nobody said whose bundles to believe in `{}`", state.dir().display()),
            help: "Give this node its root of trust first: govc trust init ROOT".into(),
        }),
        (None, _) => {
            let place = place(&arguments.instance.place);
            let given_up = unsigned::check(&state, &place, arguments.replace_signed)?;
            let image = image(arguments, style)?;
            if !arguments.dry_run {
                given_up.record(&state, "apply")?;
            }
            let (applied, pending) = publish(arguments, &image, None)?;
            if arguments.instance.json {
                return json(&Report { applied, pending });
            }
            tell(&applied, arguments.dry_run, style)?;
            pending.map_or(Ok(()), |pending| tell_trial(pending, style))
        }
    }
}

/// What an apply did, for programs.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    applied: Applied,
    /// What returns unless it is confirmed.
    pending: Option<Pending>,
}

/// What a bundle was applied as, for programs.
#[derive(Serialize)]
struct SignedReport<'a> {
    #[serde(flatten)]
    applied: &'a Applied,
    bundle: BundleReport<'a>,
}

#[derive(Serialize)]
struct BundleReport<'a> {
    domain: &'a str,
    generation: u64,
    manifest: &'a Digest,
    signed_by: &'a [KeyId],
    /// Serials of the grants that the stamp rules lie in.
    grants: Vec<u16>,
}

/// Puts the policy of a bundle in force. The trust state goes on only when the kernel has it: a
/// bundle that cannot be loaded must not keep the one before it from being applied again.
fn apply_bundle(
    arguments: &Apply,
    (state, trust): (&State, &Trust),
    files: &[PathBuf],
    style: &Style,
) -> Result<(), Failure> {
    if arguments.confirm.is_some() {
        return Err(Failure::Usage {
            message: "`--confirm` goes back by itself, and this node takes signed bundles only"
                .into(),
            help: "An older policy comes back by a new bundle: apply without `--confirm`.".into(),
        });
    }
    let path = signed_file(arguments, (state, trust), files)?;
    // What comes into force has to stand in the log, so whether it can is asked before.
    state.check_log()?;
    // What is held to the trust state has to be held to it until it has gone on.
    let _lock = if arguments.dry_run { None } else { Some(state.lock()?) };
    let trust = &state.expect_trust()?;
    let (bundle, bytes) = state::read_bundle(path)?;
    let accepted =
        super::bundle::verified(path, &bundle, trust, times::now()).and_then(|verified| {
            let generation = verified.manifest().generation;
            state.check_not_older(trust, (generation, verified.accepted().manifest()))?;
            Ok((holdings(state, trust, &verified)?, verified))
        });
    let (held, verified) = match accepted {
        Err(failure @ Failure::Refused { .. }) if !arguments.dry_run => {
            let digests = [("bundle", Digest::of(&bytes))];
            state.record(Event::BundleRefused, failure.to_string(), &digests, &[])?;
            return Err(failure);
        }
        other => other?,
    };
    let authority = authority(&held, &verified);
    let (applied, _) = publish(arguments, verified.image(), Some(&authority))?;
    if !arguments.dry_run {
        note(state, trust, &verified, &bytes)?;
    }
    let manifest = verified.manifest();
    if arguments.instance.json {
        return json(&SignedReport {
            applied: &applied,
            bundle: BundleReport {
                domain: &manifest.domain.name,
                generation: manifest.generation,
                manifest: verified.accepted().manifest(),
                signed_by: verified.signed_by(),
                grants: serials(&held),
            },
        });
    }
    line(&super::bundle::signed(&verified, trust, style))?;
    tell(&applied, arguments.dry_run, style)
}

/// The one file that may be applied where there is a root of trust.
fn signed_file<'a>(
    arguments: &Apply,
    (state, trust): (&State, &Trust),
    files: &'a [PathBuf],
) -> Result<&'a Path, Failure> {
    let [path] = files else {
        return Err(Failure::Usage {
            message: "more than one file".into(),
            help: "This node has a root of trust and takes one signed bundle.".into(),
        });
    };
    if !arguments.image && state::is_bundle(path)? {
        return Ok(path);
    }
    Err(Failure::Refused {
        message: format!(
            "`{}` is no signed bundle, and `{}` holds a root of trust: policies of {} come in bundles",
            path.display(),
            state.dir().display(),
            trust.root().domain
        ),
        help: Some(
            "Make one with `govc bundle`, get it signed with `govc sign`, and apply that.".into(),
        ),
    })
}

/// What a node accepted that the policy of a bundle is held to.
struct Holdings {
    /// Stamp rules with the grants that they lie in.
    stamps: Vec<Covered>,
    /// Translations with their transit grants.
    translations: Vec<transit::Covered>,
    /// What other domains say of their labels, by their numbers.
    abroad: BTreeMap<u16, mapping::Abroad>,
}

/// What the kernel has to know of a bundle besides its policy.
fn authority(held: &Holdings, verified: &bundle::Verified) -> Authority {
    let manifest = verified.manifest();
    let (stamps, translations) = (held.stamps.iter(), held.translations.iter());
    let abroad = held.abroad.iter().map(|(&domain, said)| Abroad {
        domain,
        revoked: said.revoked.bitmap(),
        granted: said.granted,
    });
    Authority {
        domain: manifest.domain.number,
        stamps: stamps
            .map(|one| (one.number, Held { serial: one.serial, not_after: one.not_after }))
            .collect(),
        transit: translations
            .map(|one| (one.number, Held { serial: one.serial, not_after: one.not_after }))
            .collect(),
        revoked: verified.revocations().bitmap(),
        abroad: abroad.collect(),
        not_before: manifest.not_before,
        not_after: manifest.not_after,
    }
}

/// Serials of grants, ascending.
fn serials(held: &Holdings) -> Vec<u16> {
    let mut serials: Vec<u16> = held.stamps.iter().map(|one| one.serial).collect();
    serials.extend(held.translations.iter().map(|one| one.serial));
    serials.sort_unstable();
    serials.dedup();
    serials
}

/// The grants that the policy's stamp rules and translations lie in.
fn holdings(
    state: &State,
    trust: &Trust,
    verified: &bundle::Verified,
) -> Result<Holdings, Failure> {
    // As the bundle will have it once it is in force, so that it can be applied again: the signers
    // that it names grant, and what it revokes is revoked.
    let authority =
        Root { domain: trust.root().domain.clone(), signers: verified.manifest().next.clone() };
    let kept = state.grants(&authority, verified.revocations(), times::now())?;
    let mut held = Vec::new();
    let mut refused = Vec::new();
    for grant in kept {
        match grant.verified {
            Ok(verified) => held.push(verified),
            Err(error) => refused.push(error.to_string()),
        }
    }
    let stamps = stamps::cover(verified.image(), &held).map_err(|uncovered| {
        let mut message = String::from("the policy stamps what this node was not granted");
        for one in &uncovered {
            message.push_str(&format!("\n  - {}", outside(one, verified.image())));
        }
        for why in &refused {
            message.push_str(&format!("\n  - a grant does not hold: {why}"));
        }
        let help = if authority.signers == *trust.signers() {
            "Ask for a grant and take it with `govc grant accept`, or change the stamp rules."
        } else {
            "The bundle names other signers, who have to have made the grants: take those with `govc grant \
             accept GRANT --for-bundle BUNDLE` first."
        };
        Failure::Refused { message, help: Some(help.into()) }
    })?;
    let translations = mapping::hold(state, trust, (&authority, &held, refused), verified.image())?;
    Ok(Holdings { stamps, translations, abroad: mapping::abroad_of(state, trust)? })
}

/// Why a stamp rule lies in no grant, with the place of the rule.
fn outside(one: &Uncovered, image: &Image) -> String {
    let names = image.names();
    let place = names.labels.get(one.number as usize).and_then(|label| {
        let file = names.files.get(label.file as usize)?;
        Some(format!("{}:{}: ", file.name, label.line))
    });
    let place = place.unwrap_or_default();
    if one.why.is_empty() {
        return format!("{place}stamp `{}`: no grant for domain {} is held", one.name, one.domain);
    }
    let reasons = one.why.iter().map(|(serial, Outside(excess))| {
        let named = grant::named(*excess, Some(image), one.domain);
        format!("{}{named}", excess.tell("by the rule", &format!("by grant {serial}")))
    });
    format!("{place}stamp `{}`: {}", one.name, reasons.collect::<Vec<_>>().join("; "))
}

/// Notes that the kernel has the bundle.
fn note(
    state: &State,
    trust: &Trust,
    verified: &bundle::Verified,
    bytes: &[u8],
) -> Result<(), Failure> {
    let noted = || -> Result<(), Failure> {
        let manifest = verified.manifest();
        let of = format_args!("of {}", manifest.domain);
        let note = state::note_of(manifest.generation, &of);
        let image = Digest::from_bytes(verified.image().digest());
        let digests = [("manifest", *verified.accepted().manifest()), ("image", image)];
        // First the log: what it tells and the trust state does not know can be applied again.
        state.record(Event::BundleAccepted, note, &digests, verified.signed_by())?;
        state.store().replace(trust, &trust.after(verified)?)?;
        state.keep_bundle(bytes)
    };
    noted().map_err(|error| Failure::Machine {
        message: format!("the policy is in force, but that cannot be noted: {error}"),
        help: Some("Mend that and apply the bundle again.".into()),
    })
}

fn publish(
    arguments: &Apply,
    image: &Image,
    authority: Option<&Authority>,
) -> Result<(Applied, Option<Pending>), Failure> {
    let place = place(&arguments.instance.place);
    if arguments.interfaces.is_empty() && !place.exists() {
        return Err(Failure::Usage {
            message: "no interface to enforce on".into(),
            help: "Name one: govc apply POLICY --iface eth0".into(),
        });
    }
    let trial = arguments
        .confirm
        .map(|timeout| Trial::begin(&arguments.instance.place, timeout))
        .transpose()?;
    let applied = publish::apply(&publish::Apply {
        place: &place,
        image,
        interfaces: &arguments.interfaces,
        hook: match arguments.hook {
            Hook::Auto => HookChoice::Auto,
            Hook::Xdp => HookChoice::Xdp,
            Hook::Tcx => HookChoice::Tcx,
        },
        keys: &ring::open(&arguments.ring),
        authority,
        set_mtu: !arguments.keep_mtu,
        dry_run: arguments.dry_run,
    });
    if let (Ok(_), Some(rate)) = (&applied, arguments.event_rate) {
        status::set_event_rate(&place, rate)?;
    }
    match (applied, trial) {
        (Ok(applied), Some(trial)) => Ok((applied, Some(trial.start()?))),
        (Ok(applied), None) => Ok((applied, None)),
        (Err(error), trial) => {
            trial.into_iter().for_each(Trial::call_off);
            Err(error.into())
        }
    }
}

fn tell_trial(pending: Pending, style: &Style) -> Result<(), Failure> {
    let left = duration(u64::try_from(pending.left_s).unwrap_or(0));
    let returns = trial::returns(pending.before);
    line(&format!("   {}: in {left} {returns}, unless you say `govc confirm`", style.bold("trial")))
}

fn image(arguments: &Apply, style: &Style) -> Result<Image, Failure> {
    match (arguments.image, arguments.sources.files.as_slice()) {
        (false, _) => {
            let json = arguments.instance.json && arguments.sources.format == Format::Graphical;
            let input =
                input::read(&arguments.sources, json, &Overlay::new(), Analysis::Assertions)?;
            input.finish(&arguments.sources, style)?;
            Ok(input.compiled.ok_or(Failure::Told)?.image)
        }
        (true, [path]) => super::inspect::read_image(path),
        (true, _) => Err(Failure::Usage {
            message: "--image takes one image".into(),
            help: "An image holds everything that it was built from.".into(),
        }),
    }
}

fn tell(applied: &Applied, dry_run: bool, style: &Style) -> Result<(), Failure> {
    let size =
        format!("{}, {} KiB", plural(applied.rules, "rule"), applied.image_len.div_ceil(1024));
    if dry_run {
        line(&format!("{} would apply: {size}", style.good("ok")))?;
    } else {
        line(&format!(
            "{} generation {} in force: {size}, swapped in {:.1} ms",
            style.good("ok"),
            applied.generation,
            applied.publish_us as f64 / 1000.0
        ))?;
    }
    for interface in &applied.interfaces {
        let zone = match &interface.zone {
            Some(zone) => format!("zone {zone}"),
            None => style.bad("in no zone of the policy: nothing leaves or arrives unless a rule asks for no zone"),
        };
        let hook = if interface.ingress.is_empty() {
            String::new()
        } else {
            format!(", {}", interface.ingress)
        };
        line(&format!(
            "   {}: {zone}{hook}, packets up to {} bytes",
            interface.name, interface.inner_mtu
        ))?;
    }
    for quarantine in &applied.quarantine {
        let interface = quarantine.interface.clone().unwrap_or_else(|| {
            style.bad("matches no interface: what belongs there is dropped").to_string()
        });
        line(&format!("   quarantine {}: {interface}", quarantine.zone))?;
    }
    Ok(())
}

pub fn rollback(arguments: &Rollback, style: &Style) -> Result<(), Failure> {
    let state = State::new(&arguments.state);
    if let Some(trust) = state.trust()? {
        let next = trust.last().map_or(1, |last| last.generation().saturating_add(1));
        return Err(Failure::Refused {
            message: format!(
                "`{}` holds a root of trust: an older policy comes back by a new bundle only",
                state.dir().display()
            ),
            help: Some(format!(
                "Bundle it again with `govc bundle --previous`, as generation {next} or later, get \
                 it signed and apply that."
            )),
        });
    }
    let place = place(&arguments.instance.place);
    unsigned::check(&state, &place, arguments.replace_signed)?.record(&state, "rollback")?;
    let generation = match confirm::pending(&place) {
        // What came with the trial, interfaces too, goes with it.
        Some(_) => confirm::restore(&place)?.before,
        None => publish::rollback(&place)?,
    };
    if arguments.instance.json {
        return json(&serde_json::json!({ "generation": generation }));
    }
    let ok = style.good("ok");
    match generation {
        0 => line(&format!("{ok} nothing is enforced any more, as before the trial")),
        number => line(&format!("{ok} generation {number} in force again")),
    }
}

pub fn detach(arguments: &Detach, style: &Style) -> Result<(), Failure> {
    let detached = status::detach(&place(&arguments.instance.place), &arguments.interfaces)?;
    if arguments.instance.json {
        return json(&serde_json::json!({ "detached": detached }));
    }
    line(&format!("{} no longer enforcing on {}", style.good("ok"), detached.join(", ")))
}
