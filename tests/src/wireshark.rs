//! Running tshark with the dissector in `wireshark/`, and reading what it says.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use govc_abi::label::{self, FLAG_REPLY, FLAG_RESERVED, FLAG_SEQ, FLAG_TRACE, Label};

/// When all packets were captured, in seconds since 1970.
pub const CAPTURED: u32 = 1_700_000_000;
const ETHERNET: u32 = 1;
/// The dissector, as the option `-X` takes it.
pub const SCRIPT: &str =
    concat!("lua_script:", env!("CARGO_MANIFEST_DIR"), "/../wireshark/govc.lua");

/// A field and what it must show.
pub type Field = (&'static str, fn(&Label) -> u64);

/// Fields of every label that can be read, but for the last two bytes before the MAC.
pub const FIELDS: &[Field] = &[
    ("govc.version", |label| label.version().into()),
    ("govc.flags", |label| label.flags().into()),
    ("govc.flags.reserved", |label| u64::from(label.flags() & FLAG_RESERVED != 0)),
    ("govc.flags.trace", |label| u64::from(label.flags() & FLAG_TRACE != 0)),
    ("govc.flags.seq", |label| u64::from(label.flags() & FLAG_SEQ != 0)),
    ("govc.flags.reply", |label| u64::from(label.flags() & FLAG_REPLY != 0)),
    ("govc.epoch", |label| label.epoch().into()),
    ("govc.life", |label| label.life().into()),
    ("govc.domain", |label| label.domain().into()),
    ("govc.subject", |label| label.subject().into()),
    ("govc.level", |label| label.level().into()),
    ("govc.radius", |label| label.radius().into()),
    ("govc.compartments", |label| label.compartments().into()),
    ("govc.constraints", |label| label.constraints().into()),
    ("govc.operation", |label| label.operation().into()),
    ("govc.residency", |label| label.residency().into()),
    ("govc.route", |label| label.route().into()),
    ("govc.slot", |label| label.slot().into()),
];
/// Those that depend on more than one of its bits.
pub const OTHERS: &[&str] = &[
    "govc.grant",
    "govc.seq",
    "govc.age",
    "govc.mac",
    "govc.carriage",
    "govc.quoted",
    "govc.refused",
];
/// What can be wrong with a label.
pub const EXPERTS: &[&str] = &[
    "govc.shape.length",
    "govc.shape.position",
    "govc.shape.others",
    "govc.shape.extension",
    "govc.shape.fragment",
    "govc.shape.truncated",
    "govc.version.unknown",
    "govc.flags.reserved.set",
    "govc.flags.seq.set",
    "govc.constraints.unknown",
];
/// Names of the numbers, where there is a vocabulary.
pub const NAMES: &[&str] = &[
    "govc.domain.name",
    "govc.subject.name",
    "govc.level.name",
    "govc.compartments.name",
    "govc.constraints.name",
    "govc.operation.name",
    "govc.residency.name",
    "govc.route.name",
];

/// Whether there is a tshark. Without it tests are skipped, as those that need the kernel are.
pub fn tshark_available() -> bool {
    let available = Command::new("tshark").arg("--version").output().is_ok();
    if !available {
        assert!(
            std::env::var_os("GOVC_REQUIRE_KERNEL").is_none(),
            "GOVC_REQUIRE_KERNEL is set, but there is no tshark"
        );
        println!("skipped: needs tshark");
    }
    available
}

/// A directory of one test's own, gone with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("govc-dissector-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Puts a file into it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A capture of frames, of each the first `cut` bytes: pcap, version 2.4.
pub fn pcap<'a>(frames: impl IntoIterator<Item = (&'a [u8], usize)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x0004_0000, ETHERNET] {
        bytes.extend(u32::to_le_bytes(word));
    }
    for (frame, cut) in frames {
        for word in [CAPTURED, 0, cut as u32, frame.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&frame[..cut]);
    }
    bytes
}

/// A capture of whole frames.
pub fn whole(frames: &[Vec<u8>]) -> Vec<u8> {
    pcap(frames.iter().map(|frame| (frame.as_slice(), frame.len())))
}

/// tshark. Settings and plugins of whoever runs the tests have no part in it.
pub fn without_settings(scratch: &Scratch) -> Command {
    let mut command = Command::new("tshark");
    for home in ["HOME", "XDG_CONFIG_HOME", "WIRESHARK_CONFIG_DIR"] {
        command.env(home, &scratch.0);
    }
    command.env_remove("GOVC_NAMES").env("LC_ALL", "C.UTF-8");
    command
}

/// Runs it on a capture, with a file of names or without.
pub fn tshark(
    scratch: &Scratch,
    capture: &[u8],
    names: Option<&Path>,
    arguments: &[&str],
) -> Output {
    let capture = scratch.write("capture.pcap", capture);
    let mut command = without_settings(scratch);
    command.args(["-X", SCRIPT]);
    if let Some(names) = names {
        command.env("GOVC_NAMES", names);
    }
    let output = command.arg("-n").arg("-r").arg(capture).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// What tshark printed, when it had nothing to complain of.
pub fn printed(output: Output) -> String {
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains("Lua") && !told.contains("govc"), "{told}");
    String::from_utf8(output.stdout).unwrap()
}

