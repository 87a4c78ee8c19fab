//! The peer in eBPF as cases.

use crate::{
    error::BenchError,
    measure::{Bench, Case, CaseId, Run, Traffic},
    programs::{self, Maps, Object, Program},
    progress::Progress,
    standin::{self, IDENTITIES},
};

/// The answer of a tcx program that lets a packet through.
const NEXT: u32 = -1_i32 as u32;

/// The stand-in, by number of identities.
pub struct StandIns(Vec<(Object, Maps)>);

impl StandIns {
    /// Loads and fills them.
    pub fn load(progress: &Progress) -> Result<Self, BenchError> {
        let load = |identities| {
            progress.say(|| format!("filling {identities} identities"));
            let (object, mut maps) = programs::load()?;
            standin::fill(&mut maps, identities)?;
            Ok::<_, BenchError>((object, maps))
        };
        Ok(Self(IDENTITIES.into_iter().map(load).collect::<Result<_, _>>()?))
    }

    /// Adds a row for each number of identities, with a case for each of [`Traffic::ALL`].
    pub fn add<'a>(
        &'a self,
        bench: &mut Bench<'a>,
        empty: Program<'a>,
    ) -> Result<Vec<Vec<CaseId>>, BenchError> {
        let mut rows = Vec::new();
        for ((object, _), identities) in self.0.iter().zip(IDENTITIES) {
            let program = Program::Tc(object.tc("bench_tc_standin")?);
            let set = bench.add_frames(standin::frames(identities));
            let mut row = Vec::new();
            for traffic in Traffic::ALL {
                let name = format!("stand-in, {identities} identities, {}", traffic.name());
                let floor = Case::new(name.clone(), Run::Restored(empty), set, traffic, NEXT);
                let floor = bench.add(floor);
                let case = Case::new(name, Run::Restored(program), set, traffic, NEXT);
                row.push(bench.add(case.over(floor)));
            }
            rows.push(row);
        }
        Ok(rows)
    }
}
