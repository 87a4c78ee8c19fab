//! A service whose policy is about what requests do: by operations that sockets declare, and by
//! proxies that read method and path.

mod load;
mod serve;

use std::time::Duration;

use govc_loader::attach::HookChoice;

use crate::{
    cells::{fine_ratio, grouped, strings},
    error::BenchError,
    measure::Figure,
    pair::{OPERATION, Pair, SERVICE},
    progress::Progress,
    report::Section,
    suite::{Found, Plan},
    targets::Target,
};

/// How much longer the 95th percentile may take than without a policy.
const P95_MAX: f64 = 1.05;
/// Connections at the same time, each with one request at a time.
const CONNECTIONS: [usize; 2] = [1, 16];
/// How long connections are at work before requests count.
const WARM: Duration = Duration::from_millis(60);
/// How long they count.
const SAMPLE: Duration = Duration::from_millis(250);
/// Port of the proxy that is part of the benchmark.
const PROXY: u16 = 8081;
/// Port of HAProxy.
const HAPROXY: u16 = 8082;

/// What stands between client and service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Bare,
    Govc,
    Haproxy,
    Proxy,
}

impl Way {
    const ALL: [Self; 4] = [Self::Bare, Self::Govc, Self::Haproxy, Self::Proxy];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "nothing",
            Self::Govc => "govc at both ends",
            Self::Haproxy => "HAProxy",
            Self::Proxy => "a proxy of hyper",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Bare | Self::Govc => SERVICE,
            Self::Haproxy => HAPROXY,
            Self::Proxy => PROXY,
        }
    }
}

/// What one way came to with so many connections, by round.
#[derive(Default)]
struct Line {
    per_second: Vec<f64>,
    /// 50th, 95th and 99th percentile, microseconds.
    percentiles: [Vec<f64>; 3],
}

/// By way and number of connections.
type Samples = [[Line; 2]; 4];

/// The services; the threads and programs behind them end with it.
struct Services {
    bare: Pair,
    governed: Pair,
    _servers: Vec<serve::Server>,
    haproxy: Option<serve::Haproxy>,
}

impl Services {
    fn start() -> Result<Self, BenchError> {
        let (bare, governed) = (Pair::bare()?, Pair::governed(HookChoice::Tcx)?);
        let servers = vec![
            serve::Server::service(&bare.server)?,
            serve::Server::service(&governed.server)?,
            serve::Server::proxy(&bare.server, PROXY)?,
        ];
        let haproxy = serve::Haproxy::start(&bare.server, HAPROXY)?;
        let services = Self { bare, governed, _servers: servers, haproxy };
        services.check_that_others_are_refused()?;
        Ok(services)
    }

    fn pair(&self, way: Way) -> &Pair {
        if way == Way::Govc { &self.governed } else { &self.bare }
    }

    fn has(&self, way: Way) -> bool {
        way != Way::Haproxy || self.haproxy.is_some()
    }

    /// What is timed has to be a policy.
    fn check_that_others_are_refused(&self) -> Result<(), BenchError> {
        for way in [Way::Govc, Way::Haproxy, Way::Proxy] {
            if !self.has(way) {
                continue;
            }
            let refused = match way {
                Way::Govc => load::is_unheard(&self.governed.client, way.port())?,
                _ => load::refuses_writes(&self.bare.client, way.port())?,
            };
            if !refused {
                let found = "it lets through what it is to refuse".to_owned();
                return Err(BenchError::Wrong { case: way.name().to_owned(), found });
            }
        }
        Ok(())
    }
}

/// Measures all ways in turn.
pub fn measure(plan: Plan, progress: &Progress) -> Result<Found, BenchError> {
    progress.say(|| "starting services".to_owned());
    let services = Services::start()?;
    let mut samples = Samples::default();
    let mut all: Vec<(usize, usize)> = Vec::new();
    for (number, &way) in Way::ALL.iter().enumerate().filter(|(_, way)| services.has(**way)) {
        // So that whoever listens last is not the one who is asked first.
        load::wait_for(&services.pair(way).client, way.port(), way == Way::Govc)?;
        all.extend((0..CONNECTIONS.len()).map(|connections| (number, connections)));
    }
    for round in 0..plan.effort.rounds {
        progress.say(|| format!("HTTP, round {} of {}", round + 1, plan.effort.rounds));
        for &(number, position) in &all {
            let (Some(&way), Some(&connections)) =
                (Way::ALL.get(number), CONNECTIONS.get(position))
            else {
                continue;
            };
            let load = load::Load {
                port: way.port(),
                declares: (way == Way::Govc).then_some(OPERATION),
                connections,
                warm: WARM,
                sample: SAMPLE,
            };
            let taken = load.run(&services.pair(way).client)?;
            if let Some(line) = samples.get_mut(number).and_then(|way| way.get_mut(position)) {
                line.add(taken);
            }
        }
        all.reverse();
    }
    let version = services.haproxy.as_ref().map(|haproxy| haproxy.version.as_str());
    Ok(tell(&samples, version))
}

