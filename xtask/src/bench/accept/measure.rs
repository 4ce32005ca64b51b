//! One server under one load, once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cells::Cell;
use super::group::{Group, Memory};
use super::load::{Sink, send};
use super::noise::Mark;
use super::peers::{Running, Server, Who};
use crate::bench::common::now;

/// A measured run of the ceiling may be shorter: nothing but the tools is at work.
const CEILING_SECONDS: f64 = 2.0;
const WARM_UP_SECONDS: f64 = 0.5;
const MESSAGES_MAX: f64 = 200_000.0;
/// The sink has counted; the server still records it.
const SETTLE: Duration = Duration::from_millis(300);
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Reading the memory of hundreds of processes costs CPU time: at most one part in so many of one core.
const SAMPLE_SHARE: u32 = 50;

/// What one run gave.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub messages: u64,
    /// Messages by the run time of smtp-source.
    pub accepted_per_s: f64,
    /// Messages by the time until the sink had counted them all.
    pub delivered_per_s: f64,
    /// All processes of the server, for accepting and delivering.
    pub cpu_ms: f64,
    /// Each figure's peak.
    pub memory: Memory,
    /// CPU that others used, of all.
    pub others: f64,
}

/// The tools and both servers, set up.
pub struct Lab {
    pub sink: Sink,
    pub sink_group: Group,
    pub source_group: Group,
    pub posthouse: Server,
    pub postfix: Server,
    /// What a measured run should last.
    pub seconds: f64,
    /// Messages of the next run. None: the ceiling.
    counts: HashMap<(Option<Who>, Cell), u64>,
}

impl Lab {
    pub fn new(tools: (Sink, Group, Group), posthouse: Server, postfix: Server, seconds: f64) -> Self {
        let (sink, sink_group, source_group) = tools;
        Self { sink, sink_group, source_group, posthouse, postfix, seconds, counts: HashMap::new() }
    }

    pub fn server(&self, who: Who) -> &Server {
        match who {
            Who::Posthouse => &self.posthouse,
            Who::Postfix => &self.postfix,
        }
    }

    /// Starts the server, warms it up, loads it, waits until all is delivered, and ends it.
    pub fn measure(&mut self, who: Who, cell: &Cell) -> Result<Sample> {
        let running = self.server(who).start(&[])?;
        let sample =
            self.load(who, cell, &running).with_context(|| format!("{who}, {cell}:\n{}", running.last_words()))?;
        running.stop()?;
        // A rate is per message: the next round may send more or fewer and last as long as it should.
        let next = for_a_run(sample.accepted_per_s, self.seconds, cell.connections);
        self.counts.insert((Some(who), *cell), next);
        Ok(sample)
    }

    /// smtp-source straight into smtp-sink: messages per second.
    pub fn ceiling(&mut self, cell: &Cell) -> Result<f64> {
        let port = self.sink.port;
        let messages =
            self.warm_up(None, cell, port, CEILING_SECONDS).with_context(|| format!("the tools alone, {cell}"))?;
        let time =
            send(&self.source_group, cell, messages, port).with_context(|| format!("the tools alone, {cell}"))?;
        let rate = messages as f64 / time.as_secs_f64();
        self.counts.insert((None, *cell), for_a_run(rate, CEILING_SECONDS, cell.connections));
        Ok(rate)
    }

    fn load(&mut self, who: Who, cell: &Cell, running: &Running) -> Result<Sample> {
        let port = self.server(who).port;
        let messages = self.warm_up(Some(who), cell, port, self.seconds)?;
        let ours = [&running.group, &self.sink_group, &self.source_group];
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sampler = scope.spawn(|| sample_memory(&running.group, &stop));
            let run = || -> Result<Sample> {
                let base = self.sink.count();
                let mark = Mark::now(&ours)?;
                let cpu_before = running.group.cpu_ms()?;
                let begin = now();
                let accepted = send(&self.source_group, cell, messages, port)?;
                let delivered = self.sink.wait_for(base + messages)?.duration_since(begin);
                let others = Mark::now(&ours)?.others_since(&mark);
                std::thread::sleep(SETTLE);
                let cpu_ms = (running.group.cpu_ms()? - cpu_before) / messages as f64;
                Ok(Sample {
                    messages,
                    accepted_per_s: messages as f64 / accepted.as_secs_f64(),
                    delivered_per_s: messages as f64 / delivered.as_secs_f64(),
                    cpu_ms,
                    memory: Memory::default(),
                    others,
                })
            };
            let sample = run();
            stop.store(true, Ordering::Relaxed);
            let memory = sampler.join().unwrap_or_default();
            sample.map(|sample| Sample { memory, ..sample })
        })
    }

    /// Sends a little, waits until it is delivered, and returns how many messages a run of `seconds` takes.
    pub fn warm_up(&mut self, who: Option<Who>, cell: &Cell, port: u16, seconds: f64) -> Result<u64> {
        let base = self.sink.count();
        if let Some(messages) = self.counts.get(&(who, *cell)).copied() {
            let part = ((messages as f64 * WARM_UP_SECONDS / seconds) as u64).max(cell.connections * 2);
            send(&self.source_group, cell, part, port)?;
            self.sink.wait_for(base + part)?;
            return Ok(messages);
        }
        let mut part = 20 + cell.connections * 5;
        // The first start of everything says nothing about its speed.
        send(&self.source_group, cell, part, port)?;
        let mut sent = part;
        loop {
            let time = send(&self.source_group, cell, part, port)?.as_secs_f64();
            sent += part;
            self.sink.wait_for(base + sent)?;
            let rate = part as f64 / time;
            if time >= WARM_UP_SECONDS * 0.6 || part as f64 >= MESSAGES_MAX {
                let messages = for_a_run(rate, seconds, cell.connections);
                self.counts.insert((who, *cell), messages);
                return Ok(messages);
            }
            part = ((rate * WARM_UP_SECONDS) as u64).clamp(part + 1, MESSAGES_MAX as u64);
        }
    }
}

/// Two digits are enough, and every connection has some to carry.
fn for_a_run(rate: f64, seconds: f64, connections: u64) -> u64 {
    let wanted = (rate * seconds).clamp((connections * 5) as f64, MESSAGES_MAX);
    let scale = 10f64.powf((wanted.log10() - 1.0).floor().max(0.0));
    ((wanted / scale).round() * scale) as u64
}

fn sample_memory(group: &Group, stop: &AtomicBool) -> Memory {
    let mut peak = Memory::default();
    let mut wait = SAMPLE_INTERVAL_MIN;
    let mut next = now() + wait;
    while !stop.load(Ordering::Relaxed) {
        // In small steps, so that the end is noticed.
        std::thread::sleep(SAMPLE_INTERVAL_MIN / 4);
        if now() < next {
            continue;
        }
        let begin = now();
        let memory = group.memory();
        peak.pss_kib = peak.pss_kib.max(memory.pss_kib);
        peak.rss_kib = peak.rss_kib.max(memory.rss_kib);
        wait = SAMPLE_INTERVAL_MIN.max(begin.elapsed() * SAMPLE_SHARE);
        next = now() + wait;
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_round_number_of_messages_and_some_for_each_connection() {
        for (rate, seconds, connections, expected) in
            [(4547.0, 4.0, 100, 18_000), (3.0, 4.0, 100, 500), (12.4, 1.0, 1, 12), (1e9, 4.0, 1, 200_000)]
        {
            assert_eq!(for_a_run(rate, seconds, connections), expected, "{rate}/s");
        }
    }
}
