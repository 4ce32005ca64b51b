use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigMapKeyRef, SecretKeyRef, Status};
use crate::values::Texts;

/// A named list or map, for rules, aliases and users. Exactly one source is given.
///
/// Keys are texts, wildcards (`*.example.org`), addresses or networks; they are compared without regard to case.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "posthouse.dev",
    version = "v1alpha1",
    kind = "MailTable",
    namespaced,
    status = "Status",
    doc = "A named list or map, for rules, aliases and users."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailTableSpec {
    /// Keys without values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<String>>,
    /// Keys with one value or a list of values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<BTreeMap<String, Texts>>,
    /// A text file: a key in each line, with values behind white space, separated by commas; # begins a comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<TableFile>,
    /// A query on a SQLite file, which Dovecot may read too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<TableSqlite>,
    /// A value in a Secret, written as a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// A value in a ConfigMap, written as a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKeyRef>,
}

/// A text file with a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableFile {
    /// Relative to the folder of the document. The file is watched.
    pub path: String,
}

/// A query on a SQLite file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableSqlite {
    /// Relative to the folder of the document.
    pub path: String,
    /// A SELECT with Dovecot's variables: %u the whole key, %n what stands before the @, %d what stands behind it. They are bound as values, never pasted as text.
    pub query: String,
}
