//! Rate, errors and duration of every call between services.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use http::HeaderMap;
use metrics::{Counter, Histogram};

use crate::Clock;

/// Methods that get series of their own: more than all contracts have. Paths come from callers, and the admin socket's
/// caller may send any.
const METHODS_MAX: usize = 64;

/// By the numbers of gRPC; the last one is a caller that went away before the answer.
const CODES: [&str; 18] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
    "dropped",
];
const UNKNOWN: usize = 2;
const DROPPED: usize = 17;

/// Counts and times calls. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Calls {
    clock: Clock,
    methods: Arc<ArcSwap<Vec<Arc<Method>>>>,
}

/// The series of one method, looked up in the recorder once and not at every call.
struct Method {
    path: String,
    service: String,
    name: String,
    seconds: Histogram,
    codes: [OnceLock<Counter>; CODES.len()],
}

impl Calls {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, methods: Arc::default() }
    }

    /// A call to `path`, as in `/posthouse.queue.v1.Queue/Accept`, begins.
    pub(crate) fn begin(&self, path: &str) -> Call {
        Call { method: self.method(path), clock: self.clock.clone(), begun: self.clock.instant(), ended: false }
    }

    fn method(&self, path: &str) -> Arc<Method> {
        // A scan over some twenty short strings is cheaper than hashing one of them.
        let methods = self.methods.load();
        if let Some(method) = methods.iter().find(|method| method.path == path) {
            return Arc::clone(method);
        }
        let method = if methods.len() < METHODS_MAX { Method::new(path) } else { Method::new("/other/other") };
        let method = Arc::new(method);
        self.methods.rcu(|methods| {
            let mut next = Vec::clone(methods);
            if next.len() < METHODS_MAX && !next.iter().any(|known| known.path == method.path) {
                next.push(Arc::clone(&method));
            }
            next
        });
        method
    }
}

impl Method {
    fn new(path: &str) -> Self {
        let (service, name) =
            path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or(("other", "other"));
        let seconds =
            metrics::histogram!("posthouse_call_seconds", "service" => service.to_owned(), "method" => name.to_owned());
        Self {
            path: path.to_owned(),
            service: service.to_owned(),
            name: name.to_owned(),
            seconds,
            codes: Default::default(),
        }
    }

    fn count(&self, code: usize) {
        self.codes[code]
            .get_or_init(|| {
                metrics::counter!("posthouse_calls_total", "service" => self.service.clone(), "method" => self.name.clone(), "code" => CODES[code])
            })
            .increment(1);
    }
}

/// A call under way; one that is dropped before its end is counted as such.
pub(crate) struct Call {
    method: Arc<Method>,
    clock: Clock,
    begun: Instant,
    ended: bool,
}

impl Call {
    /// The answer has begun. A refusal carries its status here; a stream may still fail later, which its reader counts.
    pub(crate) fn end(mut self, headers: &HeaderMap) {
        self.ended = true;
        let code = match headers.get("grpc-status").map(http::HeaderValue::to_str) {
            None => 0,
            Some(Ok(text)) => text.parse().ok().filter(|code| *code < DROPPED).unwrap_or(UNKNOWN),
            Some(Err(_)) => UNKNOWN,
        };
        self.method.count(code);
        self.method.seconds.record(self.clock.instant().saturating_duration_since(self.begun));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.method.count(DROPPED);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_code_and_timed() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let clock = Clock::system();
        metrics::with_local_recorder(&recorder, || {
            let calls = Calls::new(clock.clone());
            let mut unavailable = HeaderMap::new();
            unavailable.insert("grpc-status", http::HeaderValue::from_static("14"));
            calls.begin("/a.B/C").end(&HeaderMap::new());
            calls.begin("/a.B/C").end(&unavailable);
            let slow = calls.begin("/a.B/D");
            clock.advance(Duration::from_secs(3));
            slow.end(&HeaderMap::new());
            drop(calls.begin("/a.B/D"));
        });
        let text = recorder.handle().render();
        for line in [
            "posthouse_calls_total{service=\"a.B\",method=\"C\",code=\"ok\"} 1",
            "posthouse_calls_total{service=\"a.B\",method=\"C\",code=\"unavailable\"} 1",
            "posthouse_calls_total{service=\"a.B\",method=\"D\",code=\"dropped\"} 1",
            "posthouse_call_seconds_count{service=\"a.B\",method=\"D\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        let sum = text
            .lines()
            .find_map(|line| line.strip_prefix("posthouse_call_seconds_sum{service=\"a.B\",method=\"D\"} "));
        assert!(sum.unwrap().parse::<f64>().unwrap() >= 3.0);
    }

    #[test]
    fn paths_that_callers_make_up_do_not_grow_the_series_without_bound() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let calls = Calls::new(Clock::system());
            for n in 0..1000 {
                calls.begin(&format!("/made.Up/M{n}")).end(&HeaderMap::new());
            }
        });
        let series =
            recorder.handle().render().lines().filter(|line| line.starts_with("posthouse_calls_total")).count();
        assert_eq!(series, METHODS_MAX + 1);
    }
}
