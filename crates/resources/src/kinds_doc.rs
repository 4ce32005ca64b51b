//! The reference of all kinds and fields, made from their schemas.

use serde_json::Value;

use crate::kinds;
use crate::values::{
    AddressPattern, DnsServer, DomainName, HostAndPort, Ip, MailAddress, Match, Network, PasswordHash, ReversePath,
    Size, SocketAddress, Span, Texts,
};

/// What docs/configuration.md holds: every kind and field with its default. A test fails where the file is stale.
pub fn reference() -> String {
    let mut text = include_str!("reference/introduction.md").to_owned();
    for crd in kinds::crds() {
        let crd = serde_json::to_value(&crd).unwrap_or_default();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default();
        text.push_str(&format!(
            "\n## {kind}\n{}\n\n{}\n",
            schema["description"].as_str().unwrap_or_default(),
            example(kind)
        ));
        text.push_str("| field of `spec` | value | default | |\n|---|---|---|---|\n");
        fields(&schema["properties"]["spec"], "", &mut text);
    }
    text.push_str(include_str!("reference/end.md"));
    text
}

fn example(kind: &str) -> &'static str {
    match kind {
        "MailPlatform" => include_str!("reference/platform.md"),
        "MailListener" => include_str!("reference/listener.md"),
        "MailDomain" => include_str!("reference/domain.md"),
        "MailUser" => include_str!("reference/user.md"),
        "MailTable" => include_str!("reference/table.md"),
        "MailPolicy" => include_str!("reference/policy.md"),
        "MailTransport" => include_str!("reference/transport.md"),
        _ => "",
    }
}

/// A row for each field, and for the fields below it.
fn fields(schema: &Value, prefix: &str, text: &mut String) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let description = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let default = if required.contains(&name.as_str()) { "required".to_owned() } else { default(field) };
        text.push_str(&format!("| `{path}` | {} | {default} | {description} |\n", kind_of_value(field)));
        let items = &field["items"];
        if items["properties"].is_object() {
            fields(items, &format!("{path}[]"), text);
        } else {
            fields(field, &path, text);
        }
    }
}

fn default(field: &Value) -> String {
    match &field["default"] {
        Value::Null => String::new(),
        // The fields below tell theirs.
        Value::Object(_) => String::new(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| format!("`{}`", plain(item))).collect();
            items.join(" ")
        }
        value => match plain(value).as_str() {
            "" => "empty".to_owned(),
            text => format!("`{text}`"),
        },
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn kind_of_value(field: &Value) -> String {
    if let Some(allowed) = field["enum"].as_array() {
        let allowed: Vec<String> = allowed.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
        return allowed.join(" ");
    }
    let known = match field["format"].as_str().unwrap_or_default() {
        MailAddress::FORMAT => "mail address",
        DomainName::FORMAT => "domain",
        Network::FORMAT => "network",
        Ip::FORMAT => "IP address",
        SocketAddress::FORMAT => "address:port",
        DnsServer::FORMAT => "IP address, port",
        HostAndPort::FORMAT => "host:port",
        Span::FORMAT => "time",
        Size::FORMAT => "size",
        AddressPattern::FORMAT => "mail address or *@domain",
        ReversePath::FORMAT => "mail address or <>",
        PasswordHash::FORMAT => "password hash",
        Match::FORMAT => "value, list or table",
        Texts::FORMAT => "text or list",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    match field["type"].as_str().unwrap_or_default() {
        "array" => format!("list: {}", kind_of_value(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map: {}", kind_of_value(&field["additionalProperties"]))
        }
        "object" => "fields".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => "number".to_owned(),
        _ => "text".to_owned(),
    }
}
