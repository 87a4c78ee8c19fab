//! `audit`: what was done with keys, bundles and grants.

use std::path::Path;

use govc_authority::{
    audit::{self, Entry, Head, LINE_LEN_MAX},
    form,
};

use crate::{
    arguments::Audit,
    failure::Failure,
    input,
    output::{Style, json, line},
    state::State,
    times,
};

pub fn run(command: &Audit, style: &Style) -> Result<(), Failure> {
    match command {
        Audit::Show { state, last, json } => show(&State::new(state).log(), *last, *json, style),
        Audit::Verify { state, known, json } => {
            let known = known.as_deref().map(parse_head).transpose()?;
            let head = verify(&State::new(state), known.as_ref())?;
            tell_head(&head, *json, style)
        }
        Audit::Mend { state, json: as_json } => {
            let mended = mend(&State::new(state))?;
            if *as_json {
                return json(&serde_json::json!({ "mended": mended }));
            }
            let text = if mended { "what was amiss stands in the log" } else { "nothing to mend" };
            line(&format!("{} {text}", style.good("ok")))
        }
    }
}

/// Where the log ends, if it is whole, goes on from what anybody knew of it, and tells of what is trusted.
fn verify(state: &State, known: Option<&Head>) -> Result<Head, Failure> {
    let path = state.log();
    let Some(held) = state.store().read()? else { return Ok(audit::verify(&path, known)?) };
    if path.exists() {
        if let Some(known) = known {
            audit::verify(&path, Some(known))?;
        }
        let head = audit::verify(&path, held.log.as_ref())?;
        return state.check_log_tells(&held.trust).map(|()| head);
    }
    // A log that is not there is an empty one.
    state.check_log()?;
    state.check_log_tells(&held.trust).map(|()| Head::default())
}

/// Makes the log fit to be gone on with; whether anything was amiss.
fn mend(state: &State) -> Result<bool, Failure> {
    let store = state.store();
    let known = store.read()?.and_then(|held| held.log);
    let mended = audit::mend(&state.log(), times::now(), known.as_ref())?;
    if let Some(head) = &mended {
        store.note_log(head, true)?;
    }
    state.check_log()?;
    Ok(mended.is_some())
}

fn show(path: &Path, last: Option<usize>, as_json: bool, style: &Style) -> Result<(), Failure> {
    let text = input::read_text(path)?;
    let count = text.lines().count();
    let skipped = last.map_or(0, |last| count.saturating_sub(last));
    for (number, written) in text.lines().enumerate().skip(skipped) {
        // The log is shown as far as it can be read; whether it is whole, `audit verify` tells.
        let entry: Entry = form::read(written.as_bytes(), LINE_LEN_MAX).map_err(|error| {
            Failure::refused(&format!("`{}`, line {}: {error}", path.display(), number + 1))
        })?;
        if as_json {
            line(written)?;
        } else {
            tell(&entry, style)?;
        }
    }
    Ok(())
}

fn tell(entry: &Entry, style: &Style) -> Result<(), Failure> {
    let record = &entry.record;
    let event = serde_json::to_value(record.event).unwrap_or_default();
    let event = event.as_str().unwrap_or_default().replace('_', " ");
    let time = times::tell(record.time);
    // Notes may quote files that nobody verified, and go to terminals.
    let note = record.note.escape_debug();
    line(&format!("{:>5}  {time}  {}  {note}", entry.index, style.bold(event)))?;
    for (what, digest) in &record.digests {
        line(&style.dim(format!("       {} {digest}", what.escape_debug())))?;
    }
    record.keys.iter().try_for_each(|key| line(&style.dim(format!("       key {key}"))))
}

fn tell_head(head: &Head, as_json: bool, style: &Style) -> Result<(), Failure> {
    let Some(last) = head.last else {
        return if as_json { json(head) } else { line("the log is empty") };
    };
    if as_json {
        return json(head);
    }
    line(&format!("{} the log is whole", style.good("ok")))?;
    line(&format!("   {}:{last}", head.count))
}

/// `COUNT:DIGEST`.
fn parse_head(text: &str) -> Result<Head, Failure> {
    let parsed = text.split_once(':').and_then(|(count, digest)| {
        Some(Head { count: count.parse().ok()?, last: Some(digest.parse().ok()?) })
    });
    parsed.ok_or_else(|| Failure::Usage {
        message: format!("`{text}` is no head of a log"),
        help: "It is what `govc audit verify` prints: the number of lines, a colon, a digest."
            .into(),
    })
}
