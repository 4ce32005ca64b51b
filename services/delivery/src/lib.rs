//! Delivery: leases due deliveries from the queue, attempts them by their transport, and settles the results.

mod body;
mod job;
mod pool;
mod resolver;

mod as_user;
mod maildir;
mod mbox;
mod program;
mod report;
