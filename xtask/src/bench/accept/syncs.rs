//! Sync calls per message, counted by strace in a run of its own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::cells::Cell;
use super::load::send;
use super::measure::Lab;
use super::peers::Who;

/// Everything by which a program asks the kernel to put data on disk.
const CALLS: &str = "fsync,fdatasync,sync_file_range,msync,sync,syncfs";
const SECONDS: f64 = 1.0;

/// Sync calls per message while a short run passes from the client to the sink. The seccomp filter stops the server at
/// these calls only, so that everything else keeps its speed and groups keep their size.
pub fn per_message(lab: &mut Lab, who: Who, cell: &Cell, folder: &Path) -> Result<f64> {
    let trace = folder.join("syncs");
    let file = trace.display().to_string();
    let selection = format!("trace={CALLS}");
    let tracer = ["strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-e", "signal=none", "-e", &selection, "-o", &file];
    let running = lab.server(who).start(&tracer)?;
    let counted = (|| {
        let port = lab.server(who).port;
        let messages = lab.warm_up(Some(who), cell, port, lab.seconds)?;
        let messages = ((messages as f64 * SECONDS / lab.seconds) as u64).max(cell.connections * 5);
        let base = lab.sink.count();
        let begin = unix_seconds()?;
        send(&lab.source_group, cell, messages, port)?;
        lab.sink.wait_for(base + messages)?;
        // What records the last deliveries belongs to them.
        std::thread::sleep(std::time::Duration::from_millis(200));
        anyhow::Ok((begin, unix_seconds()?, messages))
    })();
    let counted = counted.with_context(|| format!("{who} under strace, {cell}:\n{}", running.last_words()));
    running.stop()?;
    let (begin, end, messages) = counted?;
    let calls = count(&fs::read_to_string(&trace).context("strace wrote nothing")?, begin, end);
    fs::remove_file(&trace)?;
    if calls == 0 {
        bail!("{who}, {cell}: not one sync call seen for {messages} messages: strace does not work here");
    }
    Ok(calls as f64 / messages as f64)
}

#[allow(clippy::disallowed_methods, reason = "strace stamps its lines with the wall clock")]
fn unix_seconds() -> Result<f64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64())
}

/// Calls that began in the window. A call that another thread's interrupts is written in two lines; the second says
/// "resumed".
fn count(trace: &str, begin: f64, end: f64) -> u64 {
    let calls = trace.lines().filter(|line| {
        let mut fields = line.split_ascii_whitespace();
        let time = fields.nth(1).and_then(|time| time.parse::<f64>().ok());
        let is_call = fields
            .next()
            .and_then(|call| call.split_once('('))
            .is_some_and(|(name, _)| CALLS.split(',').any(|call| call == name));
        is_call && time.is_some_and(|time| (begin..=end).contains(&time))
    });
    calls.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_once_and_only_inside_the_window() {
        let trace = "100 1000.1 fdatasync(7) = 0\n\
                     100 1001.5 fdatasync(7 <unfinished ...>\n\
                     101 1001.6 fsync(9)                      = 0\n\
                     100 1001.7 <... fdatasync resumed>)      = 0\n\
                     102 1001.8 +++ exited with 0 +++\n\
                     102 1001.9 openat(AT_FDCWD, \"fsync(\") = 3\n\
                     100 1003.0 sync_file_range(7, 0, 0, 0) = 0\n";
        assert_eq!(count(trace, 1001.0, 1002.0), 2);
        assert_eq!(count(trace, 0.0, 2000.0), 4);
        assert_eq!(count("", 0.0, 1.0), 0);
    }
}
