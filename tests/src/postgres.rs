//! A PostgreSQL server for the tests of one process, with a database for whoever asks. It ends with the process, however that ends.

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
kill -QUIT $server
wait $server || true
rm -rf "$home"
"#;

const CREATE: &str = r#"
"$bin/psql" -h "$1" -U sluice -d postgres -qc "CREATE DATABASE $2"
"#;

/// A running server.
pub struct Postgres {
    home: PathBuf,
    _running: Child,
}

static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

impl Postgres {
    fn start() -> Self {
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
        Self { home, _running: running }
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
        let name = name.to_ascii_lowercase();
        let server = &*SERVER;
        let psql = Command::new("bash")
            .args(["-c", &format!("{BIN}{CREATE}"), "psql"])
            .arg(&server.home)
            .arg(&name)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&psql.stderr);
        assert!(psql.status.success() || told.contains("already exists"), "{told}");
        server.url(&name)
    }
}
