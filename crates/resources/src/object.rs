//! Documents, read and typed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::fault::Fault;
use crate::kinds::{
    MailDomainSpec, MailListenerSpec, MailPlatformSpec, MailPolicySpec, MailTableSpec, MailTransportSpec, MailUserSpec,
};
use crate::path::{FieldPath, Places};

/// What a document can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The installation.
    MailPlatform,
    /// One way in.
    MailListener,
    /// A domain of ours.
    MailDomain,
    /// A mailbox.
    MailUser,
    /// A list or map.
    MailTable,
    /// Rules.
    MailPolicy,
    /// One way out.
    MailTransport,
    /// Kubernetes' own, for what must not be shown.
    Secret,
    /// Kubernetes' own, for texts.
    ConfigMap,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 9] = [
        Kind::MailPlatform,
        Kind::MailListener,
        Kind::MailDomain,
        Kind::MailUser,
        Kind::MailTable,
        Kind::MailPolicy,
        Kind::MailTransport,
        Kind::Secret,
        Kind::ConfigMap,
    ];

    /// The kind of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// As in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MailPlatform => "MailPlatform",
            Self::MailListener => "MailListener",
            Self::MailDomain => "MailDomain",
            Self::MailUser => "MailUser",
            Self::MailTable => "MailTable",
            Self::MailPolicy => "MailPolicy",
            Self::MailTransport => "MailTransport",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }

    /// As in `apiVersion:`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Secret | Self::ConfigMap => "v1",
            _ => "posthouse.dev/v1alpha1",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a document says.
#[derive(Debug, Clone)]
pub(crate) enum Spec {
    Platform(Box<MailPlatformSpec>),
    Listener(Box<MailListenerSpec>),
    Domain(Box<MailDomainSpec>),
    User(Box<MailUserSpec>),
    Table(Box<MailTableSpec>),
    Policy(Box<MailPolicySpec>),
    Transport(Box<MailTransportSpec>),
    Data(Data),
    /// The document has faults that are reported already: it is there, and that is all that is known.
    Faulty,
}

/// Values of a Secret or a ConfigMap. Does not print.
#[derive(Clone, Default)]
pub(crate) struct Data(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One document.
#[derive(Debug, Clone)]
pub struct Object {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) spec: Spec,
    pub(crate) file: Arc<PathBuf>,
    pub(crate) places: Places,
    /// It has faults by which it may say something else than was meant: it is not blamed for more.
    pub(crate) is_doubtful: bool,
    /// Of everything that the document says.
    pub(crate) digest: [u8; 32],
    /// Of a Secret that is an example: the password that everybody may know.
    pub(crate) demo_password: Option<String>,
}

impl Object {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its `metadata.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that it was read from.
    pub fn file(&self) -> &PathBuf {
        &self.file
    }

    /// A fault at a field of this document.
    pub(crate) fn fault(&self, path: &FieldPath, what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        let place = self.places.find(path);
        Fault {
            file: self.file.as_ref().clone(),
            line: place.line,
            column: place.column,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// `file:line`, for faults that name a second document.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line())
    }

    /// Of its name.
    pub(crate) fn line(&self) -> usize {
        self.places.find(&FieldPath::of("metadata.name")).line
    }
}
