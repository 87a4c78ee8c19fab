//! Packets that leave with a label.

use std::{net::UdpSocket, os::fd::AsRawFd as _};

use govc_loader::attach::HookChoice;

use crate::{
    cells::{plain, strings},
    error::{BenchError, io},
    frames::Version,
    instance::{Instance, Keys, Site},
    interrupt,
    machine::thread_ns,
    measure::Figure,
    pair::{DEVICE, Pair, address, vocabulary},
    policy,
    progress::Progress,
    report::Section,
    suite::Plan,
};

/// Datagrams of one sample.
const DATAGRAMS: u32 = 4000;
/// Samples of each round.
const TURNS: usize = 3;
const PAYLOAD: [u8; 64] = [0x5a; 64];
const PORT: u16 = 4433;
const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

/// What a socket's datagrams are stamped with.
struct Way {
    name: &'static str,
    /// Operations that the stamp rule grants; none without govc.
    granted: usize,
    /// Which one the socket declares.
    declares: Option<usize>,
}

const WAYS: [Way; 5] = [
    Way { name: "nothing attached", granted: 0, declares: None },
    Way { name: "one operation granted", granted: 1, declares: None },
    Way { name: "two granted, none declared", granted: 2, declares: None },
    Way { name: "two granted, the second declared", granted: 2, declares: Some(1) },
    Way { name: "16 granted, the last declared", granted: 16, declares: Some(15) },
];

/// Nanoseconds for each datagram, by way, IP version and round.
type Samples = [[Vec<f64>; 2]; WAYS.len()];

/// Measures all ways in turn.
pub fn measure(plan: Plan, progress: &Progress) -> Result<Section, BenchError> {
    let mut pairs = Vec::new();
    let mut sockets: Vec<(usize, usize, UdpSocket)> = Vec::new();
    for (number, way) in WAYS.iter().enumerate() {
        let (pair, instance) = stamping(way.granted)?;
        for (position, &version) in VERSIONS.iter().enumerate() {
            let socket = connected(&pair, version)?;
            if let Some(declared) = way.declares {
                govc_client::declare(socket.as_raw_fd(), &operation(declared))
                    .map_err(|error| io("declare")(std::io::Error::other(error)))?;
            }
            sockets.push((number, position, socket));
        }
        pairs.push((pair, instance));
    }
    let mut samples = Samples::default();
    for turn in 0..=plan.effort.rounds * TURNS {
        let round = turn.div_ceil(TURNS);
        progress.say(|| format!("leaving packets, round {round} of {}", plan.effort.rounds));
        for (way, version, socket) in &sockets {
            let sample = send(socket)?;
            let list = samples.get_mut(*way).and_then(|ways| ways.get_mut(*version));
            // The first one is there to try.
            if let Some(list) = list.filter(|_| turn > 0) {
                list.push(sample);
            }
        }
        sockets.reverse();
    }
    for (_, instance) in &pairs {
        let Some(instance) = instance else { continue };
        let denied = instance.reasons()?.into_iter().find(|one| one.permitted == Some(false));
        if let Some(one) = denied {
            let found = format!("{} packets end with `{}`", one.packets, one.reason);
            return Err(BenchError::Wrong { case: "leaving packets".to_owned(), found });
        }
    }
    Ok(tell(&samples))
}

/// A client that stamps, and a link to a server that drops what comes.
fn stamping(granted: usize) -> Result<(Pair, Option<Instance>), BenchError> {
    let pair = Pair::bare()?;
    pair.lead_away()?;
    if granted == 0 {
        return Ok((pair, None));
    }
    let operations: Vec<String> = (0..granted).map(operation).collect();
    let image = policy::image(vocabulary("client", &operations.join(" or ")))?;
    let site = Site { namespace: &pair.client, interfaces: &[DEVICE], hook: HookChoice::Tcx };
    let instance = Instance::at(site, &image, &Keys::new()?)?;
    Ok((pair, Some(instance)))
}

fn operation(number: usize) -> String {
    format!("call.c{number}")
}

fn connected(pair: &Pair, version: Version) -> Result<UdpSocket, BenchError> {
    let to = match version {
        Version::V4 => policy::object_v4(0).into(),
        Version::V6 => policy::object_v6(0).into(),
    };
    let open = || {
        let socket = UdpSocket::bind((address(version, 1), 0))?;
        socket.connect(std::net::SocketAddr::new(to, PORT))?;
        Ok(socket)
    };
    pair.client.try_run(open)?.map_err(io("open a socket"))
}

fn send(socket: &UdpSocket) -> Result<f64, BenchError> {
    interrupt::check()?;
    let mut started = 0;
    // As many before as make caches warm.
    for number in 0..DATAGRAMS + DATAGRAMS / 4 {
        if number == DATAGRAMS / 4 {
            started = thread_ns();
        }
        socket.send(&PAYLOAD).map_err(io("send a datagram"))?;
    }
    Ok((thread_ns() - started) as f64 / f64::from(DATAGRAMS))
}

fn tell(samples: &Samples) -> Section {
    let [nothing, ..] = samples;
    let row = |(way, by_version): (&Way, &[Vec<f64>; 2])| {
        let mut row = vec![way.name.to_owned()];
        for (own, floor) in by_version.iter().zip(nothing) {
            let floor = floor.iter().copied().map(|ns| if way.granted == 0 { 0.0 } else { ns });
            let over = own.iter().zip(floor).map(|(own, floor)| own - floor).collect();
            row.push(plain(Figure::of(over)));
        }
        row
    };
    Section {
        title: "Packets that leave",
        notes: vec![format!(
            "Nanoseconds for each datagram of {} bytes from a socket, through `send`, the stack, \
             the egress hook and a veth to a namespace that drops it: the first row; what the \
             label takes on top of that in the others: stamp, decide, compute the MAC, count, and \
             32 bytes more on the way. Where a stamp rule grants several operations, the hook \
             looks for what the socket has declared.",
            PAYLOAD.len()
        )],
        head: strings(["stamp rule and socket", "IPv4, ns", "IPv6, ns"]),
        rows: WAYS.iter().zip(samples).map(row).collect(),
    }
}
