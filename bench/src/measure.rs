//! Timing: many cases, one after the other, round after round.

use govc_loader::{instance::Place, keyring::DomainKeys, status};
use govc_netlab::Namespace;

use crate::{
    error::BenchError,
    frames::FrameSet,
    interrupt,
    machine::thread_ns,
    programs::{Maps, Object, Program},
    progress::Progress,
    shared::FRAMES_MAX,
};

/// Fewest repetitions of a sample.
const TRIAL: u32 = 4096;
/// Likewise of what takes hundreds of microseconds.
const TRIAL_SLOW: u32 = 256;

/// How a program is run.
#[derive(Clone, Copy)]
pub enum Run<'a> {
    /// Again and again on one packet that it does not change.
    Direct(Program<'a>),
    /// Each time behind the program that restores the packet.
    Restored(Program<'a>),
    /// By the stack of a namespace, on frames that arrive at its loopback device; whether they
    /// are counted at the end of the live path.
    Live(&'a Namespace, bool),
}

/// Whether the same packet comes again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One flow.
    Hot,
    /// [`FRAMES_MAX`] flows in turn.
    Spread,
}

impl Traffic {
    /// One row for each.
    pub const ALL: [Self; 2] = [Self::Hot, Self::Spread];

    /// How many frames take turns.
    pub fn frames(self) -> usize {
        match self {
            Self::Hot => 1,
            Self::Spread => FRAMES_MAX,
        }
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "one flow",
            Self::Spread => "16,384 flows",
        }
    }
}

/// Something that is timed.
pub struct Case<'a> {
    /// Its name in messages.
    pub name: String,
    /// What is run.
    pub run: Run<'a>,
    /// Position of the frames in [`Bench::frames`].
    pub frames: usize,
    /// How many of them take turns.
    pub traffic: Traffic,
    /// Keys of their labels, if those have to be young.
    pub keys: Option<&'a DomainKeys>,
    /// The enforcement point that computes every MAC while this case runs.
    pub computes: Option<&'a Place>,
    /// What the program answers.
    pub answer: u32,
    /// The same without what is to be timed; itself where the whole time counts.
    pub floor: Option<CaseId>,
    kept: bool,
    /// Fewest repetitions.
    trial: u32,
    repeat: u32,
    /// Nanoseconds for each packet, by round.
    samples: Vec<f64>,
}

/// Position of a case in a [`Bench`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaseId(usize);

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often each case is run.
    pub rounds: usize,
    /// How long each time, nanoseconds.
    pub sample_ns: u64,
}

/// Nanoseconds for each packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figure {
    /// Median over the rounds, of the difference to the floor of the same round.
    pub median: f64,
    /// Half of what lies between the quartiles.
    pub spread: f64,
}

impl Figure {
    /// Of samples in any order.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |part: usize| samples.get(samples.len() * part / 4).copied().unwrap_or_default();
        Self { median: at(2), spread: (at(3) - at(1)) / 2.0 }
    }
}

/// All cases, with what they run on.
pub struct Bench<'a> {
    object: &'a Object,
    maps: &'a mut Maps,
    /// Sets of frames.
    pub frames: Vec<FrameSet>,
    cases: Vec<Case<'a>>,
}

impl<'a> Bench<'a> {
    /// Without cases.
    pub fn new(object: &'a Object, maps: &'a mut Maps) -> Self {
        Self { object, maps, frames: Vec::new(), cases: Vec::new() }
    }

    /// Adds frames.
    pub fn add_frames(&mut self, frames: FrameSet) -> usize {
        self.frames.push(frames);
        self.frames.len() - 1
    }

    /// Adds a case.
    pub fn add(&mut self, case: Case<'a>) -> CaseId {
        self.cases.push(case);
        CaseId(self.cases.len() - 1)
    }

