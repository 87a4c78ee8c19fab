//! `run`: a command under a label, without changing it.

use std::os::unix::process::ExitStatusExt as _;

use govc_loader::run::Run as Cgroup;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::apply::place;
use crate::{arguments::Run, failure::Failure};

/// What shells say of commands that they cannot start.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Runs the command to its end.
pub fn run(arguments: &Run) -> Result<(), Failure> {
    let [program, rest @ ..] = arguments.command.as_slice() else { return Ok(()) };
    if arguments.subject.contains('/') || arguments.subject.split('.').any(str::is_empty) {
        return Err(Failure::Usage {
            message: format!("`{}` is no subject", arguments.subject),
            help: "Subjects are scopes with their domain, such as acme.payments.api.".into(),
        });
    }
    let place = place(&arguments.place);
    let cgroup = Cgroup::new(&place, &arguments.subject, arguments.operation.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| machine("cannot wait for a process", &error))?;
    let status = runtime.block_on(async {
        let child = cgroup.start(|| Command::new(program).args(rest).spawn())?;
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                let name = program.to_string_lossy();
                eprintln!("govc run: cannot run `{name}`: {error}");
                let missing = error.kind() == std::io::ErrorKind::NotFound;
                return Err(Failure::Ended(if missing { NOT_FOUND } else { NOT_RUN }));
            }
        };
        wait(child).await.map_err(|error| machine("cannot wait for the command", &error))
    })?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Ended(code as u8)),
        (None, signal) => Err(Failure::Ended(128 + signal.unwrap_or(0) as u8)),
    }
}

fn machine(what: &str, error: &std::io::Error) -> Failure {
    Failure::Machine { message: format!("{what}: {error}"), help: None }
}

/// Waits for the command, to which signals for this process are meant.
async fn wait(mut child: Child) -> std::io::Result<std::process::ExitStatus> {
    // A terminal sends these two to the command as well.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    loop {
        let passed_on = tokio::select! {
            status = child.wait() => return status,
            _ = interrupt.recv() => continue,
            _ = quit.recv() => continue,
            _ = terminate.recv() => Signal::TERM,
            _ = hang_up.recv() => Signal::HUP,
        };
        if let Some(process) = process {
            // It may have ended by itself meanwhile.
            let _ = kill_process(process, passed_on);
        }
    }
}
