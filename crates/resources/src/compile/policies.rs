use std::collections::BTreeMap;
use std::sync::Arc;

use rules::{Action, Criterion, Deliver, Matcher, Pattern, Policy, Rule, Source, Test};
use types::{Domain, EnhancedCode, Reply};

use super::listeners::SENDMAIL_LISTENER;
use super::tables::{normal_key, parse_network};
use super::{Compiler, Tables, spec_path};
use crate::kinds::{MailPolicySpec, NegatedMatch, PolicyRule, RuleAction, RuleMatch};
use crate::object::{Kind, Object, Spec};
use crate::path::FieldPath;
use crate::values::Match;

/// Name of the policy that is there without a document.
pub(super) const BUILT_IN: &str = "default";
/// Rules of a policy with its includes: includes of includes must not fill memory.
const RULES_MAX: usize = 10_000;

/// Rules that stand for an entry of a policy.
enum Step<'a> {
    Written(&'a Object, usize, &'a PolicyRule),
    BuiltIn,
    /// Another policy begins. It counts as a rule: includes of includes that hold no rule must end, too.
    Included,
}

/// A criterion as it is written, and by what name.
type Written<'m> = (&'static str, &'m Match);

impl<'a> Compiler<'a> {
    pub(super) fn policies(&mut self, tables: &Tables) -> BTreeMap<String, Arc<Policy>> {
        let mut policies = BTreeMap::new();
        for object in self.of_kind(Kind::MailPolicy) {
            let Spec::Policy(spec) = &object.spec else { continue };
            if object.name == BUILT_IN {
                let what = "the name default belongs to the built-in policy";
                self.fault(object, &super::name_path(), what, "choose another name");
                continue;
            }
            let mut steps = Vec::new();
            self.flatten(object, spec, &mut vec![object], &mut steps);
            let mut rules = Vec::new();
            for step in steps {
                match step {
                    Step::Included => {}
                    Step::BuiltIn => rules.extend(built_in_rules()),
                    Step::Written(object, index, rule) => rules.extend(self.rule(object, index, rule, tables)),
                }
            }
            policies.insert(object.name.clone(), Arc::new(Policy::new(object.name.clone(), rules)));
        }
        let built_in = Policy::new(BUILT_IN, built_in_rules());
        policies.insert(BUILT_IN.to_owned(), Arc::new(built_in));
        policies
    }

    pub(super) fn policy_reference(&mut self, object: &Object, path: &FieldPath, name: &str) {
        if name != BUILT_IN {
            self.reference(object, path, Kind::MailPolicy, name);
        }
    }

    /// Puts the rules of included policies where they are included.
    fn flatten(
        &mut self,
        object: &'a Object,
        spec: &'a MailPolicySpec,
        inside: &mut Vec<&'a Object>,
        steps: &mut Vec<Step<'a>>,
    ) {
        for (index, rule) in spec.rules.iter().enumerate() {
            let path = spec_path("rules").index(index);
            if steps.len() >= RULES_MAX {
                let what = format!("the policy has more than {RULES_MAX} rules with what it includes");
                self.fault(object, &path, what, "use tables in place of many rules");
                return;
            }
            let Some(name) = &rule.include else {
                steps.push(Step::Written(object, index, rule));
                continue;
            };
            steps.push(Step::Included);
            let path = path.key("include");
            // What is wrong inside of an included policy is said where that one is compiled itself.
            let is_own = inside.len() == 1;
            if is_own && (rule.matches.is_some() || rule.action.is_some()) {
                let what = "a rule with include has match or action as well";
                self.fault(object, &path, what, "write them as two rules");
            }
            if name == BUILT_IN {
                steps.push(Step::BuiltIn);
                continue;
            }
            let included = match is_own {
                true => self.reference(object, &path, Kind::MailPolicy, name),
                false => self.find(Kind::MailPolicy, name),
            };
            let Some(included) = included else { continue };
            let Spec::Policy(spec) = &included.spec else { continue };
            if inside.iter().any(|outer| std::ptr::eq(*outer, included)) {
                let names: Vec<&str> = inside.iter().map(|outer| outer.name.as_str()).collect();
                let what = format!("policies include each other in a circle: {} -> {name}", names.join(" -> "));
                self.fault(object, &path, what, "remove one of the includes");
                continue;
            }
            inside.push(included);
            self.flatten(included, spec, inside, steps);
            inside.pop();
        }
    }

