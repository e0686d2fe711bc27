//! The configuration: defaults, file, environment, flags, in this order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::serve::outbound::{Allowed, Outbound};
use anyhow::{Context, bail};
use clap::Args;
use entity::Iri;
use federation::Member;
use node::{BackupSchedule, HistoryPolicy, Keep, RetentionRule, RollupRule, RollupWidth};
use policy::CityName;
use serde::{Deserialize, Serialize};

/// File in the node's folder that is read if no other is named.
pub(crate) const FILE: &str = "conurb.toml";

/// Everything that can be set. Names carry units.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) city: String,
    pub(crate) data: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) sql: SocketAddr,
    pub(crate) flight: SocketAddr,
    pub(crate) dev: bool,
    pub(crate) default_context: String,
    pub(crate) public_url: String,
    pub(crate) alias: String,
    pub(crate) checkpoint_minutes: u64,
    pub(crate) peer_probe_seconds: u64,
    pub(crate) profiles: String,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) store: StoreTable,
    pub(crate) backup: BackupTable,
    pub(crate) tls: TlsTable,
    pub(crate) cors: CorsTable,
    pub(crate) outbound: OutboundTable,
    pub(crate) peers: Vec<PeerEntry>,
    pub(crate) history: HistoryEntry,
    pub(crate) sql_roles: Vec<SqlRole>,
}

/// The table `[store]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreTable {
    pub(crate) memory_mb: usize,
    pub(crate) log_keep_mb: u64,
    pub(crate) history: String,
}

impl Default for StoreTable {
    fn default() -> Self {
        Self { memory_mb: node::MEMORY_BYTES_DEFAULT >> 20, log_keep_mb: 256, history: String::new() }
    }
}

impl StoreTable {
    pub(crate) const fn memory_bytes(&self) -> usize {
        self.memory_mb << 20
    }

    pub(crate) const fn log_keep_bytes(&self) -> u64 {
        self.log_keep_mb.saturating_mul(1 << 20)
    }
}

/// The table `[tls]`: HTTPS beside HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsTable {
    pub(crate) listen: String,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsTable {
    /// Where HTTPS listens; none if there is no such address. Errors: it is no address, or certificate or key are not named.
    pub(crate) fn address(&self) -> anyhow::Result<Option<SocketAddr>> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        if self.cert.as_os_str().is_empty() || self.key.as_os_str().is_empty() {
            bail!("[tls] listen = \"{}\": cert and key have to name PEM files", self.listen);
        }
        let address =
            self.listen.parse().with_context(|| format!("[tls] listen = \"{}\": expected an address such as 0.0.0.0:443", self.listen))?;
        Ok(Some(address))
    }
}

/// The table `[cors]`: web pages of other origins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CorsTable {
    pub(crate) origins: Vec<String>,
}

impl CorsTable {
    /// Errors: one of them is no origin.
    pub(crate) fn allowed(&self) -> anyhow::Result<::serve::Origins> {
        ::serve::Origins::from_list(&self.origins).map_err(|e| anyhow::anyhow!("[cors] origins: {e}"))
    }
}

/// The table `[backup]`: backups that the node makes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BackupTable {
    pub(crate) to: String,
    pub(crate) every_hours: u32,
    pub(crate) keep: usize,
    pub(crate) keep_days: u32,
}

impl Default for BackupTable {
    fn default() -> Self {
        Self { to: String::new(), every_hours: 24, keep: 0, keep_days: 0 }
    }
}

impl BackupTable {
    /// None if no place is named.
    pub(crate) fn schedule(&self) -> Option<BackupSchedule> {
        let keep = Keep { newest: (self.keep > 0).then_some(self.keep), days: (self.keep_days > 0).then_some(self.keep_days) };
        let every = Duration::from_secs(u64::from(self.every_hours) * 3600);
        (!self.to.is_empty()).then(|| BackupSchedule { to: self.to.clone(), every, keep })
    }
}

/// The table `[outbound]`: whom the node calls because somebody outside asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OutboundTable {
    pub(crate) allow: Vec<String>,
    pub(crate) authorities: String,
}

