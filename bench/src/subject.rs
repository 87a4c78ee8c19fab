//! What is measured of govc: its policies, and its ingress path as cases.

use govc_image::Image;
use govc_loader::keyring::slot_now;
use govc_netlab::Namespace;

use crate::{
    error::BenchError,
    frames::{FrameSet, Version},
    instance::{self, Instance},
    interrupt,
    measure::{Bench, Case, CaseId, Run, Traffic},
    policy::{self, Compiled, Numbers, Rule, Times},
    programs::{Object, Program},
    progress::Progress,
};

/// Numbers of rules.
pub const SIZES: [u32; 4] = [10, 1_000, 10_000, 100_000];

/// Answers of programs: go on, drop.
const TC: [u32; 2] = [-1_i32 as u32, 2];
const XDP: [u32; 2] = [2, 1];

/// A policy in the kernel, and what it took to get there.
pub struct Subject {
    /// How many rules.
    pub size: u32,
    /// The enforcement point.
    pub instance: Instance,
    /// How long the compiler took.
    pub times: Times,
    /// Bytes of the image.
    pub image_len: usize,
    /// Parts of its ingress program.
    pub parts: usize,
    /// Edges of their diagrams.
    pub edges: usize,
    /// Median of filling the buffer and flipping the generation, microseconds.
    pub publish_us: u64,
    /// The image.
    pub image: Image,
    numbers: Numbers,
    rules: Vec<Rule>,
}

impl Subject {
    /// Labelled packets that its rules permit, or deny.
    pub fn frames(&self, version: Version, permits: bool) -> FrameSet {
        let rules = self.rules.iter().filter(|rule| rule.permits == permits);
        let rules: Vec<Rule> = rules.copied().collect();
        FrameSet::labelled(version, self.numbers, &rules)
    }
}

/// Compiles a policy for each of [`SIZES`], puts it in force, and times that.
pub fn prepare(publications: usize, progress: &Progress) -> Result<Vec<Subject>, BenchError> {
    let mut subjects = compile(&SIZES, progress)?;
    publish(&mut subjects, publications, progress)?;
    Ok(subjects)
}

/// Compiles a policy for each size and puts it in force.
pub fn compile(sizes: &[u32], progress: &Progress) -> Result<Vec<Subject>, BenchError> {
    let mut subjects = Vec::new();
    for &size in sizes {
        progress.say(|| format!("compiling {size} rules"));
        let (compiled, rules) = policy::compile(policy::generate(size))?;
        let Compiled { image, parts, edges, times } = compiled;
        let instance = Instance::new(&image)?;
        let numbers = Numbers::find(image.names()).ok_or_else(|| BenchError::Policy {
            rules: rules.len(),
            message: "the image lacks the vocabulary".to_owned(),
        })?;
        let image_len = image.bytes().len();
        subjects.push(Subject {
            size,
            instance,
            times,
            image_len,
            parts,
            edges,
            publish_us: 0,
            image,
            numbers,
            rules,
        });
    }
    Ok(subjects)
}

fn publish(
    subjects: &mut [Subject],
    publications: usize,
    progress: &Progress,
) -> Result<(), BenchError> {
    let mut times = vec![Vec::new(); subjects.len()];
    for publication in 0..publications {
        progress.say(|| format!("publication {} of {publications}", publication + 1));
        instance::settle()?;
        for (subject, times) in subjects.iter().zip(&mut times) {
            times.push(subject.instance.publish(&subject.image)?.publish_us);
        }
    }
    for (subject, times) in subjects.iter_mut().zip(&mut times) {
        times.sort_unstable();
        subject.publish_us = times.get(times.len() / 2).copied().unwrap_or_default();
    }
    interrupt::check()
}

/// One row: a case for each of [`SIZES`].
pub struct Row {
    /// Hook.
    pub hook: &'static str,
    /// IP version.
    pub version: Version,
    /// Flows.
    pub traffic: Traffic,
    /// Whether the rules permit the packets, which then lose their label.
    pub permits: bool,
    /// Whether decisions were remembered.
    pub remembers: bool,
    /// By size.
    pub cases: Vec<CaseId>,
}

/// The empty programs.
pub struct Empty<'a> {
    /// tcx.
    pub tc: Program<'a>,
    /// XDP.
    pub xdp: Program<'a>,
    /// Their cases without the program that restores packets.
    pub alone: [CaseId; 2],
}

/// Adds govc's ingress path at both hooks.
pub fn add<'a>(bench: &mut Bench<'a>, subjects: &'a [Subject], empty: &Empty<'a>) -> Vec<Row> {
    let mut rows = Vec::new();
    for version in [Version::V4, Version::V6] {
        for permits in [false, true] {
            let set = |subject: &Subject| subject.frames(version, permits);
            let sets: Vec<usize> = subjects.iter().map(|s| bench.add_frames(set(s))).collect();
            let cases =
                Traffic::ALL.into_iter().flat_map(|traffic| [(traffic, true), (traffic, false)]);
            for (traffic, remembers) in cases {
                for hook in ["tcx", "xdp"] {
                    let place = Place { hook, version, traffic, permits, remembers };
                    rows.push(place.row(bench, subjects, &sets, empty));
                }
            }
        }
    }
    rows.sort_by_key(|row| (row.version == Version::V6, row.hook, row.permits, !row.remembers));
    rows
}

