//! The disk as the kernel asks for it.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::disk::{Disk, File, Folder, Kind, Maker, Node};

/// How long the kernel may believe what it was told: nobody else changes anything.
const TTL: Duration = Duration::from_secs(60);
/// What an empty disk says is free, in blocks of 4 KiB.
const BLOCKS: u64 = 64 << 20;

/// The file system behind one mount.
pub(crate) struct Layer(pub(crate) Arc<Mutex<Disk>>);

fn attributes(number: u64, node: &Node) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: node.size(),
        blocks: node.size().div_ceil(512),
        atime: node.modified,
        mtime: node.modified,
        ctime: node.modified,
        crtime: node.modified,
        kind: node.file_type(),
        perm: node.mode,
        nlink: 1,
        uid: node.uid,
        gid: node.gid,
        rdev: node.rdev,
        blksize: 4096,
        flags: 0,
    }
}

impl Layer {
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, Errno> {
        let disk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.off { Err(Errno::EIO) } else { Ok(disk) }
    }

    fn make(&self, parent: INodeNo, name: &OsStr, kind: Kind, maker: Maker) -> Result<FileAttr, Errno> {
        let mut disk = self.disk()?;
        let number = disk.make(parent.0, name, kind, maker)?;
        Ok(attributes(number, disk.node(number)?))
    }
}

fn maker(request: &Request, mode: u32, rdev: u32) -> Maker {
    Maker { mode, uid: request.uid(), gid: request.gid(), rdev }
}

macro_rules! answer_entry {
    ($reply:expr, $result:expr) => {
        match $result {
            Ok(attributes) => $reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => $reply.error(error),
        }
    };
}

macro_rules! answer_empty {
    ($reply:expr, $result:expr) => {
        match $result {
            Ok(()) => $reply.ok(),
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Layer {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk().and_then(|mut disk| {
            let number = disk.lookup(parent.0, name)?;
            Ok(attributes(number, disk.node(number)?))
        });
        answer_entry!(reply, found);
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        if let Ok(mut disk) = self.disk() {
            disk.forget(number.0, times);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().and_then(|disk| Ok(attributes(number.0, disk.node(number.0)?))) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.disk().and_then(|mut disk| {
            match size {
                Some(size) => disk.resize(number.0, size)?,
                None => disk.may_change(number.0)?,
            }
            let node = disk.node_mut(number.0)?;
            if let Some(mode) = mode {
                node.mode = (mode & 0o7777) as u16;
            }
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
            if let Some(TimeOrNow::SpecificTime(time)) = modified {
                node.modified = time;
            }
            Ok(attributes(number.0, node))
        });
        match changed {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(&self, r: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, rdev: u32, reply: ReplyEntry) {
        const FORMAT: u32 = 0o170_000;
        let kind = match mode & FORMAT {
            0 | 0o100_000 => Kind::File(File::default()),
            0o140_000 => Kind::Other(FileType::Socket),
            0o010_000 => Kind::Other(FileType::NamedPipe),
            _ => return reply.error(Errno::EPERM),
        };
        answer_entry!(reply, self.make(parent, name, kind, maker(r, mode, rdev)));
    }

    fn mkdir(&self, r: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        answer_entry!(reply, self.make(parent, name, Kind::Folder(Folder::default()), maker(r, mode, 0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty!(reply, self.disk().and_then(|mut disk| disk.remove(parent.0, name, false)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty!(reply, self.disk().and_then(|mut disk| disk.remove(parent.0, name, true)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let renamed = self.disk().and_then(|mut disk| disk.rename((parent.0, name), (new_parent.0, new_name), replace));
        answer_empty!(reply, renamed);
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.disk().and_then(|mut disk| {
            disk.link(number.0, parent.0, name)?;
            Ok(attributes(number.0, disk.node(number.0)?))
        });
        answer_entry!(reply, linked);
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().and_then(|disk| disk.node(number.0).map(drop)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn create(&self, r: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.make(parent, name, Kind::File(File::default()), maker(r, mode, 0)) {
            Ok(attributes) => {
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk() {
            Ok(mut disk) => match disk.read(number.0, offset, size) {
                Ok(data) => reply.data(data),
                Err(error) => reply.error(error),
            },
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().and_then(|mut disk| disk.write(number.0, offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer_empty!(reply, self.disk().map(drop));
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty!(reply, self.disk().and_then(|mut disk| disk.sync(number.0)));
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().and_then(|mut disk| disk.open_listing(number.0)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listing = match self.disk().and_then(|disk| disk.listing(handle.0)) {
            Ok(listing) => listing,
            Err(error) => return reply.error(error),
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (number, kind, name)) in (1u64..).zip(listing.iter()).skip(from) {
            if reply.add(INodeNo(*number), next, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        if let Ok(mut disk) = self.disk() {
            disk.close_listing(handle.0);
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty!(reply, self.disk().and_then(|mut disk| disk.sync(number.0)));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.disk() {
            Ok(disk) => {
                let free = if disk.is_full() { 0 } else { BLOCKS };
                reply.statfs(BLOCKS, free, free, BLOCKS, BLOCKS, 4096, 255, 4096);
            }
            Err(error) => reply.error(error),
        }
    }
}
