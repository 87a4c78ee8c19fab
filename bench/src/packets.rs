//! What a packet costs: govc's ingress path, floors and peers, case by case.

use crate::{
    error::BenchError,
    filters::{Compared, Filters},
    measure::{Bench, Case, CaseId, Run, Traffic},
    peers::StandIns,
    programs::{self, Object, Program},
    progress::Progress,
    report::Section,
    subject::{self, Empty, Live, Row, Subject},
    suite::{Found, Plan},
    tables,
};

/// Keys of the floor with a MAC.
const FLOOR_KEY: (u64, u64) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);

/// Floors, at tcx and at XDP.
pub struct Floors {
    /// The empty program: its whole time.
    pub empty: [CaseId; 2],
    /// Parse.
    pub parse: [CaseId; 2],
    /// Parse and verify the MAC.
    pub mac: [CaseId; 2],
}

/// Everything that was measured.
pub struct Results<'a> {
    /// Times.
    pub bench: &'a Bench<'a>,
    /// Policies.
    pub subjects: &'a [Subject],
    /// Floors.
    pub floors: &'a Floors,
    /// govc by `BPF_PROG_TEST_RUN`.
    pub rows: &'a [Row],
    /// govc on live frames.
    pub live: &'a Live,
    /// The stand-in by identities and traffic.
    pub standins: &'a [Vec<CaseId>],
    /// Filters of the kernel, and govc on the same path.
    pub filters: &'a Compared,
}

/// Measures everything.
pub fn measure(plan: Plan, progress: &Progress) -> Result<Found, BenchError> {
    with_cases(plan, None, progress, tables::packets)
}

/// Measures the cases whose name contains a text, and lists them.
pub fn measure_only(
    plan: Plan,
    only: &str,
    progress: &Progress,
) -> Result<Vec<Section>, BenchError> {
    with_cases(plan, Some(only), progress, |results| vec![tables::list(results.bench)])
}

fn with_cases<T>(
    plan: Plan,
    only: Option<&str>,
    progress: &Progress,
    tell: impl FnOnce(&Results<'_>) -> T,
) -> Result<T, BenchError> {
    let subjects = subject::prepare(plan.publications, progress)?;
    let standins = StandIns::load(progress)?;
    let filters = Filters::load(&subjects, progress)?;
    let (mut object, mut maps) = programs::load()?;
    let live_floor = subject::attach_ends(&mut object, &subjects)?;
    maps.set_key(FLOOR_KEY);

    let (object, empty) = (&object, Program::Tc(object.tc("bench_tc_empty")?));
    let mut bench = Bench::new(object, &mut maps);
    let floors = add_floors(&mut bench, object, &subjects)?;
    let empty =
        Empty { tc: empty, xdp: Program::Xdp(object.xdp("bench_xdp_empty")?), alone: floors.empty };
    let rows = subject::add(&mut bench, &subjects, &empty);
    let live = subject::add_live(&mut bench, &subjects, &live_floor);
    let standin_cases = standins.add(&mut bench, empty.tc)?;
    let compared = filters.add(&mut bench, &subjects);
    if let Some(only) = only {
        bench.keep_only(only);
    }
    bench.measure(plan.effort, progress)?;

    subject::check(subjects.iter().map(|subject| &subject.instance))?;
    filters.check(&bench, &compared)?;
    Ok(tell(&Results {
        bench: &bench,
        subjects: &subjects,
        floors: &floors,
        rows: &rows,
        live: &live,
        standins: &standin_cases,
        filters: &compared,
    }))
}

fn add_floors<'a>(
    bench: &mut Bench<'a>,
    object: &'a Object,
    subjects: &[Subject],
) -> Result<Floors, BenchError> {
    let set = bench.add_frames(subject::floor_frames(subjects, FLOOR_KEY));
    let mut pair = |[tc, xdp]: [&str; 2], over: Option<[CaseId; 2]>| {
        let run = Run::Direct(Program::Tc(object.tc(tc)?));
        let tc = Case::new(tc.to_owned(), run, set, Traffic::Hot, -1_i32 as u32);
        let run = Run::Direct(Program::Xdp(object.xdp(xdp)?));
        let xdp = Case::new(xdp.to_owned(), run, set, Traffic::Hot, 2);
        let cases = match over {
            Some([tc_floor, xdp_floor]) => [tc.over(tc_floor), xdp.over(xdp_floor)],
            None => [tc, xdp],
        };
        Ok::<_, BenchError>(cases.map(|case| bench.add(case)))
    };
    let empty = pair(["bench_tc_empty", "bench_xdp_empty"], None)?;
    Ok(Floors {
        empty,
        parse: pair(["bench_tc_parse", "bench_xdp_parse"], Some(empty))?,
        mac: pair(["bench_tc_mac", "bench_xdp_mac"], Some(empty))?,
    })
}
