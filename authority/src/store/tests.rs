use std::collections::BTreeMap;

use super::*;
use crate::{
    bundle::{Terms, verify},
    testing::{bundle, digest, new_node, root, set, terms},
};

/// States that follow from each other.
fn history() -> Vec<Trust> {
    let mut states = vec![new_node()];
    let mut previous = None;
    for generation in 1..=3 {
        let next = bundle(terms(generation, previous), &[1, 2]);
        previous = Some(digest(&next));
        let trust = states.last().unwrap();
        states.push(trust.after(&verify(&next, trust, 1500).unwrap()).unwrap());
    }
    states
}

/// A disk that remembers what would outlive a power loss.
#[derive(Clone, Default)]
struct Volatile {
    /// Contents that were written, and those that are durable, by file.
    files: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// File by name.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the directory was made durable: a name and its file.
    pending: Vec<Vec<(String, Option<usize>)>>,
    /// Operations until the power goes; the one at zero does not happen.
    steps_left: Option<usize>,
}

impl Volatile {
    fn step(&mut self) -> io::Result<()> {
        match self.steps_left.as_mut() {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Every disk that may be found when the power comes back.
    fn after_power_loss(&self) -> Vec<Self> {
        let mut disks = Vec::new();
        for applied in 0..1_usize << self.pending.len() {
            let mut names = self.durable_names.clone();
            for (at, changes) in self.pending.iter().enumerate() {
                for (name, file) in changes.iter().filter(|_| applied >> at & 1 == 1) {
                    match file {
                        Some(file) => names.insert(name.clone(), *file),
                        None => names.remove(name),
                    };
                }
            }
            // What was not made durable may be there, not at all, or in part.
            for keep in 0..4 {
                let files = self.files.iter().map(|(written, durable)| {
                    let left = match keep {
                        0 => durable.clone().unwrap_or_default(),
                        1 => written.clone(),
                        2 if durable.as_ref() != Some(written) => {
                            written[..written.len() / 2].to_vec()
                        }
                        3 if durable.as_ref() != Some(written) => vec![0; written.len()],
                        _ => written.clone(),
                    };
                    (left.clone(), Some(left))
                });
                disks.push(Self {
                    files: files.collect(),
                    names: names.clone(),
                    durable_names: names.clone(),
                    ..Self::default()
                });
            }
        }
        disks
    }
}

impl Disk for Volatile {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.names.get(name).map(|file| self.files[*file].0.clone()))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        // Truncating loses the old contents too, so a file is never written in place here.
        let file = self.files.len();
        self.files.push((bytes.to_vec(), None));
        self.names.insert(name.into(), file);
        self.pending.push(vec![(name.into(), Some(file))]);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        let file = self.names[name];
        self.files[file].1 = Some(self.files[file].0.clone());
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let file = self.names.remove(from).unwrap();
        self.names.insert(to.into(), file);
        self.pending.push(vec![(from.into(), None), (to.into(), Some(file))]);
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.step()?;
        self.durable_names = self.names.clone();
        self.pending.clear();
        Ok(())
    }
}

fn put(disk: &mut Volatile, sequence: u64, trust: &Trust) -> io::Result<()> {
    let (slot, bytes) = encode(sequence, trust, None).unwrap();
    save(disk, slot, &bytes)
}

fn held(disk: &Volatile) -> Option<Trust> {
    load(disk).unwrap().unwrap().map(|(content, _)| content.trust)
}

