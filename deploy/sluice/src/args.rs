//! What the two planes are started with: as options, or in the environment, which is how a settings file gives them
//! (`deploy/settings/`).

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use sluice_control_plane::{Certificate, Database};
use sluice_core::address::UrlPolicy;
use sluice_data_plane::Admission;
use sluice_tls::Files;

use crate::folder::Folder;
use crate::inbox_args::InboxArgs;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A control plane.
#[derive(Debug, Args)]
pub struct ControlPlaneArgs {
    /// Where everything is kept; made with mode 0700. A master key is made when there is none.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATA")]
    pub data: PathBuf,
    /// A PostgreSQL database (13 or newer) in place of a file in the data folder, for example
    /// postgres://sluice@db.example/sluice?sslmode=verify-full. Any number of control planes work on one database at once; give them
    /// the same master.key, admin.key and data-plane.key. Not through a pooler that hands connections out by the transaction. Give a
    /// password in the environment or in a .pgpass file: arguments can be seen by others.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Where gRPC is served.
    #[arg(long, default_value = "127.0.0.1:7070", env = "SLUICE_CONTROL_PLANE__GRPC")]
    pub grpc: SocketAddr,
    /// Health, readiness and metrics, without a key: for the operator's network alone.
    #[arg(long, default_value = "127.0.0.1:9091", env = "SLUICE_CONTROL_PLANE__HEALTH")]
    pub health: SocketAddr,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    certificate: CertificateArgs,
    /// Speak TLS with a certificate that this control plane makes for itself. Its authority is written to `authority.pem` in the data
    /// folder, for callers to trust.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__TLS", conflicts_with = "tls_certificate")]
    tls: bool,
    /// A name or address for that certificate, beside control-plane.sluice.internal. Repeatable, or with commas.
    #[arg(
        long = "tls-name",
        env = "SLUICE_CONTROL_PLANE__TLS_NAMES",
        value_delimiter = ',',
        conflicts_with = "tls_certificate"
    )]
    tls_names: Vec<String>,
    /// Serve plaintext beyond this machine. API keys and secrets can be read on the way: only in a network that nobody else is in.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
    /// The ring of master keys, in place of `master.key` in the data folder. It must be there.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__MASTER_KEY_FILE")]
    master_key_file: Option<PathBuf>,
    /// The administrator's API key, in place of `admin.key` in the data folder. Made when it is not there, which revokes the one before:
    /// control planes on one database need the same.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__ADMIN_KEY_FILE")]
    admin_key_file: Option<PathBuf>,
    /// The API key of data planes without TLS, in place of `data-plane.key` in the data folder. Made like the administrator's.
    #[arg(long, env = "SLUICE_CONTROL_PLANE__DATA_PLANE_KEY_FILE")]
    data_plane_key_file: Option<PathBuf>,
    /// How many days events, deliveries and accepted triggers are kept (D18): at least 1.
    #[arg(long, default_value = "30", env = "SLUICE_CONTROL_PLANE__RETENTION_DAYS")]
    retention_days: NonZeroU32,
    /// How many days entries of the audit logs are kept. The newest of each log is kept for ever.
    #[arg(long, default_value = "400", env = "SLUICE_CONTROL_PLANE__AUDIT_RETENTION_DAYS")]
    audit_retention_days: u32,
    /// How many published versions of each resource are kept, the newest ones and the one in force.
    #[arg(long, default_value = "1000", env = "SLUICE_CONTROL_PLANE__VERSIONS_KEPT")]
    versions_kept: NonZeroU32,
    /// A port that integrations may call, beside 443 and 8443. Repeatable, or with commas.
    #[arg(long = "allow-port", env = "SLUICE_ALLOW_PORTS", value_delimiter = ',')]
    allow_ports: Vec<u16>,
    /// A host name under which triggers are reached from outside: no integration may call it. Repeatable, or with commas.
    #[arg(long = "own-name", env = "SLUICE_OWN_NAMES", value_delimiter = ',')]
    own_names: Vec<String>,
}

