//! Trials: policies that go back by themselves unless `confirm` keeps them.
//!
//! A process of its own, the guard, waits for the end of a trial. It belongs to no terminal and
//! to no shell, so that whoever applied may be cut off by what they applied.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use govc_loader::{
    confirm::{self, Outcome, Pending},
    instance::Place,
};

use super::{apply::place, observe::stop_on_signals};
use crate::{
    arguments::{InstanceArguments, PlaceArguments},
    failure::Failure,
    output::{Style, json, line},
};

/// What the guard says when it can be relied on.
const READY: &str = "ready";
/// What the guard is told when the policy is in force. One that hears nothing any more knows that
/// who applied was killed on the way.
const STARTED: &str = "started";

/// A trial whose policy is not in force yet.
pub struct Trial {
    place: Place,
    timeout: Duration,
    before: u64,
    guard: ChildStdin,
}

impl Trial {
    /// Notes what is in force now, and starts the guard that brings it back.
    pub fn begin(arguments: &PlaceArguments, timeout: Duration) -> Result<Self, Failure> {
        let place = place(arguments);
        let Pending { before, .. } = confirm::arm(&place, timeout)?;
        match start_guard(arguments) {
            Ok(guard) => Ok(Self { place, timeout, before, guard }),
            Err(failure) => {
                confirm::disarm(&place)?;
                Err(failure)
            }
        }
    }

    /// Begins to count the time. A guard that is gone would never end the trial: then it ends now.
    pub fn start(mut self) -> Result<Pending, Failure> {
        let pending = confirm::start(&self.place, self.timeout);
        let told = writeln!(self.guard, "{STARTED}");
        match (pending, told) {
            (Ok(pending), Ok(())) => Ok(pending),
            _ => {
                confirm::undo(&self.place, self.before)?;
                confirm::disarm(&self.place)?;
                Err(Failure::Machine {
                    message: "the process that ends the trial was ended itself, so the old policy is back"
                        .into(),
                    help: Some("Apply again.".into()),
                })
            }
        }
    }

    /// The policy is not applied after all.
    pub fn call_off(self) {
        if let Err(error) = confirm::disarm(&self.place) {
            tracing::warn!(%error, "cannot call the trial off");
        }
    }
}

fn start_guard(arguments: &PlaceArguments) -> Result<ChildStdin, Failure> {
    let no = |error: std::io::Error| Failure::Machine {
        message: format!("cannot start the process that ends the trial: {error}"),
        help: Some("Without it nothing would go back by itself, so nothing was applied.".into()),
    };
    let bpffs = std::path::absolute(&arguments.bpffs).map_err(no)?;
    let mut guard = Command::new(std::env::current_exe().map_err(no)?)
        .args(["end-trial", "--instance", &arguments.instance, "--bpffs"])
        .arg(bpffs)
        // No directory is kept from being unmounted.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(no)?;
    let mut word = String::new();
    if let Some(output) = guard.stdout.take() {
        BufReader::new(output).read_line(&mut word).map_err(no)?;
    }
    match guard.stdin.take() {
        Some(input) if word.trim_end() == READY => Ok(input),
        _ => Err(no(std::io::ErrorKind::BrokenPipe.into())),
    }
}

/// The guard: waits until the trial is confirmed or its time is over. One that is told to end
/// does not wait longer: nobody else would.
pub fn end(arguments: &PlaceArguments) -> Result<(), Failure> {
    // Fails for the leader of a group, which a process that was just started is not.
    let _ = rustix::process::setsid();
    // Where memory runs out, others are ended first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let hurry = stop_on_signals()?;
    line(READY)?;
    let place = place(arguments);
    let before = confirm::pending(&place).map_or(0, |pending| pending.before);
    wait_for_start(&hurry);
    if confirm::watch(&place, &hurry) == Outcome::Restored {
        tell_kernel_log(&place, before);
    }
    Ok(())
}

/// Waits until the policy is in force; who applied may be killed before, or this process be told
/// to end.
fn wait_for_start(hurry: &Arc<AtomicBool>) {
    let (told, started) = (hurry.clone(), Arc::new(AtomicBool::new(false)));
    let heard = started.clone();
    std::thread::spawn(move || {
        let mut word = String::new();
        let read = std::io::stdin().read_line(&mut word);
        if read.is_err() || word.trim_end() != STARTED {
            told.store(true, Ordering::SeqCst);
        }
        heard.store(true, Ordering::SeqCst);
    });
    while !started.load(Ordering::SeqCst) && !hurry.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody looks at the guard's output. Where there is no log, `status` tells.
fn tell_kernel_log(place: &Place, before: u64) {
    let log = std::fs::OpenOptions::new().write(true).open("/dev/kmsg");
    if let Ok(mut log) = log {
        let (name, back) = (place.name(), returns(before));
        // Each write is an entry.
        let text = format!("<4>govc: instance {name}: nobody confirmed, {back}\n");
        let _ = log.write_all(text.as_bytes());
    }
}

/// What a trial goes back to.
pub fn returns(before: u64) -> String {
    match before {
        0 => "nothing is enforced any more".to_owned(),
        number => format!("generation {number} returns"),
    }
}

pub fn confirm(arguments: &InstanceArguments, style: &Style) -> Result<(), Failure> {
    let place = place(&arguments.place);
    confirm::confirm(&place)?;
    if arguments.json {
        return json(&serde_json::json!({ "confirmed": true }));
    }
    line(&format!("{} what was applied stays in force", style.good("ok")))
}
