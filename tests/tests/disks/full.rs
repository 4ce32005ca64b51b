//! A disk that is really full: a small ext4 in a file, mounted by a loop device.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use posthouse_tests::clients::{Clients, Load};
use posthouse_tests::sink::Manners;
use posthouse_tests::stage::Stage;
use testkit::eventually;

use crate::hand_in;

/// Size of the disk: large enough for a database, quick to fill.
const DISK_BYTES: u64 = 48 << 20;

/// A mounted image; unmounted when dropped.
struct Loop {
    mount: PathBuf,
}

/// As root: directly, or by sudo.
fn as_root(arguments: &[&str]) {
    let mut command = if rustix::process::getuid().is_root() {
        Command::new(arguments[0])
    } else {
        let mut command = Command::new("sudo");
        command.args(["-n", arguments[0]]);
        command
    };
    let output = command.args(&arguments[1..]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Loop {
    fn new(folder: &Path) -> Self {
        let (image, mount) = (folder.join("disk.ext4"), folder.join("disk"));
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir(&mount).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        as_root(&["/sbin/mkfs.ext4", "-q", "-m", "0", &text(&image)]);
        as_root(&["mount", "-o", "loop", &text(&image), &text(&mount)]);
        let user = rustix::process::getuid().as_raw().to_string();
        as_root(&["chown", &user, &text(&mount)]);
        Self { mount }
    }

    /// Takes all room that is left. Returns what gives it back.
    fn fill(&self) -> PathBuf {
        let path = self.mount.join("filler");
        let mut file = File::create(&path).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 4;
            }
        }
        path
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let mount = self.mount.to_str().unwrap_or_default().to_owned();
        if std::thread::panicking() {
            // The platform may still hold it.
            let _ = Command::new("umount").args(["-l", &mount]).status();
        } else {
            as_root(&["umount", &mount]);
        }
    }
}

#[test]
fn on_a_full_ext4_mail_is_put_off_with_452_and_everything_accepted_arrives() {
    let stage = Stage::new(Manners::default());
    let disk = Loop::new(stage.site.path());
    let state = disk.mount.join("state");
    // No watermark: the disk itself says that it is full.
    let mut stage = stage.with_state(state).with_platform("queue: { freeSpaceMin: 0 }\n");
    let mut posthouse = stage.start();
    let load = Load::small(3, stage.recipients(), 1);
    let clients = Clients::start(&stage.ledger, stage.mx(), &load);
    eventually("mail to be taken", || (stage.ledger.accepted() > 30).then_some(()));
    let filler = disk.fill();
    eventually("452 for a small message", || hand_in(&stage, 20_000).starts_with("452 4.3.1").then_some(()));
    eventually("452 for a large message", || hand_in(&stage, 600_000).starts_with("452 4.3.1").then_some(()));
    let (status, text) = posthouse.get("/readyz");
    assert!(status == 503 && text.contains("full"), "{status} {text}");
    assert!(posthouse.metric("posthouse_queue_trouble", &[]) >= 1.0);
    fs::remove_file(filler).unwrap();
    eventually("the platform to recover", || {
        (posthouse.get("/readyz").0 == 200 && posthouse.metric("posthouse_queue_trouble", &[]) == 0.0).then_some(())
    });
    let before = stage.ledger.accepted();
    eventually("mail to be taken again", || (stage.ledger.accepted() > before + 10).then_some(()));
    clients.stop();
    stage.settle().assert_clean();
    posthouse.stop();
}