    /// Keeps only cases whose name contains a text, and their floors. Others cost no time and
    /// have no figure.
    pub fn keep_only(&mut self, text: &str) {
        let chosen: Vec<bool> = self.cases.iter().map(|case| case.name.contains(text)).collect();
        let floors: Vec<Option<CaseId>> = self.cases.iter().map(|case| case.floor).collect();
        let is_floor = |id| {
            floors.iter().zip(&chosen).any(|(&floor, &chosen)| chosen && floor == Some(CaseId(id)))
        };
        for (id, case) in self.cases.iter_mut().enumerate() {
            case.kept = chosen.get(id) == Some(&true) || is_floor(id);
        }
    }

    /// The figures of all cases that were run, by name.
    pub fn figures(&self) -> Vec<(&str, Figure)> {
        let ran = self.cases.iter().enumerate().filter(|(_, case)| !case.samples.is_empty());
        ran.map(|(id, case)| (case.name.as_str(), self.figure(CaseId(id)))).collect()
    }

    /// Runs everything.
    pub fn measure(&mut self, effort: Effort, progress: &Progress) -> Result<(), BenchError> {
        let cases = self.cases.iter().enumerate();
        let kept: Vec<usize> = cases.filter(|(_, case)| case.kept).map(|(id, _)| id).collect();
        for (position, &id) in kept.iter().enumerate() {
            progress.say(|| format!("trying {} of {}", position + 1, kept.len()));
            self.calibrate(id, effort)?;
        }
        // There and back, so that nobody always comes behind the same neighbour.
        let back: Vec<usize> = kept.iter().rev().copied().collect();
        for round in 0..effort.rounds {
            progress.say(|| format!("round {} of {}", round + 1, effort.rounds));
            for &id in if round % 2 == 0 { &kept } else { &back } {
                let sample = self.sample(id)?;
                if let Some(case) = self.cases.get_mut(id) {
                    case.samples.push(sample);
                }
            }
        }
        Ok(())
    }

    /// Finds out how many repetitions take as long as a sample shall.
    fn calibrate(&mut self, id: usize, effort: Effort) -> Result<(), BenchError> {
        if let Some(case) = self.cases.get_mut(id) {
            case.repeat = case.trial;
        }
        let each = self.sample(id)?.max(1.0);
        if let Some(case) = self.cases.get_mut(id) {
            let wanted = (effort.sample_ns as f64 / each) as u32;
            // Whole turns, so that every frame counts alike.
            let turns = case.traffic.frames() as u32;
            case.repeat = wanted.next_multiple_of(turns).max(case.trial);
        }
        Ok(())
    }

    /// Runs one case once.
    fn sample(&mut self, id: usize) -> Result<f64, BenchError> {
        interrupt::check()?;
        let Some(case) = self.cases.get(id) else { return Ok(0.0) };
        let Some(set) = self.frames.get_mut(case.frames) else { return Ok(0.0) };
        let count = case.traffic.frames().min(set.len());
        self.maps.set_frames(set.stamped(case.keys, count))?;
        if let Run::Restored(program) = case.run {
            self.maps.set_target(program)?;
        }
        let work = Work { object: self.object, maps: self.maps, packet: &set.first(), case };
        let warm = case.repeat.min((case.traffic.frames() as u32).max(1000));
        if let Some(place) = case.computes {
            status::use_memo(place, false)?;
        }
        work.run(warm)?;
        let elapsed = work.run(case.repeat)?;
        if let Some(place) = case.computes {
            status::use_memo(place, true)?;
        }
        Ok(elapsed as f64 / f64::from(case.repeat))
    }

    /// What was measured of a case.
    pub fn figure(&self, id: CaseId) -> Figure {
        let Some(case) = self.cases.get(id.0) else { return Figure::default() };
        let floor = case.floor.and_then(|CaseId(floor)| self.cases.get(floor));
        let floor = floor.map_or(&[][..], |floor| floor.samples.as_slice());
        let floor = floor.iter().copied().chain(std::iter::repeat(0.0));
        Figure::of(case.samples.iter().zip(floor).map(|(a, b)| a - b).collect())
    }

