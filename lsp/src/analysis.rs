//! What is probably not meant, found beside the conversation.

use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use govc_compiler::checked::Policy;
use govc_compiler::sources::Source;
use govc_compiler::{analysis, compile};
use govc_grammar::diagnostic::Diagnostic;

use crate::workspace::UnitKey;

/// Rules of a policy that is analysed; larger ones are left to `govc check`, as an editor's user
/// does not wait.
const RULES_MAX: usize = 2_000;

/// Analyses one policy at a time on a thread of its own.
pub(crate) struct Analyst {
    sender: Sender<Analysed>,
    pub(crate) results: Receiver<Analysed>,
    pub(crate) busy: bool,
}

/// A unit at the time when it was handed over.
pub(crate) struct Job {
    pub(crate) unit: UnitKey,
    pub(crate) generation: u64,
    pub(crate) policy: Policy,
    pub(crate) sources: Vec<Source>,
}

/// What the analysis found.
pub(crate) struct Analysed {
    pub(crate) unit: UnitKey,
    pub(crate) generation: u64,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Analyst {
    pub(crate) fn new() -> Self {
        let (sender, results) = unbounded();
        Self { sender, results, busy: false }
    }

    pub(crate) fn takes(policy: &Policy) -> bool {
        policy.rules().len() <= RULES_MAX
    }

    pub(crate) fn start(&mut self, job: Job) {
        let sender = self.sender.clone();
        self.busy = true;
        thread::spawn(move || {
            // Whatever happens, somebody waits for an answer.
            let unit = job.unit.clone();
            let generation = job.generation;
            let found = std::panic::catch_unwind(move || analyse(&job));
            let diagnostics = found.unwrap_or_default();
            let _ = sender.send(Analysed { unit, generation, diagnostics });
        });
    }
}

fn analyse(job: &Job) -> Vec<Diagnostic> {
    match compile(&job.policy, &job.sources, "policy") {
        Ok((table, image)) => analysis::findings(&job.policy, &table, &image, &|_| {}).diagnostics,
        Err(diagnostic) => vec![*diagnostic],
    }
}
