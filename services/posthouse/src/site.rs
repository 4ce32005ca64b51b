//! `posthouse check|init|crds|export dovecot`: what needs no running platform.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use node::folder::Folder;
use resources::{Fault, Snapshot};
use types::Domain;

use crate::exit::{Code, Failure, Outcome};
use crate::output::count;

/// Characters of a generated password: none that look like another.
const PASSWORD_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 20 characters of 5 bits.
const PASSWORD_CHARACTERS: usize = 20;

/// Loads a site; its faults go to stderr, each on its line.
pub fn load(dir: &Path, state_dir: &Path) -> Result<Snapshot, Failure> {
    Folder::new(dir, state_dir).load().map_err(|faults| {
        let _ = write_faults(&faults, &mut io::stderr());
        Failure::new(Code::Usage, format!("{} in {}", count(faults.len() as u64, "fault"), dir.display()))
    })
}

fn write_faults(faults: &[Fault], out: &mut dyn Write) -> io::Result<()> {
    faults.iter().try_for_each(|fault| writeln!(out, "{fault}"))
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Folder of the site
    dir: PathBuf,
    /// State folder that it will run with
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Says whether a site can run.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Outcome {
    let state_dir = args.state.clone().unwrap_or_else(|| node::default_dir(&args.dir));
    let snapshot = load(&args.dir, &state_dir)?;
    writeln!(out, "{}, no faults", count(snapshot.resources as u64, "resource"))?;
    Ok(())
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder that is made, or is empty
    dir: PathBuf,
    /// Host name of this machine in the world, as in mx1.example.org
    #[arg(long, value_parser = domain)]
    hostname: Domain,
    /// Domain whose mail is taken, as in example.org
    #[arg(long, value_parser = domain)]
    domain: Domain,
}

fn domain(text: &str) -> Result<Domain, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// Writes a small site.
pub fn init(args: &InitArgs, out: &mut dyn Write) -> Outcome {
    let dir = args.dir.display();
    if let Ok(mut entries) = std::fs::read_dir(&args.dir)
        && entries.next().is_some()
    {
        return Err(Failure::new(Code::CannotCreate, format!("{dir} is not empty: name a new folder")));
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&args.dir)?;
    let password = password();
    let hash = policy::hash_password(password.as_bytes(), policy::Scheme::Sha512Crypt)?;
    let files = resources::render_small_site(args.hostname.as_str(), args.domain.as_str(), &hash);
    for (name, text) in &files {
        // A password hash is in one of them.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(args.dir.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    let snapshot = load(&args.dir, &node::default_dir(&args.dir))?;
    writeln!(
        out,
        "wrote {} in {} to {dir}",
        count(snapshot.resources as u64, "resource"),
        count(files.len() as u64, "file")
    )?;
    for user in crate::hint::users(&snapshot) {
        writeln!(out, "user      {user}")?;
        writeln!(out, "password  {password}  (shown this once: the site has its hash)")?;
    }
    writeln!(out, "start it  posthouse run {dir}")?;
    Ok(())
}

fn password() -> String {
    let bytes: [u8; PASSWORD_CHARACTERS] = rand::random();
    bytes.iter().map(|byte| char::from(PASSWORD_ALPHABET[usize::from(byte & 31)])).collect()
}

/// Writes the custom resource definitions: a stream of documents, as `kubectl apply -f -` reads it. JSON is YAML.
pub fn crds(out: &mut dyn Write) -> Outcome {
    for crd in resources::crds() {
        writeln!(out, "---\n{}", serde_json::to_string_pretty(&crd)?)?;
    }
    Ok(())
}

/// `export dovecot`.
#[derive(Debug, Args)]
pub struct DovecotArgs {
    /// Folder of the site
    dir: PathBuf,
    /// File that is replaced in one step; without it the text goes to stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes Dovecot's passwd-file of the users of a site.
pub fn dovecot(args: &DovecotArgs, out: &mut dyn Write) -> Outcome {
    let snapshot = load(&args.dir, &node::default_dir(&args.dir))?;
    match &args.output {
        None => out.write_all(policy::dovecot_passwd_file(&snapshot.rules).as_bytes())?,
        Some(path) => policy::write_dovecot_passwd_file(path, &snapshot.rules)
            .map_err(|error| Failure::new(Code::CannotCreate, format!("{}: {error}", path.display())))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init_args(dir: &Path) -> InitArgs {
        let (hostname, domain) = ("mx1.example.org".parse().unwrap(), "example.org".parse().unwrap());
        InitArgs { dir: dir.to_owned(), hostname, domain }
    }

    #[test]
    fn a_new_site_has_no_faults_and_its_password_opens_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("site");
        let mut out = Vec::new();
        init(&init_args(&dir), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let password = text.lines().find_map(|line| line.strip_prefix("password  ")).unwrap();
        let password = password.split(' ').next().unwrap();
        let snapshot = load(&dir, parent.path()).unwrap();
        let user = snapshot.rules.users.values().find(|user| user.password.is_some()).unwrap();
        let hash = user.password.as_ref().unwrap().reveal();
        assert!(policy::verify_password(hash, password.as_bytes()).unwrap());
        let mut out = Vec::new();
        check(&CheckArgs { dir: dir.clone(), state: None }, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{} resources, no faults\n", snapshot.resources));
        let again = init(&init_args(&dir), &mut Vec::new()).unwrap_err();
        assert_eq!(again.code, Code::CannotCreate);
    }

    #[test]
    fn passwords_differ() {
        assert_ne!(password(), password());
        assert_eq!(password().len(), PASSWORD_CHARACTERS);
    }

    #[test]
    fn a_site_with_faults_is_refused_with_64() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), "kind: MailPlatform\n").unwrap();
        let failure = check(&CheckArgs { dir: dir.path().to_owned(), state: None }, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.code as u8, 64);
    }
}
