//! Whether a server can keep what is promised. Asked with every new connection, so that a server that was set up anew is
//! noticed as well.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, cmd};
use thiserror::Error;

use super::Durability;

/// The oldest release that runs the scripts.
const OLDEST: (u32, u32) = (7, 0);
/// The oldest release with WAITAOF.
const OLDEST_WITH_WAITAOF: (u32, u32) = (7, 2);

/// Why a server is not worked with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Too old for the scripts.
    #[error("Redis {0} is too old: 7.0 or newer is needed, or any Valkey")]
    Version(String),
    /// Too old for WAITAOF.
    #[error(
        "Redis {0} is too old for the mode `replicated`: WAITAOF came with 7.2; use mode `strict` or a newer server"
    )]
    NoWaitAof(String),
    /// It follows another server: nothing can be written to it.
    #[error("it is a replica: name its primary as well, each URL on a line of its own")]
    Replica,
    /// It would throw jobs away when its memory is full.
    #[error("maxmemory-policy is `{0}`: accepted requests would be thrown away; set it to `noeviction`")]
    Evicts(String),
    /// It keeps nothing over a restart.
    #[error("the append-only file is off: accepted requests would be lost with the process; set `appendonly yes`")]
    NoAppendOnlyFile,
    /// It flushes too late for the mode.
    #[error("appendfsync is `{found}`, which does not keep what mode `{mode}` promises; set it to `{needed}`")]
    Flush {
        /// As it is.
        found: String,
        /// As configured.
        mode: &'static str,
        /// What it must be.
        needed: &'static str,
    },
    /// Its settings cannot be read, so what it keeps is unknown.
    #[error(
        "appendfsync cannot be read, so what this server keeps is unknown: allow this user `CONFIG GET` (+config|get)"
    )]
    Unknown,
    /// Another layout.
    #[error("the store has layout `{0}`, which this release does not know")]
    Layout(String),
    /// The number of shards is part of the store.
    #[error("the store was made with {found} shards and the settings say {wanted}: where things are would be wrong")]
    Shards {
        /// As made.
        found: String,
        /// As configured.
        wanted: u16,
    },
    /// Each would take the jobs of the other, and could not open what is sealed in them.
    #[error(
        "the store under the prefix `{prefix}` belongs to another installation: none of its master keys is in the ring of this one. Give \
         this installation another prefix (--redis-prefix) or a server of its own. If the store is its own, put a master key that it \
         had before back into the ring until a data plane has started; if the other installation is no more, delete the key `{marks}`"
    )]
    Foreign {
        /// What its keys begin with.
        prefix: String,
        /// The key that says whose it is.
        marks: String,
    },
    /// Nodes of a cluster that send us around.
    #[error("the nodes of the cluster do not agree on where a shard lives")]
    Redirects,
    /// It was opened, and then refused to work.
    #[error("the store refuses its first step: {0}")]
    NotStarted(String),
    /// It answered something that is no answer to the question.
    #[error("the server answered something unexpected to `{0}`")]
    Answer(&'static str),
}

/// What INFO says under a name.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Checks the server at the other end.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    durability: Durability,
) -> Result<(), super::link::LinkError> {
    let info: String = cmd("INFO").query_async(connection).await?;
    let flush: Result<HashMap<String, String>, RedisError> =
        cmd("CONFIG").arg("GET").arg("appendfsync").query_async(connection).await;
    let flush = match flush {
        Ok(mut settings) => settings.remove("appendfsync"),
        Err(error) if error.is_io_error() => return Err(error.into()),
        // Not allowed, or renamed.
        Err(_refused) => None,
    };
    Ok(decide(&info, flush.as_deref(), durability)?)
}

fn decide(info: &str, flush: Option<&str>, durability: Durability) -> Result<(), Unfit> {
    let release = field(info, "redis_version").unwrap_or("unknown");
    let number = version(release).unwrap_or((0, 0));
    if number < OLDEST {
        return Err(Unfit::Version(release.to_owned()));
    }
    if matches!(durability, Durability::Replicated { .. }) && number < OLDEST_WITH_WAITAOF {
        return Err(Unfit::NoWaitAof(release.to_owned()));
    }
    if field(info, "role") == Some("slave") {
        return Err(Unfit::Replica);
    }
    match field(info, "maxmemory_policy") {
        Some("noeviction") => {}
        other => return Err(Unfit::Evicts(other.unwrap_or("unknown").to_owned())),
    }
    if field(info, "aof_enabled") != Some("1") {
        return Err(Unfit::NoAppendOnlyFile);
    }
    let flush = flush.ok_or(Unfit::Unknown)?;
    let needed: &[&str] = match durability {
        Durability::Strict => &["always"],
        // WAITAOF waits for the flush, whenever it comes.
        Durability::Fast | Durability::Replicated { .. } => &["everysec", "always"],
    };
    match needed.first() {
        Some(first) if !needed.contains(&flush) => {
            Err(Unfit::Flush { found: flush.to_owned(), mode: durability.name(), needed: first })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_keep_the_promise_is_refused() {
        let info = |version: &str, policy: &str, aof: u8| {
            format!("# Server\r\nredis_version:{version}\r\nmaxmemory_policy:{policy}\r\naof_enabled:{aof}\r\n")
        };
        let replicated = Durability::Replicated { replicas: 1 };
        let good = info("7.0.15", "noeviction", 1);
        assert_eq!(decide(&good, Some("always"), Durability::Strict), Ok(()));
        for flush in ["always", "everysec"] {
            assert_eq!(decide(&good, Some(flush), Durability::Fast), Ok(()));
            assert_eq!(decide(&info("7.2.4", "noeviction", 1), Some(flush), replicated), Ok(()));
        }
        let flush = |found: &str, mode, needed| Unfit::Flush { found: found.to_owned(), mode, needed };
        let cases = [
            (info("6.2.14", "noeviction", 1), Some("always"), Durability::Strict, Unfit::Version("6.2.14".to_owned())),
            ("".to_owned(), Some("always"), Durability::Strict, Unfit::Version("unknown".to_owned())),
            (good.clone(), Some("always"), replicated, Unfit::NoWaitAof("7.0.15".to_owned())),
            (
                info("7.4.1", "allkeys-lru", 1),
                Some("always"),
                Durability::Strict,
                Unfit::Evicts("allkeys-lru".to_owned()),
            ),
            (info("7.4.1", "noeviction", 0), Some("always"), Durability::Fast, Unfit::NoAppendOnlyFile),
            (good.clone(), Some("everysec"), Durability::Strict, flush("everysec", "strict", "always")),
            (good.clone(), Some("no"), Durability::Fast, flush("no", "fast", "everysec")),
            (info("8.0.0", "noeviction", 1), Some("no"), replicated, flush("no", "replicated", "everysec")),
            (good.clone(), None, Durability::Fast, Unfit::Unknown),
            (format!("{good}role:slave\r\n"), Some("always"), Durability::Strict, Unfit::Replica),
        ];
        for (info, flush, durability, unfit) in cases {
            assert_eq!(decide(&info, flush, durability), Err(unfit));
        }
    }
}
