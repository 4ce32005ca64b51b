//! The custom resources of group `posthouse.dev`. Doc comments are the descriptions of the schemas.

mod domain;
mod listener;
mod platform;
mod policy;
mod status;
mod table;
mod transport;
mod user;

pub use domain::*;
pub use listener::*;
pub use platform::*;
pub use policy::*;
pub use status::*;
pub use table::*;
pub use transport::*;
pub use user::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Group of the custom resources.
pub const GROUP: &str = "posthouse.dev";
/// Version of the custom resources.
pub const VERSION: &str = "v1alpha1";

/// The definitions of all kinds, in the order of the reference.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        MailPlatform::crd(),
        MailListener::crd(),
        MailDomain::crd(),
        MailUser::crd(),
        MailTable::crd(),
        MailPolicy::crd(),
        MailTransport::crd(),
    ]
}

/// A value in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in its data.
    pub key: String,
}

/// A value in a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    pub name: String,
    /// Key in its data.
    pub key: String,
}

fn yes() -> bool {
    true
}
