//! What `govc observe` takes while many events come.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use govc_loader::status::{self, EventCount};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cells::{grouped, per_second, strings},
    error::{BenchError, io},
    frames::{FrameSet, Version},
    instance::Instance,
    interrupt,
    machine::{Core, stay_on},
    measure::{Figure, Traffic},
    programs::{self, Maps, Object, Program},
    progress::Progress,
    report::Section,
    subject::{self, Subject},
    suite::{Found, Plan},
};

/// Events that are asked for in a second.
const RATES: [u32; 3] = [10_000, 100_000, 1_000_000];
/// Packets come in bursts, so many a second.
const BURSTS_PER_S: u32 = 1000;
/// How long each rate is kept up.
const SAMPLE: Duration = Duration::from_millis(700);
/// How long the observer may take to begin, and to have read what there is.
const PATIENCE: Duration = Duration::from_secs(10);
const RULES: u32 = 1000;
/// What this program is called when it is to be govc.
const GOVC: &str = "govc";
/// More rounds would tell little: a sample is long.
const ROUNDS_MAX: usize = 5;

/// Whether this program was started as govc, by [`measure`].
pub fn is_govc() -> bool {
    std::env::args_os().next().is_some_and(|name| name == GOVC)
}

/// What becomes of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    File,
    Aggregate,
}

impl Mode {
    const ALL: [Self; 2] = [Self::File, Self::Aggregate];

    fn name(self) -> &'static str {
        match self {
            Self::File => "to a file",
            Self::Aggregate => "counted by kind",
        }
    }

    fn arguments(self, file: &Path) -> Vec<String> {
        match self {
            Self::File => {
                vec!["--quiet".to_owned(), "--write".to_owned(), file.display().to_string()]
            }
            Self::Aggregate => vec!["--aggregate".to_owned(), "--json".to_owned()],
        }
    }
}

/// One sample.
#[derive(Clone, Copy, Default)]
struct Taken {
    events_per_s: f64,
    lost: f64,
    cpu_s_per_million: f64,
    core: f64,
}

/// Measures both modes at all rates.
pub fn measure(plan: Plan, progress: &Progress) -> Result<Found, BenchError> {
    let subjects = subject::compile(&[RULES], progress)?;
    let Some(subject) = subjects.first() else { return Ok(Found::default()) };
    let (object, mut maps) = programs::load()?;
    let source = Source { subject, object: &object };
    let rounds = plan.effort.rounds.min(ROUNDS_MAX);
    let mut rows = Vec::new();
    for mode in Mode::ALL {
        for rate in RATES {
            progress.say(|| format!("observing {rate} events a second, {}", mode.name()));
            let samples: Result<Vec<Taken>, BenchError> =
                (0..rounds).map(|_| source.sample(&mut maps, mode, rate)).collect();
            rows.push(row(mode, rate, &samples?));
        }
    }
    Ok(section(rows, rounds).into())
}

fn row(mode: Mode, rate: u32, samples: &[Taken]) -> Vec<String> {
    let median = |field: fn(&Taken) -> f64| Figure::of(samples.iter().map(field).collect()).median;
    vec![
        format!("{}, {} a second", mode.name(), grouped(rate)),
        per_second(median(|taken| taken.events_per_s)),
        format!("{:.1} %", median(|taken| taken.lost) * 100.0),
        format!("{:.2}", median(|taken| taken.cpu_s_per_million)),
        format!("{:.1} %", median(|taken| taken.core) * 100.0),
    ]
}

fn section(rows: Vec<Vec<String>>, rounds: usize) -> Section {
    Section {
        title: "The collector",
        notes: vec![format!(
            "`govc observe` on a core of its own while packets are denied on the other one, each \
             of which is an event: {} flows, decided by {} rules, in {} bursts a second for {} \
             ms, and no limit to the rate of events. CPU time is that of all threads of the \
             process, user and system, without its start; medians of {rounds} runs. Lost is what \
             the ring had no room for, which is counted, and never goes unseen.",
            Traffic::Spread.frames(),
            grouped(RULES),
            grouped(BURSTS_PER_S),
            SAMPLE.as_millis(),
        )],
        head: strings(["events", "came to, a second", "lost", "CPU s per million", "of a core"]),
        rows,
    }
}

/// Where events come from.
struct Source<'a> {
    subject: &'a Subject,
    object: &'a Object,
}

