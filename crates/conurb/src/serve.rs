//! `conurb serve`: wires a node to its listeners.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::serve::auth::{ADMIN_TOKEN_FILE, Authenticator, DEVICE_TOKEN_FILE};
use ::serve::folders::{Folder, OpenNode};
use ::serve::mqtt_listener::{self, Hub, MqttContext, RefusedMessages};
use ::serve::peer::HttpTransport;
use ::serve::{Addresses, App, Contexts, HttpOptions, housekeeping, notify};
use anyhow::Context;
use mqtt::profile::{Profile, ProfileSpec, Profiles};
use node::{BackupSchedule, Node, NodeOptions};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, Flags, start_log};

/// How long requests under way may take when the node stops.
const GOODBYE_WAIT: Duration = Duration::from_secs(10);

pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = flags.load()?;
    start_log(&config)?;
    crate::runtime()?.block_on(serve(config))
}

async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen for {what} on {address} (port 0 lets the system choose)"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Ports first: an address in use is told before the data are read.
    let (http, http_address) = bind("HTTP", config.http).await?;
    let (mqtt, mqtt_address) = bind("MQTT", config.mqtt).await?;
    let https = match config.tls.address()? {
        None => None,
        Some(address) => {
            let tls = Arc::new(::serve::Tls::load(&config.tls.cert, &config.tls.key).context("[tls]")?);
            Some((bind("HTTPS", address).await?, tls))
        }
    };
    let https_address = https.as_ref().map(|((_, address), _)| *address);
    #[cfg(feature = "sql")]
    let (sql, sql_address) = bind("SQL", config.sql).await.map(|(l, a)| (l, Some(a)))?;
    #[cfg(feature = "sql")]
    let (flight, flight_address) = bind("Flight SQL", config.flight).await.map(|(l, a)| (l, Some(a)))?;
    #[cfg(not(feature = "sql"))]
    let (sql_address, flight_address) = (None, None);

    let node = Arc::new(open_node(&config)?);
    let auth = Arc::new(if config.dev {
        Authenticator::Dev
    } else {
        Authenticator::from_dir(&config.data).context("cannot read or make the access tokens")?
    });
    announce(&config);
    let outbound = config.outbound.client(config.dev)?;
    let user_context = Some(config.default_context.as_str()).filter(|u| !u.is_empty());
    let contexts = Arc::new(ngsi::ContextStore::new(user_context, None).context("key `default_context`")?);
    let expand = |name: &str| contexts.default_context().expand(name).map_err(anyhow::Error::from);
    node.keep_history(config.history.policy(&expand)?, Duration::from_secs(config.history.maintain_minutes * 60))?;
    let profiles = Arc::new(load_profiles(&config, &contexts)?);
    let refused = Arc::new(RefusedMessages::default());
    let (stop_sender, stop) = watch::channel(false);
    let app = Arc::new(App {
        node: Arc::clone(&node),
        auth: Arc::clone(&auth),
        outbound: outbound.clone(),
        contexts: Contexts::new(Arc::clone(&contexts), outbound),
        transport: Arc::new(HttpTransport::new().context("cannot set up the connections to other cities")?),
        entity_maps: ::serve::EntityMaps::default(),
        sources: ::serve::Sources::new(config.alias_or_city(), config.public_url_of(http_address)),
        refused: Arc::clone(&refused),
        imports: ::serve::bulk_turns(),
        tenants: Arc::default(),
        tenant: None,
        snapshots: ::serve::Snapshots::default(),
        snapshot: None,
        folder: Folder::new(config.data.clone(), opener(&config)),
        addresses: Addresses { http: http_address, mqtt: mqtt_address, sql: sql_address, flight: flight_address },
        stop: stop.clone(),
    });
    let mqtt_context =
        Arc::new(MqttContext { node: Arc::clone(&node), auth: Arc::clone(&auth), profiles, hub: Arc::new(Hub::default()), refused });

    app.tenants.open_all(&app).await?;
    app.snapshots.open_all(&app).await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(notify::deliver(Arc::clone(&app), stop.clone()));
    tasks.spawn(mqtt_listener::serve(mqtt, mqtt_context, stop.clone()));
    tasks.spawn(probe_peers(Arc::clone(&app), Duration::from_secs(config.peer_probe_seconds), stop.clone()));
    tasks.spawn(housekeeping::remove_expired(Arc::clone(&app), stop.clone()));
    tasks.spawn(housekeeping::try_public_url(Arc::clone(&app), stop.clone()));
    if let Some(schedule) = config.backup.schedule() {
        tasks.spawn(make_backups(Arc::clone(&app), schedule, stop.clone()));
    }
    #[cfg(feature = "sql")]
    {
        let shared = || (Arc::clone(&node), Arc::clone(&auth), Arc::clone(&contexts), config.clone(), stop.clone());
        let (node, auth, contexts, settings, stop) = shared();
        tasks.spawn(async move { crate::sql::serve_flight(flight, node, auth, contexts, &settings, stop).await });
        let (node, auth, contexts, settings, stop) = shared();
        tasks.spawn(async move { crate::sql::serve(sql, node, auth, contexts, &settings, stop).await });
    }
    let origins = config.cors.allowed()?;
    let mut listeners = vec![("HTTP", http, HttpOptions { origins: origins.clone(), tls: None })];
    if let Some(((listener, _), tls)) = https {
        tasks.spawn(renew_certificate(Arc::clone(&tls), stop.clone()));
        listeners.push(("HTTPS", listener, HttpOptions { origins, tls: Some(tls) }));
    }
    for (what, listener, options) in listeners {
        let (app, stop) = (Arc::clone(&app), stop.clone());
        tasks.spawn(async move {
            if let Err(e) = ::serve::serve_http_with(listener, app, options, stop).await {
                tracing::error!(error = %e, "{what} ended");
            }
        });
    }
    crate::say(&ready_line(&config, &app.addresses, https_address));

    crate::stop_signal().await;
    tracing::info!("shutting down");
    // Receivers live as long as the tasks.
    let _ = stop_sender.send(true);
    let ended = tokio::time::timeout(GOODBYE_WAIT, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!("some requests did not end in time and are cut off");
        tasks.abort_all();
    }
    let (tenants, snapshots) = (app.tenants.take_nodes(), app.snapshots.take_nodes());
    let closed = tokio::task::spawn_blocking(move || {
        for snapshot in &snapshots {
            snapshot.close().context("a snapshot")?;
        }
        for (name, tenant) in &tenants {
            tenant.close().with_context(|| format!("tenant `{name}`"))?;
        }
        node.close().map_err(anyhow::Error::from)
    });
    closed.await?.context("the last checkpoint failed; the log has everything")?;
    tracing::info!("stopped");
    Ok(())
}