    fn rule(&mut self, object: &Object, index: usize, rule: &PolicyRule, tables: &Tables) -> Option<Rule> {
        let path = spec_path("rules").index(index);
        let mut criteria = Vec::new();
        if let Some(matches) = &rule.matches {
            let place = path.key("match");
            let (holds, is_ours) = written(matches);
            let (holds_not, is_not_ours) = matches.not.as_ref().map(written_not).unwrap_or_default();
            self.criteria(object, &place, &holds, is_ours, false, &mut criteria);
            self.criteria(object, &place.key("not"), &holds_not, is_not_ours, true, &mut criteria);
            if holds.is_empty() && holds_not.is_empty() && is_ours.or(is_not_ours).is_none() {
                let what = "match holds no criterion, so the rule would always match";
                self.fault(object, &place, what, "add a criterion, or remove match");
            }
        }
        let action = match &rule.action {
            Some(action) => self.action(object, &path.key("action"), action, tables)?,
            None => {
                let what = "the rule has no action";
                self.fault(object, &path, what, "add action, or include with the name of a policy");
                return None;
            }
        };
        let name = rule.name.clone().unwrap_or_else(|| format!("{}/{}", object.name, index + 1));
        Some(Rule { name, criteria, action })
    }

    fn criteria(
        &mut self,
        object: &Object,
        path: &FieldPath,
        written: &[Written<'_>],
        is_ours: Option<bool>,
        negated: bool,
        criteria: &mut Vec<Criterion>,
    ) {
        for (name, value) in written {
            let path = path.key(name);
            let (test, turned) = match (*name, value) {
                ("source", value) => (self.source(object, &path, value).map(Test::Source), false),
                ("authenticated", Match::Flag(flag)) => (Some(Test::Authenticated(None)), !flag),
                ("authenticated", Match::Values(values)) if values.iter().any(|value| value == "any") => {
                    (Some(Test::Authenticated(None)), false)
                }
                (_, Match::Flag(_)) => {
                    let what = format!("{path} is true or false, but should be a value, a list or a table");
                    self.fault(object, &path, what, "put it in quotes");
                    (None, false)
                }
                (name, value) => (self.matcher(object, &path, name, value).map(|matcher| test(name, matcher)), false),
            };
            criteria.extend(test.map(|test| Criterion { negated: negated != turned, test }));
        }
        if let Some(is_ours) = is_ours {
            criteria.push(Criterion { negated: negated == is_ours, test: Test::RecipientDomainIsOurs });
        }
    }

    fn matcher(&mut self, object: &Object, path: &FieldPath, name: &str, value: &Match) -> Option<Matcher> {
        match value {
            Match::Table(table) => {
                self.table_reference(object, &path.key("table"), table);
                Some(Matcher::Table(table.clone()))
            }
            Match::Values(values) => {
                let is_list = values.len() != 1;
                let patterns = values.iter().enumerate().map(|(index, value)| {
                    let place = if is_list { path.index(index) } else { path.clone() };
                    self.pattern(object, &place, name, value)
                });
                Some(Matcher::Patterns(patterns.collect()))
            }
            Match::Flag(_) => None,
        }
    }

    fn pattern(&mut self, object: &Object, path: &FieldPath, name: &str, value: &str) -> Pattern {
        let text = normal_key(value);
        if text.contains('*') {
            return Pattern::Wildcard(text);
        }
        if value.trim().is_empty() {
            self.fault(object, path, format!("{path} is empty"), "write a value; <> is the null sender");
        }
        match name {
            "listener" if value != SENDMAIL_LISTENER => drop(self.reference(object, path, Kind::MailListener, value)),
            "tagged" => self.check_tag(object, path, value),
            "recipientDomain" if Domain::parse(value).is_err() => {
                let what = format!("{value:?} is no domain");
                self.fault(object, path, what, "write a domain, or *.example.org for all below it");
            }
            "sender" | "recipient" => {
                let domain = value.rsplit_once('@').map_or(value, |(_, domain)| domain);
                if value != "<>" && Domain::parse(domain).is_err() {
                    let what = format!("{value:?} is neither an address nor a domain");
                    self.fault(object, path, what, "write user@example.org, *@example.org or example.org");
                }
            }
            _ => {}
        }
        Pattern::Exact(text)
    }

    fn source(&mut self, object: &Object, path: &FieldPath, value: &Match) -> Option<Source> {
        const REMEDY: &str = "write any, local, an address, a network such as 192.0.2.0/24, or a list of networks";
        let values = match value {
            Match::Table(table) => {
                self.table_reference(object, &path.key("table"), table);
                return Some(Source::Table(table.clone()));
            }
            Match::Flag(_) => {
                self.fault(object, path, "source is true or false, but should be an address", REMEDY);
                return None;
            }
            Match::Values(values) => values,
        };
        match values.as_slice() {
            [one] if one == "any" => return Some(Source::Any),
            [one] if one == "local" => return Some(Source::Local),
            _ => {}
        }
        let mut networks = Vec::new();
        for (index, text) in values.iter().enumerate() {
            let place = if values.len() == 1 { path.clone() } else { path.index(index) };
            match parse_network(text) {
                Some(network) => networks.push(network),
                None if text == "any" || text == "local" => {
                    let what = format!("{text} stands in a list");
                    self.fault(object, &place, what, "write two rules: one for it, one for the networks");
                }
                None => self.fault(object, &place, format!("{text:?} is no source"), REMEDY),
            }
        }
        Some(Source::Networks(networks.into()))
    }

    fn action(&mut self, object: &Object, path: &FieldPath, action: &RuleAction, tables: &Tables) -> Option<Action> {
        let given = [
            ("accept", action.accept.is_some()),
            ("deliver", action.deliver.is_some()),
            ("relay", action.relay.is_some()),
            ("reject", action.reject.is_some()),
            ("defer", action.defer.is_some()),
            ("tag", action.tag.is_some()),
            ("rewriteSender", action.rewrite_sender.is_some()),
            ("aliases", action.aliases.is_some()),
        ];
        let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
        let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        match given[..] {
            [_] => {}
            [] => self.fault(object, path, "the action says nothing", format!("add one of {}", names.join(", "))),
            [first, second, ..] => {
                let what = format!("the action has {first} and {second}");
                self.fault(object, &path.key(second), what, "write two rules: a rule does one thing");
            }
        }
        if action.accept.is_some() {
            return Some(Action::Deliver(Deliver::default()));
        }
        if let Some(deliver) = &action.deliver {
            let path = path.key("deliver");
            if let Some(name) = &deliver.transport {
                self.transport_reference(object, &path.key("transport"), name);
            }
            for (field, table) in [("virtual", &deliver.virtual_map), ("aliases", &deliver.aliases)] {
                if let Some(table) = table {
                    self.address_table(object, &path.key(field).key("table"), &table.table, tables);
                }
            }
            return Some(Action::Deliver(Deliver {
                transport: deliver.transport.clone(),
                virtual_table: deliver.virtual_map.as_ref().map(|table| table.table.clone()),
                alias_table: deliver.aliases.as_ref().map(|table| table.table.clone()),
            }));
        }
        if let Some(relay) = &action.relay {
            if let Some(name) = &relay.transport {
                self.relay_reference(object, &path.key("relay").key("transport"), name);
            }
            return Some(Action::Relay { transport: relay.transport.clone() });
        }
        if let Some(reject) = &action.reject {
            return Some(Action::Reject(self.reply(object, &path.key("reject"), reject.code, &reject.text)));
        }
        if let Some(defer) = &action.defer {
            return Some(Action::Defer(self.reply(object, &path.key("defer"), defer.code, &defer.text)));
        }
        if let Some(tag) = &action.tag {
            self.check_tag(object, &path.key("tag"), tag);
            return Some(Action::Tag(tag.to_lowercase()));
        }
        if let Some(sender) = &action.rewrite_sender {
            return Some(Action::RewriteSender(sender.0.clone()));
        }
        let table = &action.aliases.as_ref()?.table;
        self.address_table(object, &path.key("aliases").key("table"), table, tables);
        Some(Action::Aliases { table: table.clone() })
    }

    /// A reply with the enhanced code that its text begins with, or that its code stands for.
    fn reply(&mut self, object: &Object, path: &FieldPath, code: u16, text: &str) -> Reply {
        /// A reply line is 512 octets with code and line end (RFC 5321 section 4.5.3.1.5).
        const TEXT_OCTETS_MAX: usize = 490;
        let class = if code >= 500 { 5 } else { 4 };
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (enhanced, rest) = match first.parse::<EnhancedCode>() {
            Ok(enhanced) => (enhanced, rest.trim_start()),
            Err(_) => (EnhancedCode::new(class, 7, 1), text),
        };
        let place = path.key("text");
        if enhanced.class != class {
            let what = format!("enhanced code {enhanced} does not go with code {code}");
            self.fault(object, &place, what, format!("begin the text with {class}.x.y"));
        }
        if rest.is_empty() || text.len() > TEXT_OCTETS_MAX || text.chars().any(char::is_control) || !text.is_ascii() {
            let what = "the text of the reply is empty, too long or not plain ASCII";
            self.fault(object, &place, what, format!("write one line of up to {TEXT_OCTETS_MAX} characters"));
        }
        Reply::new(code, Some(enhanced), rest)
    }
}

fn test(name: &str, matcher: Matcher) -> Test {
    match name {
        "tagged" => Test::Tagged(matcher),
        "listener" => Test::Listener(matcher),
        "authenticated" => Test::Authenticated(Some(matcher)),
        "helo" => Test::Helo(matcher),
        "sender" => Test::Sender(matcher),
        "recipient" => Test::Recipient(matcher),
        _ => Test::RecipientDomain(matcher),
    }
}

/// What decides where no MailPolicy does: ours is delivered, who has logged in or is local relays, all else is refused.
fn built_in_rules() -> Vec<Rule> {
    let rule = |name: &str, test: Test, action: Action| Rule {
        name: format!("{BUILT_IN}: {name}"),
        criteria: vec![Criterion { negated: false, test }],
        action,
    };
    vec![
        rule("mail for domains of ours", Test::RecipientDomainIsOurs, Action::Deliver(Deliver::default())),
        rule("mail of who has logged in", Test::Authenticated(None), Action::Relay { transport: None }),
        rule("mail of programs on this host", Test::Source(Source::Local), Action::Relay { transport: None }),
    ]
}

macro_rules! written {
    ($from:expr) => {{
        let from = $from;
        let all = [
            ("tagged", &from.tagged),
            ("listener", &from.listener),
            ("source", &from.source),
            ("authenticated", &from.authenticated),
            ("helo", &from.helo),
            ("sender", &from.sender),
            ("recipient", &from.recipient),
            ("recipientDomain", &from.recipient_domain),
        ];
        let given = all.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        (given, from.recipient_domain_is_ours)
    }};
}

fn written(matches: &RuleMatch) -> (Vec<Written<'_>>, Option<bool>) {
    written!(matches)
}

fn written_not(matches: &NegatedMatch) -> (Vec<Written<'_>>, Option<bool>) {
    written!(matches)
}
