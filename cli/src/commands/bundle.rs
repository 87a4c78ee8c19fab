//! `bundle`, `sign`, `verify`: from a policy to a file that nodes take.

use std::{collections::BTreeMap, path::Path};

use govc_authority::{
    audit::Event,
    bundle::{self, Bundle, Contents, Manifest, Terms, Vocabulary},
    digest::Digest,
    key::KeyId,
    revocations::Revocations,
    signers::SignerSet,
    trust::Trust,
};
use govc_image::Image;
use serde::Serialize;

use super::{
    grant, mapping, plural,
    signature::{self, Entry, Signing},
    trust::{self, tell_signers},
};
use crate::{
    arguments,
    failure::Failure,
    input::{self, Analysis, Overlay},
    output::{Style, json, line},
    secrets,
    state::{self, State},
    times,
};

/// A bundle for programs.
#[derive(Serialize)]
struct Report {
    bundle: String,
    domain: String,
    number: u16,
    generation: u64,
    manifest: Digest,
    previous: Option<Digest>,
    not_before: u64,
    not_after: u64,
    policy: String,
    image: String,
    rules: usize,
    /// Digests of the lock files that its numbers come from, by package.
    locks: BTreeMap<String, Digest>,
    /// Serials of grants that no longer hold, as intervals.
    revoked: Vec<(u32, u32)>,
    /// Who signs the next one.
    next: Vec<KeyId>,
    next_threshold: usize,
    /// Who is said to have signed; after `verify`, those among the trusted keys who did.
    signatures: Vec<KeyId>,
}

/// What a bundle says besides its policy.
struct Start {
    domain: govc_authority::Domain,
    generation: u64,
    previous: Option<Digest>,
    next: SignerSet,
    revoked: Revocations,
}

pub fn make(arguments: &arguments::Bundle, style: &Style) -> Result<(), Failure> {
    check_output(&arguments.output)?;
    let start = start(arguments)?;
    let (image, vocabulary) = policy(arguments, style)?;
    let not_before = arguments.from.as_deref().map_or_else(|| Ok(times::now()), times::moment)?;
    let not_after = times::moment_or_duration(&arguments.until, not_before)?;
    let next = match arguments.next_threshold {
        Some(threshold) => trust::signers(&arguments.next_signer, threshold)?,
        None => start.next,
    };
    let revoked = match &arguments.revocations {
        Some(path) => start.revoked.union(&grant::read_revocations(path)?)?,
        None => start.revoked,
    };
    let contents = Contents { image: &image, vocabulary: &vocabulary, revocations: &revoked };
    let terms = Terms {
        domain: start.domain,
        generation: generation(arguments.generation, start.generation)?,
        previous: start.previous,
        not_before,
        not_after,
        next,
    };
    let bundle = Bundle::draft(&contents, terms)?;
    input::write_whole(&arguments.output, &bundle.to_bytes()?)?;
    if !arguments.shorthand.json && !arguments.sources.format.is_chatty() {
        return Ok(());
    }
    let report = report(&arguments.output, &bundle)?;
    if arguments.shorthand.json {
        return json(&report);
    }
    line(&format!("{} {}", style.good("made"), arguments.output.display()))?;
    tell(&report, &bundle.unverified_manifest()?, style)
}

/// What is no bundle is not written over: it may be the key that was to be named elsewhere.
fn check_output(path: &Path) -> Result<(), Failure> {
    if !path.exists() || state::is_bundle(path)? {
        return Ok(());
    }
    Err(Failure::Usage {
        message: format!("there is a `{}` already, and it is no bundle", path.display()),
        help: "Choose another name.".into(),
    })
}

/// The generation that was asked for, or the next one.
fn generation(asked: Option<u64>, next: u64) -> Result<u64, Failure> {
    match asked {
        Some(asked) if asked < next => Err(Failure::Usage {
            message: format!("generation {asked} is not behind that of the previous bundle"),
            help: format!("Leave --generation out for {next}, or name a later one."),
        }),
        Some(asked) => {
            if asked > next {
                tracing::warn!("generations {next} to {} are left out for good", asked - 1);
            }
            Ok(asked)
        }
        None => Ok(next),
    }
}