/// Opens nodes of tenants and snapshots: like the city's, but in folders of their own, and without other cities.
fn opener(config: &Config) -> OpenNode {
    let config = config.clone();
    Arc::new(move |dir| {
        let mut config = config.clone();
        let key = crate::identity::load_or_make(&config.data).map_err(|e| format!("{e:#}"))?;
        if !config.store.history.is_empty() {
            let place = dir.strip_prefix(&config.data).unwrap_or(dir).display();
            config.store.history = format!("{}/{place}", config.store.history.trim_end_matches('/'));
        }
        config.data = dir.to_owned();
        config.peers.clear();
        open_node_with(&config, key).map_err(|e| format!("{e:#}"))
    })
}

fn open_node(config: &Config) -> anyhow::Result<Node> {
    std::fs::create_dir_all(&config.data).with_context(|| format!("cannot make folder `{}`", config.data.display()))?;
    open_node_with(config, crate::identity::load_or_make(&config.data)?)
}

fn open_node_with(config: &Config, key: federation::CityKey) -> anyhow::Result<Node> {
    std::fs::create_dir_all(&config.data).with_context(|| format!("cannot make folder `{}`", config.data.display()))?;
    let options = NodeOptions {
        dir: config.data.clone(),
        city: config.city_name()?,
        key,
        peers: config.members()?,
        clock: Arc::new(host::SystemClock),
        checkpoint_every: config.checkpoint_every(),
        log_keep_bytes: config.store.log_keep_bytes(),
        history_place: config.store.history.clone(),
        memory_bytes: config.store.memory_bytes(),
    };
    Node::open(options).with_context(|| format!("cannot open the node in `{}`", config.data.display()))
}

