//! Follows a folder: a good one comes into force, a faulty one leaves the last good snapshot.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use resources::{Fault, Snapshot};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::folder::{Folder, Loaded, Watched};
use crate::inotify::{Folders, Watcher};
use crate::{Node, Part, systemd};

/// Editors and tools write a file in several steps: the folder is read when nothing happened for so long ...
const QUIET: Duration = Duration::from_millis(100);
/// ... or after this, when it never gets quiet.
const DELAY_MAX: Duration = Duration::from_secs(2);
/// Faults that the readiness detail names; the log has all.
const FAULTS_SHOWN_MAX: usize = 5;

/// Reads snapshots. There is one in production, [`Folder`]; tests have their own.
pub(crate) trait Source: Send + Sync + 'static {
    fn read(&self) -> Loaded;
}

impl Source for Folder {
    fn read(&self) -> Loaded {
        Folder::read(self)
    }
}

/// Follows the folder until the process ends. SIGHUP reads it at once, also where the kernel tells of no changes.
pub fn start(node: &Node, folder: Folder) -> io::Result<()> {
    follow(node, folder)
}

fn follow(node: &Node, source: impl Source) -> io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    node.health().set("configuration", Part::Ready);
    metrics::gauge!("posthouse_snapshot_faults").set(0);
    metrics::counter!("posthouse_snapshot_applied_total").increment(1);
    let (node, source) = (node.clone(), Arc::new(source));
    tokio::spawn(async move {
        let changes = Changes::default();
        // Read once more behind the watch: nothing that changed since the first reading is missed.
        let mut watcher = reload(&node, &source, &changes, None).await;
        loop {
            tokio::select! {
                () = changes.settled() => {}
                Some(()) = hang_up.recv() => tracing::info!("asked to read the configuration again"),
                () = node.drain().begun() => return,
            }
            systemd::tell(systemd::State::Reloading);
            watcher = reload(&node, &source, &changes, watcher).await;
            systemd::tell(systemd::State::Ready);
        }
    });
    Ok(())
}

/// Reads, applies, and watches what the outcome came from; when that changed, what was read may be old: reads again.
async fn reload<S: Source>(node: &Node, source: &Arc<S>, changes: &Changes, old: Option<Watcher>) -> Option<Watcher> {
    let mut watcher = old;
    let mut watched = None;
    for last in [false, false, true] {
        let reader = Arc::clone(source);
        let loaded = match tokio::task::spawn_blocking(move || reader.read()).await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be read");
                return watcher;
            }
        };
        // A site that changes all the time is applied as it was last read; the kernel will tell of the next change.
        if last || watched.as_ref() == Some(&loaded.watched) {
            apply(node, loaded.outcome);
            break;
        }
        // The links may lead elsewhere now, and the kernel watches what they led to: watch anew, then read again.
        watcher = changes.watch(node, &loaded.watched);
        watched = Some(loaded.watched);
    }
    watcher
}

fn apply(node: &Node, outcome: Result<Snapshot, Vec<Fault>>) {
    match outcome {
        Ok(next) => {
            metrics::gauge!("posthouse_snapshot_faults").set(0);
            let before = node.health().parts().remove("configuration");
            if matches!(before, Some(Part::Degraded(_))) {
                tracing::info!("the configuration has no fault any more");
            }
            node.health().set("configuration", Part::Ready);
            if next.version != node.snapshots().current().version {
                tracing::info!(version = next.version, resources = next.resources, "a new configuration is in force");
                metrics::counter!("posthouse_snapshot_applied_total").increment(1);
                node.snapshots().replace(next);
            }
        }
        Err(faults) => {
            for fault in &faults {
                tracing::error!(%fault, "the configuration has a fault");
            }
            let kept = node.snapshots().current().version.clone();
            tracing::error!(faults = faults.len(), kept, "the last good configuration stays in force");
            metrics::gauge!("posthouse_snapshot_faults").set(u32::try_from(faults.len()).unwrap_or(u32::MAX));
            node.health().set("configuration", Part::Degraded(summary(&faults)));
        }
    }
}