fn start(arguments: &arguments::Bundle) -> Result<Start, Failure> {
    if let Some(path) = &arguments.previous {
        let (before, _) = state::read_bundle(path)?;
        let manifest = before.unverified_manifest()?;
        return Ok(Start {
            generation: manifest.generation.saturating_add(1),
            previous: Some(manifest.digest()?),
            revoked: before.unverified_revocations()?,
            domain: manifest.domain,
            next: manifest.next,
        });
    }
    let Some(path) = &arguments.root else {
        return Err(Failure::Usage {
            message: "neither a root nor a previous bundle".into(),
            help: "Name the root for the first bundle, and the one before for every other.".into(),
        });
    };
    let root = state::read_root(path)?;
    Ok(Start {
        domain: root.domain,
        generation: 1,
        previous: None,
        next: root.signers,
        revoked: Revocations::default(),
    })
}

fn policy(arguments: &arguments::Bundle, style: &Style) -> Result<(Image, Vocabulary), Failure> {
    match (arguments.image, arguments.sources.files.as_slice()) {
        (true, [path]) => Ok((super::inspect::read_image(path)?, Vocabulary::default())),
        (true, _) => Err(Failure::Usage {
            message: "--image takes one image".into(),
            help: "An image holds everything that it was built from.".into(),
        }),
        (false, _) => {
            let (sources, json) = (&arguments.sources, arguments.shorthand.json);
            let input = input::read(sources, json, &Overlay::new(), Analysis::Assertions)?;
            input.finish(sources, style)?;
            let vocabulary = input.vocabulary();
            Ok((input.compiled.ok_or(Failure::Told)?.image, vocabulary))
        }
    }
}

pub fn sign(arguments: &arguments::Sign, style: &Style) -> Result<(), Failure> {
    let path = &arguments.file;
    let bundle = state::is_bundle(path)?;
    // What cannot be signed is told before anybody is asked for a passphrase.
    let mapping = !bundle && state::read_mapping(path).is_ok();
    if bundle {
        drop(state::read_bundle(path)?)
    } else if !mapping {
        drop(state::read_grant(path)?)
    }
    let roots = arguments.roots.iter().map(|path| Ok(state::read_root(path)?.signers));
    let roots: Vec<SignerSet> = roots.collect::<Result<_, Failure>>()?;
    let state = State::new(&arguments.state);
    state.check_log()?;
    let key = &secrets::signing_key(&arguments.signing)?;
    let signing = Signing { path, key, roots: &roots, state: &state, as_json: arguments.json };
    if bundle {
        sign_bundle(&signing, style)
    } else if mapping {
        mapping::sign(&signing, style)
    } else {
        grant::sign(&signing, style)
    }
}

fn sign_bundle(signing: &Signing<'_>, style: &Style) -> Result<(), Failure> {
    let path = signing.path;
    let (mut bundle, _) = state::read_bundle(path)?;
    let dropped = signing.drops().map(|sets| bundle.drop_unknown(sets));
    let signed = bundle.sign(signing.key).map_err(|error| Failure::refused_in(path, &error))?;
    let report = report(path, &bundle)?;
    let manifest = bundle.unverified_manifest()?;
    let note = format!("bundle {} of {}", report.generation, manifest.domain);
    let entry = Entry { event: Event::BundleSigned, note, digest: ("manifest", report.manifest) };
    signature::keep(signing, &bundle.to_bytes()?, (signed, dropped), (entry, style))?;
    if signing.as_json {
        return json(&report);
    }
    tell(&report, &manifest, style)
}

pub fn verify(arguments: &arguments::Verify, style: &Style) -> Result<(), Failure> {
    let mut trust = trust::trust(&arguments.authority)?;
    let now = arguments.at.as_deref().map_or_else(|| Ok(times::now()), times::moment)?;
    let Some((path, before)) = arguments.files.split_last() else { return Ok(()) };
    for path in before {
        let (bundle, _) = state::read_bundle(path)?;
        trust = follow(&trust, path, &bundle, now)?;
    }
    let (bundle, _) = state::read_bundle(path)?;
    let verified = verified(path, &bundle, &trust, now)?;
    let report = Report { signatures: verified.signed_by().to_vec(), ..report(path, &bundle)? };
    if arguments.json {
        return json(&report);
    }
    line(&signed(&verified, &trust, style))?;
    verified.signed_by().iter().try_for_each(|key| line(&format!("   signed by key {key}")))?;
    tell(&report, verified.manifest(), style)
}

/// The trust after a bundle that comes before the one to be enforced.
pub fn follow(trust: &Trust, path: &Path, bundle: &Bundle, now: u64) -> Result<Trust, Failure> {
    use govc_authority::trust::TrustError;
    trust.follow(bundle.envelope(), now).map_err(|error| match &error {
        TrustError::NotYet { not_before, .. } => not_yet(path, *not_before, &error),
        _ => Failure::refused_in(path, &error),
    })
}

