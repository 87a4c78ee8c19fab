//! `govc run`: a cgroup for one process and its children, which a stamp rule speaks for, and an
//! operation that all of their sockets have.

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_attach_type;
use govc_abi::{
    attribute::{self, Request},
    declare,
    image::{LABEL_DECLARED, LABEL_FURTHER, LABEL_WORDS, program},
    node::LEAF_NONE,
};
use govc_image::Image;

use crate::{
    cgroup,
    error::{LoadError, bpf, file},
    instance::{Instance, Place},
    link::attach_to_cgroup,
    netdev, object, publish,
};

/// Directory of such cgroups, below the root of the hierarchy.
pub const DIRECTORY: &str = "/govc.run";

/// The cgroup of one run. Removed with it, unless processes that outlive the run are in it.
pub struct Run {
    dir: PathBuf,
}

impl Run {
    /// Makes the cgroup `/govc.run/SUBJECT/PID`, for which the policy in force has to speak. With an
    /// operation, all sockets made in it are for that one, and may declare no other.
    ///
    /// # Errors
    /// No policy is in force, none of its stamp rules grants this, or the kernel refuses.
    pub fn new(place: &Place, subject: &str, operation: Option<&str>) -> Result<Self, LoadError> {
        let instance = Instance::open(place)?;
        let (_, image) = instance.active_image()?;
        let root = cgroup::root().ok_or(LoadError::NoCgroups)?;
        let above = format!("{DIRECTORY}/{subject}");
        let path = format!("{above}/{}", std::process::id());
        let number = cgroup::number_of(&image.names().cgroups, &path);
        let refused = |what| LoadError::NotGranted {
            what,
            subject: subject.to_owned(),
            cgroups: format!("{above}/*"),
        };
        if number == 0 {
            return Err(refused(format!("no stamp rule speaks for the cgroup `{path}`")));
        }
        let labels = granted(&image, number, subject)?;
        if labels.is_empty() {
            return Err(refused(format!(
                "the stamp rule for the cgroup `{path}` names another subject than `{subject}`"
            )));
        }
        if let Some(operation) = operation
            && !labels.iter().any(|label| declares(&image, *label, operation))
        {
            return Err(refused(format!(
                "no stamp rule grants the operation `{operation}` to `{subject}`"
            )));
        }
        remove_ended(&root.join(above.trim_start_matches('/')));
        let run = Self { dir: root.join(path.trim_start_matches('/')) };
        fs::create_dir_all(&run.dir).map_err(file("cannot make cgroup", &run.dir))?;
        let made = fs::metadata(&run.dir).map_err(file("cannot look at", &run.dir))?;
        // The kernel has found it already where it watches, and this says the same.
        publish::note_cgroup(&instance, made.ino(), number)?;
        if let Some(operation) = operation {
            run.declare(&instance, operation)?;
        }
        Ok(run)
    }

    /// Lets all sockets that are made in the cgroup declare an operation, as long as it exists.
    fn declare(&self, instance: &Instance, operation: &str) -> Result<(), LoadError> {
        let hash = declare::hash(operation.as_bytes());
        let mut programs = object::load_run(instance, hash)?;
        let directory = fs::File::open(&self.dir).map_err(file("cannot open", &self.dir))?;
        let what = || format!("cannot attach to the sockets of `{}`", self.dir.display());
        let program = programs.socket_made()?;
        let program = program.fd().map_err(bpf(what()))?.as_fd();
        let kind = bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE;
        attach_to_cgroup(program, directory.as_fd(), kind).map_err(bpf(what()))
    }

    /// Runs `start` as a process of the cgroup; what it starts stays there.
    ///
    /// # Errors
    /// The kernel lets this process neither in nor out.
    pub fn start<T>(&self, start: impl FnOnce() -> T) -> Result<T, LoadError> {
        let own = cgroup::own().ok_or(LoadError::NoCgroups)?;
        enter(&self.dir)?;
        let started = start();
        enter(&own)?;
        Ok(started)
    }
}

/// Moves this process into a cgroup.
fn enter(dir: &Path) -> Result<(), LoadError> {
    let processes = dir.join("cgroup.procs");
    fs::write(&processes, "0").map_err(file("cannot enter cgroup", processes))
}

impl Drop for Run {
    fn drop(&mut self) {
        // Fails while processes are in it; a later run removes it then.
        let _ = fs::remove_dir(&self.dir);
        if let Some(above) = self.dir.parent() {
            let _ = fs::remove_dir(above);
        }
    }
}

/// Removes cgroups of runs that are over.
fn remove_ended(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ended = name
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
            .is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists());
        if ended {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Numbers of the labels of `subject` that stamp rules write for processes of cgroups with a
/// pattern's number, by whichever zone and from whichever address of this node.
fn granted(image: &Image, cgroup: u32, subject: &str) -> Result<Vec<u32>, LoadError> {
    let addresses = netdev::addresses()?;
    let sources: Vec<[u64; 2]> =
        std::iter::once([0; 2]).chain(addresses.into_iter().map(as_halves)).collect();
    let mut found = Vec::new();
    for zone in 0..=image.names().zones.len() as u32 {
        for &source in &sources {
            let mut request = Request { source, ..Request::EMPTY };
            for (attribute, value) in [(attribute::EGRESS_ZONE, zone), (attribute::CGROUP, cgroup)]
            {
                if let Some(scalar) = request.scalars.get_mut(attribute as usize) {
                    *scalar = value;
                }
            }
            let label = image.decide(program::STAMP, &request).winner;
            let name = image.names().labels.get(label as usize);
            if label != LEAF_NONE
                && name.is_some_and(|name| name.text == subject)
                && !found.contains(&label)
            {
                found.push(label);
            }
        }
    }
    Ok(found)
}

fn as_halves(address: std::net::IpAddr) -> [u64; 2] {
    let bits = match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        std::net::IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

/// Whether the stamp rule of a label grants an operation.
fn declares(image: &Image, label: u32, operation: &str) -> bool {
    let at = image.word(govc_abi::image::AT_LABELS);
    let record = |number: u32| at.wrapping_add(number.wrapping_mul(LABEL_WORDS));
    let further = image.word(record(label).wrapping_add(LABEL_FURTHER));
    let (first, count) = govc_abi::image::further(further);
    let wanted = declare::hash(operation.as_bytes());
    std::iter::once(label).chain(first..first + count).any(|number| {
        let at = record(number).wrapping_add(LABEL_DECLARED);
        u64::from(image.word(at)) | u64::from(image.word(at + 1)) << 32 == wanted
    })
}
