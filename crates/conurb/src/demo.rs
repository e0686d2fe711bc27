//! `conurb demo`: three cities on this machine, fed, sharing under agreements, until Ctrl-C.

use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use feed::player::{PlayOptions, Speed, play};
use feed::recorded::{Recorded, RecordedOptions};
use feed::simulated::{Simulation, SimulationOptions};
use feed::{Message, outline};
use serde_json::json;
use tokio::sync::watch;

use crate::config::{self, Config, PeerEntry};

/// How long a node may take to be ready.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long a node may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(20);
/// Ports of one city after those of another.
const PORT_STEP: u16 = 10;
/// The purpose of the demo's agreements.
const PURPOSE: &str = "joint air-quality management";

/// Options of `conurb demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder with recorded air data (such as ../shared/data/air) to replay for Beijing, Shanghai and Guangzhou; without it three cities of
    /// the Yangtze delta are simulated
    #[arg(long, value_name = "DIR")]
    data_from: Option<PathBuf>,
    /// Where the nodes keep their data; what is there from an earlier demo goes on
    #[arg(long, default_value = ".demo", value_name = "DIR")]
    dir: PathBuf,
    /// HTTP port of the first city; the others follow in steps of 10, and so do the MQTT (1883), SQL (5433) and Flight SQL (5434) ports
    #[arg(long, default_value_t = 1026)]
    port: u16,
    /// Speed of the recorded data: `max`, or how many times faster than real time [default: 43200, half a day per second]
    #[arg(long)]
    speed: Option<String>,
    /// Seed of the simulation
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

struct City {
    key: &'static str,
    config: Config,
    node: Option<Child>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = crate::runtime()?;
    let names: [&'static str; 3] =
        if options.data_from.is_some() { ["beijing", "shanghai", "guangzhou"] } else { ["shanghai", "suzhou", "hangzhou"] };
    if let Some(folder) = &options.data_from
        && !folder.is_dir()
    {
        bail!("there is no folder `{}` to replay", folder.display());
    }
    let mut cities = prepare(options, names)?;
    let result = start(&mut cities).and_then(|()| runtime.block_on(live(options, &cities)));
    stop(&mut cities);
    result
}

fn prepare(options: &Options, names: [&'static str; 3]) -> anyhow::Result<Vec<City>> {
    let mut cities = Vec::new();
    let mut entries = Vec::new();
    for (step, key) in (0u16..).zip(names) {
        let port = |base: u16| -> anyhow::Result<SocketAddr> {
            let port = base.checked_add(step * PORT_STEP).context("the ports go beyond 65535")?;
            Ok(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        let data = options.dir.join(key);
        let shift = options.port.wrapping_sub(1026);
        let config = Config {
            city: key.to_owned(),
            http: port(options.port)?,
            mqtt: port(1883u16.wrapping_add(shift))?,
            sql: port(5433u16.wrapping_add(shift))?,
            flight: port(5434u16.wrapping_add(shift))?,
            dev: true,
            log: "warn".to_owned(),
            peer_probe_seconds: 5,
            data: data.clone(),
            ..Config::default()
        };
        let public = crate::identity::load_or_make(&data)?.public().to_string();
        entries.push(PeerEntry { city: key.to_owned(), url: format!("http://{}", config.http), key: public });
        cities.push(City { key, config, node: None });
    }
    for city in &mut cities {
        city.config.peers = entries.iter().filter(|e| e.city != city.key).cloned().collect();
        config::write(&city.config, &city.config.data.join(config::FILE))?;
    }
    Ok(cities)
}

/// Starts the nodes and waits until each says that it is ready.
fn start(cities: &mut [City]) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    for city in cities.iter_mut() {
        let mut command = Command::new(&program);
        command.arg("serve").arg("--data").arg(&city.config.data).stdin(Stdio::null()).stdout(Stdio::piped());
        city.node = Some(command.spawn().with_context(|| format!("cannot start the node of `{}`", city.key))?);
    }
    for city in cities {
        let child = city.node.as_mut().expect("it was started");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, line) = mpsc::channel();
        std::thread::spawn(move || {
            // The receiver may have given up.
            let _ = sender.send(std::io::BufReader::new(stdout).lines().next());
        });
        match line.recv_timeout(READY_WAIT) {
            Ok(Some(Ok(text))) if text.contains("\"ready\":true") => {}
            Ok(_) => bail!("the node of `{}` did not start; see its messages above", city.key),
            Err(_) => bail!("the node of `{}` was not ready within {} s", city.key, READY_WAIT.as_secs()),
        }
    }
    Ok(())
}

/// Makes the agreements, feeds the cities, shows the addresses, waits for Ctrl-C.
async fn live(options: &Options, cities: &[City]) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    share(&client, cities).await?;
    crate::say(&welcome(options, cities));
    let (stop_sender, stop) = watch::channel(false);
    let mut feeds = tokio::task::JoinSet::new();
    for city in cities {
        let (options, key, mqtt, stop) = (options.clone(), city.key, city.config.mqtt.to_string(), stop.clone());
        // A source reads files and computes on its caller's thread.
        feeds.spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(feed_city(&options, key, &mqtt, stop)).map_err(|e| (key, e))
        });
    }
    let signal = crate::stop_signal();
    tokio::pin!(signal);
    loop {
        tokio::select! {
            () = &mut signal => break,
            ended = feeds.join_next(), if !feeds.is_empty() => match ended {
                Some(Ok(Err((key, e)))) => crate::complain(&format!("conurb: the feed of `{key}` ended: {e:#}")),
                Some(Err(e)) => crate::complain(&format!("conurb: a feed failed: {e}")),
                Some(Ok(Ok(key))) => crate::say(&format!("All recorded data of {key} have been played; the nodes go on.")),
                None => {}
            },
        }
    }
    crate::say("Stopping ...");
    // The feeds may have ended.
    let _ = stop_sender.send(true);
    while feeds.join_next().await.is_some() {}
    Ok(())
}

