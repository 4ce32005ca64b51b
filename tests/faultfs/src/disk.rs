//! What is on the disk, and what only seems to be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::SystemTime;

use fuser::{Errno, FileType};

use crate::dice::Dice;
use crate::{Cut, Fault, Scope};

/// The unit in which a disk writes: what was not synced survives or is lost in these.
pub(crate) const UNIT: usize = 512;
/// The root's number.
pub(crate) const ROOT: u64 = 1;
/// No file grows beyond this: a wrong offset must not eat the memory of the machine.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// A change of a file's contents that was not synced.
#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Resize(usize),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { at, data } => {
                let end = at + data.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*at..end].copy_from_slice(data);
            }
            Self::Resize(size) => contents.resize(*size, 0),
        }
    }
}

/// The contents of a file: as processes see them, as the disk has them, and the way from here to there.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What the disk has after a power cut. Of every unit some of its writes, the first ones, survive; a file is shorter
    /// where truncation survived, and what was written after one that did not survive is lost.
    fn cut(&mut self, dice: &mut Dice, mood: Mood, report: &mut Cut) {
        if self.pending.is_empty() {
            // A failed sync may have left the two apart.
            self.live.clone_from(&self.durable);
            return;
        }
        let mut size = self.durable.len();
        let mut shrinks = Vec::new();
        for (n, change) in self.pending.iter().enumerate() {
            match change {
                Change::Resize(to) if *to < size => {
                    shrinks.push(n);
                    size = *to;
                }
                Change::Resize(to) => size = *to,
                Change::Write { at, data } => size = size.max(at + data.len()),
            }
        }
        let survive = usize::try_from(mood.upto(dice, shrinks.len() as u64)).unwrap_or(0);
        let (kept, lost) = shrinks.split_at(survive);
        let limit = lost.first().copied().unwrap_or(self.pending.len());
        let least = kept.last().map_or(0, |n| n + 1);
        let mut contents = self.durable.clone();
        let mut of_unit: HashMap<usize, usize> = HashMap::new();
        for (n, change) in self.pending.iter().take(limit).enumerate() {
            let Change::Write { at, data } = change else {
                if kept.contains(&n) {
                    change.apply(&mut contents);
                }
                continue;
            };
            let end = at + data.len();
            for unit in at / UNIT..end.div_ceil(UNIT) {
                let last = *of_unit.entry(unit).or_insert_with(|| mood.upto(dice, limit as u64) as usize);
                if n >= last {
                    report.units_lost += 1;
                    continue;
                }
                report.units_kept += 1;
                let (from, to) = (unit * UNIT, (unit + 1) * UNIT);
                let (from, to) = (from.max(*at), to.min(end));
                if contents.len() < to {
                    contents.resize(to, 0);
                }
                contents[from..to].copy_from_slice(&data[from - at..to - at]);
            }
        }
        // The size is that of some moment since: units may be beyond it, or missing below it.
        let upto = least + mood.upto(dice, (limit - least) as u64) as usize;
        let mut size = self.durable.len();
        for (n, change) in self.pending.iter().take(upto).enumerate() {
            match change {
                Change::Resize(to) if *to >= size || kept.contains(&n) => size = *to,
                Change::Resize(_) => {}
                Change::Write { at, data } => size = size.max(at + data.len()),
            }
        }
        contents.resize(size, 0);
        report.files_changed += 1;
        self.pending.clear();
        self.durable.clone_from(&contents);
        self.live = contents;
    }
}

/// How much of what was not synced a cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Nothing,
    Some,
    Everything,
}

impl Mood {
    fn of(dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 | 1 => Self::Nothing,
            2 => Self::Everything,
            _ => Self::Some,
        }
    }

    /// How many of `n` survive.
    fn upto(self, dice: &mut Dice, n: u64) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Some => dice.below(n + 1),
            Self::Everything => n,
        }
    }

    fn survives(self, dice: &mut Dice) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some => dice.percent(50),
            Self::Everything => true,
        }
    }
}