fn summary(faults: &[Fault]) -> String {
    let count = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
    let mut text = format!("{count}, the last good configuration stays in force");
    for fault in faults.iter().take(FAULTS_SHOWN_MAX) {
        text.push_str("; ");
        text.push_str(&fault.to_string());
    }
    if faults.len() > FAULTS_SHOWN_MAX {
        text.push_str("; ...");
    }
    text
}

/// What the kernel told.
#[derive(Clone, Default)]
struct Changes {
    /// Holds one permit: many changes are one.
    changed: Arc<Notify>,
}

impl Changes {
    /// Waits for a change, and then for quiet.
    async fn settled(&self) {
        self.changed.notified().await;
        let end = Instant::now() + DELAY_MAX;
        while timeout_at((Instant::now() + QUIET).min(end), self.changed.notified()).await.is_ok() {
            if Instant::now() >= end {
                return;
            }
        }
    }

    /// Watches the folders; `None` where that does not work, which is logged.
    fn watch(&self, node: &Node, watched: &Watched) -> Option<Watcher> {
        let (changed, of, real) = (Arc::clone(&self.changed), watched.clone(), watched.real_folder());
        let watching = || -> io::Result<Watcher> {
            let mut folders = Folders::new()?;
            for folder in watched.folders() {
                match folders.add(&folder) {
                    Ok(()) => {}
                    // A fault of the configuration that is reported as such.
                    Err(error) if !folder.is_dir() => tracing::debug!(%error, "a folder is not there to be watched"),
                    Err(error) => unwatched(node, &error),
                }
            }
            folders.follow(move |folder, name| of.concerns(&real, folder, name), move || changed.notify_one())
        };
        node.health().set("watch", Part::Ready);
        watching().inspect_err(|error| unwatched(node, error)).ok()
    }
}

