//! `trust`: whom a node believes.

use std::path::{Path, PathBuf};

use govc_authority::{
    Domain,
    audit::{self, Event},
    digest::Digest,
    signers::SignerSet,
    trust::{Root, Trust},
};
use serde::Serialize;

use super::{columns, plural};
use crate::{
    arguments::{self, Authority},
    failure::Failure,
    input,
    output::{Style, json, line},
    secrets,
    state::{self, Followed, State},
    times,
};

/// A set of signers for programs.
#[derive(Serialize)]
struct SignersReport {
    threshold: usize,
    keys: Vec<KeyReport>,
}

#[derive(Serialize)]
struct KeyReport {
    id: String,
    public: String,
}

#[derive(Serialize)]
struct RootReport {
    domain: Domain,
    sha256: String,
    signers: SignersReport,
}

#[derive(Serialize)]
struct StateReport {
    root: RootReport,
    /// The bundle that was accepted last.
    generation: Option<u64>,
    manifest: Option<String>,
    /// Who signs the next one, and grants.
    next: SignersReport,
    node: Option<String>,
    grants: Vec<GrantReport>,
}

#[derive(Serialize)]
struct GrantReport {
    file: String,
    serial: Option<u16>,
    until: Option<u64>,
    /// Why it does not hold.
    refused: Option<String>,
}

pub fn run(command: &arguments::Trust, style: &Style) -> Result<(), Failure> {
    use arguments::Trust;
    match command {
        Trust::New { domain, number, signers, threshold, output, json } => {
            let domain = Domain { name: domain.clone(), number: *number };
            new(domain, signers, *threshold, (output, *json), style)
        }
        Trust::Init { root, node, state, json } => {
            init(&state::read_root(root)?, node.as_deref(), &State::new(state), (*json, style))
        }
        Trust::Follow { bundles, state, json } => {
            follow(bundles, &State::new(state), (*json, style))
        }
        Trust::Show { authority, json } => show(authority, *json, style),
    }
}

/// A set of the keys in these files.
pub fn signers(files: &[PathBuf], threshold: usize) -> Result<SignerSet, Failure> {
    let keys = files.iter().map(|path| secrets::public_key(path));
    let set = SignerSet::new(keys.collect::<Result<Vec<_>, _>>()?, threshold);
    set.map_err(|error| match Failure::refused(&error) {
        Failure::Refused { message, help } => {
            Failure::Usage { message, help: help.unwrap_or_default() }
        }
        other => other,
    })
}

/// The root that the command line names, or the present authority of this node.
pub fn authority(arguments: &Authority) -> Result<Root, Failure> {
    match &arguments.root {
        Some(path) => state::read_root(path),
        None => Ok(State::new(&arguments.state).expect_trust()?.authority()),
    }
}

/// What is trusted: a root alone, or this node's state.
pub fn trust(arguments: &Authority) -> Result<Trust, Failure> {
    match &arguments.root {
        Some(path) => Ok(Trust::new(state::read_root(path)?)),
        None => State::new(&arguments.state).expect_trust(),
    }
}

fn new(
    domain: Domain,
    files: &[PathBuf],
    threshold: usize,
    (output, as_json): (&Path, bool),
    style: &Style,
) -> Result<(), Failure> {
    let root = Root { domain, signers: signers(files, threshold)? };
    if output.exists() {
        return Err(Failure::Usage {
            message: format!("there is a `{}` already", output.display()),
            help: "Choose another name.".into(),
        });
    }
    input::write_whole(output, &root.to_bytes()?)?;
    if !as_json {
        line(&format!("{} {}", style.good("made"), output.display()))?;
    }
    tell_root(&root, as_json, style)
}

fn init(
    root: &Root,
    node: Option<&Path>,
    state: &State,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let node = node.map(secrets::public_key).transpose()?;
    let _lock = state.lock()?;
    // The same root once more may add the node's key, and changes nothing else.
    let held = state.trust()?;
    if held.as_ref().is_none_or(|trust| trust.root() != root) {
        audit::check_end(&state.log(), None)?;
        state.store().create(root.clone())?;
        let digest = Digest::of(&root.to_bytes()?);
        let keys: Vec<_> = root.signers.keys().map(|key| key.id()).collect();
        state.record(Event::RootSet, root.domain.to_string(), &[("root", digest)], &keys)?;
    }
    if let Some(key) = node {
        match state.node()? {
            Some(held) if held != key => {
                return Err(Failure::Usage {
                    message: format!("this node has key {} already", held.id()),
                    help: format!(
                        "Remove `{}` to give it another one; grants to the old one are void then.",
                        state.dir().join("node.pub").display()
                    ),
                });
            }
            Some(_) => {}
            None => state.set_node(&key)?,
        }
    }
    if !as_json {
        let dir = state.dir().display();
        line(&format!("{} {dir} takes bundles of this root only", style.good("ok")))?;
    }
    tell_root(root, as_json, style)
}

