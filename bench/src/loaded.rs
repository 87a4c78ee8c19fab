//! What the verifier and the compiler of the kernel make of the enforcement point's programs.

use std::time::{Duration, Instant};

use aya::programs::{ProgramError, ProgramInfo};
use govc_abi::names::program;
use govc_loader::object::{self, Programs, Sizes};

use crate::{
    cells::{grouped, milliseconds, strings},
    error::{BenchError, bpf},
    instance::Instance,
    interrupt, policy,
    progress::Progress,
    report::Section,
};

/// How often each program is loaded.
const LOADS: usize = 3;
/// Instructions that the verifier follows before it refuses a program.
const VERIFIED_MAX: f64 = 1_000_000.0;

/// Programs in the order of the table.
const PROGRAMS: [(&str, &str); 4] = [
    (program::TC_INGRESS, "arriving, tcx"),
    (program::TC_EGRESS, "leaving, tcx"),
    (program::XDP_INGRESS, "arriving, XDP"),
    (program::DECLARE, "declaring, setsockopt"),
];

/// Loads them over the maps of a small instance and asks the kernel.
pub fn measure(progress: &Progress) -> Result<Section, BenchError> {
    let image = policy::image(policy::generate(10).text)?;
    let instance = Instance::new(&image)?;
    let (place, set) = (instance.place(), instance.place().set()?);
    let (words, rules) = (image.words().len() as u32, image.rule_count() as u32);
    let sizes = Sizes::for_image(words, rules, object::possible_cpus()?);
    progress.say(|| "loading the object".to_owned());
    let mut programs = object::load(sizes, &|name| set.pin_of(place, name))?;
    let mut rows = Vec::new();
    for (name, what) in PROGRAMS {
        progress.say(|| format!("loading `{name}`"));
        rows.push(row(&mut programs, name, what)?);
    }
    Ok(section(rows))
}

fn row(programs: &mut Programs, name: &str, what: &str) -> Result<Vec<String>, BenchError> {
    let mut times = Vec::new();
    let mut info = None;
    for _ in 0..LOADS {
        interrupt::check()?;
        let (took, told) = reload(programs, name)?;
        times.push(took);
        info = Some(told);
    }
    times.sort_unstable();
    let took = times.get(LOADS / 2).copied().unwrap_or_default();
    let info = info.ok_or(BenchError::Interrupted)?;
    let verified = info.verified_instruction_count().unwrap_or_default();
    let bytes = |len: Option<u32>| len.map_or_else(String::new, grouped);
    Ok(vec![
        format!("{what}, `{name}`"),
        grouped(verified),
        format!("{:.1} %", f64::from(verified) / VERIFIED_MAX * 100.0),
        // Eight bytes each.
        bytes(info.size_translated().map(|len| len / 8)),
        bytes(Some(info.size_jitted())),
        milliseconds(took),
    ])
}

/// Takes a program out of the kernel and has it verified and compiled again.
fn reload(programs: &mut Programs, name: &str) -> Result<(Duration, ProgramInfo), BenchError> {
    let timed = |load: &mut dyn FnMut() -> Result<(), ProgramError>| {
        let started = Instant::now();
        load().map_err(bpf(format!("load `{name}`")))?;
        Ok::<_, BenchError>(started.elapsed())
    };
    let what = || format!("ask about `{name}`");
    match name {
        program::XDP_INGRESS => {
            let program = programs.xdp()?;
            program.unload().map_err(bpf(what()))?;
            Ok((timed(&mut || program.load())?, program.info().map_err(bpf(what()))?))
        }
        program::DECLARE => {
            let program = programs.sockopt()?;
            program.unload().map_err(bpf(what()))?;
            Ok((timed(&mut || program.load())?, program.info().map_err(bpf(what()))?))
        }
        _ => {
            let program = programs.classifier(name)?;
            program.unload().map_err(bpf(what()))?;
            Ok((timed(&mut || program.load())?, program.info().map_err(bpf(what()))?))
        }
    }
}

fn section(rows: Vec<Vec<String>>) -> Section {
    Section {
        title: "The programs in the kernel",
        notes: vec![format!(
            "Instructions that the verifier follows, of which it allows {}; instructions and bytes \
             of machine code that are left; how long verifying and compiling takes, once for an \
             instance: median of {LOADS}. All are the same for every policy.",
            grouped(VERIFIED_MAX as u32)
        )],
        head: strings(["program", "verified", "of the limit", "instructions", "bytes", "loading"]),
        rows,
    }
}
