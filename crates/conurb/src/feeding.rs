//! `conurb replay` and `conurb simulate`: devices for trying and testing, over MQTT.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use feed::player::{Login, PlayOptions, Progress, Speed, Summary, play};
use feed::recorded::{BadRows, DataSet, Recorded, RecordedOptions};
use feed::simulated::{Simulation, SimulationOptions};
use feed::{Message, Timestamp};

/// How and where to play.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Address of the MQTT listener
    #[arg(long, env = "CONURB_MQTT", default_value = "127.0.0.1:1883", value_name = "ADDR")]
    mqtt: String,
    /// User name; the password is read from CONURB_DEVICE_TOKEN or --token-file
    #[arg(long, default_value = "feeder")]
    user: String,
    /// File with the password, such as the node's device.token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// `max`, `realtime`, or how many times faster than real time, such as 3600
    #[arg(long, default_value = "max", value_parser = parse_speed)]
    speed: Speed,
    /// Where to remember how far it got, so that the same command goes on there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Messages that may be unacknowledged
    #[arg(long, default_value_t = 256)]
    in_flight: u16,
}

/// Options of `conurb replay`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Replay {
    /// Folder with the recorded data, such as ../shared/data/air
    folder: PathBuf,
    /// Only these cities (beijing, shanghai, guangzhou, chengdu), separated by commas
    #[arg(long, value_delimiter = ',')]
    city: Vec<String>,
    /// Only these stations, separated by commas
    #[arg(long, value_delimiter = ',')]
    station: Vec<String>,
    /// Only these data sets (beijing12, five_cities), separated by commas
    #[arg(long, value_delimiter = ',', value_parser = parse_data_set)]
    data_set: Vec<DataSet>,
    /// First instant, such as 2014-01-01T00:00:00Z
    #[arg(long)]
    from: Option<Timestamp>,
    /// First instant that is no longer played
    #[arg(long)]
    to: Option<Timestamp>,
    /// Leave out rows that cannot be understood instead of stopping there
    #[arg(long)]
    skip_bad_rows: bool,
    #[command(flatten)]
    target: Target,
}

/// Options of `conurb simulate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Simulate {
    /// Which built-in outline: shanghai, suzhou, hangzhou, nanjing, beijing, guangzhou, shenzhen, chengdu
    #[arg(long, default_value = "shanghai")]
    city: String,
    /// The same seed gives the same city
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First instant; default: now, the past hour at full speed first
    #[arg(long)]
    start: Option<Timestamp>,
    /// First instant that is no longer simulated; default: until Ctrl-C
    #[arg(long)]
    end: Option<Timestamp>,
    #[command(flatten)]
    target: Target,
}

fn parse_data_set(text: &str) -> Result<DataSet, String> {
    let known = DataSet::ALL.map(DataSet::folder);
    DataSet::ALL
        .into_iter()
        .find(|d| d.folder() == text)
        .ok_or_else(|| format!("there is no data set `{text}` (expected {})", known.join(" or ")))
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    match text {
        "max" => Ok(Speed::FullSpeed),
        "realtime" => Ok(Speed::Realtime),
        factor => match factor.parse::<f64>() {
            Ok(f) if f > 0.0 && f.is_finite() => Ok(Speed::Times(f)),
            _ => Err(format!("`{factor}` is neither `max`, `realtime` nor a positive number")),
        },
    }
}

impl Target {
    fn options(&self, client_id: String) -> anyhow::Result<PlayOptions> {
        let mut options = PlayOptions::new(self.mqtt.clone(), client_id);
        options.speed = self.speed;
        options.in_flight_max = self.in_flight;
        options.resume.clone_from(&self.resume);
        let from_file = self
            .token_file
            .as_ref()
            .map(|f| std::fs::read_to_string(f).with_context(|| format!("cannot read `{}`", f.display())))
            .transpose()?;
        let password = from_file.or_else(|| std::env::var("CONURB_DEVICE_TOKEN").ok());
        options.login = password.map(|p| Login { username: self.user.clone(), password: p.trim().to_owned() });
        Ok(options)
    }
}

pub(crate) fn replay(options: &Replay) -> anyhow::Result<()> {
    if !options.folder.is_dir() {
        bail!("there is no folder `{}`", options.folder.display());
    }
    let recorded = RecordedOptions {
        cities: options.city.clone(),
        stations: options.station.clone(),
        data_sets: options.data_set.clone(),
        from: options.from,
        to: options.to,
        bad_rows: if options.skip_bad_rows { BadRows::Skip } else { BadRows::Stop },
    };
    let messages = Recorded::open(&options.folder, &recorded)?;
    finish(crate::runtime()?.block_on(run(messages, options.target.options(client_id("replay"))?))?)
}

pub(crate) fn simulate(options: &Simulate) -> anyhow::Result<()> {
    let start = options.start.unwrap_or_else(hour_ago);
    let simulated = SimulationOptions { end: options.end, ..SimulationOptions::default() };
    let messages = Simulation::new(&options.city, options.seed, start, &simulated)?.map(Ok::<Message, std::convert::Infallible>);
    finish(crate::runtime()?.block_on(run(messages, options.target.options(client_id("simulate"))?))?)
}

/// One hour before now.
pub(crate) fn hour_ago() -> Timestamp {
    let now_us = host::Clock::now_micros(&host::SystemClock);
    Timestamp::from_microsecond(now_us - 3_600_000_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(crate) fn client_id(what: &str) -> String {
    format!("conurb-{what}-{}", host::random_hex::<4>())
}

async fn run<I, E>(messages: I, options: PlayOptions) -> anyhow::Result<Summary>
where
    I: Iterator<Item = Result<Message, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut shown = 0;
    let summary = play(messages, options, crate::stop_signal(), |p: &Progress| {
        crate::complain(&progress_line(p));
        for refused in p.rejections.iter().skip(shown) {
            crate::complain(&format!(
                "refused: {} (message {}): {} ({:#04x})",
                refused.topic, refused.key, refused.reason, refused.reason_code
            ));
        }
        shown = p.rejections.len();
    })
    .await?;
    Ok(summary)
}

fn progress_line(p: &Progress) -> String {
    let position = p.position.and_then(|us| Timestamp::from_microsecond(us).ok()).map(|t| format!(", at {t}")).unwrap_or_default();
    let state = if p.connected { "" } else { " (not connected)" };
    format!("{} published, {} acknowledged, {} refused, {:.0}/s{position}{state}", p.published, p.acknowledged, p.rejected, p.rate_per_s)
}

fn finish(summary: Summary) -> anyhow::Result<()> {
    let p = &summary.progress;
    crate::say(
        &serde_json::json!({
            "finished": summary.finished, "resumed": p.resumed, "published": p.published, "acknowledged": p.acknowledged,
            "refused": p.rejected, "unacknowledged": summary.unacknowledged,
        })
        .to_string(),
    );
    if p.rejected > 0 {
        bail!("{} messages were refused", p.rejected);
    }
    Ok(())
}