impl ControlPlaneArgs {
    /// How many threads do its work, if that was said.
    pub fn worker_threads(&self) -> Option<u16> {
        self.threads.worker_threads
    }

    /// What it is started with. The master key is made if it is the folder's own and not there.
    ///
    /// # Errors
    /// As [`Folder::ensure_master_key`].
    pub fn settings(&self, folder: &Folder) -> Result<sluice_control_plane::Settings, crate::folder::FolderError> {
        if self.master_key_file.is_none() {
            folder.ensure_master_key()?;
        }
        let mut urls = UrlPolicy::default();
        urls.ports.extend(&self.allow_ports);
        urls.own_names.clone_from(&self.own_names);
        let mut settings = folder.control_plane(urls);
        if let Some(url) = &self.database {
            settings.database = Database::Postgres(url.clone().into());
        }
        let given = [
            (&self.master_key_file, &mut settings.master_key_file),
            (&self.admin_key_file, &mut settings.admin_key_file),
            (&self.data_plane_key_file, &mut settings.data_plane_key_file),
        ];
        for (given, file) in given {
            if let Some(given) = given {
                file.clone_from(given);
            }
        }
        settings.tls = match self.certificate.files() {
            Some(files) => Some(Certificate::Files(files)),
            None => (self.tls || !self.tls_names.is_empty()).then(|| Certificate::Own(self.tls_names.clone())),
        };
        settings.allow_plaintext = self.allow_plaintext;
        settings.retention = DAY * self.retention_days.get();
        settings.audit_retention = DAY * self.audit_retention_days;
        settings.versions_kept = self.versions_kept;
        Ok(settings)
    }
}

/// How a plane uses the cores of its machine.
#[derive(Debug, Args)]
struct ThreadArgs {
    /// Threads that serve calls, triggers and deliveries, 1 to 1024: one for each core that the process may use unless set. A SQLite
    /// file has threads of its own beside them. Fewer are faster where Redis or others need the same cores.
    #[arg(long, env = "SLUICE_WORKER_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    worker_threads: Option<u16>,
}

/// The certificate of a listener, in PEM form. Both files are read again when they change.
#[derive(Debug, Args)]
struct CertificateArgs {
    /// A file with the certificate and those that lead to its root: the listener speaks TLS, nothing else.
    #[arg(long, env = "SLUICE_TLS_CERTIFICATE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// A file with its private key.
    #[arg(long, env = "SLUICE_TLS_KEY", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

impl CertificateArgs {
    fn files(&self) -> Option<Files> {
        let (certificate, key) = self.tls_certificate.as_ref().zip(self.tls_key.as_ref())?;
        Some(Files::new(certificate.clone(), key.clone()))
    }
}

/// A data plane.
#[derive(Debug, Args)]
pub struct DataPlaneArgs {
    /// Where the inbox and the last good configuration are kept; made with mode 0700.
    #[arg(long, env = "SLUICE_DATA_PLANE__DATA")]
    pub data: PathBuf,
    /// A stable id, shown by ListDataPlanes.
    #[arg(long, env = "SLUICE_DATA_PLANE__ID")]
    pub id: String,
    /// The control plane's gRPC, for example http://127.0.0.1:7070 or https://control.example:7070.
    #[arg(long, env = "SLUICE_DATA_PLANE__CONTROL_PLANE")]
    control_plane: String,
    /// A file with a join token, for an https control plane: needed once, when the data plane joins.
    #[arg(long, env = "SLUICE_DATA_PLANE__JOIN_TOKEN_FILE", conflicts_with = "key_file")]
    join_token_file: Option<PathBuf>,
    /// On the control plane's own machine, with http: the data-plane key that it made.
    #[arg(long, env = "SLUICE_DATA_PLANE__KEY_FILE")]
    key_file: Option<PathBuf>,
    /// The master keys, the same as the control plane's.
    #[arg(long, env = "SLUICE_DATA_PLANE__MASTER_KEY_FILE")]
    master_key_file: PathBuf,
    /// Triggers.
    #[arg(long, default_value = "0.0.0.0:8080", env = "SLUICE_DATA_PLANE__INGRESS")]
    pub ingress: SocketAddr,
    /// Health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:9090", env = "SLUICE_DATA_PLANE__HEALTH")]
    pub health: SocketAddr,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    certificate: CertificateArgs,
    /// A network of proxies before the triggers, for example 10.0.0.0/8: their X-Forwarded-For says who sends. Repeatable, or with commas.
    #[arg(long = "trusted-proxy", env = "SLUICE_DATA_PLANE__TRUSTED_PROXIES", value_delimiter = ',')]
    trusted_proxies: Vec<IpNet>,
    #[command(flatten)]
    inbox: InboxArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    egress: EgressArgs,
}

impl DataPlaneArgs {
    /// How many threads do its work, if that was said.
    pub fn worker_threads(&self) -> Option<u16> {
        self.threads.worker_threads
    }

