//! Bulk TCP between two governed workloads, beside the same without labels.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use govc_abi::label::BLOCK_LEN;
use govc_loader::attach::HookChoice;
use govc_netlab::Flow;

use crate::{
    cells::{fine_ratio, strings},
    error::{BenchError, io},
    frames::Version,
    interrupt,
    machine::{Core, stay_on},
    measure::Figure,
    pair::{BULK, DEVICE, Pair, server_at},
    programs::{self, Object},
    progress::Progress,
    report::Section,
    suite::{Found, Plan},
    targets::Target,
};

/// The least that labels are to leave of the throughput.
const RATIO_MIN: f64 = 0.95;
/// How long a connection is under way before its bytes count.
const WARM: Duration = Duration::from_millis(40);
/// How long they count.
const SAMPLE: Duration = Duration::from_millis(120);
/// How often in each round: ratios of hundredths want many pairs.
const TURNS: usize = 3;
const CHUNK: usize = 128 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);
const MTU: u16 = 1500;
const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

/// What is at the ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Nothing,
    Tcx,
    EmptyXdp,
    Xdp,
}

impl Way {
    const ALL: [Self; 4] = [Self::Nothing, Self::Tcx, Self::EmptyXdp, Self::Xdp];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::Tcx => "govc at tcx, both ends",
            Self::EmptyXdp => "an empty XDP program at the receiver",
            Self::Xdp => "govc at XDP at the receiver, at tcx elsewhere",
        }
    }

    fn pair(self) -> Result<(Pair, Option<Object>), BenchError> {
        let pair = match self {
            Self::Nothing | Self::EmptyXdp => Pair::bare()?,
            Self::Tcx => Pair::governed(HookChoice::Tcx)?,
            Self::Xdp => Pair::governed(HookChoice::Xdp)?,
        };
        if self != Self::EmptyXdp {
            return Ok((pair, None));
        }
        let (mut object, _) = programs::load()?;
        pair.server.try_run(|| object.attach_empty_xdp(DEVICE))??;
        Ok((pair, Some(object)))
    }
}

/// Bytes a second by way and IP version, in the order of the rounds.
type Samples = [[Vec<f64>; 2]; 4];

/// Measures all ways in turn.
pub fn measure(plan: Plan, progress: &Progress) -> Result<Found, BenchError> {
    let pairs: Result<Vec<_>, _> = Way::ALL.into_iter().map(Way::pair).collect();
    let pairs = pairs?;
    let mut samples = Samples::default();
    let mut all: Vec<(usize, usize)> = Vec::new();
    for version in 0..VERSIONS.len() {
        all.extend((0..Way::ALL.len()).map(|way| (way, version)));
    }
    for round in 0..plan.effort.rounds {
        progress.say(|| format!("TCP, round {} of {}", round + 1, plan.effort.rounds));
        for _ in 0..TURNS {
            for &(way, number) in &all {
                let (Some((pair, _)), Some(&version)) = (pairs.get(way), VERSIONS.get(number))
                else {
                    continue;
                };
                let sample = transfer(pair, version)?;
                if let Some(list) = samples.get_mut(way).and_then(|ways| ways.get_mut(number)) {
                    list.push(sample);
                }
            }
            all.reverse();
        }
    }
    for ((pair, _), way) in pairs.iter().zip(Way::ALL) {
        pair.check(way.name())?;
        // Nothing that is counted here may have passed unseen.
        if matches!(way, Way::Tcx | Way::Xdp) && pair.let_in()? == 0 {
            return Err(BenchError::Wrong {
                case: way.name().to_owned(),
                found: "no rule lets anything in".to_owned(),
            });
        }
    }
    Ok(tell(&samples))
}

/// Sends as much as goes for a while; bytes a second.
fn transfer(pair: &Pair, version: Version) -> Result<f64, BenchError> {
    interrupt::check()?;
    let headers = if version == Version::V4 { 40 } else { 60 };
    let mss = MTU - BLOCK_LEN as u16 - headers;
    let flow = Flow::new(&pair.server, server_at(version, BULK), &pair.client, TIMEOUT);
    let ends = flow.tcp_connect(Some(mss))?;
    // Time stamps take twelve bytes of each segment.
    if ends.mss != u32::from(mss) - 12 {
        return Err(BenchError::Wrong {
            case: "TCP".to_owned(),
            found: format!("segments have {} bytes, not {}", ends.mss, mss - 12),
        });
    }
    let failed = |error| io("send in bulk")(error);
    ends.client.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    ends.server.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    let until = Instant::now() + WARM + SAMPLE;
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(&ends.client, until));
        let receiver = scope.spawn(|| receive(&ends.server));
        let gone = || failed(std::io::Error::other("a thread has died"));
        sender.join().map_err(|_| gone())??;
        receiver.join().map_err(|_| gone())?
    })
}