#[test]
fn a_power_loss_at_any_step_leaves_the_old_state_or_the_new() {
    let states = history();
    let mut disk = Volatile::default();
    let mut seen = [0; 2];
    for (before, trust) in states.iter().enumerate() {
        let old = before.checked_sub(1).map(|at| states[at].clone());
        let sequence = before as u64 + 1;
        for steps in 0..4 {
            let mut cut = disk.clone();
            cut.steps_left = Some(steps);
            assert!(put(&mut cut, sequence, trust).is_err());
            // Without a power loss, by a full disk for instance, the same holds.
            assert!(held(&cut) == old || held(&cut).as_ref() == Some(trust));
            for found in cut.after_power_loss() {
                let (loaded, damage) = match load(&found).unwrap().unwrap() {
                    Some((content, damage)) => (Some(content.trust), damage),
                    None => (None, None),
                };
                assert!(loaded == old || loaded.as_ref() == Some(trust), "step {steps}");
                assert_eq!(damage, None, "step {steps}");
                seen[usize::from(loaded.as_ref() == Some(trust))] += 1;
                // Whatever was found, the work can go on from there.
                let mut found = found;
                let next = load(&found).unwrap().unwrap().map_or(1, |(held, _)| held.sequence + 1);
                put(&mut found, next, trust).unwrap();
                assert_eq!(held(&found).as_ref(), Some(trust));
            }
        }
        put(&mut disk, sequence, trust).unwrap();
        for found in disk.after_power_loss() {
            assert_eq!(held(&found).as_ref(), Some(trust), "durable when it returns");
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "both outcomes were met: {seen:?}");
}

#[test]
fn without_any_of_the_syncs_a_power_loss_would_do_harm() {
    /// Leaves out one operation: shows that the test above would notice.
    struct Careless(Volatile, usize);
    impl Disk for Careless {
        fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            self.0.read(name)
        }
        fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.write(name, bytes)
        }
        fn sync(&mut self, name: &str) -> io::Result<()> {
            if self.1 == 0 { Ok(()) } else { self.0.sync(name) }
        }
        fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn sync_directory(&mut self) -> io::Result<()> {
            if self.1 == 1 { Ok(()) } else { self.0.sync_directory() }
        }
    }
    for left_out in 0..2 {
        let mut disk = Careless(Volatile::default(), left_out);
        let trust = new_node();
        let (slot, bytes) = encode(1, &trust, None).unwrap();
        save(&mut disk, slot, &bytes).unwrap();
        let harm = disk.0.after_power_loss().iter().any(|found| {
            !matches!(load(found).unwrap(), Ok(Some((content, _))) if content.trust == trust)
        });
        assert!(harm, "{left_out}");
    }
}

#[test]
fn a_damaged_slot_leaves_the_other_and_is_told() {
    let states = history();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    store.create(root()).unwrap();
    for pair in states.windows(2) {
        store.replace(&pair[0], &pair[1]).unwrap();
    }
    // Sequence 4 lies in slot 0, sequence 3 in slot 1.
    let path = dir.path().join(SLOTS[0]);
    let whole = fs::read(&path).unwrap();
    let mut wrong = whole.clone();
    wrong[100] ^= 1;
    fs::write(&path, wrong).unwrap();
    let state = store.read().unwrap().unwrap();
    assert_eq!((state.trust, state.damage.is_some()), (states[2].clone(), true));
    fs::remove_file(&path).unwrap();
    let state = store.read().unwrap().unwrap();
    assert_eq!((state.trust, state.damage.is_some()), (states[2].clone(), true));
    fs::write(dir.path().join(SLOTS[1]), b"").unwrap();
    assert!(matches!(store.read(), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.create(root()), Err(StoreError::Damaged { .. })));
    // A slot under the other's name is none.
    fs::write(dir.path().join(SLOTS[1]), whole).unwrap();
    assert!(matches!(store.read(), Err(StoreError::Damaged { .. })));
}

