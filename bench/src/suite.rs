//! The whole run.

use crate::{
    editor::{self, Waits},
    error::BenchError,
    machine::Machine,
    measure::{Bench, Case, CaseId, Effort, Run, Traffic},
    peers::{Nft, NftCases, StandIns},
    programs::{self, Object, Program},
    progress::Progress,
    report::Report,
    subject::{self, Empty, Live, Row, Subject},
    tables,
};

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long and how often.
    pub effort: Effort,
    /// How often each policy is published.
    pub publications: usize,
}

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
    /// What an editor waits for, by size and number of files.
    pub editor: &'a [Vec<Waits>],
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
    /// nftables, if it is installed, with its version.
    pub nft: Option<(&'a str, &'a NftCases)>,
}

/// Measures everything, or the cases whose name contains a text.
pub fn run(plan: Plan, only: Option<&str>) -> Result<Report, BenchError> {
    let progress = &Progress::new();
    let subjects = subject::prepare(plan.publications, progress)?;
    let standins = StandIns::load(progress)?;
    let nft = Nft::load(progress)?;
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
    let nft_cases = nft.as_ref().map(|nft| nft.add(&mut bench));
    if let Some(only) = only {
        bench.keep_only(only);
    }
    bench.measure(plan.effort, progress)?;

    subject::check(&subjects)?;
    if let (Some(nft), Some(cases)) = (&nft, &nft_cases) {
        nft.check(&bench, cases)?;
    }
    let editor = match only {
        Some(_) => Vec::new(),
        None => measure_editor(progress)?,
    };
    let results = Results {
        editor: &editor,
        bench: &bench,
        subjects: &subjects,
        floors: &floors,
        rows: &rows,
        live: &live,
        standins: &standin_cases,
        nft: nft.as_ref().map(|nft| nft.version.as_str()).zip(nft_cases.as_ref()),
    };
    let sections = match only {
        Some(_) => vec![tables::list(&bench)],
        None => tables::sections(&results, plan),
    };
    Ok(Report { machine: Machine::find().to_string(), sections })
}

/// By size, then by number of files.
fn measure_editor(progress: &Progress) -> Result<Vec<Vec<Waits>>, BenchError> {
    let of_size = |rules: usize| {
        progress.say(|| format!("an editor with {rules} rules"));
        editor::FILES.iter().map(|&files| editor::measure(rules, files)).collect()
    };
    editor::SIZES.iter().map(|&rules| of_size(rules)).collect()
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
