//! Which inbox a data plane has, from the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sluice_core::seal::Secret;
use sluice_data_plane::inbox::{Durability, InboxSettings, RedisSettings};

use crate::folder::Folder;

/// Where accepted requests are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// In a file in the data folder.
    Embedded,
    /// In a Redis (7.0 or newer) or Valkey that several data planes share.
    Redis,
}

/// When a request is answered 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// After it is on the server's disk; needs `appendfsync always`.
    Strict,
    /// After it is in the server's memory, and on disk a second later: a power loss may take up to two seconds of accepted requests.
    Fast,
    /// After it is on the disks of the server and its replicas; needs Redis or Valkey 7.2.
    Replicated,
}

/// The inbox of a data plane.
#[derive(Debug, Args)]
pub struct InboxArgs {
    /// Where accepted requests are kept.
    #[arg(long, value_enum, default_value = "embedded", env = "SLUICE_DATA_PLANE__INBOX")]
    inbox: Kind,
    /// A file with the URL of the Redis: redis://, rediss:// (TLS) or unix://, with user and password. Of a
    /// cluster, those of several nodes, one on each line.
    #[arg(long, env = "SLUICE_DATA_PLANE__REDIS_URL_FILE")]
    redis_url_file: Option<PathBuf>,
    /// When a request is answered 200; `strict` by default.
    #[arg(long, value_enum, env = "SLUICE_DATA_PLANE__REDIS_MODE")]
    redis_mode: Option<Mode>,
    /// Replicas that must have a request on disk within a second in mode `replicated`, at least 1; 1 by default.
    #[arg(long, env = "SLUICE_DATA_PLANE__REDIS_REPLICAS")]
    redis_replicas: Option<u16>,
    /// Into how many parts the store is divided, 1 to 64, the same for all data planes; fixed when it is made. 1 by default; more only for a
    /// cluster.
    #[arg(long, env = "SLUICE_DATA_PLANE__REDIS_SHARDS")]
    redis_shards: Option<u16>,
    /// What all keys begin with: 1 to 32 of a-z, 0-9 and -, the same for all data planes. `sluice` by default.
    #[arg(long, env = "SLUICE_DATA_PLANE__REDIS_PREFIX")]
    redis_prefix: Option<String>,
    /// Limits of rate and concurrency hold for all data planes together, exactly: they are kept in the Redis. Otherwise each keeps its
    /// part of them. The same for all data planes.
    #[arg(long, env = "SLUICE_DATA_PLANE__REDIS_EXACT_LIMITS")]
    redis_exact_limits: bool,
    /// A file with certificates (PEM) to trust in place of the public ones, for rediss://.
    #[arg(long, env = "SLUICE_DATA_PLANE__REDIS_CA")]
    redis_ca: Option<PathBuf>,
}

impl InboxArgs {
    /// The inbox of this data plane; `embedded` when nothing else is asked for.
    ///
    /// # Errors
    /// What does not fit together, or a file that cannot be read.
    pub fn settings(&self, plane: &str, folder: &Folder, embedded: InboxSettings) -> Result<InboxSettings, String> {
        match self.inbox {
            Kind::Embedded => {
                let given = [
                    self.redis_url_file.is_some(),
                    self.redis_mode.is_some(),
                    self.redis_replicas.is_some(),
                    self.redis_shards.is_some(),
                    self.redis_prefix.is_some(),
                    self.redis_exact_limits,
                    self.redis_ca.is_some(),
                ];
                if given.contains(&true) { Err("--redis-… is for --inbox redis".to_owned()) } else { Ok(embedded) }
            }
            Kind::Redis => self.redis(plane, folder).map(InboxSettings::Redis),
        }
    }

    fn redis(&self, plane: &str, folder: &Folder) -> Result<RedisSettings, String> {
        let path = self.redis_url_file.as_ref().ok_or("--inbox redis needs --redis-url-file")?;
        let url =
            std::fs::read_to_string(path).map_err(|error| format!("--redis-url-file {}: {error}", path.display()))?;
        let mut settings = RedisSettings::new(Secret::new(url.trim()), plane);
        settings.durability = match (self.redis_mode.unwrap_or(Mode::Strict), self.redis_replicas) {
            (Mode::Replicated, replicas) => Durability::Replicated { replicas: replicas.unwrap_or(1) },
            (_, Some(_)) => return Err("--redis-replicas is for --redis-mode replicated".to_owned()),
            (Mode::Strict, None) => Durability::Strict,
            (Mode::Fast, None) => Durability::Fast,
        };
        settings.shards = self.redis_shards.unwrap_or(settings.shards);
        settings.prefix = self.redis_prefix.clone().unwrap_or(settings.prefix);
        settings.exact_limits = self.redis_exact_limits;
        settings.memory = Some(folder.store_memory_file());
        if let Some(path) = &self.redis_ca {
            let pem = std::fs::read(path).map_err(|error| format!("--redis-ca {}: {error}", path.display()))?;
            settings.ca_pem = Some(pem);
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sluice_data_plane::inbox::EmbeddedSettings;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        inbox: InboxArgs,
    }

    #[test]
    fn every_option_counts_or_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("data")).unwrap();
        let url = parent.path().join("url");
        std::fs::write(&url, "redis://:hunter2@redis.example:6380/0\n").unwrap();
        let url = format!("--redis-url-file={}", url.display());
        let settings = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["sluice"], arguments].concat()).map_err(|error| error.to_string())?;
            cli.inbox.settings("plane-1", &folder, InboxSettings::Embedded(EmbeddedSettings::new("inbox.db")))
        };
        assert!(matches!(settings(&[]), Ok(InboxSettings::Embedded(_))));
        assert!(settings(&["--redis-mode", "fast"]).unwrap_err().contains("--inbox redis"));
        assert!(settings(&["--redis-exact-limits"]).unwrap_err().contains("--inbox redis"));
        assert!(settings(&["--inbox", "redis"]).unwrap_err().contains("--redis-url-file"));
        assert!(settings(&["--inbox", "redis", &url, "--redis-replicas", "2"]).unwrap_err().contains("replicated"));
        let all =
            ["--inbox", "redis", &url, "--redis-mode", "replicated", "--redis-replicas", "2", "--redis-shards", "8"];
        let exact = [&all[..], &["--redis-exact-limits"]].concat();
        assert!(matches!(settings(&exact), Ok(InboxSettings::Redis(redis)) if redis.exact_limits));
        let Ok(InboxSettings::Redis(redis)) = settings(&all) else { panic!("they fit together") };
        assert_eq!((redis.url.expose(), redis.plane.as_str()), ("redis://:hunter2@redis.example:6380/0", "plane-1"));
        assert_eq!((redis.durability, redis.shards), (Durability::Replicated { replicas: 2 }, 8));
        assert!(!redis.exact_limits);
        assert_eq!(redis.memory, Some(folder.store_memory_file()));
        assert!(!format!("{redis:?}").contains("hunter2"));
    }
}
