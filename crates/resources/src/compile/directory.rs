use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use rules::{Detail, DomainRules, Secret, Table, User};
use types::{Address, Domain};

use super::tables::Tables;
use super::{Compiler, second, spec_path};
use crate::kinds::{MailDomainSpec, MailUserSpec};
use crate::object::{Kind, Object, Spec};
use crate::path::FieldPath;
use crate::values::{DomainName, check_password_hash};

/// File and line of users, for faults that name a second one.
type Owners = HashMap<*const User, (Arc<PathBuf>, usize)>;

/// Domains and users.
#[derive(Default)]
pub(super) struct Directory {
    pub domains: HashMap<Domain, Arc<DomainRules>>,
    pub users: HashMap<String, Arc<User>>,
    /// A domain or a user has faults that hide what it is: nobody is said to be missing.
    is_partial: bool,
    has_faulty_domain: bool,
}

impl Directory {
    fn primary(&self, address: &Address) -> Option<(Address, &DomainRules)> {
        let domain = self.domains.get(address.domain())?;
        Some((address.with_domain(domain.name.clone()), domain))
    }

    /// Whether mail for an address could go somewhere.
    pub fn reaches(&self, address: &Address) -> bool {
        let Some((primary, domain)) = self.primary(address) else { return true };
        let by_table = domain.user_table.is_some() || domain.alias_table.is_some() || domain.catch_all.is_some();
        let base = primary.split_detail(&domain.delimiters).map(|(base, _)| base.key());
        self.is_partial
            || by_table
            || self.users.contains_key(&primary.key())
            || base.is_some_and(|key| self.users.contains_key(&key))
    }

    /// Postmaster and abuse are always taken, so other mail may be sent on to them.
    fn reaches_or_is_role(&self, address: &Address) -> bool {
        let local = address.local();
        local.eq_ignore_ascii_case("postmaster") || local.eq_ignore_ascii_case("abuse") || self.reaches(address)
    }
}

impl<'a> Compiler<'a> {
    pub(super) fn directory(&mut self, users: Vec<Object>, tables: &Tables) -> Directory {
        let mut directory = Directory::default();
        self.domains(tables, &mut directory);
        let forwarding = self.users(users, &mut directory);
        self.check_targets(self.objects, &directory);
        self.check_targets(&forwarding, &directory);
        directory
    }

    fn domains(&mut self, tables: &Tables, directory: &mut Directory) {
        let mut owners: HashMap<Domain, &'a Object> = HashMap::new();
        for object in self.of_kind(Kind::MailDomain) {
            let Spec::Domain(spec) = &object.spec else {
                directory.has_faulty_domain = true;
                continue;
            };
            directory.has_faulty_domain |= object.is_doubtful;
            let rules = Arc::new(self.domain(object, spec, tables));
            let names = spec.aliases.iter().enumerate().map(|(i, name)| (spec_path("aliases").index(i), name));
            for (path, DomainName(name)) in std::iter::once((spec_path("domain"), &spec.domain)).chain(names) {
                match owners.get(name) {
                    Some(owner) if std::ptr::eq(*owner, object) => {
                        self.fault(object, &path, format!("{name} is named twice"), "remove one of them");
                    }
                    Some(owner) => {
                        let what =
                            format!("{name} has two owners: MailDomain {} at {} has it", owner.name, owner.place());
                        self.fault(object, &path, what, "remove it from one of them");
                    }
                    None => {
                        owners.insert(name.clone(), object);
                        directory.domains.insert(name.clone(), Arc::clone(&rules));
                    }
                }
            }
        }
        directory.is_partial = directory.has_faulty_domain;
    }

