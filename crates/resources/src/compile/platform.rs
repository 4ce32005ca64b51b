use std::path::PathBuf;

use rules::ExpansionLimits;

use super::directory::Directory;
use super::{Compiler, name_path, spec_path};
use crate::Environment;
use crate::fault::Fault;
use crate::kinds::MailPlatformSpec;
use crate::object::{Kind, Object, Spec};
use crate::snapshot::{AuthFailures, Platform};

impl<'a> Compiler<'a> {
    /// The one MailPlatform.
    pub(super) fn platform(&mut self) -> Option<&'a Object> {
        let platforms = self.of_kind(Kind::MailPlatform);
        let Some((first, others)) = platforms.split_first() else {
            let folder = self.folder.clone().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or_else(|| PathBuf::from("."));
            self.faults.push(Fault {
                file: folder,
                line: 0,
                column: 0,
                what: "there is no MailPlatform".to_owned(),
                remedy: "add one with hostname and postmaster; posthouse init writes an example".to_owned(),
            });
            return None;
        };
        for other in others {
            let what = format!("there is a second MailPlatform; the first is {} at {}", first.name, first.place());
            self.fault(other, &name_path(), what, "keep one of them");
        }
        Some(first)
    }

    pub(super) fn is_platform_known(&self) -> bool {
        let platforms = self.of_kind(Kind::MailPlatform);
        platforms.first().is_some_and(|object| !object.is_doubtful && !matches!(object.spec, Spec::Faulty))
    }

    pub(super) fn check_platform(&mut self, object: &Object, spec: &MailPlatformSpec, directory: &Directory) {
        let path = spec_path("hostname");
        if spec.hostname.0.is_literal() {
            self.fault(object, &path, "hostname is an address literal", "write the name that DNS has for this host");
        }
        self.relay_reference(object, &spec_path("relayTransport"), &spec.relay_transport);
        if let Some(name) = &spec.policy_ref {
            self.policy_reference(object, &spec_path("policyRef"), name);
        }
        let postmaster = &spec.postmaster.0;
        if !self.expands_by_table() && !directory.reaches(postmaster) {
            let what = format!("nobody has the postmaster's address {postmaster}");
            let remedy = "add it to the aliases of a MailUser, or name another address";
            self.fault(object, &spec_path("postmaster"), what, remedy);
        }
    }

    /// Whether some rule finds mailboxes by a table, so that the directory alone does not say who is there.
    fn expands_by_table(&self) -> bool {
        self.objects.iter().any(|object| match &object.spec {
            Spec::Policy(policy) => policy.rules.iter().filter_map(|rule| rule.action.as_ref()).any(|action| {
                action.aliases.is_some()
                    || action.deliver.as_ref().is_some_and(|d| d.virtual_map.is_some() || d.aliases.is_some())
            }),
            Spec::Faulty => object.kind == Kind::MailPolicy,
            _ => false,
        })
    }
}

pub(super) fn expansion_limits(spec: &MailPlatformSpec) -> ExpansionLimits {
    ExpansionLimits { depth_max: spec.expansion.depth_max as usize, results_max: spec.expansion.results_max as usize }
}

pub(super) fn build(name: &str, spec: &MailPlatformSpec, environment: &Environment) -> Platform {
    Platform {
        name: name.to_owned(),
        hostname: spec.hostname.0.clone(),
        admin: spec.admin.enabled.then_some(spec.admin.address.0),
        dns_servers: spec.dns.servers.iter().map(|server| server.0).collect(),
        dns_cache: spec.dns.cache,
        body_inline_max_bytes: spec.queue.inline_body_max.0,
        ingress_memory_max_bytes: spec.ingress.memory_max.0,
        free_space_min_bytes: spec.queue.free_space_min.0,
        event_retention: spec.queue.event_retention.0,
        dovecot_passwd_file: spec.dovecot.passwd_file.as_ref().map(|file| environment.state_dir.join(file)),
        auth_failure_floor: spec.authentication.failure_floor.0,
        auth_concurrency_max: spec.authentication.concurrency_max as usize,
        auth_failures: AuthFailures {
            per_source_max: spec.authentication.failures_per_source_max,
            per_user_max: spec.authentication.failures_per_user_max,
            window: spec.authentication.failure_window.0,
        },
        drain_max: spec.drain_max.0,
        deliveries_max: spec.delivery.concurrency_max as usize,
        sendmail_socket: spec.sendmail.socket,
    }
}
