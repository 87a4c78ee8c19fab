//! Which cgroups a policy's patterns match. The id of a cgroup is the inode of its directory in
//! the cgroup2 hierarchy.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Cgroup ids with the number of the first pattern that matches, from 1. A pattern also covers
/// everything below what it matches.
#[must_use]
pub fn matching(patterns: &[String]) -> Vec<(u64, u32)> {
    if patterns.is_empty() {
        return Vec::new();
    }
    let numbered = paths().into_iter().map(|(id, path)| (id, number_of(patterns, &path)));
    numbered.filter(|(_, number)| *number != 0).collect()
}

/// The mount point of the cgroup2 hierarchy.
#[must_use]
pub fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Where the kernel describes its tracepoints, which tell of cgroups that come and go: tracefs.
pub const TRACING: &str = "/sys/kernel/tracing";

/// Whether the kernel's description of its tracepoints is mounted.
#[must_use]
pub fn is_told_of() -> bool {
    let told = |dir: &&str| Path::new(dir).join("events/cgroup/cgroup_mkdir").exists();
    [TRACING, "/sys/kernel/debug/tracing"].iter().any(told)
}

/// Mounts it where nobody has. What is not there when this is over cannot be had.
pub(crate) fn mount_tracing() {
    if is_told_of() {
        return;
    }
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    if let Err(error) = rustix::mount::mount("tracefs", TRACING, "tracefs", flags, None) {
        tracing::debug!("cannot mount tracefs at `{TRACING}`: {error}");
    }
}

/// The number that [`matching`] gives a cgroup by its path, such as `/api/1`; 0 for none.
#[must_use]
pub fn number_of(patterns: &[String], path: &str) -> u32 {
    let parts = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let above: Vec<&str> = parts.filter_map(|end| path.get(..end)).collect();
    let position = patterns
        .iter()
        .position(|pattern| above.iter().any(|part| govc_image::glob(pattern, part)));
    position.map_or(0, |i| i as u32 + 1)
}

/// The directory of this process's cgroup.
#[must_use]
pub fn own() -> Option<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    root().map(|root| root.join(path))
}

/// All cgroups: their ids, and their paths below the mount point, which is empty for the root.
#[must_use]
pub fn paths() -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, String)> =
        root().into_iter().map(|root| (root, String::new())).collect();
    while let Some((dir, path)) = open.pop() {
        if let Ok(metadata) = fs::metadata(&dir) {
            found.push((metadata.ino(), path.clone()));
        }
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name();
                open.push((entry.path(), format!("{path}/{}", name.to_string_lossy())));
            }
        }
    }
    found
}
