//! conurb: the open digital platform for clusters of cities. One program per city.
//!
//! The command line, the configuration and the wiring; everything else is in the crates.

mod bench;
mod bulk;
mod config;
mod demo;
mod explain;
mod feeding;
mod identity;
mod maintenance;
mod serve;
#[cfg(feature = "sql")]
mod sql;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

/// Taking in data is many small pieces of memory, made by one thread and given back by another.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The open digital platform for clusters of cities: one program per city.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a city's node.
    Serve(config::Flags),
    /// Print the complete configuration in force, with comments.
    Config(config::Flags),
    /// Tell how a running node answers a query: indexes, counts, documents read.
    Explain(explain::Options),
    /// Print this city's public key, making the key pair if there is none.
    Key(config::Flags),
    /// Run three cities on this machine, fed with simulated or recorded data, until Ctrl-C.
    Demo(demo::Options),
    /// Play recorded files over MQTT, with their original time stamps.
    Replay(feeding::Replay),
    /// Play a simulated city over MQTT.
    Simulate(feeding::Simulate),
    /// Make a backup of a running node, or of a folder that no node has open.
    Backup(maintenance::Backup),
    /// Restore a backup into a new folder, to its end or to a point in time.
    Restore(maintenance::Restore),
    /// Verify every checksum and rule of the data; exit code 1 if anything is wrong.
    Verify(maintenance::Verify),
    /// Show what the data take on disk, by entity type.
    Space(maintenance::Space),
    /// Read CSV, Parquet or NGSI-LD JSON lines into a running node; goes on where it was interrupted.
    Import(bulk::ImportOptions),
    /// Write the history or the present of a type to a file.
    Export(bulk::ExportOptions),
    /// Measure this build on this machine.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(flags) => serve::run(&flags),
        Command::Config(flags) => config::print(&flags),
        Command::Explain(options) => explain::run(&options),
        Command::Key(flags) => identity::print(&flags),
        Command::Demo(options) => demo::run(&options),
        Command::Replay(options) => feeding::replay(&options),
        Command::Simulate(options) => feeding::simulate(&options),
        Command::Backup(options) => maintenance::backup(&options),
        Command::Restore(options) => maintenance::restore(&options),
        Command::Verify(options) => match maintenance::verify(&options) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(e) => Err(e),
        },
        Command::Space(options) => maintenance::space(&options),
        Command::Import(options) => bulk::import(&options),
        Command::Export(options) => bulk::export(&options),
        Command::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&format!("conurb: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line for people, beside the output for programs.
#[expect(clippy::print_stderr, reason = "the one place where the program speaks to its user beside the log")]
pub(crate) fn complain(line: &str) {
    eprintln!("{line}");
}

/// Writes a line for programs and scripts.
#[expect(clippy::print_stdout, reason = "the one place where the program writes its output")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// The runtime of a command, with the TLS library's engine set.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // An error means that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Resolves when the user or the system wants the program to stop.
pub(crate) async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(s) => s,
            Err(e) => {
                tracing::warn!(error = %e, "SIGTERM will end the program at once");
                let _ = interrupt.await;
                return;
            }
        };
        tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
}