fn announce(config: &Config) {
    if config.dev {
        tracing::warn!(
            "DEVELOPMENT MODE: nobody is asked who they are; everybody on this machine may read and change everything; never use this with real data"
        );
    } else {
        let shown = |file: &str| config.data.join(file).display().to_string();
        tracing::info!(admin = shown(ADMIN_TOKEN_FILE), device = shown(DEVICE_TOKEN_FILE), "access tokens are in these files");
    }
    tracing::info!(city = config.city, data = %config.data.display(), version = env!("CARGO_PKG_VERSION"), "starting");
}

/// The one line on standard output, once everything listens.
fn ready_line(config: &Config, addresses: &Addresses, https: Option<SocketAddr>) -> String {
    let mut line = json!({
        "ready": true,
        "city": config.city,
        "http": addresses.http.to_string(),
        "mqtt": addresses.mqtt.to_string(),
        "pid": std::process::id(),
    });
    if let Some(https) = https {
        line["https"] = json!(https.to_string());
    }
    if let Some(sql) = addresses.sql {
        line["sql"] = json!(sql.to_string());
    }
    if let Some(flight) = addresses.flight {
        line["flight"] = json!(flight.to_string());
    }
    line.to_string()
}

/// Reads the certificate again at each SIGHUP.
#[cfg(unix)]
async fn renew_certificate(tls: Arc<::serve::Tls>, mut stop: watch::Receiver<bool>) {
    let mut hangup = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(e) => return tracing::warn!(error = %e, "SIGHUP will not renew the certificate"),
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => match tls.reload() {
                Ok(()) => tracing::info!("the certificate was read again"),
                Err(e) => tracing::error!(error = host::chain(&e), "the certificate could not be read again, the old one stays in use"),
            },
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

/// There is no such signal here.
#[cfg(not(unix))]
async fn renew_certificate(_: Arc<::serve::Tls>, mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

/// Keeps the picture of who is up fresh when nobody asks.
async fn probe_peers(app: Arc<App>, every: Duration, mut stop: watch::Receiver<bool>) {
    loop {
        app.node.probe_peers(app.transport.as_ref(), every).await;
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

/// Makes a backup every so often. The first one is due when the newest in the place is old enough.
async fn make_backups(app: Arc<App>, schedule: BackupSchedule, mut stop: watch::Receiver<bool>) {
    let mut is_first = true;
    loop {
        let (node, now) = (Arc::clone(&app.node), schedule.clone());
        let work = move || if is_first { node.backup_due_in(&now) } else { node.scheduled_backup(&now) };
        is_first = false;
        // A backup under way when the node stops ends with its store.
        let done = tokio::select! {
            done = tokio::task::spawn_blocking(work) => done,
            _ = stop.wait_for(|s| *s) => return,
        };
        let Ok(wait) = done else {
            tracing::error!("the thread that makes backups has ended: there are none any more until the node is restarted");
            return;
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

/// The built-in profiles, and those of the operator's folder; one with the id of a built-in one replaces it.
fn load_profiles(config: &Config, contexts: &ngsi::ContextStore) -> anyhow::Result<Profiles> {
    let context = contexts.default_context();
    let expand = |name: &str| context.expand(name).map_err(|e| e.to_string());
    let mut specs = mqtt::profile::built_in_specs().context("built-in device profiles")?;
    if !config.profiles.is_empty() {
        for path in json_files(Path::new(&config.profiles))? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read device profile `{}`", path.display()))?;
            let spec = ProfileSpec::parse(&text).with_context(|| format!("device profile `{}`", path.display()))?;
            specs.retain(|s| s.id != spec.id);
            specs.push(spec);
        }
    }
    let compiled = specs.iter().map(|s| Profile::compile(s, &expand)).collect::<Result<Vec<_>, _>>().context("device profiles")?;
    Profiles::new(compiled).context("device profiles")
}

fn json_files(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("key `profiles`: cannot read folder `{}`", dir.display()))?;
    let mut files: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|x| x == "json")).collect();
    files.sort();
    Ok(files)
}