impl OutboundTable {
    fn allowed(&self) -> anyhow::Result<Allowed> {
        Allowed::parse(self.allow.iter().map(String::as_str)).context("[outbound] allow")
    }

    /// The client for foreign addresses; every address is allowed with `dev`.
    pub(crate) fn client(&self, dev: bool) -> anyhow::Result<Outbound> {
        let allowed = if dev { Allowed::everything() } else { self.allowed()? };
        let read = |path: &str| std::fs::read(path).with_context(|| format!("[outbound] authorities: cannot read `{path}`"));
        let pem = Some(self.authorities.as_str()).filter(|p| !p.is_empty()).map(read).transpose()?;
        Outbound::with(allowed, pem.as_deref()).context("[outbound]")
    }
}

/// The largest `every_hours`: a year.
const BACKUP_HOURS_MAX: u32 = 366 * 24;

/// The largest `memory_mb`: 16 TiB.
const MEMORY_MB_MAX: usize = 16 << 20;

/// What an SQL user of this name may use; what is not given is as for everybody.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRole {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) statement_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_mb: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spill_mb: Option<u64>,
}

/// The most that a role may be given of anything: beyond it is a slip of the pen.
const SQL_ROLE_MAX: u64 = 1_000_000;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Another city's node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeerEntry {
    pub(crate) city: String,
    pub(crate) url: String,
    pub(crate) key: String,
}

/// What is kept of the past.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HistoryEntry {
    pub(crate) maintain_minutes: u64,
    pub(crate) rollup_rows_min: u64,
    pub(crate) rollup_after_hours: u32,
    pub(crate) rollups: Vec<RollupEntry>,
    pub(crate) retention: Vec<RetentionEntry>,
}

/// Which roll-ups are kept of some attributes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollupEntry {
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(crate) entity_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attributes: Option<Vec<String>>,
    pub(crate) widths: Vec<RollupWidth>,
}

/// How long values are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionEntry {
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(crate) entity_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attributes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raw_days: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rollup_days: Option<u32>,
}

impl Default for HistoryEntry {
    fn default() -> Self {
        let HistoryPolicy { rollup_rows_min, rollup_after_hours, .. } = HistoryPolicy::default();
        Self { maintain_minutes: 10, rollup_rows_min, rollup_after_hours, rollups: Vec::new(), retention: Vec::new() }
    }
}

impl HistoryEntry {
    /// The policy; `expand` makes full names of short ones. Errors: a name that is none, or a rule that makes no sense.
    pub(crate) fn policy(&self, expand: &dyn Fn(&str) -> anyhow::Result<Iri>) -> anyhow::Result<HistoryPolicy> {
        let one = |name: &Option<String>| name.as_deref().map(expand).transpose();
        let many = |names: &Option<Vec<String>>| names.as_ref().map(|list| list.iter().map(|n| expand(n)).collect()).transpose();
        let rollup = |(i, r): (usize, &RollupEntry)| {
            let rule =
                || anyhow::Ok(RollupRule { entity_type: one(&r.entity_type)?, attributes: many(&r.attributes)?, widths: r.widths.clone() });
            rule().with_context(|| format!("[[history.rollups]] number {}", i + 1))
        };
        let retention = |(i, r): (usize, &RetentionEntry)| {
            let names = || anyhow::Ok((one(&r.entity_type)?, many(&r.attributes)?));
            let (entity_type, attributes) = names().with_context(|| format!("[[history.retention]] number {}", i + 1))?;
            anyhow::Ok(RetentionRule { entity_type, attributes, raw_days: r.raw_days, rollup_days: r.rollup_days })
        };
        let policy = HistoryPolicy {
            rollups: self.rollups.iter().enumerate().map(rollup).collect::<anyhow::Result<_>>()?,
            rollup_rows_min: self.rollup_rows_min,
            rollup_after_hours: self.rollup_after_hours,
            retention: self.retention.iter().enumerate().map(retention).collect::<anyhow::Result<_>>()?,
        };
        policy.check().context("[history]")?;
        Ok(policy)
    }
}