/// What one packet shows. Fields of several labels are separated by commas.
pub struct Shown {
    fields: Vec<(&'static str, String)>,
    error: String,
}

impl Shown {
    /// A field as tshark prints it.
    pub fn text(&self, field: &str) -> &str {
        let found = self.fields.iter().find(|(name, _)| *name == field);
        &found.unwrap_or_else(|| panic!("{field} was not asked for")).1
    }

    /// The numbers of a field, one for each label.
    pub fn numbers(&self, field: &str) -> Vec<i64> {
        let parts = self.text(field).split(',').filter(|part| !part.is_empty());
        let read = |part: &str| match part {
            "True" => 1,
            "False" => 0,
            _ => match part.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16).unwrap(),
                None => part.parse().unwrap(),
            },
        };
        parts.map(read).collect()
    }

    /// The number of a field of one label.
    pub fn number(&self, field: &str) -> Option<i64> {
        match self.numbers(field)[..] {
            [] => None,
            [number] => Some(number),
            _ => panic!("{field} of several labels: {}", self.text(field)),
        }
    }

    /// What is told to be wrong.
    pub fn experts(&self) -> BTreeSet<&str> {
        EXPERTS.iter().copied().filter(|expert| !self.text(expert).is_empty()).collect()
    }

    /// Whether a label could be read.
    pub fn has_fields(&self) -> bool {
        !self.text("govc.mac").is_empty()
    }

    /// The names that a field shows.
    pub fn names(&self, field: &str) -> Vec<&str> {
        self.text(field).split(',').filter(|name| !name.is_empty()).collect()
    }

    /// Everything that a label with this MAC says.
    pub fn compare(&self, label: &Label, mac: u64, frame: &[u8]) {
        for (name, value) in FIELDS {
            assert_eq!(self.number(name), Some(value(label) as i64), "{name} {frame:02x?}");
        }
        let (has, lacks) = if label.flags() & FLAG_SEQ == 0 {
            ("govc.grant", "govc.seq")
        } else {
            ("govc.seq", "govc.grant")
        };
        assert_eq!(self.number(has), Some(label.grant().into()));
        assert_eq!(self.number(lacks), None);
        let now = u64::from(CAPTURED) * 1_000_000_000 / label::SLOT_NS;
        assert_eq!(self.number("govc.age"), Some(label::age(now, label.slot()).into()));
        let mac: String = mac.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.text("govc.mac").replace(':', ""), mac);
    }
}

/// All fields of each packet of a capture.
pub fn dissect_capture(capture: &[u8], names: Option<&Path>, count: usize) -> Vec<Shown> {
    let scratch = Scratch::new();
    let asked: Vec<&'static str> = FIELDS
        .iter()
        .map(|(name, _)| name)
        .chain(OTHERS)
        .chain(EXPERTS)
        .chain(NAMES)
        .copied()
        .collect();
    let mut arguments = vec!["-T", "fields", "-E", "separator=/t", "-E", "aggregator=,"];
    for field in &asked {
        arguments.extend(["-e", *field]);
    }
    arguments.extend(["-e", "_ws.lua.error"]);
    let printed = printed(tshark(&scratch, capture, names, &arguments));
    let shown: Vec<Shown> = printed
        .lines()
        .map(|line| {
            let values: Vec<&str> = line.split('\t').collect();
            assert_eq!(values.len(), asked.len() + 1, "{line:?}");
            let fields = asked.iter().copied().zip(values.iter().map(|&value| value.to_owned()));
            Shown { fields: fields.collect(), error: values[asked.len()].to_owned() }
        })
        .collect();
    assert_eq!(shown.len(), count);
    for shown in &shown {
        assert_eq!(shown.error, "");
        let harmless = ["govc.shape.truncated", "govc.shape.fragment"];
        let refused = shown.experts().iter().any(|expert| !harmless.contains(expert));
        assert_eq!(!shown.text("govc.refused").is_empty(), refused, "{:?}", shown.experts());
    }
    shown
}

/// Likewise, of whole frames and without names.
pub fn dissect(frames: &[Vec<u8>]) -> Vec<Shown> {
    dissect_capture(&whole(frames), None, frames.len())
}

/// The Info column of each packet.
pub fn info(frames: &[Vec<u8>], names: Option<&Path>) -> Vec<String> {
    let scratch = Scratch::new();
    let arguments = ["-o", "gui.column.format:\"Info\",\"%i\""];
    let printed = printed(tshark(&scratch, &whole(frames), names, &arguments));
    let lines: Vec<_> = printed.lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(lines.len(), frames.len());
    lines
}
