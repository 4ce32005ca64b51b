//! Documents of the configuration, from text to snapshot.

use std::path::{Path, PathBuf};

use resources::{Environment, compile, load};

/// Octets of the documents: what is longer says nothing new.
const TEXT_OCTETS_MAX: usize = 32 << 10;
/// Faults of a text, for each octet of it and once.
const FAULTS_PER_OCTET_MAX: usize = 4;

/// Documents of one file, 0xFF, those of another, 0xFF, what any file holds that they name. Properties: loading and
/// compiling end, in time and memory that are bounded by the text (aliases and nesting included); the same text gives the
/// same faults; every fault has its place and its remedy; there is a snapshot or a fault.
pub fn resource_yaml(data: &[u8]) {
    let mut input = crate::input::Input::new(&data[..data.len().min(TEXT_OCTETS_MAX)]);
    let mut files = vec![(PathBuf::from("a.yaml"), input.text().into_owned())];
    if !input.is_empty() {
        files.push((PathBuf::from("b.yaml"), input.text().into_owned()));
    }
    let named = input.rest();
    let (objects, faults) = load(&files);
    // To YAML a CR alone ends a line, too (YAML 1.2.2 section 5.4).
    let breaks = |text: &str| text.matches(['\r', '\n']).count();
    let lines = 1 + files.iter().map(|(_, text)| breaks(text)).max().unwrap_or(0);
    let environment = Environment { is_root: false, state_dir: "/state".into(), working_dir: "/".into() };
    let read = |path: &Path| {
        // A name says whether the file is there.
        if path.as_os_str().len() % 4 == 3 { Err("no such file".to_owned()) } else { Ok(named.to_vec()) }
    };
    let (snapshot, more) = compile(objects, &environment, &read);
    assert!(snapshot.is_some() || !faults.is_empty() || !more.is_empty(), "neither a snapshot nor a fault");
    assert!(
        faults.len() + more.len() <= FAULTS_PER_OCTET_MAX * data.len() + 20,
        "{} faults of {} octets",
        faults.len() + more.len(),
        data.len()
    );
    for fault in faults.iter().chain(&more) {
        assert!(fault.line <= lines + 1, "{fault:?} of {lines} lines");
        assert!(!fault.what.is_empty() && !fault.remedy.is_empty(), "{fault:?}");
        assert!(fault.to_string().len() < 4 * TEXT_OCTETS_MAX);
    }
    if data.len() < 4096 {
        let (objects, again) = load(&files);
        assert_eq!(faults, again);
        assert_eq!(compile(objects, &environment, &read).1, more);
    }
}