    /// What it is started with.
    ///
    /// # Errors
    /// What does not fit together, or a file that cannot be read.
    pub fn settings(&self, folder: &Folder) -> Result<sluice_data_plane::Settings, String> {
        let mut settings = folder.data_plane(&self.id, self.control_plane.clone(), self.egress.settings()?);
        settings.admission = match &self.key_file {
            Some(file) => Admission::Key(file.clone()),
            None => Admission::Certificate { join_token_file: self.join_token_file.clone() },
        };
        settings.master_key_file.clone_from(&self.master_key_file);
        settings.ingress.tls = self.certificate.files();
        settings.ingress.proxies.clone_from(&self.trusted_proxies);
        settings.inbox = self.inbox.settings(&self.id, folder, settings.inbox)?;
        self.limits.put_into(&mut settings)?;
        Ok(settings)
    }
}

/// How much a data plane does at once. What is above a limit of triggers is refused and may come again; what is above one of
/// deliveries waits in the inbox.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Largest body of a trigger, in bytes: 413 above it.
    #[arg(long, default_value = "1048576", env = "SLUICE_DATA_PLANE__BODY_BYTES_MAX")]
    body_bytes_max: NonZeroUsize,
    /// Triggers in work at once: 503 above it.
    #[arg(long, default_value = "1024", env = "SLUICE_DATA_PLANE__IN_FLIGHT_MAX")]
    in_flight_max: NonZeroUsize,
    /// Open connections of senders: further ones wait to be taken.
    #[arg(long, default_value = "10000", env = "SLUICE_DATA_PLANE__CONNECTIONS_MAX")]
    connections_max: NonZeroUsize,
    /// Deliveries of the realtime lane at once.
    #[arg(long, default_value = "512", env = "SLUICE_DATA_PLANE__REALTIME_WORKERS")]
    realtime_workers: NonZeroUsize,
    /// Deliveries of the bulk lane at once; they never take a realtime place (R126).
    #[arg(long, default_value = "64", env = "SLUICE_DATA_PLANE__BULK_WORKERS")]
    bulk_workers: NonZeroUsize,
    /// How much of a lane's places one destination of one workspace may have at once, in percent: 1 to 100.
    #[arg(long, default_value = "25", env = "SLUICE_DATA_PLANE__DESTINATION_SHARE")]
    destination_share: u8,
    /// How long a stop goes on taking triggers while /readyz says no, in seconds: longer than a balancer needs to turn away.
    #[arg(long, default_value = "5", env = "SLUICE_DATA_PLANE__LAME_DUCK_SECONDS")]
    lame_duck_seconds: u16,
    /// How long a stop then waits for deliveries that are under way, in seconds.
    #[arg(long, default_value = "30", env = "SLUICE_DATA_PLANE__DRAIN_SECONDS")]
    drain_seconds: u16,
}

impl LimitArgs {
    fn put_into(&self, settings: &mut sluice_data_plane::Settings) -> Result<(), String> {
        settings.ingress.body_bytes_max = self.body_bytes_max.get();
        settings.ingress.in_flight_max = self.in_flight_max.get();
        settings.ingress.connections_max = self.connections_max.get();
        settings.workers.realtime = self.realtime_workers.get();
        settings.workers.bulk = self.bulk_workers.get();
        settings.dispatch.destination_share = self.destination_share;
        settings.lame_duck = Duration::from_secs(self.lame_duck_seconds.into());
        settings.drain = Duration::from_secs(self.drain_seconds.into());
        settings.dispatch.check().map_err(|error| error.to_string())
    }
}

