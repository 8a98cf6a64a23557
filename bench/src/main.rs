//! What a gateway costs: starts Tidegate, nginx and HAProxy one beside the other, puts the same load on each, and writes
//! what their processes spent. Everything runs on loopback and ends by itself.

mod accounts;
mod broker;
mod chart;
mod clients;
mod gateways;
mod isolation;
mod lab;
mod load;
mod page;
mod poller;
mod results;
mod rows;
mod site;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, then write benchmark.md, benchmark.svg and benchmark.jsonl
    Run(lab::Plan),
    /// Write the page and the chart again from results that are there
    Render {
        results: PathBuf,
        #[arg(long, default_value = "docs")]
        out: PathBuf,
    },
    /// The stand-in broker (started by `run`)
    #[command(hide = true)]
    Broker { ws: SocketAddr, tcp: SocketAddr },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(plan) => isolation::enter().and_then(|isolated| lab::run(&plan, isolated)),
        Command::Render { results, out } => page::render(&results, &out),
        Command::Broker { ws, tcp } => broker::run(ws, tcp).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing here is handled; it is told and the run ends.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