impl Line {
    /// Adds one sample: what each request took, nanoseconds.
    fn add(&mut self, mut taken: Vec<u32>) {
        taken.sort_unstable();
        self.per_second.push(taken.len() as f64 / SAMPLE.as_secs_f64());
        for (list, percent) in self.percentiles.iter_mut().zip([50, 95, 99]) {
            let at = (taken.len() * percent / 100).min(taken.len().saturating_sub(1));
            list.push(taken.get(at).map_or(f64::NAN, |&ns| f64::from(ns) / 1e3));
        }
    }

    fn p95_beside(&self, other: &Self) -> Figure {
        let (Self { percentiles: [_, own, _], .. }, Self { percentiles: [_, other, _], .. }) =
            (self, other);
        Figure::of(own.iter().zip(other).map(|(own, other)| own / other).collect())
    }
}

fn tell(samples: &Samples, haproxy: Option<&str>) -> Found {
    let [bare, govc, ..] = samples;
    let mut rows = Vec::new();
    for (position, &connections) in CONNECTIONS.iter().enumerate() {
        for (way, lines) in Way::ALL.iter().zip(samples) {
            let (Some(line), Some(bare)) = (lines.get(position), bare.get(position)) else {
                continue;
            };
            if line.per_second.is_empty() {
                continue;
            }
            let count = if connections == 1 { "one connection" } else { "16 connections" };
            let mut row = vec![format!("{}, {count}", way.name())];
            row.push(grouped(Figure::of(line.per_second.clone()).median as u32));
            for list in &line.percentiles {
                row.push(format!("{:.0}", Figure::of(list.clone()).median));
            }
            row.push(fine_ratio(line.p95_beside(bare)));
            rows.push(row);
        }
    }
    let worst = govc.iter().zip(bare).map(|(own, bare)| own.p95_beside(bare).median);
    let worst = worst.fold(0.0, f64::max);
    let target = Target {
        what: "95th percentile of HTTP requests with a declared operation".to_owned(),
        wanted: format!("at most {P95_MAX} times bare"),
        found: format!("{worst:.3}"),
        met: worst <= P95_MAX,
    };
    Found { targets: vec![target], sections: vec![section(rows, haproxy)] }
}

fn section(rows: Vec<Vec<String>>, haproxy: Option<&str>) -> Section {
    let notes = vec![
        format!(
            "A service of hyper answers `GET /items/7` with 512 bytes; the client is on one core, \
             the service on the other, and with it the proxy, as a sidecar shares a node with its \
             workload. Connections are kept alive, and each has one request at a time: {} ms in \
             each round, over IPv4 and veth.",
            SAMPLE.as_millis()
        ),
        format!(
            "With govc each connection declares `{OPERATION}`, without which the server's policy \
             does not let it in, and nobody reads a request. The proxies look at method and path \
             of each request and refuse whatever is not `GET /items/..`. Before the run each is \
             shown something that it has to refuse."
        ),
        match haproxy {
            Some(version) => format!("HAProxy {version}, one thread."),
            None => "HAProxy was not measured: package `haproxy` is not installed here.".to_owned(),
        },
    ];
    Section {
        title: "A service with declared operations",
        notes,
        head: strings(["in between", "requests/s", "P50, µs", "P95, µs", "P99, µs", "P95 by bare"]),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_a_round() {
        let mut line = Line::default();
        line.add((1..=1000).rev().map(|us| us * 1000).collect());
        line.add(vec![7000]);
        assert_eq!(line.percentiles[0], [501.0, 7.0]);
        assert_eq!(line.percentiles[1], [951.0, 7.0]);
        assert_eq!(line.percentiles[2], [991.0, 7.0]);
        let mut twice = Line::default();
        twice.add((1..=1000).map(|us| us * 2000).collect());
        assert_eq!(twice.p95_beside(&line).median, 2.0);
    }
}