/// The operator's settings of the way out (D20). None of them can be set over the API.
#[derive(Debug, Args)]
pub struct EgressArgs {
    /// A network that may be called although it is not public, for example 10.1.0.0/16. Repeatable, or with commas.
    #[arg(long = "allow-network", env = "SLUICE_ALLOW_NETWORKS", value_delimiter = ',')]
    allow_networks: Vec<IpNet>,
    /// A port that may be called, beside 443 and 8443. Repeatable, or with commas.
    #[arg(long = "allow-port", env = "SLUICE_ALLOW_PORTS", value_delimiter = ',')]
    allow_ports: Vec<u16>,
    /// An answer for a name, in place of DNS, for example crm.example=127.0.0.1. Repeatable, or with commas.
    #[arg(long = "resolve", env = "SLUICE_RESOLVE", value_delimiter = ',', value_parser = parse_static_address)]
    resolve: Vec<(String, IpAddr)>,
    /// A name server to ask in place of those of /etc/resolv.conf, for example 10.0.0.10 or 10.0.0.10:5353. Repeatable, or with commas.
    #[arg(long = "nameserver", env = "SLUICE_NAMESERVERS", value_delimiter = ',', value_parser = parse_nameserver)]
    nameservers: Vec<SocketAddr>,
    /// A host name under which triggers are reached from outside: no integration may call it. Repeatable, or with commas.
    #[arg(long = "own-name", env = "SLUICE_OWN_NAMES", value_delimiter = ',')]
    own_names: Vec<String>,
    /// A file with certificates (PEM) to trust beside the public ones. Repeatable, or with commas.
    #[arg(long = "extra-ca", env = "SLUICE_EXTRA_CAS", value_delimiter = ',')]
    extra_cas: Vec<PathBuf>,
}

fn parse_static_address(text: &str) -> Result<(String, IpAddr), String> {
    let (name, address) = text.split_once('=').ok_or("must be name=address")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    Ok((name.to_ascii_lowercase(), address))
}

fn parse_nameserver(text: &str) -> Result<SocketAddr, String> {
    const DNS: u16 = 53;
    let bare = text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS));
    bare.or_else(|_| text.parse()).map_err(|_| "must be an IP address, with or without a port".to_owned())
}

impl EgressArgs {
    /// What the way out is opened with.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn settings(&self) -> Result<sluice_egress::Settings, String> {
        let mut settings = sluice_egress::Settings::default();
        settings.extra_networks.extend(&self.allow_networks);
        settings.ports.extend(&self.allow_ports);
        settings.nameservers.extend(&self.nameservers);
        settings.own_names.extend_from_slice(&self.own_names);
        for (name, address) in &self.resolve {
            // Port 0: the port of the URL.
            settings.static_addresses.entry(name.clone()).or_default().push(SocketAddr::new(*address, 0));
        }
        for path in &self.extra_cas {
            settings.extra_ca_pem.push(pem(path)?);
        }
        Ok(settings)
    }
}