/// A change of a folder that was not synced. The two halves of a rename have one number.
#[derive(Debug, Clone)]
struct EntryChange {
    number: u64,
    name: OsString,
    to: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Folder {
    pub(crate) live: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    pending: Vec<EntryChange>,
}

fn put(entries: &mut BTreeMap<OsString, u64>, name: &OsStr, to: Option<u64>) {
    match to {
        Some(node) => drop(entries.insert(name.to_owned(), node)),
        None => drop(entries.remove(name)),
    }
}

impl Folder {
    fn change(&mut self, number: u64, name: &OsStr, to: Option<u64>) {
        put(&mut self.live, name, to);
        self.pending.push(EntryChange { number, name: name.to_owned(), to });
    }

    /// Makes one change durable, and those of the same name before it.
    fn sync_one(&mut self, number: u64) {
        let halves: Vec<_> = self.pending.iter().filter(|c| c.number == number).map(|c| c.name.clone()).collect();
        for name in halves {
            let Some(last) = self.pending.iter().rposition(|c| c.number == number && c.name == name) else { continue };
            put(&mut self.durable, &name, self.pending[last].to);
            let mut n = 0;
            self.pending.retain(|change| {
                n += 1;
                change.name != name || n - 1 > last
            });
        }
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    File(File),
    Folder(Folder),
    /// Sockets: a name and nothing else.
    Other(FileType),
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) modified: SystemTime,
    /// The last name that it was given, and where.
    parent: u64,
    name: OsString,
    /// How often the kernel holds it.
    lookups: u64,
}

impl Node {
    pub(crate) fn file_type(&self) -> FileType {
        match &self.kind {
            Kind::File(_) => FileType::RegularFile,
            Kind::Folder(_) => FileType::Directory,
            Kind::Other(kind) => *kind,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(file) => file.live.len() as u64,
            _ => 0,
        }
    }
}

/// Who makes a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maker {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
}

#[allow(clippy::disallowed_methods, reason = "a file system stamps its files with the time of the system")]
fn now() -> SystemTime {
    SystemTime::now()
}

struct Active {
    fault: Fault,
    scope: Scope,
    left: u64,
}

/// The disk behind the mount.
pub(crate) struct Disk {
    nodes: HashMap<u64, Node>,
    next_node: u64,
    next_change: u64,
    faults: Vec<Active>,
    /// The power is off.
    pub(crate) off: bool,
    pub(crate) syncs: u64,
    pub(crate) struck: u64,
    listings: HashMap<u64, Listing>,
    next_listing: u64,
}

/// A folder as it was when it was opened for reading.
pub(crate) type Listing = std::sync::Arc<Vec<(u64, FileType, OsString)>>;

