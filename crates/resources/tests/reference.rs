//! docs/configuration.md and the definitions of the kinds.

use std::path::{Path, PathBuf};

use resources::{Environment, compile, crds, load, reference};
use serde_json::Value;

#[test]
fn the_reference_says_what_the_schemas_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = reference();
    if std::env::var_os("POSTHOUSE_WRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == expected, "docs/configuration.md is stale: run the test with POSTHOUSE_WRITE=1");
}

#[test]
fn the_examples_of_the_reference_are_one_site_without_faults() {
    let text = reference();
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 7);
    let (objects, faults) = load(&[(PathBuf::from("site.yaml"), blocks.join("---\n"))]);
    assert_eq!(faults, []);
    let environment =
        Environment { is_root: false, state_dir: PathBuf::from("/state"), working_dir: PathBuf::from("/srv") };
    let aliases = text.split("# tables/aliases\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap().to_owned();
    let files = |path: &Path| {
        assert_eq!(path, Path::new("/srv/tables/aliases"));
        Ok(aliases.clone().into_bytes())
    };
    let (snapshot, faults) = compile(objects, &environment, &files);
    assert_eq!(faults, []);
    assert_eq!(snapshot.unwrap().files, [PathBuf::from("/srv/tables/aliases")]);
}

#[test]
fn every_field_has_a_description_and_every_schema_is_structural() {
    let mut fields = 0;
    for crd in crds() {
        assert_eq!((crd.spec.group.as_str(), crd.spec.scope.as_str()), ("posthouse.dev", "Namespaced"));
        let version = &crd.spec.versions[0];
        assert_eq!((version.name.as_str(), version.served, version.storage), ("v1alpha1", true, true));
        assert!(version.subresources.as_ref().unwrap().status.is_some());
        let crd = serde_json::to_value(&crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        structural(schema, kind, &mut fields);
        let status = &schema["properties"]["status"]["properties"];
        assert!(status["observedGeneration"].is_object() && status["conditions"].is_object(), "{kind}");
    }
    assert!(fields > 150, "{fields}");
}

/// The rules of Kubernetes for structural schemas, as far as ours could break them.
fn structural(schema: &Value, path: &str, fields: &mut usize) {
    let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let is_either = schema["x-kubernetes-int-or-string"] == true;
    assert!(schema["type"].is_string() || is_open || is_either, "{path} has no type: {schema}");
    for forbidden in ["$ref", "oneOf", "anyOf", "allOf", "not", "definitions", "$defs"] {
        assert!(schema[forbidden].is_null(), "{path} has {forbidden}");
    }
    assert!(
        schema["properties"].is_null() || schema["additionalProperties"].is_null(),
        "{path} has properties and additionalProperties"
    );
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        *fields += 1;
        let is_root = path.matches('.').count() == 1;
        assert!(is_root || field["description"].is_string(), "{path} has no description");
        structural(field, &path, fields);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            structural(&schema[key], &format!("{path}.{key}"), fields);
        }
    }
}
