//! Values for tests of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use resources::Snapshot;
use resources::snapshot::Platform;

/// A snapshot of a platform that does nothing.
pub(crate) fn snapshot(version: &str) -> Snapshot {
    Snapshot {
        version: version.to_owned(),
        resources: 1,
        platform: Platform {
            name: "main".to_owned(),
            hostname: "mx.example.org".parse().unwrap(),
            admin: Some("127.0.0.1:0".parse().unwrap()),
            dns_servers: Vec::new(),
            dns_cache: true,
            body_inline_max_bytes: 256 << 10,
            ingress_memory_max_bytes: 128 << 20,
            free_space_min_bytes: 0,
            event_retention: Duration::from_secs(60),
            dovecot_passwd_file: None,
            auth_failure_floor: Duration::ZERO,
            auth_concurrency_max: 1,
            auth_failures: resources::snapshot::AuthFailures::default(),
            drain_max: Duration::from_secs(30),
            deliveries_max: 1,
            sendmail_socket: false,
        },
        listeners: BTreeMap::new(),
        transports: BTreeMap::new(),
        certificates: BTreeMap::new(),
        rules: Arc::default(),
        demo_passwords: BTreeMap::new(),
        files: Vec::new(),
    }
}