/// What each key means: printed by `conurb config`, and the list of keys that exist.
const KEYS: &[(&str, &str)] = &[
    ("city", "Name of the city: lower-case letters, digits and `-`. It is this node's name in the cluster."),
    ("data", "Folder of the node's data, key pair and tokens. Made if it is missing."),
    ("http", "Address of HTTP: NGSI-LD, console, metrics, questions from other cities. Port 0 lets the system choose."),
    ("mqtt", "Address of MQTT 3.1.1 and 5."),
    ("sql", "Address of SQL over the PostgreSQL wire protocol."),
    ("flight", "Address of SQL over Arrow Flight, for programs that take columns (ADBC)."),
    ("dev", "For trying and tests: no authentication, loopback addresses only, callbacks to private addresses allowed."),
    ("default_context", "User @context of requests that name none; \"\" for the NGSI-LD core context alone."),
    (
        "public_url",
        "Where other systems reach this node's HTTP, such as https://city.example, without a slash at the end; sources that are registered here are \
         told it. \"\" for http:// and the address of `http`.",
    ),
    (
        "alias",
        "The name by which this node signs requests that it passes on to registered sources (header Via, `GET /ngsi-ld/v1/info/sourceIdentity`); \
         unique among all that may be registered with each other. \"\" for the city's name.",
    ),
    ("checkpoint_minutes", "How often changed documents and history are written out of the log, in minutes."),
    ("peer_probe_seconds", "How often a city that has not been heard of is asked whether it is there, in seconds."),
    ("profiles", "Folder with further device profiles (*.json); \"\" for the built-in ones alone."),
    ("log", "What is logged: error, warn, info, debug, trace, or per module, such as `info,serve=debug`."),
    ("log_format", "How log lines look on standard error: text or json."),
    (
        "store",
        "How data are kept: memory_mb is what indexes, caches and unwritten changes of the present may take together, in MiB; log_keep_mb is how much of the log stays beyond the last checkpoint, for readers of the changes; history is where the files of the past are: \"\" for the data folder, or s3://bucket/prefix with the usual AWS_* variables of the environment.",
    ),
    (
        "backup",
        "Backups that the node makes by itself: to is a folder of this machine or s3://bucket/prefix, \"\" for none; every_hours from one to the \
         next; of the backups there stay the newest keep and those of the last keep_days days, all of them if both are 0.",
    ),
    (
        "outbound",
        "Whom the node may call because somebody outside asked for it (notifications, contexts) beside the public internet: allow lists \
         networks such as \"10.0.0.0/8\", addresses, names of hosts, or \"private\" for every private network; authorities is a PEM file \
         with certificates of authorities that are trusted for https and mqtts besides those of the system, \"\" for none.",
    ),
    (
        "tls",
        "HTTPS beside HTTP: listen is its address, such as \"0.0.0.0:443\", \"\" for none; cert and key are PEM files, the node's own certificate \
         first. They are read again at SIGHUP; connections that are open stay.",
    ),
    (
        "cors",
        "origins are those whose web pages may use this node from a browser, such as [\"https://map.example\"], or [\"*\"] for every one; they \
         need an access token all the same. By default only the node's own console may.",
    ),
    ("peers", "The other cities: [[peers]] with city, url and key (as `conurb key` prints it there)."),
    (
        "history",
        "What is kept of the past. Every maintain_minutes the days that ended rollup_after_hours ago are rolled up: by hour and day for types \
         with rollup_rows_min rows, or as a rule says: [[history.rollups]] with type and attributes (each may be left out: every one) and \
         widths = [\"5m\", \"1h\", \"1d\"]. Everything is kept for ever, unless [[history.retention]] says otherwise: type (left out: every \
         one), raw_days and rollup_days, both at least 1; or type, attributes and raw_days for single attributes. The first rule that fits counts.",
    ),
    (
        "sql_roles",
        "Limits of SQL users by their name: [[sql_roles]] with name, statement_seconds, memory_mb, connections, spill_mb (disk for what exceeds the memory; 0 for none).",
    ),
];

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            city: "city".to_owned(),
            data: PathBuf::from("conurb-data"),
            http: local(1026),
            mqtt: local(1883),
            sql: local(5433),
            flight: local(5434),
            dev: false,
            public_url: String::new(),
            alias: String::new(),
            default_context: ngsi::context::DEFAULT_USER_CONTEXT_URL.to_owned(),
            checkpoint_minutes: 5,
            peer_probe_seconds: 10,
            profiles: String::new(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            store: StoreTable::default(),
            backup: BackupTable::default(),
            tls: TlsTable::default(),
            cors: CorsTable::default(),
            outbound: OutboundTable::default(),
            peers: Vec::new(),
            history: HistoryEntry::default(),
            sql_roles: Vec::new(),
        }
    }
}

