//! The layer itself: what survives a cut, and how it breaks, with the system's own calls over the mount.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use faultfs::{Dice, Fault, FaultFs, Scope};
use tempfile::TempDir;

/// Seeds that are tried where chance decides: enough that every outcome is among them.
const SEEDS: u64 = 24;

fn mounted() -> (TempDir, FaultFs) {
    let folder = TempDir::with_prefix("faultfs-").unwrap();
    let layer = FaultFs::mount(folder.path()).unwrap();
    (folder, layer)
}

fn sync_folder(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn write_synced(path: &Path, contents: &[u8]) {
    fs::write(path, contents).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

fn cut(layer: &mut FaultFs, seed: u64) {
    layer.cut(seed);
    layer.revive().unwrap();
}

#[test]
fn what_is_synced_survives_every_cut_and_what_is_not_survives_some() {
    let (folder, mut layer) = mounted();
    let path = folder.path().join("file");
    let (old, new) = (vec![b'o'; 4096], vec![b'n'; 4096]);
    let (mut whole_old, mut whole_new, mut torn) = (0, 0, 0);
    for seed in 0..SEEDS {
        write_synced(&path, &old);
        sync_folder(folder.path());
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&new[..2048], 0).unwrap();
        file.write_all_at(&new[..2048], 2048).unwrap();
        assert_eq!(fs::read(&path).unwrap(), new, "processes see it at once");
        drop(file);
        cut(&mut layer, seed);
        let found = fs::read(&path).unwrap();
        assert_eq!(found.len(), 4096);
        for unit in found.chunks(512) {
            assert!(unit.iter().all(|octet| *octet == unit[0]), "a unit of 512 octets is never torn");
        }
        match &found {
            found if *found == old => whole_old += 1,
            found if *found == new => whole_new += 1,
            _ => torn += 1,
        }
    }
    assert!(whole_old > 0 && whole_new > 0 && torn > 0, "old {whole_old}, new {whole_new}, torn {torn}");
}

#[test]
fn a_synced_file_whose_folder_was_not_synced_may_be_gone() {
    let (folder, mut layer) = mounted();
    let mut gone = 0;
    for seed in 0..SEEDS {
        let (alone, both) = (folder.path().join(format!("alone-{seed}")), folder.path().join(format!("both-{seed}")));
        write_synced(&both, b"text");
        sync_folder(folder.path());
        write_synced(&alone, b"text");
        cut(&mut layer, seed);
        assert_eq!(fs::read(&both).unwrap(), b"text");
        match fs::read(&alone) {
            Ok(text) => assert_eq!(text, b"text", "its contents were synced"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                gone += 1;
            }
        }
    }
    assert!(gone > 0 && gone < SEEDS, "{gone} of {SEEDS} are gone");
}

#[test]
fn a_folder_that_was_not_synced_into_its_parent_takes_everything_along() {
    let (folder, mut layer) = mounted();
    let mut gone = 0;
    for seed in 0..SEEDS {
        let inner = folder.path().join(format!("inner-{seed}"));
        fs::create_dir(&inner).unwrap();
        write_synced(&inner.join("file"), b"text");
        sync_folder(&inner);
        cut(&mut layer, seed);
        if inner.exists() {
            assert_eq!(fs::read(inner.join("file")).unwrap(), b"text");
        } else {
            gone += 1;
        }
    }
    assert!(gone > 0 && gone < SEEDS, "{gone} of {SEEDS} are gone");
}

#[test]
fn a_rename_is_durable_with_the_folder_that_it_went_to_and_never_loses_the_file() {
    let (folder, mut layer) = mounted();
    for part in ["tmp", "new"] {
        fs::create_dir(folder.path().join(part)).unwrap();
    }
    sync_folder(folder.path());
    for seed in 0..SEEDS {
        let name = format!("file-{seed}");
        let (from, to) = (folder.path().join("tmp").join(&name), folder.path().join("new").join(&name));
        write_synced(&from, b"text");
        sync_folder(from.parent().unwrap());
        fs::rename(&from, &to).unwrap();
        let synced = seed % 2 == 0;
        if synced {
            sync_folder(to.parent().unwrap());
        }
        cut(&mut layer, seed);
        assert!(from.exists() || to.exists(), "the file is gone");
        assert!(!synced || fs::read(&to).unwrap() == b"text", "the folder was synced");
    }
}

#[test]
fn removed_and_shortened_files_come_back_where_that_was_not_synced() {
    let (folder, mut layer) = mounted();
    let (removed, shortened) = (folder.path().join("removed"), folder.path().join("shortened"));
    let (mut back, mut long) = (0, 0);
    for seed in 0..SEEDS {
        write_synced(&removed, b"text");
        write_synced(&shortened, &[b'x'; 5000]);
        sync_folder(folder.path());
        fs::remove_file(&removed).unwrap();
        OpenOptions::new().write(true).open(&shortened).unwrap().set_len(100).unwrap();
        cut(&mut layer, seed);
        back += u64::from(removed.exists());
        let found = fs::read(&shortened).unwrap();
        assert!(found.len() == 100 || found.len() == 5000, "{}", found.len());
        assert!(found.iter().all(|octet| *octet == b'x'), "what is left is what was there");
        long += u64::from(found.len() == 5000);
    }
    assert!(back > 0 && back < SEEDS, "{back} of {SEEDS} came back");
    assert!(long > 0 && long < SEEDS, "{long} of {SEEDS} are long again");
}

#[test]
fn the_same_seed_leaves_the_same() {
    let contents = |seed| {
        let (folder, mut layer) = mounted();
        let path = folder.path().join("file");
        write_synced(&path, &[0; 65536]);
        sync_folder(folder.path());
        fs::write(&path, vec![1; 65536]).unwrap();
        cut(&mut layer, seed);
        fs::read(path).unwrap()
    };
    for seed in 0..4 {
        assert_eq!(contents(seed), contents(seed));
    }
}

#[test]
fn after_the_cut_everything_fails_until_the_power_is_back() {
    let (folder, mut layer) = mounted();
    let path = folder.path().join("file");
    write_synced(&path, b"text");
    sync_folder(folder.path());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    layer.cut(1);
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.sync_all().is_err());
    assert!(fs::read_dir(folder.path()).is_err() || fs::metadata(folder.path().join("other")).is_err());
    assert!(fs::write(folder.path().join("other"), "x").is_err());
    drop(file);
    layer.revive().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"text");
}

