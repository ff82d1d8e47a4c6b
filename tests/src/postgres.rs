//! A PostgreSQL server for the tests of one process, with a database for whoever asks, or one of a test's own, to be restarted. It ends with
//! the process, however that ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// Where the programs are: Debian does not put them into the path.
const BIN: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb)")
"#;

/// Makes the server and runs it until its input ends, which it does when the process that started it is gone. What is written need
/// not survive a loss of power. PostgreSQL refuses to run as root.
const RUN: &str = r#"
set -eu
home=$1
as=
if [ "$(id -u)" = 0 ]; then
    chown nobody "$home"
    as="setpriv --reuid=nobody --regid=nogroup --clear-groups"
fi
cd "$home"
$as "$bin/initdb" --pgdata="$home/data" --username=sluice --auth=trust --encoding=UTF8 --locale=C --no-sync >"$home/initdb.log"
$as "$bin/postgres" -D "$home/data" -k "$home" -c listen_addresses= -c fsync=off -c max_connections=300 >"$home/server.log" 2>&1 </dev/null &
server=$!
until $as "$bin/psql" -h "$home" -U sluice -d postgres -qc "SELECT 1" >/dev/null 2>&1; do
    kill -0 $server || { cat "$home/server.log" >&2; exit 1; }
    sleep 0.05
done
echo ready
cat >/dev/null || true
$as "$bin/pg_ctl" -D "$home/data" -m immediate stop >/dev/null 2>&1 || true
rm -rf "$home"
"#;

/// Starts it again as it was started, and waits until it serves.
const RESTART: &str = r#"
set -eu
as=
if [ "$(id -u)" = 0 ]; then
    as="setpriv --reuid=nobody --regid=nogroup --clear-groups"
fi
cd "$1"
$as "$bin/pg_ctl" -D "$1/data" -m "$2" -w -l "$1/restarted.log" restart </dev/null >"$1/restart.log" 2>&1 || { cat "$1/restart.log" >&2; exit 1; }
"#;

const CREATE: &str = r#"
"$bin/psql" -h "$1" -U sluice -d postgres -qc "CREATE DATABASE $2"
"#;

/// A running server.
pub struct Postgres {
    home: PathBuf,
    running: Child,
}

/// What a server that ends does with its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each is ended, and its transaction undone.
    Fast,
    /// It ends at once, as in a crash, and finds at the next start what was committed.
    Immediate,
}

static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

impl Postgres {
    /// Starts one.
    ///
    /// # Panics
    /// PostgreSQL is not installed.
    pub fn start() -> Self {
        // Removed by the script: a test that is killed cannot do it.
        let home = tempfile::Builder::new().prefix("sluice-postgres-").tempdir().unwrap().keep();
        let mut running = Command::new("bash")
            .args(["-c", &format!("{BIN}{RUN}"), "postgres"])
            .arg(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(running.stdout.as_mut().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n", "PostgreSQL did not start: is it installed?");
        Self { home, running }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://sluice@localhost/{database}?host={}", self.home.display())
    }

    /// The URL of the database that belongs to `folder`, if the tests are to run on PostgreSQL.
    #[expect(clippy::disallowed_methods, reason = "who runs the tests says on what")]
    pub fn wanted_for(folder: &Path) -> Option<String> {
        let store = std::env::var("SLUICE_TEST_STORE").unwrap_or_default();
        match store.as_str() {
            "" | "sqlite" => None,
            "postgres" => Some(Self::database_of(folder)),
            other => panic!("SLUICE_TEST_STORE is `{other}`: it must be `sqlite` or `postgres`"),
        }
    }

    /// The URL of the database that belongs to `folder`: the same for the same folder. Made when it is not there.
    pub fn database_of(folder: &Path) -> String {
        let name: String = folder.to_str().unwrap().chars().filter(char::is_ascii_alphanumeric).collect();
        SERVER.database(&name.to_ascii_lowercase())
    }

    /// The URL of the database of this name, of letters and digits. Made when it is not there.
    ///
    /// # Panics
    /// The server says no.
    pub fn database(&self, name: &str) -> String {
        let told = self.script(CREATE, name);
        assert!(told.is_empty() || told.contains("already exists"), "{told}");
        self.url(name)
    }

    /// Restarts it, and waits until it serves again.
    ///
    /// # Panics
    /// It does not.
    pub fn restart(&self, mode: Mode) {
        let mode = match mode {
            Mode::Fast => "fast",
            Mode::Immediate => "immediate",
        };
        let told = self.script(RESTART, mode);
        assert!(told.is_empty(), "{told}");
    }

    /// Ends it and waits until nothing of it is left.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop(mut self) {
        drop(self.running.stdin.take());
        self.running.wait().unwrap();
    }

    /// What this script, which is told the server's folder and a word, says of what went wrong.
    fn script(&self, script: &str, word: &str) -> String {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("{BIN}{script}"), "postgres"]).arg(&self.home).arg(word);
        let done = bash.output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { String::new() } else { format!("{}: {told}", done.status) }
    }
}