/// Settings on the command line and in the environment; they win over the file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Flags {
    /// Folder of the node's data [default: conurb-data]
    #[arg(long, env = "CONURB_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Configuration file [default: conurb.toml in the data folder, if it is there]
    #[arg(long, env = "CONURB_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Name of the city [default: city]
    #[arg(long, env = "CONURB_CITY", value_name = "NAME")]
    pub(crate) city: Option<String>,
    /// Address of HTTP [default: 127.0.0.1:1026]
    #[arg(long, env = "CONURB_HTTP", value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Address of MQTT [default: 127.0.0.1:1883]
    #[arg(long, env = "CONURB_MQTT", value_name = "ADDR")]
    pub(crate) mqtt: Option<SocketAddr>,
    /// Address of SQL [default: 127.0.0.1:5433]
    #[arg(long, env = "CONURB_SQL", value_name = "ADDR")]
    pub(crate) sql: Option<SocketAddr>,
    /// Address of SQL over Arrow Flight [default: 127.0.0.1:5434]
    #[arg(long, env = "CONURB_FLIGHT", value_name = "ADDR")]
    pub(crate) flight: Option<SocketAddr>,
    /// For trying and tests: no authentication, loopback only, callbacks to private addresses allowed
    #[arg(long, env = "CONURB_DEV")]
    pub(crate) dev: bool,
    /// What is logged, such as `info` or `info,serve=debug` [default: info]
    #[arg(long, env = "CONURB_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, env = "CONURB_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

