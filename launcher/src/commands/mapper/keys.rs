//! The keys of a mapper: read where they are, made where they are missed.

use std::path::{Path, PathBuf};

use slog::{Logger, warn};
use svcmap_proto::deployment::{Deployment, KnownMapper, MapperFile};
use svcmap_proto::io::curve::new_keys;
use svcmap_proto::io::own_address;
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::Endpoint;
use svcmap_proto::principals::{Principal, Role, Services};

use crate::access::{self, mapper_file, unusable};
use crate::cli::MapperArgs;
use crate::errors::{Failure, print_note};

/// What a mapper is started with, if it encrypts.
pub struct Keys {
    /// The mapper's own.
    pub own: MapperFile,
    /// The deployment file that they belong to, and what is to be written there, if they are new.
    path: PathBuf,
    new: Option<svcmap_proto::keys::KeyPair>,
}

/// Those that these arguments mean; `None`: it is plain text that is wanted, on this machine or at all.
///
/// # Errors
/// If there is a file that is of no use, or that is missed.
pub fn keys(args: &MapperArgs) -> Result<Option<Keys>, Failure> {
    let is_beyond = !(args.bind.is_loopback() && args.publish().is_loopback());
    let named = args.keys.file();
    let wanted = is_beyond && !args.keys.insecure;
    let Some(path) = named.or_else(|| access::default_file().filter(|_| wanted)) else {
        return match wanted {
            true => Err(Failure::usage("there is no home to keep a deployment file in")
                .fix("name one: --deployment FILE, or do without: --insecure")),
            false => Ok(None),
        };
    };
    match MapperFile::load(mapper_file(&path)) {
        Ok(own) => Ok(Some(Keys { own, path, new: None })),
        Err(error) if error.is_missing() && path.exists() => {
            let lost = mapper_file(&path).display().to_string();
            Err(Failure::usage(format!("{} is there, but not {lost}", path.display())).fix(
                "it is of a mapper elsewhere: name another with --deployment, or remove it to begin anew",
            ))
        }
        Err(error) if error.is_missing() => {
            let (own, first) = (made()?, made()?);
            let (principals, revoked) = (vec![everyone(first.public)?], Vec::new());
            let own = MapperFile { revoked, own, principals };
            Ok(Some(Keys { own, path, new: Some(first) }))
        }
        Err(error) => Err(unusable(&error)),
    }
}

fn made() -> Result<svcmap_proto::keys::KeyPair, Failure> {
    new_keys().map_err(|_| Failure::failed("this libzmq cannot encrypt").fix("--insecure"))
}

/// Whoever has the first file.
fn everyone(key: PublicKey) -> Result<Principal, Failure> {
    let (role, services) = (Role::Operator, vec![Services::all()]);
    let name = "everyone".parse().map_err(Failure::failed)?;
    Ok(Principal { name, role, services, key, ends_at_unix_s: None })
}

impl Keys {
    /// Where the mapper keeps its own.
    pub fn file(&self) -> PathBuf {
        mapper_file(&self.path)
    }

    /// Now that it listens there: what is new is written down, and said.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(self, args: &MapperArgs, endpoint: &Endpoint, log: &Logger) -> Result<(), Failure> {
        let Self { own, path, new } = self;
        let Some(first) = new else {
            warn_if_elsewhere(&path, endpoint, log);
            return Ok(());
        };
        let address = advertised(args, endpoint)?;
        let mapper = KnownMapper { address: address.clone(), key: own.own.public };
        let deployment = Deployment { mappers: vec![mapper], own: first };
        // In this order: without the mapper's own the next start says what is missing.
        let holder = "an operator for all services: it may do everything";
        deployment.create(&path, holder).map_err(|error| unusable(&error))?;
        own.create(&mapper_file(&path)).map_err(|error| unusable(&error))?;
        if args.supervised.supervised.is_some() {
            return Ok(());
        }
        print_note(&format!(
            "made a deployment file: {}, with this mapper as {address}\n\
             copy it to where workers and senders run, into ~/.config/svcmap/: whoever has it may do everything\n\
             (files for others, who may do less: svcmap key add NAME)",
            path.display()
        ));
        Ok(())
    }
}

/// Where a new file says that the mapper is.
fn advertised(args: &MapperArgs, endpoint: &Endpoint) -> Result<Endpoint, Failure> {
    let host = match &args.advertise {
        Some(host) => host.clone(),
        None if endpoint.is_wildcard() => own_address(),
        None => endpoint.host().to_owned(),
    };
    Endpoint::tcp(&host, endpoint.port().unwrap_or(0)).map_err(Failure::usage)
}

/// A file that was made for another address misleads whoever has it.
fn warn_if_elsewhere(path: &Path, endpoint: &Endpoint, log: &Logger) {
    let Ok(deployment) = Deployment::load(path) else { return };
    let knows_port = |known: &KnownMapper| known.address.port() == endpoint.port();
    if !deployment.mappers.iter().any(knows_port) {
        warn!(log, "the deployment file names no mapper with this port";
            "file" => %path.display(), "endpoint" => %endpoint);
    }
}