/// What the cases of one row have in common.
#[derive(Clone, Copy)]
struct Place {
    hook: &'static str,
    version: Version,
    traffic: Traffic,
    permits: bool,
    remembers: bool,
}

impl Place {
    fn name(self, size: u32) -> String {
        let Self { hook, version, traffic, permits, remembers } = self;
        let verdict = if permits { "permitted" } else { "denied" };
        let how = if remembers { "remembered" } else { "computed" };
        format!("{hook}, {version:?}, {}, {verdict}, {how}, {size} rules", traffic.name())
    }

    fn answer(self) -> u32 {
        let [permit, deny] = if self.hook == "tcx" { TC } else { XDP };
        if self.permits { permit } else { deny }
    }

    fn program(self, subject: &Subject) -> Program<'_> {
        let Instance { tc, xdp, .. } = &subject.instance;
        if self.hook == "tcx" { Program::Tc(tc) } else { Program::Xdp(xdp) }
    }

    /// Whether the packet comes out of the program as it went in, so that nobody has to restore
    /// it.
    fn is_alone(self) -> bool {
        !self.permits && self.traffic == Traffic::Hot
    }

    fn row<'a>(
        self,
        bench: &mut Bench<'a>,
        subjects: &'a [Subject],
        sets: &[usize],
        empty: &Empty<'a>,
    ) -> Row {
        let is_tc = self.hook == "tcx";
        let alone = self.is_alone();
        let floor = if alone {
            let [tc, xdp] = empty.alone;
            if is_tc { tc } else { xdp }
        } else {
            let ([pass, _], nothing) = if is_tc { (TC, empty.tc) } else { (XDP, empty.xdp) };
            let first = sets.first().copied().unwrap_or_default();
            let run = Run::Restored(nothing);
            bench.add(Case::new(self.name(0), run, first, self.traffic, pass))
        };
        let case = |(subject, &set): (&'a Subject, &usize)| {
            let program = self.program(subject);
            let run = if alone { Run::Direct(program) } else { Run::Restored(program) };
            let case = Case::new(self.name(subject.size), run, set, self.traffic, self.answer());
            let computes = (!self.remembers).then(|| subject.instance.place());
            bench.add(case.keys(&subject.instance.keys.domain).computes(computes).over(floor))
        };
        let cases = subjects.iter().zip(sets).map(case).collect();
        let Self { hook, version, traffic, permits, remembers } = self;
        Row { hook, version, traffic, permits, remembers, cases }
    }
}

/// The tcx path on live frames, by traffic and size.
pub struct Live {
    /// One row for each of [`Traffic::ALL`].
    pub rows: Vec<Vec<CaseId>>,
    /// The same path without govc.
    pub floors: Vec<CaseId>,
}

/// Attaches the end of the live path behind each instance, and alone in one more namespace.
pub fn attach_ends(object: &mut Object, subjects: &[Subject]) -> Result<Namespace, BenchError> {
    let floor = Namespace::create("floor")?;
    let namespaces = subjects.iter().map(|subject| &subject.instance.namespace);
    for namespace in namespaces.chain([&floor]) {
        namespace.try_run(|| object.attach_end())??;
    }
    Ok(floor)
}

/// Adds govc's tcx path on live frames.
pub fn add_live<'a>(bench: &mut Bench<'a>, subjects: &'a [Subject], floor: &'a Namespace) -> Live {
    let set = |subject: &Subject| subject.frames(Version::V4, true);
    let sets: Vec<usize> = subjects.iter().map(|s| bench.add_frames(set(s))).collect();
    let mut live = Live { rows: Vec::new(), floors: Vec::new() };
    for traffic in Traffic::ALL {
        let first = sets.first().copied().unwrap_or_default();
        let name = format!("live, {}", traffic.name());
        let nothing = Case::new(name.clone(), Run::Live(floor, true), first, traffic, 0);
        let nothing = bench.add(nothing);
        let case = |(subject, &set): (&'a Subject, &usize)| {
            let name = format!("{name}, {} rules", subject.size);
            let run = Run::Live(&subject.instance.namespace, true);
            let case = Case::new(name, run, set, traffic, 0);
            bench.add(case.keys(&subject.instance.keys.domain).over(nothing))
        };
        live.rows.push(subjects.iter().zip(&sets).map(case).collect());
        live.floors.push(nothing);
    }
    live
}

/// The floors that parse and verify need one labelled packet under a key of their own.
pub fn floor_frames(subjects: &[Subject], key: (u64, u64)) -> FrameSet {
    let Some(subject) = subjects.first() else { return FrameSet::udp(std::iter::empty()) };
    let mut set = FrameSet::labelled(Version::V4, subject.numbers, &subject.rules);
    set.stamp(slot_now(), 0, key, 1);
    set
}

/// Checks that rules have decided whatever came by.
pub fn check<'a>(instances: impl Iterator<Item = &'a Instance>) -> Result<(), BenchError> {
    for instance in instances {
        let reasons = instance.reasons()?;
        if let Some(other) = reasons.iter().find(|count| count.reason != "rule") {
            return Err(BenchError::Wrong {
                case: instance.place().name().to_owned(),
                found: format!("{} packets end with `{}`", other.packets, other.reason),
            });
        }
    }
    Ok(())
}