fn follow(
    bundles: &[PathBuf],
    state: &State,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let _lock = state.lock()?;
    let old = state.expect_trust()?;
    let mut new = old.clone();
    let mut notes = Vec::new();
    let mut followed = None;
    for path in bundles {
        let (bundle, _) = state::read_bundle(path)?;
        new = super::bundle::follow(&new, path, &bundle, times::now())?;
        let manifest = bundle.unverified_manifest()?;
        let revoked = bundle.revocations_of_manifest();
        let revoked = revoked.map_err(|error| Failure::refused_in(path, &error))?;
        notes.push((manifest.generation, manifest.digest()?));
        followed = Some(Followed { manifest: manifest.digest()?, revoked });
    }
    if let Some((generation, digest)) = notes.last() {
        state.check_not_older(&old, (*generation, digest))?;
    }
    state.check_log()?;
    for (generation, digest) in &notes {
        let note = state::note_of(*generation, &"followed, not enforced");
        state.record(Event::BundleAccepted, note, &[("manifest", *digest)], &[])?;
    }
    // Before the trust state goes on: without these nobody would know which grants hold.
    if let Some(followed) = &followed {
        state.keep_followed(followed)?;
    }
    state.store().replace(&old, &new)?;
    let generation = new.last().map(|last| last.generation());
    if as_json {
        return json(&serde_json::json!({ "generation": generation }));
    }
    line(&format!("{} followed to generation {}", style.good("ok"), generation.unwrap_or_default()))
}

fn show(arguments: &Authority, as_json: bool, style: &Style) -> Result<(), Failure> {
    if let Some(path) = &arguments.root {
        return tell_root(&state::read_root(path)?, as_json, style);
    }
    let state = State::new(&arguments.state);
    let trust = state.expect_trust()?;
    let report = report(&state, &trust)?;
    if as_json {
        return json(&report);
    }
    tell_root(trust.root(), false, style)?;
    match (report.generation, &report.manifest) {
        (Some(generation), Some(manifest)) => {
            line(&format!(
                "{} generation {generation}, manifest {manifest}",
                style.bold("last  ")
            ))?;
        }
        _ => line(&format!("{} no bundle was accepted yet", style.bold("last  ")))?,
    }
    if trust.signers() != &trust.root().signers {
        line(&format!("{} {}", style.bold("next  "), tell_signers(trust.signers())))?;
        tell_keys(trust.signers())?;
    }
    let node = report.node.as_deref().unwrap_or("none: it can hold no grants");
    line(&format!("{} {node}", style.bold("node  ")))?;
    let rows = report.grants.iter().map(|grant| {
        let holds = match (&grant.refused, grant.until) {
            (Some(why), _) => style.bad(why),
            (None, until) => format!("until {}", times::tell(until.unwrap_or_default())),
        };
        vec!["grant".into(), grant.file.clone(), holds]
    });
    columns(&rows.collect::<Vec<_>>())
}

fn report(state: &State, trust: &Trust) -> Result<StateReport, Failure> {
    let revoked = state.last_revocations(trust)?;
    let kept = state.grants(&trust.authority(), &revoked, times::now())?;
    let grants = kept.into_iter().map(|kept| GrantReport {
        file: kept.path.display().to_string(),
        serial: kept.verified.as_ref().ok().map(|grant| grant.serial()),
        until: kept.verified.as_ref().ok().map(|grant| grant.rights().not_after),
        refused: kept.verified.err().map(|error| error.to_string()),
    });
    Ok(StateReport {
        root: root_report(trust.root())?,
        generation: trust.last().map(|last| last.generation()),
        manifest: trust.last().map(|last| last.manifest().to_string()),
        next: signers_report(trust.signers()),
        node: state.node()?.map(|key| key.id().to_string()),
        grants: grants.collect(),
    })
}

fn root_report(root: &Root) -> Result<RootReport, Failure> {
    Ok(RootReport {
        domain: root.domain.clone(),
        sha256: Digest::of(&root.to_bytes()?).to_string(),
        signers: signers_report(&root.signers),
    })
}

fn signers_report(set: &SignerSet) -> SignersReport {
    let key = |key: &govc_authority::key::PublicKey| KeyReport {
        id: key.id().to_string(),
        public: key.to_string(),
    };
    SignersReport { threshold: set.threshold(), keys: set.keys().map(key).collect() }
}

fn tell_root(root: &Root, as_json: bool, style: &Style) -> Result<(), Failure> {
    let report = root_report(root)?;
    if as_json {
        return json(&report);
    }
    line(&format!("{} {}", style.bold("domain"), root.domain))?;
    line(&format!("{} sha256 {}", style.bold("root  "), report.sha256))?;
    line(&format!("{} {}", style.bold("signs "), tell_signers(&root.signers)))?;
    tell_keys(&root.signers)
}

/// `2 of 3 keys`.
pub fn tell_signers(set: &SignerSet) -> String {
    format!("{} of {}", set.threshold(), plural(set.keys().len(), "key"))
}

fn tell_keys(set: &SignerSet) -> Result<(), Failure> {
    set.keys().try_for_each(|key| line(&format!("       {}", key.id())))
}