/// People read dates rather than seconds.
fn not_yet(path: &Path, not_before: u64, error: &dyn std::fmt::Display) -> Failure {
    let from = times::tell(not_before);
    Failure::Refused {
        message: format!("`{}`: the bundle is good from {from} only", path.display()),
        help: Failure::refused(error).help(),
    }
}

/// The bundle, if it may be enforced.
pub fn verified(
    path: &Path,
    bundle: &Bundle,
    trust: &Trust,
    now: u64,
) -> Result<bundle::Verified, Failure> {
    use govc_authority::bundle::VerifyError;
    bundle::verify(bundle, trust, now).map_err(|error| match Failure::refused_in(path, &error) {
        Failure::Refused { help, .. } => Failure::Refused {
            // People read dates rather than seconds.
            message: format!(
                "`{}`: {}",
                path.display(),
                match &error {
                    VerifyError::NotYet { not_before, .. } => {
                        format!("the bundle is good from {} only", times::tell(*not_before))
                    }
                    VerifyError::Expired { not_after, .. } => {
                        format!("the bundle was good until {}", times::tell(*not_after))
                    }
                    other => without_advice(other),
                }
            ),
            help,
        },
        other => other,
    })
}

fn without_advice(error: &dyn std::fmt::Display) -> String {
    match Failure::refused(error) {
        Failure::Refused { message, .. } => message,
        other => other.to_string(),
    }
}

/// `ok bundle 2 of acme (7), signed by 2 of 3 keys`.
pub fn signed(verified: &bundle::Verified, trust: &Trust, style: &Style) -> String {
    let manifest = verified.manifest();
    // A bundle that is taken again was signed by the set before the one that signs next.
    let again = trust.last().is_some_and(|last| last.manifest() == verified.accepted().manifest());
    let of = if again { String::new() } else { format!(" of {}", trust.signers().keys().len()) };
    format!(
        "{} bundle {} of {}, signed by {}{of} keys",
        style.good("ok"),
        manifest.generation,
        manifest.domain,
        verified.signed_by().len()
    )
}

fn report(path: &Path, bundle: &Bundle) -> Result<Report, Failure> {
    let manifest = bundle.unverified_manifest()?;
    let image = bundle.unverified_image()?;
    Ok(Report {
        bundle: path.display().to_string(),
        domain: manifest.domain.name.clone(),
        number: manifest.domain.number,
        generation: manifest.generation,
        manifest: manifest.digest()?,
        previous: manifest.previous,
        not_before: manifest.not_before,
        not_after: manifest.not_after,
        policy: image.names().policy_name.clone(),
        image: govc_loader::publish::hex(&image.digest()),
        rules: image.rule_count(),
        locks: bundle.unverified_vocabulary()?.locks,
        revoked: bundle.unverified_revocations()?.serials().iter().collect(),
        next: manifest.next.keys().map(|key| key.id()).collect(),
        next_threshold: manifest.next.threshold(),
        signatures: bundle.key_ids().collect(),
    })
}

/// What whoever signs or applies it has to know.
fn tell(report: &Report, manifest: &Manifest, style: &Style) -> Result<(), Failure> {
    let generation = format!("{} of {}", report.generation, manifest.domain);
    let (from, until) = (times::tell(report.not_before), times::tell(report.not_after));
    let policy = report.policy.escape_debug();
    let policy = format!("{policy}, {}, sha256 {}", plural(report.rules, "rule"), report.image);
    let upon = report.previous.map_or_else(|| "nothing".into(), |digest| digest.to_string());
    let rows = [
        ("bundle", generation),
        ("policy", policy),
        ("upon", upon),
        ("digest", report.manifest.to_string()),
        ("good", format!("{from} to {until}")),
        ("next", format!("{} sign", tell_signers(&manifest.next))),
    ];
    let rows = rows.into_iter();
    let locks = report.locks.iter();
    let rows = rows.chain(locks.map(|(package, digest)| {
        ("numbers", format!("{}, lock file sha256 {digest}", package.escape_debug()))
    }));
    let rows = rows.chain((!report.revoked.is_empty()).then(|| {
        let spans = report.revoked.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        ("revoked", spans.collect::<Vec<_>>().join(", "))
    }));
    for (what, value) in rows {
        line(&format!("   {} {value}", style.bold(format!("{what:<7}"))))?;
    }
    Ok(())
}
