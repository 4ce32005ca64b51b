use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a criterion compares with: one value, a list of values, or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// `value` or `[value, value]`.
    Values(Vec<String>),
    /// `{ table: name }`.
    Table(String),
    /// `true` or `false`, where the criterion is a question (`authenticated`).
    Flag(bool),
}

impl Match {
    /// Name of the form in schemas.
    pub const FORMAT: &'static str = "value-list-or-table";
}

impl Serialize for Match {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Values(values) => values.serialize(serializer),
            Self::Table(table) => TableRef { table: table.clone() }.serialize(serializer),
            Self::Flag(flag) => flag.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Flag(bool),
            One(String),
            List(Vec<String>),
            Table(TableRef),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Flag(flag) => Self::Flag(flag),
            Either::One(value) => Self::Values(vec![value]),
            Either::List(values) => Self::Values(values),
            Either::Table(table) => Self::Table(table.table),
        })
    }
}

impl JsonSchema for Match {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Match".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true, "format": "value-list-or-table" })
    }
}

/// A table by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRef {
    /// Name of a MailTable.
    pub table: String,
}

/// One text or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl Texts {
    /// Name of the form in schemas.
    pub const FORMAT: &'static str = "value-or-list";
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(String),
            List(Vec<String>),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::One(value) => Self(vec![value]),
            Either::List(values) => Self(values),
        })
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Texts".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true, "format": "value-or-list" })
    }
}
