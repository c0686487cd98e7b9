//! A disk with a cache: what was synced is there, what was not may be lost, whole or in part.
//!
//! A file and its name are two things, as in POSIX: syncing a file makes its content durable, syncing
//! its directory makes names durable.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::load::ACKNOWLEDGEMENTS;
use super::trace::{Argument, Call};

/// What a disk writes at once.
const SECTOR_BYTES: usize = 512;

/// The files under one directory, from the calls that were recorded.
pub(super) struct Disk {
    root: PathBuf,
    files: Vec<File>,
    /// What a process sees now.
    names: BTreeMap<PathBuf, usize>,
    /// What is left of the names after a loss of power that loses all it may.
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the directory was synced, in order.
    unsynced_names: Vec<Naming>,
    /// Where each descriptor writes next.
    positions: HashMap<i64, u64>,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    /// In order.
    unsynced: Vec<Change>,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Clone)]
enum Naming {
    Named(PathBuf, usize),
    Unnamed(PathBuf),
}

/// The files that are found after a loss of power.
pub(super) struct Image(Vec<(PathBuf, Vec<u8>)>);

impl Image {
    /// Makes the files under `dir`.
    pub(super) fn write(&self, dir: &Path) {
        for (name, content) in &self.0 {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }
}

impl Disk {
    /// An empty directory.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            positions: HashMap::new(),
        }
    }

    /// What this call tells of acknowledgements.
    pub(super) fn acknowledged(&self, call: &Call) -> Option<String> {
        match call.arguments.as_slice() {
            [Argument::File(_, path), Argument::Bytes(bytes), ..]
                if Path::new(path) == self.root.join(ACKNOWLEDGEMENTS) =>
            {
                Some(String::from_utf8(bytes.clone()).unwrap())
            }
            _ => None,
        }
    }

    /// Whether it is the sync of something in the directory.
    pub(super) fn syncs(&self, call: &Call) -> bool {
        let is_here = matches!(call.arguments.as_slice(),
            [Argument::File(_, path)] if Path::new(path).starts_with(&self.root));
        is_here && matches!(call.name.as_str(), "fsync" | "fdatasync")
    }

    /// Does what a call did.
    pub(super) fn play(&mut self, call: Call) {
        let Call { name, arguments, result, opened } = call;
        match (name.as_str(), arguments.as_slice()) {
            ("openat", [_, _, Argument::Word(flags), ..]) => {
                self.positions.insert(result, 0);
                if let Some(path) = opened.and_then(|path| self.inside(&path)) {
                    self.open(path, flags);
                }
            }
            ("lseek", [Argument::File(descriptor, _), ..]) => {
                self.positions.insert(*descriptor, u64::try_from(result).unwrap());
            }
            ("write", [Argument::File(descriptor, path), Argument::Bytes(bytes), ..]) => {
                let at = self.positions.entry(*descriptor).or_default();
                let from = usize::try_from(*at).unwrap();
                *at += u64::try_from(result).unwrap();
                self.write(path, from, bytes, result);
            }
            ("pwrite64", [Argument::File(_, path), Argument::Bytes(bytes), _, at]) => {
                self.write(path, number(at), bytes, result);
            }
            ("ftruncate", [Argument::File(_, path), length]) => {
                let length = number(length);
                if let Some(file) = self.file(path) {
                    file.unsynced.push(Change::Resize(length));
                }
            }
            ("fsync" | "fdatasync", [Argument::File(_, path)]) => self.sync(path),
            ("rename", [Argument::Bytes(from), Argument::Bytes(to)])
            | ("renameat" | "renameat2", [_, Argument::Bytes(from), _, Argument::Bytes(to), ..]) => {
                self.rename(&text(from), &text(to));
            }
            ("unlink", [Argument::Bytes(path)]) | ("unlinkat", [_, Argument::Bytes(path), ..]) => {
                if let Some(path) = self.inside(&text(path)) {
                    self.name(Naming::Unnamed(path));
                }
            }
            (other, [Argument::File(_, path), ..]) => {
                let is_here = self.inside(path).is_some_and(|path| is_replayed(&path));
                assert!(!is_here, "a `{other}` of {path} cannot be played");
            }
            _ => {}
        }
    }

    fn open(&mut self, path: PathBuf, flags: &str) {
        if !is_replayed(&path) {
            return;
        }
        if !self.names.contains_key(&path) && flags.contains("O_CREAT") {
            self.files.push(File::default());
            self.name(Naming::Named(path, self.files.len() - 1));
        } else if flags.contains("O_TRUNC")
            && let Some(file) = self.names.get(&path)
        {
            self.files[*file].unsynced.push(Change::Resize(0));
        }
    }

    fn write(&mut self, path: &str, at: usize, bytes: &[u8], written: i64) {
        let written = usize::try_from(written).unwrap();
        if let Some(file) = self.file(path) {
            file.unsynced.push(Change::Write { at, bytes: bytes[..written].to_vec() });
        }
    }

    fn sync(&mut self, path: &str) {
        if Path::new(path) == self.root {
            self.durable_names = self.names.clone();
            self.unsynced_names.clear();
            return;
        }
        if let Some(File { durable, unsynced }) = self.file(path) {
            for change in unsynced.drain(..) {
                change.apply(durable);
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (Some(from), Some(to)) = (self.inside(from), self.inside(to)) else { return };
        let file = self.names[&from];
        self.name(Naming::Named(to, file));
        self.name(Naming::Unnamed(from));
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.unsynced_names.push(naming);
    }

    /// The path in the directory, when it is there.
    fn inside(&self, path: &str) -> Option<PathBuf> {
        Path::new(path).strip_prefix(&self.root).ok().map(Path::to_owned)
    }

    /// The file that now has a name; `strace` marks those that have none any more.
    fn file(&mut self, path: &str) -> Option<&mut File> {
        let path = self.inside(path)?;
        let file = *self.names.get(&path)?;
        self.files.get_mut(file)
    }

    /// A machine that had written nothing that it did not have to.
    pub(super) fn after_loss_of_all(&self) -> Image {
        let files = self.durable_names.iter();
        Image(files.map(|(name, file)| (name.clone(), self.files[*file].durable.clone())).collect())
    }

    /// A machine that had written some of what it did not have to, in whatever order.
    pub(super) fn after_loss_of_some(&self, random: &mut Rng) -> Image {
        let mut names = self.durable_names.clone();
        // A directory is a journal: its changes are kept up to one of them.
        let kept = random.usize(..=self.unsynced_names.len());
        self.unsynced_names.iter().take(kept).for_each(|naming| naming.apply(&mut names));
        let files = names.into_iter().map(|(name, file)| {
            let mut content = self.files[file].durable.clone();
            for change in &self.files[file].unsynced {
                if random.bool() {
                    change.torn(random).apply(&mut content);
                }
            }
            (name, content)
        });
        Image(files.collect())
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Resize(length) => content.resize(*length, 0),
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
        }
    }

    /// A change of which only some sectors reached the disk, sometimes.
    fn torn(&self, random: &mut Rng) -> Self {
        match self {
            Self::Write { at, bytes } if bytes.len() > SECTOR_BYTES && random.u8(..4) == 0 => {
                let sectors = random.usize(1..=bytes.len() / SECTOR_BYTES);
                Self::Write { at: *at, bytes: bytes[..sectors * SECTOR_BYTES].to_vec() }
            }
            Self::Write { at, bytes } => Self::Write { at: *at, bytes: bytes.clone() },
            Self::Resize(length) => Self::Resize(*length),
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Named(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Unnamed(path) => drop(names.remove(path)),
        }
    }
}

/// Shared memory and what the test itself keeps are no part of the disk.
fn is_replayed(path: &Path) -> bool {
    let name = path.to_string_lossy();
    !name.ends_with("-shm") && name != ACKNOWLEDGEMENTS
}

fn number(argument: &Argument) -> usize {
    match argument {
        Argument::Word(word) => word.parse().unwrap(),
        Argument::File(..) | Argument::Bytes(_) => panic!("{argument:?} is no number"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