    fn domain(&mut self, object: &Object, spec: &MailDomainSpec, tables: &Tables) -> DomainRules {
        self.transport_reference(object, &spec_path("delivery.transport"), &spec.delivery.transport);
        if let Some(name) = &spec.user_table {
            let path = spec_path("userTable");
            self.table_reference(object, &path, name);
            if let Some(Table::Static(_)) = tables.get(name).map(AsRef::as_ref) {
                let what = format!("MailTable {name} has no columns: users come from a query");
                self.fault(object, &path, what, "use a MailTable with sqlite, or write MailUsers");
            }
        }
        if let Some(name) = &spec.alias_table {
            self.address_table(object, &spec_path("aliasTable"), name, tables);
        }
        let delimiters = &spec.sub_address.delimiters;
        if let Some(wrong) = delimiters.chars().find(|c| c.is_alphanumeric() || c.is_whitespace() || *c == '@') {
            let what = format!("{wrong:?} cannot begin a detail");
            self.fault(object, &spec_path("subAddress.delimiters"), what, "write signs such as + or -");
        }
        DomainRules {
            name: spec.domain.0.clone(),
            transport: spec.delivery.transport.clone(),
            catch_all: spec.catch_all.as_ref().map(|address| address.0.clone()),
            delimiters: delimiters.clone(),
            detail: if spec.sub_address.keep_detail { Detail::Kept } else { Detail::Stripped },
            user_table: spec.user_table.clone(),
            alias_table: spec.alias_table.clone(),
        }
    }

    /// Takes the users in; those that forward are left over, to be looked at when everybody is known.
    fn users(&mut self, users: Vec<Object>, directory: &mut Directory) -> Vec<Object> {
        let second = self.second_users(&users);
        let addresses = |object: &Object| match &object.spec {
            Spec::User(spec) => 1 + spec.aliases.len(),
            _ => 0,
        };
        directory.users.reserve(users.iter().map(addresses).sum());
        let mut owners: Owners = HashMap::with_capacity(users.len());
        let mut forwarding = Vec::new();
        for (object, is_second) in users.into_iter().zip(second) {
            self.digests.add(&object);
            let Spec::User(spec) = &object.spec else {
                directory.is_partial |= !is_second;
                continue;
            };
            self.demo_password(spec);
            if !is_second {
                directory.is_partial |= object.is_doubtful;
                let user = Arc::new(self.user(&object, spec, directory));
                owners.insert(Arc::as_ptr(&user), (Arc::clone(&object.file), object.line()));
                self.own_addresses(&object, &user, &owners, directory);
            }
            if !spec.forwards.is_empty() {
                forwarding.push(object);
            }
        }
        forwarding
    }