#[test]
fn a_sync_that_lies_loses_and_a_sync_that_fails_tells() {
    let (folder, mut layer) = mounted();
    let path = folder.path().join("file");
    let mut lost = 0;
    for seed in 0..SEEDS {
        write_synced(&path, b"old text");
        sync_folder(folder.path());
        layer.inject(Fault::SyncLies, Scope::everywhere());
        write_synced(&path, b"new text");
        layer.heal();
        cut(&mut layer, seed);
        lost += u64::from(fs::read(&path).unwrap() != b"new text");
    }
    assert!(lost > 0 && lost < SEEDS, "{lost} of {SEEDS} were lost");

    write_synced(&path, b"old text");
    layer.inject(Fault::Sync, Scope::of("file").times(1));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"NEW", 0).unwrap();
    assert!(file.sync_all().is_err());
    file.sync_all().unwrap();
    assert_eq!(layer.struck(), SEEDS + 1, "one lie each time, then the failure");
    drop(file);
    cut(&mut layer, 0);
    assert_eq!(fs::read(&path).unwrap(), b"NEW text", "the second sync made it durable");
}

#[test]
fn what_a_failed_sync_lost_is_seen_and_yet_gone_with_the_next_cut() {
    let (folder, mut layer) = mounted();
    let path = folder.path().join("file");
    write_synced(&path, b"old text");
    sync_folder(folder.path());
    layer.inject(Fault::SyncLoses, Scope::of("file").times(1));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"NEW", 0).unwrap();
    assert!(file.sync_all().is_err());
    assert_eq!(fs::read(&path).unwrap(), b"NEW text", "the page cache has it");
    file.sync_all().unwrap();
    drop(file);
    for seed in 0..4 {
        cut(&mut layer, seed);
        assert_eq!(fs::read(&path).unwrap(), b"old text", "the disk never had it");
    }
}

#[test]
fn faults_strike_where_and_as_often_as_they_are_told_to() {
    let (folder, layer) = mounted();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    fs::write(&here, "text").unwrap();
    fs::write(&there, "text").unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    let (io, full, read_only) = (5, 28, 30);
    let longer = |path: &Path| fs::write(path, "a longer text");

    layer.inject(Fault::Read, Scope::of("here"));
    assert_eq!(kind(fs::read(&here).map(drop)), io);
    layer.heal();
    fs::read(&here).unwrap();

    layer.inject(Fault::Full, Scope::everywhere());
    assert_eq!(kind(longer(&there)), full);
    assert_eq!(kind(File::create(folder.path().join("new")).map(drop)), full);
    layer.heal();
    layer.inject(Fault::ReadOnly, Scope::everywhere());
    assert_eq!(kind(longer(&there)), read_only);
    assert_eq!(kind(fs::remove_file(&there)), read_only);
    fs::read(&here).unwrap();
    layer.heal();
    layer.inject(Fault::Write, Scope::of("there").times(1));
    longer(&here).unwrap();
    assert_eq!(kind(longer(&there)), io);
    longer(&there).unwrap();
}

#[test]
fn sqlite_works_on_it_in_wal_mode_and_a_committed_row_survives_every_cut() {
    let (folder, mut layer) = mounted();
    let database = folder.path().join("test.sqlite");
    let sql = |text: &str| {
        let output = Command::new("sqlite3").arg(&database).arg(text).output().unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(sql("PRAGMA journal_mode=wal; PRAGMA synchronous=FULL; CREATE TABLE t (n)"), "wal");
    sync_folder(folder.path());
    let mut dice = Dice::new(7);
    for seed in 0..10u64 {
        sql(&format!("PRAGMA synchronous=FULL; INSERT INTO t VALUES ({seed})"));
        cut(&mut layer, dice.draw());
        assert_eq!(sql("SELECT count(*) FROM t"), (seed + 1).to_string());
        assert_eq!(sql("PRAGMA integrity_check"), "ok");
    }
}