    /// How many packets a second a core takes, on the whole way of a case.
    pub fn rate(&self, id: CaseId) -> Figure {
        let samples = self.cases.get(id.0).map_or(&[][..], |case| case.samples.as_slice());
        Figure::of(samples.iter().map(|ns| 1e9 / ns.max(1.0)).collect())
    }

    /// How many times as many packets a case takes as another, on the whole way.
    pub fn times(&self, id: CaseId, other: CaseId) -> f64 {
        let samples = |id: CaseId| self.cases.get(id.0).into_iter().flat_map(|case| &case.samples);
        Figure::of(samples(other).zip(samples(id)).map(|(other, own)| other / own).collect()).median
    }

    /// How many packets a case has been given, all in all.
    pub fn packets(&self, id: CaseId) -> u64 {
        self.cases.get(id.0).map_or(0, |case| u64::from(case.repeat) * case.samples.len() as u64)
    }
}

impl<'a> Case<'a> {
    /// A case that has not been run.
    pub fn new(name: String, run: Run<'a>, frames: usize, traffic: Traffic, answer: u32) -> Self {
        Self {
            name,
            run,
            frames,
            traffic,
            keys: None,
            computes: None,
            answer,
            floor: None,
            kept: true,
            trial: TRIAL,
            repeat: 0,
            samples: Vec::new(),
        }
    }

    /// Its labels are made anew before each sample.
    pub fn keys(self, keys: &'a DomainKeys) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// While it runs this enforcement point remembers no decisions.
    pub fn computes(self, place: Option<&'a Place>) -> Self {
        Self { computes: place, ..self }
    }

    /// It takes its time: a few packets will do.
    pub fn slow(self) -> Self {
        Self { trial: TRIAL_SLOW, ..self }
    }

    /// What is subtracted.
    pub fn over(self, floor: CaseId) -> Self {
        Self { floor: Some(floor), ..self }
    }
}

/// One case about to be run.
struct Work<'a> {
    object: &'a Object,
    maps: &'a Maps,
    packet: &'a [u8],
    case: &'a Case<'a>,
}

impl Work<'_> {
    /// Runs it so many times and tells how long that took, nanoseconds.
    fn run(&self, repeat: u32) -> Result<u64, BenchError> {
        match self.case.run {
            Run::Direct(program) => self.answers(program, repeat),
            Run::Restored(Program::Tc(_)) => {
                self.answers(Program::Tc(self.object.tc("bench_tc_rewrite")?), repeat)
            }
            Run::Restored(Program::Xdp(_)) => {
                self.answers(Program::Xdp(self.object.xdp("bench_xdp_rewrite")?), repeat)
            }
            Run::Live(namespace, counted) => {
                let seen = self.maps.seen();
                let generator = Program::Xdp(self.object.xdp("bench_xdp_generate")?);
                let elapsed = namespace.try_run(|| {
                    let started = thread_ns();
                    generator.run_live(self.packet, repeat)?;
                    Ok::<u64, BenchError>(thread_ns() - started)
                })??;
                let arrived = self.maps.seen() - seen;
                if counted && arrived < u64::from(repeat) {
                    return self.wrong(format!("{arrived} of {repeat} packets arrive"));
                }
                Ok(elapsed)
            }
        }
    }

    fn answers(&self, program: Program<'_>, repeat: u32) -> Result<u64, BenchError> {
        let started = thread_ns();
        let answer = program.run(self.packet, repeat)?;
        let elapsed = thread_ns() - started;
        if answer == self.case.answer {
            return Ok(elapsed);
        }
        self.wrong(format!("it answers {}, not {}", answer as i32, self.case.answer as i32))
    }

    fn wrong(&self, found: String) -> Result<u64, BenchError> {
        Err(BenchError::Wrong { case: self.case.name.clone(), found })
    }
}
