//! Every input that a fuzzer or a person ever kept is played again, on stable.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "what fails in a helper fails the test"
)]

use std::path::PathBuf;

use fuzzing::TARGETS;

fn fuzz_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"))
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("the target is in the list");
    let folder = fuzz_folder().join("corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("the corpus is there").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has no corpus: put inputs into fuzz/corpus/{name}");
    for file in files {
        let data = std::fs::read(&file).unwrap();
        // The test's output names the input that broke a property.
        println!("{}", file.display());
        target(&data);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(mod $name {
            #[test]
            fn keeps_its_properties_for_every_input_of_the_corpus() {
                super::replay(stringify!($name));
            }
        })*

        #[test]
        fn every_target_is_replayed_and_fuzzed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), replayed);
            let manifest = std::fs::read_to_string(fuzz_folder().join("Cargo.toml")).unwrap();
            for name in replayed {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no binary of fuzz/Cargo.toml");
                assert!(fuzz_folder().join(format!("fuzz_targets/{name}.rs")).is_file());
            }
        }
    };
}

targets! {
    smtp_server smtp_client proxy_header address header_walk dsn crypt resource_yaml proto_queue proto_policy
    proto_ingress
}
