//! The scripts, and how a server comes to have them: as functions of a library, which it makes once, or, where that is refused (a user
//! that may not, no memory left), as scripts, whose functions it makes anew for each call.
//!
//! A library lies on the server under a name of its own for each build, next to those of other builds that work there. It is no part of
//! the store: whoever misses it loads it again.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};
use sha2::{Digest as _, Sha256};

use super::{RedisSettings, value};

const SOURCE: &str = concat!(
    include_str!("lua/store.lua"),
    include_str!("lua/plane.lua"),
    include_str!("lua/writes.lua"),
    include_str!("lua/jobs.lua"),
    include_str!("lua/steps.lua"),
    include_str!("lua/limits.lua"),
    include_str!("lua/step.lua"),
    include_str!("lua/open.lua"),
);

/// A script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Refused as a whole when there is no memory left, before anything is written.
    Step,
    /// Makes room, and is done also then.
    Relief,
    Open,
}

impl Script {
    const ALL: [Self; 3] = [Self::Step, Self::Relief, Self::Open];

    fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Relief => "relief",
            Self::Open => "open",
        }
    }

    /// The function it is in the source.
    fn function(self) -> &'static str {
        match self {
            Self::Step | Self::Relief => "step",
            Self::Open => "open",
        }
    }

    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Step | Self::Open => None,
            Self::Relief => Some("allow-oom"),
        }
    }
}

/// What a server has of them.
#[derive(Debug)]
pub(super) enum Scripts {
    /// A library of this name.
    Library(String),
    /// Each by its hash.
    Hashes(Vec<(Script, String)>),
}

impl Default for Scripts {
    fn default() -> Self {
        Self::Hashes(Vec::new())
    }
}

impl Scripts {
    /// The beginning of the command that runs it.
    pub(super) fn call(&self, script: Script) -> Cmd {
        match self {
            Self::Library(name) => {
                let mut command = cmd("FCALL");
                command.arg(format!("{name}_{}", script.name()));
                command
            }
            Self::Hashes(hashes) => {
                let mut command = cmd("EVALSHA");
                command.arg(hashes.iter().find(|(one, _)| *one == script).map_or("", |(_, hash)| hash));
                command
            }
        }
    }
}

/// Whether the server had it once, or never.
pub(super) fn is_forgotten(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) || error.detail() == Some("Function not found")
}

/// What libraries of all builds are called.
const LIBRARIES: &str = "sluice_";

/// What is to be loaded.
pub(super) struct Sources {
    source: String,
    library: String,
}

impl Sources {
    pub(super) fn new(settings: &RedisSettings) -> Self {
        let source = source(settings);
        let digest: String = Sha256::digest(&source).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { source, library: format!("{LIBRARIES}{digest}") }
    }

    /// Has the server know them.
    pub(super) async fn load(&self, connection: &mut MultiplexedConnection) -> Result<Scripts, RedisError> {
        let mut text = format!("#!lua name={}\n{}", self.library, self.source);
        for script in Script::ALL {
            let (name, function) = (script.name(), script.function());
            let flags = script.flag().map(|flag| format!(", flags = {{ '{flag}' }}")).unwrap_or_default();
            text += &format!(
                "redis.register_function({{ function_name = '{}_{name}', callback = {function}{flags} }})\n",
                self.library
            );
        }
        match cmd("FUNCTION").arg("LOAD").arg(text).query_async::<Value>(connection).await {
            Ok(_) => return Ok(Scripts::Library(self.library.clone())),
            Err(error) if error.detail().is_some_and(|told| told.ends_with("already exists")) => {
                return Ok(Scripts::Library(self.library.clone()));
            }
            Err(error) if error.code().is_none() => return Err(error),
            Err(error) => tracing::info!(%error, "Redis takes no functions: each step costs it more"),
        }
        let mut hashes = Vec::new();
        for script in Script::ALL {
            let flags = script.flag().map(|flag| format!(" flags={flag}")).unwrap_or_default();
            let text = format!("#!lua{flags}\n{}return {}(KEYS, ARGV)\n", self.source, script.function());
            hashes.push((script, cmd("SCRIPT").arg("LOAD").arg(text).query_async(connection).await?));
        }
        Ok(Scripts::Hashes(hashes))
    }

    /// Deletes what other builds have left; one that still works there loads its own again.
    pub(super) async fn clear_away(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut list = cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(format!("{LIBRARIES}*"));
        let answer = list.query_async::<Value>(connection).await;
        let libraries = match refusable(answer)? {
            Some(Value::Array(libraries)) => libraries,
            _ => return Ok(()),
        };
        let names = libraries.into_iter().filter_map(library_name);
        for name in names.filter(|name| *name != self.library) {
            refusable(cmd("FUNCTION").arg("DELETE").arg(name).query_async::<Value>(connection).await)?;
        }
        Ok(())
    }
}

/// What a server may refuse without harm.
fn refusable(answer: Result<Value, RedisError>) -> Result<Option<Value>, RedisError> {
    match answer {
        Err(error) if error.code().is_some() => Ok(None),
        answer => answer.map(Some),
    }
}

fn library_name(library: Value) -> Option<String> {
    let Value::Map(fields) = library else { return None };
    fields
        .into_iter()
        .find(|(field, _)| value::text(field) == Some("library_name"))
        .and_then(|(_, name)| value::text(&name).map(str::to_owned))
}

#[cfg(not(test))]
fn source(_settings: &RedisSettings) -> String {
    SOURCE.to_owned()
}

#[cfg(test)]
fn source(settings: &RedisSettings) -> String {
    let Some((name, from, to)) = settings.sabotage else { return SOURCE.to_owned() };
    assert!(SOURCE.contains(from), "{name}: there is no such part");
    SOURCE.replace(from, to)
}
