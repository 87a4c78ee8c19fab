//! Peers as cases.

use govc_netlab::Namespace;

use crate::{
    error::BenchError,
    frames::FrameSet,
    measure::{Bench, Case, CaseId, Run, Traffic},
    nft,
    programs::{self, Maps, Object, Program},
    progress::Progress,
    standin::{self, IDENTITIES},
    subject::SIZES,
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

/// Namespaces in which nftables decides.
pub struct Nft {
    /// What `nft --version` says.
    pub version: String,
    floor: Namespace,
    maps: Vec<Namespace>,
}

/// Its cases.
pub struct NftCases {
    /// By traffic and size.
    pub rows: Vec<Vec<CaseId>>,
    /// The same path without the map, by traffic.
    pub floors: Vec<CaseId>,
}

impl Nft {
    /// Fills the maps; `None` when nftables is not installed.
    pub fn load(progress: &Progress) -> Result<Option<Self>, BenchError> {
        let Some(version) = nft::version() else { return Ok(None) };
        let load = |elements| {
            progress.say(|| format!("filling an nftables map with {elements} tuples"));
            nft::namespace(elements)
        };
        let maps = SIZES.into_iter().map(load).collect::<Result<_, _>>()?;
        Ok(Some(Self { version, floor: load(0)?, maps }))
    }

    /// Adds the path of live frames with and without the maps.
    pub fn add<'a>(&'a self, bench: &mut Bench<'a>) -> NftCases {
        let frames = |elements: &u32| -> FrameSet { nft::frames(*elements) };
        let sets: Vec<usize> = SIZES.iter().map(|size| bench.add_frames(frames(size))).collect();
        let mut cases = NftCases { rows: Vec::new(), floors: Vec::new() };
        for traffic in Traffic::ALL {
            let name = format!("nftables, {}", traffic.name());
            let first = sets.first().copied().unwrap_or_default();
            let run = Run::Live(&self.floor, false);
            let floor = bench.add(Case::new(name.clone(), run, first, traffic, 0));
            let case = |(namespace, &set): (&'a Namespace, &usize)| {
                let run = Run::Live(namespace, false);
                bench.add(Case::new(name.clone(), run, set, traffic, 0).over(floor))
            };
            cases.rows.push(self.maps.iter().zip(&sets).map(case).collect());
            cases.floors.push(floor);
        }
        cases
    }

    /// Checks that the maps have let through what they were given.
    pub fn check(&self, bench: &Bench<'_>, cases: &NftCases) -> Result<(), BenchError> {
        for (position, namespace) in self.maps.iter().enumerate() {
            let given = cases.rows.iter().filter_map(|row| row.get(position));
            let given: u64 = given.map(|&case| bench.packets(case)).sum();
            let counted = nft::counted(namespace)?;
            if counted < given {
                return Err(BenchError::Wrong {
                    case: "nftables".to_owned(),
                    found: format!("it accepts {counted} of {given} packets"),
                });
            }
        }
        Ok(())
    }
}
