//! Addresses as they come in with MAIL and RCPT.
#![allow(clippy::unwrap_used, reason = "a bench")]

use divan::{Bencher, black_box};
use types::Address;

fn main() {
    divan::main();
}

#[divan::bench(args = ["a@b.test", "firstname.lastname+detail@department.example.org", "\"quoted local\"@example.org", "bj\u{f6}rn@b\u{fc}cher.example"])]
fn parse(bencher: Bencher, text: &str) {
    bencher.bench(|| Address::parse(black_box(text)).unwrap());
}

#[divan::bench(args = ["firstname.lastname@department.example.org", "Alice.Example@example.org"])]
fn key(bencher: Bencher, text: &str) {
    let address = Address::parse(text).unwrap();
    bencher.bench(|| black_box(&address).key());
}