    /// Which users have the name of one before, and are left out.
    fn second_users<'u>(&mut self, users: &'u [Object]) -> Vec<bool> {
        let mut first: HashMap<&'u str, &'u Object> = HashMap::with_capacity(users.len());
        let is_second = |object: &'u Object| match first.entry(object.name.as_str()) {
            // Without a name it is still there.
            _ if object.name.is_empty() => false,
            Entry::Vacant(entry) => {
                entry.insert(object);
                false
            }
            Entry::Occupied(entry) => {
                self.faults.push(second(object, entry.get()));
                true
            }
        };
        users.iter().map(is_second).collect()
    }

    fn own_addresses(&mut self, object: &Object, user: &Arc<User>, owners: &Owners, directory: &mut Directory) {
        for (index, address) in std::iter::once(&user.address).chain(&user.aliases).enumerate() {
            let owner = match directory.users.entry(address.key()) {
                Entry::Vacant(entry) => {
                    entry.insert(Arc::clone(user));
                    continue;
                }
                Entry::Occupied(entry) => Arc::clone(entry.get()),
            };
            let path = index.checked_sub(1).map_or_else(|| spec_path("address"), |i| spec_path("aliases").index(i));
            if Arc::ptr_eq(&owner, user) {
                let what = format!("{address} is named twice (an alias of a domain is that domain)");
                self.fault(object, &path, what, "remove one of them");
            } else if let Some((file, line)) = owners.get(&Arc::as_ptr(&owner)) {
                let place = format!("{}:{line}", file.display());
                let what = format!("{address} has two owners: MailUser {} at {place} has it", owner.name);
                self.fault(object, &path, what, "remove it from one of them");
            }
        }
    }

    /// Of a user whose Secret carries the annotation.
    fn demo_password(&mut self, spec: &MailUserSpec) {
        let secret = spec.password_secret_ref.as_ref().and_then(|to| self.find(Kind::Secret, &to.name));
        if let Some(password) = secret.and_then(|secret| secret.demo_password.clone()) {
            self.demo_passwords.insert(spec.address.0.to_string(), password);
        }
    }

    fn user(&mut self, object: &Object, spec: &MailUserSpec, directory: &Directory) -> User {
        let address = self.own_address(object, || spec_path("address"), &spec.address.0, directory);
        let aliases: Vec<Address> = spec
            .aliases
            .iter()
            .enumerate()
            .map(|(i, alias)| self.own_address(object, || spec_path("aliases").index(i), &alias.0, directory))
            .collect();
        if let Some(name) = &spec.transport {
            self.transport_reference(object, &spec_path("transport"), name);
        }
        if spec.keep_copy && spec.forwards.is_empty() {
            let what = "keepCopy is set, but nothing is forwarded";
            self.fault(object, &spec_path("keepCopy"), what, "add forwards, or remove it");
        }
        for (index, forward) in spec.forwards.iter().enumerate() {
            let target = directory.primary(&forward.0).map(|(primary, _)| primary.key());
            if target.is_some_and(|key| key == address.key() || aliases.iter().any(|alias| alias.key() == key)) {
                let what = format!("mail for {} is forwarded to the same mailbox", spec.address.0);
                self.fault(object, &spec_path("forwards").index(index), what, "remove it; keepCopy: true keeps a copy");
            }
        }
        User {
            name: object.name.clone(),
            password: self.password(object, spec),
            forwards: spec.forwards.iter().map(|forward| forward.0.clone()).collect(),
            keep_copy: spec.keep_copy,
            send_as: spec.send_as.iter().map(|pattern| pattern.0.clone()).collect(),
            transport: spec.transport.clone(),
            disabled: spec.disabled,
            quota_bytes: spec.quota.map(|quota| quota.0),
            address,
            aliases,
        }
    }

    /// An address below the primary name of its domain, which must be ours.
    fn own_address(
        &mut self,
        object: &Object,
        path: impl Fn() -> FieldPath,
        address: &Address,
        directory: &Directory,
    ) -> Address {
        match directory.primary(address) {
            Some((primary, _)) => primary,
            None => {
                if !directory.has_faulty_domain {
                    let what = format!("{address} is in no domain of ours");
                    let remedy = format!("add a MailDomain for {}, or write an address in one", address.domain());
                    self.fault(object, &path(), what, remedy);
                }
                address.clone()
            }
        }
    }

    fn password(&mut self, object: &Object, spec: &MailUserSpec) -> Option<Secret> {
        match (&spec.password_hash, &spec.password_secret_ref) {
            (Some(_), Some(_)) => {
                let what = "passwordHash and passwordSecretRef are both given";
                self.fault(object, &spec_path("passwordHash"), what, "keep one of them");
                None
            }
            (Some(hash), None) => Some(hash.0.clone()),
            (None, Some(reference)) => {
                let path = spec_path("passwordSecretRef");
                let text = self.text(object, &path, &reference.name, &reference.key)?;
                if let Err(error) = check_password_hash(text) {
                    let secret = format!("Secret {}, key {:?}", reference.name, reference.key);
                    self.fault(object, &path, format!("{secret}: {}", error.what), error.remedy);
                    return None;
                }
                Some(Secret::new(text))
            }
            (None, None) => None,
        }
    }

    /// Forwards and catch-alls into domains of ours must reach somebody.
    fn check_targets(&mut self, objects: &[Object], directory: &Directory) {
        for object in objects {
            let targets: Vec<(FieldPath, &Address)> = match &object.spec {
                Spec::Domain(spec) => spec.catch_all.iter().map(|to| (spec_path("catchAll"), &to.0)).collect(),
                Spec::User(spec) => {
                    spec.forwards.iter().enumerate().map(|(i, to)| (spec_path("forwards").index(i), &to.0)).collect()
                }
                _ => continue,
            };
            for (path, address) in targets {
                let is_own_catch_all = matches!(&object.spec, Spec::Domain(_))
                    && directory.primary(address).is_some_and(|(primary, domain)| {
                        let listed = directory.users.contains_key(&primary.key()) || directory.is_partial;
                        !listed && domain.user_table.is_none() && domain.alias_table.is_none()
                    });
                if is_own_catch_all || !directory.reaches_or_is_role(address) {
                    let what = format!("nobody has the address {address}");
                    self.fault(object, &path, what, "add it to a MailUser, or name another address");
                }
            }
        }
    }
}