impl Source<'_> {
    fn sample(&self, maps: &mut Maps, mode: Mode, rate: u32) -> Result<Taken, BenchError> {
        let instance = &self.subject.instance;
        let mut frames = self.subject.frames(Version::V4, false);
        let keys = Some(&instance.keys.domain);
        maps.set_frames(frames.stamped(keys, Traffic::Spread.frames()))?;
        maps.set_target(Program::Tc(&instance.tc))?;
        status::set_event_rate(instance.place(), u32::MAX)?;
        let observer = Observer::start(instance, mode)?;
        let before = (status::event_count(instance.place())?, observer.cpu_ns()?);
        let started = Instant::now();
        self.send(&frames, rate)?;
        let elapsed = started.elapsed().as_secs_f64();
        let after = observer.read_all(instance)?;
        let cpu_s = (observer.cpu_ns()? - before.1) as f64 / 1e9;
        observer.end()?;
        let delivered = (after.delivered - before.0.delivered) as f64;
        let lost = (after.lost_full - before.0.lost_full) as f64;
        if delivered == 0.0 {
            return Err(BenchError::Wrong {
                case: mode.name().to_owned(),
                found: "no event was published".to_owned(),
            });
        }
        Ok(Taken {
            events_per_s: (delivered + lost) / elapsed,
            lost: lost / (delivered + lost),
            cpu_s_per_million: cpu_s / delivered * 1e6,
            core: cpu_s / elapsed,
        })
    }

    /// Sends packets at about this rate, in bursts.
    fn send(&self, frames: &FrameSet, rate: u32) -> Result<(), BenchError> {
        let program = Program::Tc(self.object.tc("bench_tc_rewrite")?);
        let bursts = BURSTS_PER_S * SAMPLE.as_millis() as u32 / 1000;
        let started = Instant::now();
        for number in 1..=bursts {
            program.run(&frames.first(), rate / BURSTS_PER_S)?;
            let due = started + Duration::from_secs(1) * number / BURSTS_PER_S;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

/// A running `govc observe`; it is killed when dropped.
struct Observer {
    child: Child,
    file: PathBuf,
}

impl Observer {
    fn start(instance: &Instance, mode: Mode) -> Result<Self, BenchError> {
        let what = "start govc observe";
        let own = std::env::current_exe().map_err(io(what))?;
        let file = std::env::temp_dir().join(format!("{}.events", instance.place().name()));
        let _ = fs::remove_file(&file);
        let mut command = Command::new(own);
        command.arg0(GOVC).args(["observe", "--instance", instance.place().name()]);
        command.args(mode.arguments(&file));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = instance.namespace.try_run(|| {
            stay_on(Core::First)?;
            command.spawn().map_err(io(what))
        })??;
        let mut observer = Self { child, file };
        let end = Instant::now() + PATIENCE;
        while !instance.place().has_reader() {
            observer.check(end, "it does not begin")?;
        }
        // It looks at what is in the ring before it begins.
        thread::sleep(Duration::from_millis(50));
        Ok(observer)
    }

    /// Waits until it has read what there is: until it has nothing to do.
    fn read_all(&self, instance: &Instance) -> Result<EventCount, BenchError> {
        let end = Instant::now() + PATIENCE;
        let mut cpu_ns = self.cpu_ns()?;
        loop {
            thread::sleep(Duration::from_millis(20));
            let now = self.cpu_ns()?;
            // A millisecond is more than it takes to look at the clock.
            if now - cpu_ns < 1_000_000 {
                return Ok(status::event_count(instance.place())?);
            }
            if Instant::now() >= end {
                return Err(self.wrong("it does not come to an end"));
            }
            cpu_ns = now;
        }
    }

    /// CPU time of all its threads so far.
    fn cpu_ns(&self) -> Result<u64, BenchError> {
        let what = "ask for the time of govc observe";
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).map_err(io(what))?;
        let mut sum = 0;
        for task in tasks.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).map_err(io(what))?;
            let time: Option<u64> = text.split(' ').next().and_then(|ns| ns.parse().ok());
            sum += time.ok_or_else(|| self.wrong("the kernel does not count its time"))?;
        }
        Ok(sum)
    }

    fn check(&mut self, end: Instant, found: &str) -> Result<(), BenchError> {
        interrupt::check()?;
        let ended = self.child.try_wait().map_err(io("look after govc observe"))?.is_some();
        if ended || Instant::now() >= end {
            return Err(self.wrong(found));
        }
        thread::sleep(Duration::from_millis(5));
        Ok(())
    }

    fn end(mut self) -> Result<(), BenchError> {
        let what = "end govc observe";
        kill_process(Pid::from_child(&self.child), Signal::INT).map_err(|e| io(what)(e.into()))?;
        let status = self.child.wait().map_err(io(what))?;
        if status.success() { Ok(()) } else { Err(self.wrong("it fails")) }
    }

    fn wrong(&self, found: &str) -> BenchError {
        BenchError::Wrong { case: "govc observe".to_owned(), found: found.to_owned() }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}