fn send(mut stream: &TcpStream, until: Instant) -> Result<(), BenchError> {
    stay_on(Core::Last)?;
    let chunk = vec![0x5a; CHUNK];
    while Instant::now() < until {
        stream.write_all(&chunk).map_err(io("send in bulk"))?;
    }
    stream.shutdown(Shutdown::Write).map_err(io("end a connection"))
}

fn receive(mut stream: &TcpStream) -> Result<f64, BenchError> {
    stay_on(Core::First)?;
    let mut buffer = vec![0; CHUNK];
    let warm = Instant::now() + WARM;
    let (mut started, mut bytes) = (warm, 0_u64);
    loop {
        let len = stream.read(&mut buffer).map_err(io("receive in bulk"))?;
        if len == 0 {
            return Ok(bytes as f64 / started.elapsed().as_secs_f64());
        }
        if bytes > 0 {
            bytes += len as u64;
        } else if Instant::now() >= warm {
            (started, bytes) = (Instant::now(), 1);
        }
    }
}

/// One way beside another, round by round.
fn beside(samples: &Samples, way: Way, other: Way, version: usize) -> Figure {
    let list = |way: Way| {
        let position = Way::ALL.iter().position(|&one| one == way).unwrap_or_default();
        samples.get(position).and_then(|ways| ways.get(version)).into_iter().flatten()
    };
    Figure::of(list(way).zip(list(other)).map(|(own, other)| own / other).collect())
}

fn tell(samples: &Samples) -> Found {
    let mut rows = Vec::new();
    for (way, by_version) in Way::ALL.into_iter().zip(samples) {
        let mut row = vec![way.name().to_owned()];
        for (version, list) in by_version.iter().enumerate() {
            let gigabits = Figure::of(list.iter().map(|bytes| bytes * 8e-9).collect());
            row.push(format!("{:.1} ±{:.1}", gigabits.median, gigabits.spread));
            row.push(fine_ratio(beside(samples, way, Way::Nothing, version)));
        }
        rows.push(row);
    }
    let mut row = strings(["    beside the empty XDP program"]);
    for version in 0..VERSIONS.len() {
        row.push(String::new());
        row.push(fine_ratio(beside(samples, Way::Xdp, Way::EmptyXdp, version)));
    }
    rows.push(row);
    let worst = (0..VERSIONS.len())
        .map(|version| beside(samples, Way::Tcx, Way::Nothing, version).median)
        .fold(f64::INFINITY, f64::min);
    let target = Target {
        what: "labelled beside unlabelled TCP, at tcx".to_owned(),
        wanted: format!("at least {RATIO_MIN}"),
        found: format!("{worst:.3}"),
        met: worst >= RATIO_MIN,
    };
    Found { targets: vec![target], sections: vec![section(rows)] }
}

fn section(rows: Vec<Vec<String>>) -> Section {
    Section {
        title: "Labelled beside unlabelled TCP",
        notes: vec![
            format!(
                "One connection between two namespaces over veth, sender and receiver on a core \
                 each, by the clock on the wall: {TURNS} times {} ms in each round. All ways have the same \
                 segments, {} bytes of TCP over IPv4 and {} over IPv6, as labels leave room for \
                 in {MTU}; both directions carry labels where govc is. Ratios are medians of \
                 those of neighbours in time.",
                SAMPLE.as_millis(),
                MTU - BLOCK_LEN as u16 - 40,
                MTU - BLOCK_LEN as u16 - 60,
            ),
            "Any XDP program at a veth turns the other end's segmentation offload off: what it \
             takes by being there is the third row."
                .to_owned(),
        ],
        head: strings([
            "at the ends",
            "IPv4, Gbit/s",
            "times nothing",
            "IPv6, Gbit/s",
            "times nothing",
        ]),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_neighbours() {
        let mut samples = Samples::default();
        // The machine becomes twice as fast; labels take a tenth all the time.
        samples[0][0] = vec![100.0, 200.0, 200.0];
        samples[1][0] = vec![90.0, 180.0, 180.0];
        samples[0][1] = vec![100.0];
        samples[1][1] = vec![97.0];
        assert_eq!(beside(&samples, Way::Tcx, Way::Nothing, 0).median, 0.9);
        let found = tell(&samples);
        assert_eq!(found.targets[0].found, "0.900");
        assert!(!found.targets[0].met);
    }
}