impl Disk {
    pub(crate) fn new(mode: u16, uid: u32, gid: u32) -> Self {
        let root = Node {
            kind: Kind::Folder(Folder::default()),
            mode,
            uid,
            gid,
            rdev: 0,
            modified: now(),
            parent: ROOT,
            name: OsString::new(),
            lookups: 1,
        };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            next_node: ROOT + 1,
            next_change: 0,
            faults: Vec::new(),
            off: false,
            syncs: 0,
            struck: 0,
            listings: HashMap::new(),
            next_listing: 0,
        }
    }

    // Faults.

    pub(crate) fn inject(&mut self, fault: Fault, scope: Scope) {
        let left = scope.times.unwrap_or(u64::MAX);
        self.faults.push(Active { fault, scope, left });
    }

    pub(crate) fn heal(&mut self) {
        self.faults.clear();
    }

    /// Files whose pages the kernel shall forget, so that reading them means asking here.
    pub(crate) fn readable(&self) -> Vec<u64> {
        let is_file =
            |node: &Node| matches!(node.kind, Kind::File(_)) && !node.name.to_string_lossy().ends_with("-shm");
        self.nodes.iter().filter(|(_, node)| is_file(node)).map(|(number, _)| *number).collect()
    }

    fn path(&self, mut number: u64) -> PathBuf {
        let mut names = Vec::new();
        while number != ROOT && names.len() < 64 {
            let Some(node) = self.nodes.get(&number) else { break };
            names.push(node.name.clone());
            number = node.parent;
        }
        names.iter().rev().collect()
    }

    /// Whether one of these faults strikes here now.
    pub(crate) fn strikes(&mut self, faults: &[Fault], number: u64) -> Option<Fault> {
        if self.faults.is_empty() {
            return None;
        }
        let path = self.path(number).to_string_lossy().into_owned();
        let hit = self.faults.iter_mut().find(|active| {
            active.left > 0 && faults.contains(&active.fault) && path.contains(active.scope.path.as_str())
        })?;
        if hit.left != u64::MAX {
            hit.left -= 1;
        }
        self.struck += 1;
        Some(hit.fault)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.faults.iter().any(|active| active.fault == Fault::Full && active.left > 0)
    }

    /// What every operation that changes something asks first.
    pub(crate) fn may_change(&mut self, number: u64) -> Result<(), Errno> {
        match self.strikes(&[Fault::ReadOnly, Fault::Write], number) {
            Some(Fault::ReadOnly) => Err(Errno::EROFS),
            Some(_) => Err(Errno::EIO),
            None => Ok(()),
        }
    }

    fn may_grow(&mut self, number: u64) -> Result<(), Errno> {
        self.strikes(&[Fault::Full], number).map_or(Ok(()), |_| Err(Errno::ENOSPC))
    }

    // Nodes.

    pub(crate) fn node(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::ENOENT)
    }

    pub(crate) fn node_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    fn folder(&self, number: u64) -> Result<&Folder, Errno> {
        match &self.node(number)?.kind {
            Kind::Folder(folder) => Ok(folder),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn folder_mut(&mut self, number: u64) -> Result<&mut Folder, Errno> {
        let node = self.node_mut(number)?;
        node.modified = now();
        match &mut node.kind {
            Kind::Folder(folder) => Ok(folder),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn file_mut(&mut self, number: u64) -> Result<&mut File, Errno> {
        match &mut self.node_mut(number)?.kind {
            Kind::File(file) => Ok(file),
            Kind::Folder(_) => Err(Errno::EISDIR),
            Kind::Other(_) => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        let number = *self.folder(parent)?.live.get(name).ok_or(Errno::ENOENT)?;
        self.node_mut(number)?.lookups += 1;
        Ok(number)
    }

    pub(crate) fn forget(&mut self, number: u64, times: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(times);
        }
    }

    fn change_number(&mut self) -> u64 {
        self.next_change += 1;
        self.next_change
    }

    pub(crate) fn make(&mut self, parent: u64, name: &OsStr, kind: Kind, maker: Maker) -> Result<u64, Errno> {
        self.may_change(parent)?;
        self.may_grow(parent)?;
        if self.folder(parent)?.live.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let (change, number) = (self.change_number(), self.next_node);
        self.next_node += 1;
        let node = Node {
            kind,
            mode: (maker.mode & 0o7777) as u16,
            uid: maker.uid,
            gid: maker.gid,
            rdev: maker.rdev,
            modified: now(),
            parent,
            name: name.to_owned(),
            lookups: 1,
        };
        self.nodes.insert(number, node);
        self.folder_mut(parent)?.change(change, name, Some(number));
        self.collect_if_many();
        Ok(number)
    }

    pub(crate) fn link(&mut self, number: u64, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.may_change(parent)?;
        self.may_grow(parent)?;
        if self.folder(parent)?.live.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let change = self.change_number();
        self.folder_mut(parent)?.change(change, name, Some(number));
        self.node_mut(number)?.lookups += 1;
        Ok(())
    }

    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr, folder: bool) -> Result<(), Errno> {
        self.may_change(parent)?;
        let number = *self.folder(parent)?.live.get(name).ok_or(Errno::ENOENT)?;
        match (&self.node(number)?.kind, folder) {
            (Kind::Folder(inner), true) if !inner.live.is_empty() => return Err(Errno::ENOTEMPTY),
            (Kind::Folder(_), false) => return Err(Errno::EISDIR),
            (Kind::File(_) | Kind::Other(_), true) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        let change = self.change_number();
        self.folder_mut(parent)?.change(change, name, None);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), replace: bool) -> Result<(), Errno> {
        self.may_change(from.0)?;
        self.may_change(to.0)?;
        let number = *self.folder(from.0)?.live.get(from.1).ok_or(Errno::ENOENT)?;
        match self.folder(to.0)?.live.get(to.1) {
            Some(_) if !replace => return Err(Errno::EEXIST),
            Some(there) if *there == number => return Ok(()),
            Some(there) => {
                if let Kind::Folder(inner) = &self.node(*there)?.kind
                    && !inner.live.is_empty()
                {
                    return Err(Errno::ENOTEMPTY);
                }
            }
            None => {}
        }
        let change = self.change_number();
        self.folder_mut(from.0)?.change(change, from.1, None);
        self.folder_mut(to.0)?.change(change, to.1, Some(number));
        let node = self.node_mut(number)?;
        (node.parent, node.name) = (to.0, to.1.to_owned());
        Ok(())
    }

    // Contents.

    pub(crate) fn read(&mut self, number: u64, at: u64, size: u32) -> Result<&[u8], Errno> {
        if self.strikes(&[Fault::Read], number).is_some() {
            return Err(Errno::EIO);
        }
        let live = &self.file_mut(number)?.live;
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(live.len());
        let end = start.saturating_add(size as usize).min(live.len());
        Ok(&live[start..end])
    }

    pub(crate) fn write(&mut self, number: u64, at: u64, data: &[u8]) -> Result<(), Errno> {
        self.may_change(number)?;
        let end = at.saturating_add(data.len() as u64);
        if end > FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        if end > self.node(number)?.size() {
            self.may_grow(number)?;
        }
        self.file_mut(number)?.change(Change::Write { at: at as usize, data: data.to_vec() });
        self.node_mut(number)?.modified = now();
        Ok(())
    }

    pub(crate) fn resize(&mut self, number: u64, size: u64) -> Result<(), Errno> {
        self.may_change(number)?;
        if size > FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        if size > self.node(number)?.size() {
            self.may_grow(number)?;
        }
        self.file_mut(number)?.change(Change::Resize(size as usize));
        self.node_mut(number)?.modified = now();
        Ok(())
    }

    /// fsync and fdatasync of a file or a folder.
    pub(crate) fn sync(&mut self, number: u64) -> Result<(), Errno> {
        self.syncs += 1;
        match self.strikes(&[Fault::Sync, Fault::SyncLoses, Fault::SyncLies], number) {
            Some(Fault::SyncLies) => return Ok(()),
            Some(Fault::SyncLoses) => {
                // The pages are clean as far as the kernel knows, and on no disk.
                if let Ok(file) = self.file_mut(number) {
                    file.pending.clear();
                }
                return Err(Errno::EIO);
            }
            Some(_) => return Err(Errno::EIO),
            None => {}
        }
        match &mut self.node_mut(number)?.kind {
            Kind::File(file) => file.sync(),
            Kind::Folder(_) => self.sync_folder(number)?,
            Kind::Other(_) => {}
        }
        Ok(())
    }

    /// What left the folder by a rename is durable where it arrived, too: no file system loses a file over that.
    fn sync_folder(&mut self, number: u64) -> Result<(), Errno> {
        let folder = self.folder_mut(number)?;
        let changes = std::mem::take(&mut folder.pending);
        for change in &changes {
            put(&mut folder.durable, &change.name, change.to);
        }
        let left: Vec<u64> = changes.iter().filter(|c| c.to.is_none()).map(|c| c.number).collect();
        if left.is_empty() {
            return Ok(());
        }
        for node in self.nodes.values_mut() {
            if let Kind::Folder(folder) = &mut node.kind {
                for change in &left {
                    folder.sync_one(*change);
                }
            }
        }
        Ok(())
    }

    // Listings.

    pub(crate) fn open_listing(&mut self, number: u64) -> Result<u64, Errno> {
        let folder = self.folder(number)?;
        let entries = folder.live.iter().filter_map(|(name, number)| {
            let node = self.nodes.get(number)?;
            Some((*number, node.file_type(), name.clone()))
        });
        let mut all = vec![
            (number, FileType::Directory, OsString::from(".")),
            (self.node(number)?.parent, FileType::Directory, OsString::from("..")),
        ];
        all.extend(entries);
        self.next_listing += 1;
        self.listings.insert(self.next_listing, std::sync::Arc::new(all));
        Ok(self.next_listing)
    }

    pub(crate) fn listing(&self, handle: u64) -> Result<Listing, Errno> {
        self.listings.get(&handle).cloned().ok_or(Errno::EBADF)
    }

    pub(crate) fn close_listing(&mut self, handle: u64) {
        self.listings.remove(&handle);
    }

    // The cut.

    /// Takes the power away: from now on every operation fails, and what was not synced is there in part or not at all.
    pub(crate) fn cut(&mut self, seed: u64) -> Cut {
        let mut report = Cut::default();
        if std::mem::replace(&mut self.off, true) {
            return report;
        }
        let dice = &mut Dice::new(seed);
        let mood = Mood::of(dice);
        let mut numbers: Vec<u64> = self.nodes.keys().copied().collect();
        // The order of a map is not that of the seed.
        numbers.sort_unstable();
        let mut fates: HashMap<u64, bool> = HashMap::new();
        for number in numbers {
            let Some(node) = self.nodes.get_mut(&number) else { continue };
            match &mut node.kind {
                Kind::File(file) => file.cut(dice, mood, &mut report),
                Kind::Folder(folder) => {
                    for change in std::mem::take(&mut folder.pending) {
                        if *fates.entry(change.number).or_insert_with(|| mood.survives(dice)) {
                            report.entries_kept += 1;
                            put(&mut folder.durable, &change.name, change.to);
                        } else {
                            report.entries_lost += 1;
                        }
                    }
                    folder.live.clone_from(&folder.durable);
                }
                Kind::Other(_) => {}
            }
        }
        for node in self.nodes.values_mut() {
            node.lookups = 0;
        }
        self.listings.clear();
        self.name_what_survived();
        self.collect();
        report
    }

    /// Names and parents as the entries have them.
    fn name_what_survived(&mut self) {
        let mut names = Vec::new();
        for (parent, node) in &self.nodes {
            if let Kind::Folder(folder) = &node.kind {
                names.extend(folder.live.iter().map(|(name, number)| (*number, *parent, name.clone())));
            }
        }
        for (number, parent, name) in names {
            if let Some(node) = self.nodes.get_mut(&number) {
                (node.parent, node.name) = (parent, name);
            }
        }
    }

    fn collect_if_many(&mut self) {
        if self.next_node.is_multiple_of(1024) {
            self.collect();
        }
    }

    /// Drops nodes that neither a name, living or durable, nor the kernel holds.
    fn collect(&mut self) {
        let mut reached = HashSet::from([ROOT]);
        let held = self.nodes.iter().filter(|(_, node)| node.lookups > 0).map(|(number, _)| *number);
        let mut waiting: Vec<u64> = std::iter::once(ROOT).chain(held).collect();
        while let Some(number) = waiting.pop() {
            reached.insert(number);
            let Some(Node { kind: Kind::Folder(folder), .. }) = self.nodes.get(&number) else { continue };
            let pending = folder.pending.iter().filter_map(|change| change.to.as_ref());
            let all = folder.live.values().chain(folder.durable.values()).chain(pending);
            waiting.extend(all.filter(|number| !reached.contains(number)));
        }
        self.nodes.retain(|number, _| reached.contains(number));
    }
}