async fn feed_city(options: &Options, key: &'static str, mqtt: &str, mut stop: watch::Receiver<bool>) -> anyhow::Result<&'static str> {
    let mut play_options = PlayOptions::new(mqtt, crate::feeding::client_id(key));
    let stopped = async move {
        // An error means that the demo is ending.
        let _ = stop.wait_for(|s| *s).await;
    };
    match &options.data_from {
        Some(folder) => {
            play_options.speed = match options.speed.as_deref() {
                None => Speed::Times(43_200.0),
                Some("max") => Speed::FullSpeed,
                Some(factor) => Speed::Times(factor.parse().with_context(|| format!("--speed `{factor}`"))?),
            };
            play_options.resume = Some(options.dir.join(key).join("replay.position"));
            // The cities' records begin in different years; from 2013 on all three have some.
            let from = Some("2013-03-01T00:00:00Z".parse().context("a constant instant")?);
            let recorded = RecordedOptions { cities: vec![key.to_owned()], from, ..RecordedOptions::default() };
            play(Recorded::open(folder, &recorded)?, play_options, stopped, |_| {}).await?;
        }
        None => {
            // The past hour at once, then as time goes.
            let start = crate::feeding::hour_ago();
            let simulation = Simulation::new(key, options.seed, start, &SimulationOptions::default())?;
            play_options.speed = Speed::Realtime;
            let (past, future) = split_at_now(simulation);
            let mut catch_up = play_options.clone();
            catch_up.speed = Speed::FullSpeed;
            tokio::pin!(stopped);
            play(past.into_iter().map(Ok::<Message, std::convert::Infallible>), catch_up, &mut stopped, |_| {}).await?;
            play(future.map(Ok::<Message, std::convert::Infallible>), play_options, stopped, |_| {}).await?;
        }
    }
    Ok(key)
}

/// The messages of the past, and the endless rest.
fn split_at_now(simulation: Simulation) -> (Vec<Message>, impl Iterator<Item = Message>) {
    let now_us = host::Clock::now_micros(&host::SystemClock);
    let mut rest = simulation.peekable();
    let mut past = Vec::new();
    while let Some(m) = rest.next_if(|m| m.at < now_us) {
        past.push(m);
    }
    (past, rest)
}

/// The first city gives the second a part of its air data, rounded; the second and the third give the first some of theirs. The third gets
/// nothing from anybody: its questions are denied, visibly.
async fn share(client: &reqwest::Client, cities: &[City]) -> anyhow::Result<()> {
    let [a, b, c] = cities else { bail!("the demo has three cities") };
    let air = ["name", "location", "pm25", "pm10", "no2", "o3", "source", "provenance"];
    agree(client, a, b, &["AirQualityObserved"], &air, Some(2)).await?;
    agree(client, b, a, &["AirQualityObserved", "WeatherObserved"], &["*"], None).await?;
    agree(client, c, a, &["AirQualityObserved"], &air, Some(3)).await
}

/// Puts an agreement into force at both cities: the provider decides by it, the consumer knows what it may ask and for which purpose.
async fn agree(
    client: &reqwest::Client,
    from: &City,
    to: &City,
    types: &[&str],
    attributes: &[&str],
    decimals: Option<u8>,
) -> anyhow::Result<()> {
    let consumer_key = from.config.peers.iter().find(|p| p.city == to.key).map(|p| p.key.clone()).context("the peer is configured")?;
    let names = if attributes == ["*"] {
        json!({"type": "Property", "value": ["*"]})
    } else {
        json!({"type": "VocabProperty", "vocab": attributes})
    };
    let mut agreement = json!({
        "id": format!("urn:ngsi-ld:Agreement:{}-to-{}", from.key, to.key),
        "type": "Agreement",
        "provider": from.key,
        "consumer": to.key,
        "consumerKey": consumer_key,
        "dataTypes": {"type": "VocabProperty", "vocab": types},
        "dataAttributes": names,
        "purpose": PURPOSE,
        "legalBasis": "demonstration on one machine",
        "validFrom": "2024-01-01T00:00:00Z",
        "validUntil": "2099-01-01T00:00:00Z",
        "agreementStatus": "active",
    });
    if let Some(decimals) = decimals {
        agreement["positionDecimals"] = json!(decimals);
    }
    if decimals == Some(2) {
        // Only what lies within the city's own outline leaves it.
        let ring: Vec<_> = outline::outline(from.key)?.polygon_wgs84().exterior().coords().map(|p| json!([p.x, p.y])).collect();
        agreement["area"] = json!({"type": "GeoProperty", "value": {"type": "Polygon", "coordinates": [ring]}});
    }
    for city in [from, to] {
        let url = format!("http://{}/ngsi-ld/v1/entityOperations/upsert", city.config.http);
        let response = client.post(url).json(&json!([agreement])).send().await.context("cannot reach a node that was ready")?;
        if response.status().as_u16() == 207 || !response.status().is_success() {
            bail!("`{}` refused the agreement: {}", city.key, response.text().await?);
        }
    }
    Ok(())
}

fn welcome(options: &Options, cities: &[City]) -> String {
    let mut text = String::from("\nThree cities are running:\n\n");
    for city in cities {
        let c = &city.config;
        let name = outline::outline(city.key).map_or_else(|_| city.key.to_owned(), |o| format!("{} {}", o.name_en, o.name_zh));
        text.push_str(&format!(
            "  {name:<18} console and NGSI-LD http://{}   MQTT {}   SQL psql -h 127.0.0.1 -p {} -U conurb -d conurb\n",
            c.http,
            c.mqtt,
            c.sql.port()
        ));
    }
    let fed = match &options.data_from {
        Some(folder) => format!("recorded data from {}", folder.display()),
        None => "simulated devices (every value says so)".to_owned(),
    };
    let log = Path::new(&options.dir);
    text.push_str(&format!(
        "\nThey are fed with {fed} and keep their data in {}.\nOpen the first address in a browser. Ctrl-C stops everything.\n",
        log.display()
    ));
    text
}

/// Asks the nodes to stop, and makes sure that they do.
fn stop(cities: &mut [City]) {
    let children: Vec<&mut Child> = cities.iter_mut().filter_map(|c| c.node.as_mut()).collect();
    for child in &children {
        // A Ctrl-C at the terminal has reached them already; a second signal does no harm.
        let _ = Command::new("kill").arg("-TERM").arg(child.id().to_string()).stderr(Stdio::null()).status();
    }
    let stopwatch = host::Stopwatch::start();
    for child in children {
        while matches!(child.try_wait(), Ok(None)) {
            if stopwatch.elapsed() > STOP_WAIT {
                crate::complain("conurb: a node did not stop in time and is killed");
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_three_cities_do_not_meet() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = Options { data_from: None, dir: dir.path().to_owned(), port: 1026, speed: None, seed: 1 };
        let cities = prepare(&options, ["shanghai", "suzhou", "hangzhou"]).expect("it is prepared");
        let mut ports: Vec<u16> =
            cities.iter().flat_map(|c| [c.config.http, c.config.mqtt, c.config.sql, c.config.flight]).map(|a| a.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
        for city in &cities {
            assert_eq!(city.config.peers.len(), 2);
        }
    }
}