impl Flags {
    /// The configuration in force.
    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        let dir = self.data.clone().unwrap_or_else(|| Config::default().data);
        let (path, must_exist) = match &self.config {
            Some(path) => (path.clone(), true),
            None => (dir.join(FILE), false),
        };
        let mut config = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).with_context(|| format!("configuration file `{}`", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => Config::default(),
            Err(e) => return Err(e).with_context(|| format!("cannot read configuration file `{}`", path.display())),
        };
        let Self { data, city, http, mqtt, sql, flight, dev, log, log_format, .. } = self.clone();
        set(&mut config.data, data);
        set(&mut config.city, city);
        set(&mut config.http, http);
        set(&mut config.mqtt, mqtt);
        set(&mut config.sql, sql);
        set(&mut config.flight, flight);
        set(&mut config.log, log);
        set(&mut config.log_format, log_format);
        config.dev |= dev;
        config.check()?;
        Ok(config)
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// Reads a file; an unknown key is an error that names the nearest known one.
fn parse(text: &str) -> anyhow::Result<Config> {
    let table: toml::Table = text.parse()?;
    for key in table.keys() {
        if !KEYS.iter().any(|(k, _)| k == key) {
            let nearest = KEYS.iter().map(|(k, _)| (strsim::damerau_levenshtein(k, key), *k)).min().expect("there are keys");
            bail!("unknown key `{key}` (did you mean `{}`?)", nearest.1);
        }
    }
    Ok(table.try_into()?)
}

impl Config {
    fn check(&self) -> anyhow::Result<()> {
        self.city_name()?;
        self.members()?;
        if self.checkpoint_minutes == 0 || self.peer_probe_seconds == 0 || self.history.maintain_minutes == 0 {
            bail!("checkpoint_minutes, peer_probe_seconds and history.maintain_minutes must be at least 1");
        }
        let memory_mb_min = node::MEMORY_BYTES_MIN >> 20;
        if !(memory_mb_min..=MEMORY_MB_MAX).contains(&self.store.memory_mb) {
            bail!("[store] memory_mb = {}: expected {memory_mb_min} to {MEMORY_MB_MAX}", self.store.memory_mb);
        }
        if !(1..=BACKUP_HOURS_MAX).contains(&self.backup.every_hours) {
            bail!("[backup] every_hours = {}: expected 1 to {BACKUP_HOURS_MAX}", self.backup.every_hours);
        }
        self.check_public()?;
        self.outbound.allowed()?;
        self.check_sql_roles()?;
        self.cors.allowed()?;
        if let Some(address) = self.tls.address()?
            && self.dev
            && !address.ip().is_loopback()
        {
            bail!(
                "[tls] listen = \"{address}\": in development mode nobody is asked who they are, so only loopback addresses are possible"
            );
        }
        for (key, address) in [("http", self.http), ("mqtt", self.mqtt), ("sql", self.sql), ("flight", self.flight)] {
            if self.dev && !address.ip().is_loopback() {
                bail!(
                    "{key} = \"{address}\": in development mode nobody is asked who they are, so only loopback addresses such as 127.0.0.1 are possible"
                );
            }
        }
        Ok(())
    }

    /// Both become parts of headers, and the address of links.
    fn check_public(&self) -> anyhow::Result<()> {
        let is_url = |text: &str| reqwest::Url::parse(text).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.host().is_some());
        if !self.public_url.is_empty() && (!is_url(&self.public_url) || self.public_url.ends_with('/')) {
            bail!("public_url = \"{}\": expected a URL such as https://city.example, without a slash at the end", self.public_url);
        }
        let fits = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '(' | ')' | '"');
        if self.alias.len() > 255 || !self.alias.chars().all(fits) {
            bail!("alias = \"{}\": expected visible ASCII without comma, quote and parenthesis", self.alias);
        }
        Ok(())
    }

    /// The name in `Via`.
    pub(crate) fn alias_or_city(&self) -> String {
        if self.alias.is_empty() { self.city.clone() } else { self.alias.clone() }
    }

    /// Where others reach this node, which listens at `http`.
    pub(crate) fn public_url_of(&self, http: SocketAddr) -> String {
        if self.public_url.is_empty() { format!("http://{http}") } else { self.public_url.clone() }
    }

    fn check_sql_roles(&self) -> anyhow::Result<()> {
        for (i, role) in self.sql_roles.iter().enumerate() {
            if role.name.is_empty() || self.sql_roles[..i].iter().any(|r| r.name == role.name) {
                bail!("[[sql_roles]] number {}: `name` has to be there and to be given once, found `{}`", i + 1, role.name);
            }
            let given = [
                ("statement_seconds", role.statement_seconds, 1),
                ("memory_mb", role.memory_mb.map(|n| n as u64), 1),
                ("connections", role.connections.map(|n| n as u64), 1),
                ("spill_mb", role.spill_mb, 0),
            ];
            for (key, value, min) in given {
                if let Some(n) = value.filter(|n| !(min..=SQL_ROLE_MAX).contains(n)) {
                    bail!("[[sql_roles]] `{}`: {key} = {n} (expected {min} to {SQL_ROLE_MAX})", role.name);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn city_name(&self) -> anyhow::Result<CityName> {
        self.city.parse().with_context(|| "key `city`".to_owned())
    }

    pub(crate) fn members(&self) -> anyhow::Result<Vec<Member>> {
        let member = |p: &PeerEntry| -> anyhow::Result<Member> { Ok(Member::new(p.city.parse()?, &p.url, p.key.parse()?)?) };
        self.peers.iter().map(|p| member(p).with_context(|| format!("[[peers]] `{}`", p.city))).collect()
    }

    pub(crate) fn checkpoint_every(&self) -> Duration {
        Duration::from_secs(self.checkpoint_minutes * 60)
    }

    /// The commented file with these values.
    pub(crate) fn to_commented_toml(&self) -> anyhow::Result<String> {
        let table = toml::Table::try_from(self)?;
        let mut text =
            String::from("# The configuration in force: defaults, then the file, then the environment (CONURB_*), then flags.\n");
        for (key, doc) in KEYS {
            text.push_str(&format!("\n# {doc}\n"));
            match table.get(*key) {
                Some(toml::Value::Array(list)) if list.is_empty() => text.push_str(&format!("# {key} = []\n")),
                Some(toml::Value::Array(list)) => {
                    for item in list.iter().filter_map(toml::Value::as_table) {
                        text.push_str(&format!("[[{key}]]\n{item}"));
                    }
                }
                Some(value @ toml::Value::Table(_)) => text.push_str(&toml::to_string(&BTreeMap::from([(key, value)]))?),
                Some(value) => text.push_str(&format!("{key} = {value}\n")),
                None => {}
            }
        }
        Ok(text)
    }
}

/// `conurb config`.
pub(crate) fn print(flags: &Flags) -> anyhow::Result<()> {
    crate::say(flags.load()?.to_commented_toml()?.trim_end());
    Ok(())
}

/// Starts the log on standard error.
pub(crate) fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).with_context(|| format!("key `log`: `{}`", config.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("cannot start the log: {e}"))
}

/// A file for a node of the demo.
pub(crate) fn write(config: &Config, path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, config.to_commented_toml()?).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_and_every_key_is_explained() {
        let peer = PeerEntry { city: "suzhou".into(), url: "http://127.0.0.1:1036".into(), key: "ed25519:x".into() };
        let history = HistoryEntry {
            rollups: vec![RollupEntry { entity_type: Some("Station".into()), attributes: None, widths: vec![RollupWidth::FiveMinutes] }],
            retention: vec![RetentionEntry { entity_type: None, attributes: None, raw_days: Some(30), rollup_days: None }],
            ..HistoryEntry::default()
        };
        let role = SqlRole { name: "grafana".into(), statement_seconds: Some(10), spill_mb: Some(0), ..SqlRole::default() };
        let full = Config { city: "shanghai".into(), peers: vec![peer.clone(), peer], history, sql_roles: vec![role], ..Config::default() };
        for config in [Config::default(), full] {
            let text = config.to_commented_toml().expect("it prints");
            let back = parse(&text).expect("it reads back");
            assert_eq!(format!("{back:?}"), format!("{config:?}"));
            let table = toml::Table::try_from(&config).expect("it is a table");
            assert_eq!(table.len(), KEYS.len(), "a key without explanation");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = parse("checkpoint_minute = 5").expect_err("it is unknown").to_string();
        assert!(error.contains("did you mean `checkpoint_minutes`?"), "{error}");
    }

    #[test]
    fn the_public_address_and_the_alias_have_defaults_and_are_checked() {
        let http = "127.0.0.1:1026".parse().expect("an address");
        let unset = Config { city: "suzhou".into(), ..Config::default() };
        assert_eq!((unset.alias_or_city(), unset.public_url_of(http)), ("suzhou".into(), "http://127.0.0.1:1026".into()));
        let set = parse("public_url = \"https://a.example\"\nalias = \"a.example:443\"").expect("it is read");
        set.check().expect("it is valid");
        assert_eq!((set.alias_or_city(), set.public_url_of(http)), ("a.example:443".into(), "https://a.example".into()));
        for wrong in ["public_url = \"a.example\"", "public_url = \"https://a.example/\"", "alias = \"a, b\""] {
            assert!(parse(wrong).expect("it is read").check().is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_has_a_least_and_a_most() {
        for (memory_mb, is_possible) in [(1, false), (64, true), (MEMORY_MB_MAX + 1, false)] {
            let config = parse(&format!("[store]\nmemory_mb = {memory_mb}")).expect("it reads");
            assert_eq!(config.check().is_ok(), is_possible, "{memory_mb}");
        }
        assert!(parse("[store]\nmemory = 1").is_err());
    }

    #[test]
    fn the_history_is_kept_as_its_rules_say() {
        let expand = |name: &str| Ok(format!("https://example.org/{name}").parse::<Iri>()?);
        let read = |text: &str| parse(text).and_then(|c| c.history.policy(&expand));
        let policy = read(
            "[history]\nrollup_rows_min = 5\n[[history.rollups]]\ntype = \"Station\"\nwidths = [\"5m\", \"1d\"]\n\
             [[history.retention]]\nraw_days = 30\nrollup_days = 365",
        )
        .expect("it makes sense");
        let station: Iri = "https://example.org/Station".parse().expect("an IRI");
        let widths = vec![RollupWidth::FiveMinutes, RollupWidth::Day];
        assert_eq!(policy.rollups, [RollupRule { entity_type: Some(station), attributes: None, widths }]);
        assert_eq!((policy.rollup_rows_min, policy.retention[0].raw_days, policy.retention[0].rollup_days), (5, Some(30), Some(365)));
        for (text, want) in [
            ("[[history.retention]]\nraw_days = 30\nrollup_days = 3", "less than the 30 days"),
            ("[[history.retention]]\ntype = \"a b\"\nraw_days = 30", "[[history.retention]] number 1"),
            ("[[history.rollups]]\nwidths = [\"2h\"]", "2h"),
            ("[history]\nrollup_row_min = 5", "rollup_rows_min"),
        ] {
            let error = format!("{:#}", read(text).expect_err(text));
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn backups_by_themselves_are_off_unless_a_place_is_named() {
        assert_eq!(Config::default().backup.schedule(), None);
        let config = parse("[backup]\nto = \"/mnt/b\"\nevery_hours = 6\nkeep = 7").expect("it is read");
        config.check().expect("it is valid");
        let schedule = config.backup.schedule().expect("there is one");
        assert_eq!((schedule.every, schedule.keep), (Duration::from_hours(6), Keep { newest: Some(7), days: None }));
        let never = parse("[backup]\nevery_hours = 0").expect("it is read").check().expect_err("it is refused");
        assert!(never.to_string().contains("expected 1 to"), "{never}");
        assert!(parse("[backup]\nevery = 1").is_err());
    }

    #[test]
    fn whom_the_node_may_call_is_checked() {
        let check = |text: &str| parse(text).and_then(|c| c.check());
        check("[outbound]\nallow = [\"10.0.0.0/8\", \"sensors.internal\", \"private\"]").expect("it makes sense");
        let error = format!("{:#}", check("[outbound]\nallow = [\"10.0.0.0/99\"]").expect_err("no such network"));
        assert!(error.contains("[outbound] allow") && error.contains("10.0.0.0/99"), "{error}");
        let missing = OutboundTable { authorities: "/does/not/exist".to_owned(), ..OutboundTable::default() };
        assert!(format!("{:#}", missing.client(false).err().expect("no such file")).contains("/does/not/exist"));
        assert!(check("[outbound]\nalow = []").is_err());
    }

    #[test]
    fn limits_of_sql_roles_are_checked() {
        let check = |text: &str| parse(text).expect("it is read").check().expect_err("it is refused").to_string();
        assert!(check("[[sql_roles]]\nname = \"a\"\nmemory_mb = 0").contains("memory_mb = 0 (expected 1 to"));
        assert!(check("[[sql_roles]]\nname = \"a\"\n[[sql_roles]]\nname = \"a\"").contains("given once"));
        assert!(parse("[[sql_roles]]\nname = \"a\"\nmemory = 1").is_err());
    }

    #[test]
    fn development_mode_stays_on_loopback() {
        let config = Config { dev: true, http: "0.0.0.0:1026".parse().expect("an address"), ..Config::default() };
        assert!(config.check().expect_err("it is refused").to_string().contains("loopback"));
    }
}