#[test]
fn every_flipped_byte_and_every_cut_of_a_slot_is_noticed() {
    let states = history();
    let mut disk = Volatile::default();
    for (trust, sequence) in states.iter().zip(1..) {
        put(&mut disk, sequence, trust).unwrap();
    }
    let whole = disk.read(SLOTS[0]).unwrap().unwrap();
    let file = disk.names[SLOTS[0]];
    let found = |bytes: &[u8]| {
        let mut disk = disk.clone();
        disk.files[file].0 = bytes.to_vec();
        let (content, damage) = load(&disk).unwrap().unwrap().unwrap();
        (content.trust, damage.is_some())
    };
    assert_eq!(found(&whole), (states[3].clone(), false));
    for at in 0..whole.len() {
        let mut wrong = whole.clone();
        wrong[at] ^= [1, 0x20, 0x80][at % 3];
        assert_eq!(found(&wrong), (states[2].clone(), true), "byte {at}");
        assert_eq!(found(&whole[..at]), (states[2].clone(), true), "{at} bytes");
    }
}

#[test]
fn a_store_goes_forward_only() {
    let states = history();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("deep").join("er"));
    assert_eq!(store.read().unwrap(), None);
    assert!(matches!(store.replace(&states[0], &states[1]), Err(StoreError::Empty { .. })));
    assert_eq!(store.create(root()).unwrap(), states[0]);
    assert!(matches!(store.create(root()), Err(StoreError::Exists { .. })));
    store.replace(&states[0], &states[2]).unwrap();
    assert!(matches!(store.replace(&states[0], &states[1]), Err(StoreError::Changed)));
    assert!(matches!(store.replace(&states[2], &states[1]), Err(StoreError::Rollback)));
    assert!(matches!(store.replace(&states[2], &states[0]), Err(StoreError::Rollback)));
    store.replace(&states[2], &states[2]).unwrap();
    let other = Trust::new(Root { signers: set(&[9], 1), ..root() });
    assert!(matches!(store.replace(&states[2], &other), Err(StoreError::Rollback)));
    let twin = bundle(Terms { not_after: 1999, ..terms(2, None) }, &[1, 2]);
    let twin = states[0].after(&verify(&twin, &states[0], 1500).unwrap()).unwrap();
    assert!(matches!(store.replace(&states[2], &twin), Err(StoreError::Rollback)));
    assert_eq!(
        store.read().unwrap(),
        Some(State { trust: states[2].clone(), log: None, damage: None })
    );
}

#[test]
fn the_end_of_the_log_is_kept_beside_the_trust() {
    let states = history();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let head = |count| Head { count, last: Some(Digest::of(&[count as u8])) };
    let held = || store.read().unwrap().unwrap().log;
    store.note_log(&head(1), false).unwrap();
    assert_eq!(store.read().unwrap(), None, "there is nothing to keep it beside");
    store.create(root()).unwrap();
    assert_eq!(held(), None);
    store.note_log(&head(2), false).unwrap();
    store.note_log(&head(1), false).unwrap();
    assert_eq!(held(), Some(head(2)));
    store.replace(&states[0], &states[1]).unwrap();
    let state = store.read().unwrap().unwrap();
    assert_eq!((state.trust, state.log), (states[1].clone(), Some(head(2))));
    store.note_log(&head(1), true).unwrap();
    assert_eq!(held(), Some(head(1)));
}

#[test]
fn the_largest_state_fits_a_slot() {
    let all: Vec<u8> = (0..64).collect();
    let root = Root { signers: set(&all, 64), ..root() };
    let first = bundle(Terms { next: set(&all, 64), ..terms(1, None) }, &all);
    let trust = Trust::new(root);
    let trust = trust.after(&verify(&first, &trust, 1500).unwrap()).unwrap();
    let log = Some(Head { count: u64::MAX, last: Some(Digest::of(b"")) });
    assert!(encode(u64::MAX, &trust, log).unwrap().1.len() < SLOT_LEN_MAX);
}

#[test]
fn a_directory_that_others_may_write_to_is_no_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let open = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    open(0o1777);
    assert!(matches!(store.create(root()), Err(StoreError::Exposed { .. })));
    open(0o755);
    let trust = store.create(root()).unwrap();
    open(0o777);
    assert!(matches!(store.read(), Err(StoreError::Exposed { .. })));
    assert!(matches!(store.replace(&trust, &trust), Err(StoreError::Exposed { .. })));
}