fn unwatched(node: &Node, error: &io::Error) {
    tracing::warn!(%error, "changes of the configuration are not noticed: send SIGHUP");
    let reason = format!("changes of the configuration are not noticed, send SIGHUP: {error}");
    node.health().set("watch", Part::Degraded(reason));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::testing::snapshot;
    use crate::{Clock, Snapshots};

    /// The version of the snapshot is what the files say; `bad` anywhere is a fault.
    struct Texts {
        dir: PathBuf,
        referred: Option<PathBuf>,
    }

    impl Source for Texts {
        fn read(&self) -> Loaded {
            let mut watched = Watched { folder: self.dir.clone(), ..Watched::default() };
            let mut text = String::new();
            for path in [self.dir.join("site.yaml")].iter().chain(&self.referred) {
                watched.add(path);
                text.push_str(&std::fs::read_to_string(path).unwrap_or_else(|_| "bad: missing".to_owned()));
            }
            let outcome = if text.contains("bad") {
                Err(vec![crate::folder::fault(&self.dir.join("site.yaml"), 3, "it is bad", "make it good")])
            } else {
                Ok(snapshot(&text))
            };
            Loaded { outcome, watched }
        }
    }

    fn node(version: &str) -> Node {
        Node::new(Snapshots::new(snapshot(version)), PathBuf::new(), Clock::system())
    }

    async fn until(node: &Node, condition: impl Fn(&Node) -> bool) {
        let waiting = async {
            while !condition(node) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let result = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(result.is_ok(), "version {}, {:?}", node.snapshots().current().version, node.health().parts());
    }

    async fn until_version(node: &Node, version: &str) {
        until(node, |node| {
            node.snapshots().current().version == version
                && node.health().parts().get("configuration") == Some(&Part::Ready)
        })
        .await;
    }

    async fn until_degraded(node: &Node) {
        until(node, |node| matches!(node.health().parts().get("configuration"), Some(Part::Degraded(_)))).await;
    }

    #[tokio::test]
    async fn a_faulty_folder_leaves_the_last_good_snapshot_and_the_next_good_one_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let write = |text: &str| std::fs::write(root.join("site.yaml"), text).unwrap();
        write("one");
        let node = node("one");
        follow(&node, Texts { dir: root.clone(), referred: None }).unwrap();
        write("two");
        until_version(&node, "two").await;
        write("bad");
        until_degraded(&node).await;
        assert_eq!(node.snapshots().current().version, "two");
        assert!(node.health().is_ready());
        let part = node.health().parts()["configuration"].clone();
        let Part::Degraded(reason) = part else { panic!("{part:?}") };
        assert!(reason.contains("site.yaml:3:1: it is bad: make it good"), "{reason}");
        write("three");
        until_version(&node, "three").await;
    }

    #[tokio::test]
    async fn a_site_that_is_swapped_by_a_link_is_taken_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let publish = |version: &str| {
            let folder = root.join(format!("..{version}"));
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("site.yaml"), version).unwrap();
            symlink(format!("..{version}"), root.join("..data_tmp")).unwrap();
            std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        };
        publish("one");
        symlink("..data/site.yaml", root.join("site.yaml")).unwrap();
        let node = node("one");
        follow(&node, Texts { dir: root.clone(), referred: None }).unwrap();
        for version in ["two", "three", "four"] {
            publish(version);
            until_version(&node, version).await;
        }
        // The file behind the link counts too, where the link leads now.
        std::fs::write(root.join("..four/site.yaml"), "five").unwrap();
        until_version(&node, "five").await;
    }

    #[tokio::test]
    async fn a_file_that_the_site_names_is_followed_also_when_it_comes_late() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("site")).unwrap();
        std::fs::create_dir(root.join("tables")).unwrap();
        std::fs::write(root.join("site/site.yaml"), "s").unwrap();
        let table = root.join("tables/table");
        let node = node("s-");
        follow(&node, Texts { dir: root.join("site"), referred: Some(table.clone()) }).unwrap();
        until_degraded(&node).await;
        std::fs::write(&table, "1").unwrap();
        until_version(&node, "s1").await;
        std::fs::write(root.join("tables/new"), "2").unwrap();
        std::fs::rename(root.join("tables/new"), &table).unwrap();
        until_version(&node, "s2").await;
    }

    #[tokio::test]
    async fn a_hang_up_reads_the_folder_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let hidden = dir.path().join("unwatched");
        std::fs::write(&hidden, "one").unwrap();
        struct Unwatched(PathBuf);
        impl Source for Unwatched {
            fn read(&self) -> Loaded {
                let text = std::fs::read_to_string(&self.0).unwrap();
                Loaded { outcome: Ok(snapshot(&text)), watched: Watched::default() }
            }
        }
        let node = node("one");
        follow(&node, Unwatched(hidden.clone())).unwrap();
        std::fs::write(&hidden, "two").unwrap();
        // Again and again: the first may come before the folder is followed.
        let waiting = async {
            while node.snapshots().current().version != "two" {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    }

    #[tokio::test]
    async fn a_real_site_is_followed_through_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let (site, state) = (dir.path().join("site"), dir.path().join("state"));
        std::fs::create_dir(&site).unwrap();
        let hash = "$6$abcdefgh$6ruv6AbqWTosvrUi8ujg7zb3wROQsi8FJ9FvzNaxACrwEVQPgG.M21O/M/mBoeYk3FB09LPJmEqAGPGmSi38f.";
        for (name, text) in resources::render_small_site("mx1.example.org", "example.org", hash) {
            std::fs::write(site.join(name), text).unwrap();
        }
        let folder = Folder::new(&site, &state);
        let first = folder.load().unwrap();
        let version = first.version.clone();
        let node = Node::new(Snapshots::new(first), state, Clock::system());
        start(&node, folder).unwrap();
        let (good, platform) =
            (std::fs::read_to_string(site.join("platform.yaml")).unwrap(), site.join("platform.yaml"));
        std::fs::write(&platform, good.replace("hostname:", "hostnam:")).unwrap();
        until_degraded(&node).await;
        assert_eq!(node.snapshots().current().version, version);
        std::fs::write(&platform, good.replace("mx1.example.org", "mx2.example.org")).unwrap();
        until(&node, |node| node.snapshots().current().platform.hostname.as_str() == "mx2.example.org").await;
    }

    #[test]
    fn a_long_list_of_faults_is_cut_short() {
        let fault = crate::folder::fault(Path::new("x"), 1, "a", "b");
        assert!(summary(&vec![fault; 7]).ends_with("; ..."));
    }
}