fn pem(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("--extra-ca {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{Command, CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Control {
        #[command(flatten)]
        args: ControlPlaneArgs,
    }

    #[derive(Debug, Parser)]
    struct Data {
        #[command(flatten)]
        args: DataPlaneArgs,
    }

    /// What a settings file says: each setting, with its value, and whether the line is in force.
    fn file(name: &str) -> BTreeMap<String, (String, bool)> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../settings").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut settings = BTreeMap::new();
        for line in text.lines() {
            let (line, in_force) = line.strip_prefix('#').map_or((line, true), |rest| (rest, false));
            let Some((setting, value)) = line.split_once('=').filter(|(setting, _)| setting.starts_with("SLUICE_"))
            else {
                assert!(!in_force || line.is_empty(), "{name}: {line}");
                continue;
            };
            let before = settings.insert(setting.to_owned(), (value.to_owned(), in_force));
            assert!(before.is_none(), "{name} says {setting} twice");
        }
        settings
    }

    /// Every option is in the file: one with a default has it there, in force; one that is needed is in force; others are shown.
    fn is_all_of(name: &str, command: &Command) {
        let file = file(name);
        let options = command.get_arguments().filter(|one| one.get_id() != "help" && one.get_id() != "version");
        let mut known = Vec::new();
        for option in options {
            let Some(setting) = option.get_env() else { panic!("{} cannot be set in {name}", option.get_id()) };
            let setting = setting.to_str().unwrap();
            known.push(setting);
            let Some((value, in_force)) = file.get(setting) else { panic!("{name} lacks {setting}") };
            let default: Vec<_> = option.get_default_values().iter().filter_map(|value| value.to_str()).collect();
            match default.as_slice() {
                [default] if option.get_action().takes_values() => {
                    assert_eq!((value.as_str(), *in_force), (*default, true), "{name}: {setting}");
                }
                _ => assert_eq!(*in_force, option.is_required_set(), "{name}: {setting}"),
            }
            assert!(!value.is_empty(), "{name}: {setting} shows no value");
        }
        for setting in file.keys() {
            assert!(known.contains(&setting.as_str()), "{name} says {setting}, which nobody reads");
        }
    }

    #[test]
    fn the_settings_files_are_the_defaults_and_all_there_is() {
        is_all_of("control-plane.env", &Control::command());
        is_all_of("data-plane.env", &Data::command());
    }

    #[test]
    fn what_the_settings_files_say_is_what_the_planes_start_with_anyway() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("data")).unwrap();
        let control = Control::try_parse_from(["sluice", "--data", "x"]).unwrap().args.settings(&folder).unwrap();
        let plain = folder.control_plane(UrlPolicy::default());
        assert_eq!(format!("{control:?}"), format!("{plain:?}"));
        let needed = ["sluice", "--data", "x", "--id", "one", "--control-plane", "http://a", "--key-file", "k"];
        let data = Data::try_parse_from([&needed[..], &["--master-key-file", "m"]].concat()).unwrap();
        let data = data.args.settings(&folder).unwrap();
        let mut plain = folder.data_plane("one", "http://a".to_owned(), sluice_egress::Settings::default());
        (plain.admission, plain.master_key_file) = (Admission::Key("k".into()), "m".into());
        plain.clock = data.clock.clone();
        // Nobody asks for the /readyz of `dev`, so that stops at once.
        plain.lame_duck = Duration::from_secs(5);
        assert_eq!(format!("{data:?}"), format!("{plain:?}"));
    }

    #[test]
    fn lists_may_be_given_with_commas_and_limits_are_checked() {
        let needed = ["sluice", "--data", "x", "--id", "one", "--control-plane", "http://a", "--master-key-file", "m"];
        let settings = |more: &[&str]| {
            let parent = tempfile::tempdir().unwrap();
            let folder = Folder::open(&parent.path().join("data")).unwrap();
            let data = Data::try_parse_from([&needed[..], more].concat()).map_err(|error| error.to_string())?;
            data.args.settings(&folder)
        };
        let lists =
            ["--trusted-proxy", "10.0.0.0/8,192.168.0.0/16", "--allow-port", "9443,10443", "--nameserver", "10.0.0.1"];
        let lists = settings(&lists).unwrap();
        assert_eq!(lists.ingress.proxies.len(), 2);
        assert!(lists.egress.ports.contains(&9443) && lists.egress.ports.contains(&10_443));
        assert_eq!(lists.egress.nameservers, ["10.0.0.1:53".parse().unwrap()]);
        assert!(settings(&["--destination-share", "101"]).unwrap_err().contains("1 to 100"));
        assert!(settings(&["--body-bytes-max", "0"]).unwrap_err().contains("--body-bytes-max"));
        assert!(settings(&["--extra-ca", "/nowhere.pem"]).unwrap_err().contains("/nowhere.pem"));
    }
}
