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
    let mut found = Vec::new();
    if !patterns.is_empty()
        && let Some(root) = root()
    {
        visit(&root, "", 0, patterns, &mut found);
    }
    found
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

fn visit(dir: &Path, path: &str, above: u32, patterns: &[String], found: &mut Vec<(u64, u32)>) {
    let position = patterns.iter().position(|pattern| govc_image::glob(pattern, path));
    let own = position.map_or(0, |i| i as u32 + 1);
    let number = match (own, above) {
        (0, number) | (number, 0) => number,
        (own, above) => own.min(above),
    };
    if number != 0
        && let Ok(metadata) = fs::metadata(dir)
    {
        found.push((metadata.ino(), number));
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name();
            let path = format!("{path}/{}", name.to_string_lossy());
            visit(&entry.path(), &path, number, patterns, found);
        }
    }
}
