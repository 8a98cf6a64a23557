//! The command line: what a person types, and what is printed for people.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

mod ask;
mod check;
mod check_announcement;
#[cfg(feature = "demo")]
mod demo;
mod run;
mod status;
mod status_table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::certificates::dev;
use crate::config::{self, Loaded, Problem, Problems};

/// EX_CONFIG of sysexits.h: a supervisor must not restart into the same mistake.
const BAD_CONFIG: u8 = 78;

const EXAMPLES: &str = "\
Examples:
  tidegate run -c config/tidegate.yaml       serve
  tidegate check -c config/tidegate.yaml     say what would be served, or what is wrong and where
  tidegate status --watch                    what a running gateway does
  tidegate cert dev --name 192.168.1.10      a development certificate under certs/
  tidegate config schema > tidegate.schema.json

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not ready (status), 78 wrong configuration";

/// The front door of an MQTT cluster: wss on 443 into a weighted pool of brokers, the web site on /
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT, then drain; a second signal ends at once
    Run(File),
    /// Say what a configuration does, or everything that is wrong with it; opens its files, binds nothing
    Check(File),
    /// What a running gateway says of itself: sessions, brokers, certificates, the last outcomes
    Status(status::Options),
    /// Exit code 0 when a running gateway takes new clients, else 1; for HEALTHCHECK of a container
    Healthcheck(ask::Whom),
    /// Gateway, development certificate, embedded broker and a page: prints the URL
    #[cfg(feature = "demo")]
    Demo(demo::Options),
    /// Certificates
    #[command(subcommand)]
    Cert(Cert),
    /// The configuration's form
    #[command(subcommand)]
    Config(Config),
    /// Version and what it is built of
    Version,
    /// A completion script for a shell
    Completions { shell: Shell },
}

#[derive(Debug, clap::Args)]
struct File {
    /// The configuration
    #[arg(
        short,
        long = "config",
        value_name = "FILE",
        default_value = ask::CONFIGURATION
    )]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Cert {
    /// Make a development CA (once) and a certificate signed by it
    Dev {
        /// The folder to write to
        #[arg(long, value_name = "DIR", default_value = "certs")]
        out: PathBuf,
        /// A name or IP address that the certificate is for; may be given again [default: localhost, 127.0.0.1, ::1]
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Config {
    /// The JSON Schema of the configuration, for editors
    Schema,
    /// A configuration with every default filled in
    Print(File),
}

impl Cli {
    /// What was typed, or the end of the process with usage and exit code 2.
    pub fn read() -> Self {
        Self::parse()
    }

    pub fn execute(self) -> ExitCode {
        match self.command {
            Command::Run(file) => run::run(&file.config),
            Command::Check(file) => check::check(&file.config),
            Command::Status(options) => status::status(&options),
            Command::Healthcheck(whom) => status::healthcheck(&whom),
            #[cfg(feature = "demo")]
            Command::Demo(options) => demo::demo(&options),
            Command::Cert(Cert::Dev { out, names }) => make_dev_certificate(&out, &names),
            Command::Config(Config::Schema) => print_schema(),
            Command::Config(Config::Print(file)) => match load(&file.config) {
                Ok(loaded) => {
                    print!("{}", config::print(&loaded.config));
                    ExitCode::SUCCESS
                }
                Err(problems) => bad_config(&problems),
            },
            Command::Version => {
                print_version();
                ExitCode::SUCCESS
            }
            Command::Completions { shell } => {
                clap_complete::generate(
                    shell,
                    &mut Self::command(),
                    "tidegate",
                    &mut std::io::stdout(),
                );
                ExitCode::SUCCESS
            }
        }
    }
}

fn load(path: &Path) -> Result<Loaded, Problems> {
    let loaded = config::load(path)?;
    warn(&loaded, loaded.warnings.clone());
    Ok(loaded)
}

fn warn(loaded: &Loaded, warnings: Vec<Problem>) {
    if let Some(warnings) = loaded.source.problems(warnings) {
        for line in warnings.to_string().lines() {
            eprintln!("warning: {line}");
        }
    }
}

fn bad_config(problems: &Problems) -> ExitCode {
    tell(problems);
    ExitCode::from(BAD_CONFIG)
}

fn tell(problems: &Problems) {
    eprint!("{problems}");
    let count = problems.list.len();
    eprintln!(
        "{count} problem{} in {}",
        if count == 1 { "" } else { "s" },
        problems.file.display()
    );
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("tidegate: {error}");
    ExitCode::FAILURE
}

fn make_dev_certificate(out: &Path, names: &[String]) -> ExitCode {
    match dev::dev(out, names) {
        Ok(files) => {
            println!("certificate  {}", files.certificate.display());
            println!("key          {}", files.key.display());
            let new = if files.ca_created { " (new)" } else { "" };
            println!("CA           {}{new}", files.ca.display());
            println!("names        {}", files.names.join(", "));
            println!("\n{}", files.trust);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn print_schema() -> ExitCode {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(schema) => {
            println!("{schema}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn print_version() {
    println!("tidegate {}", env!("CARGO_PKG_VERSION"));
    println!("TLS        rustls with aws-lc-rs, TLS 1.2 and 1.3, X25519MLKEM768 preferred");
    let allocator = if cfg!(feature = "jemalloc") {
        "jemalloc"
    } else {
        "the system's"
    };
    println!("allocator  {allocator}");
    let has = |feature: bool| if feature { "yes" } else { "no" };
    println!("demo       {}", has(cfg!(feature = "demo")));
    println!("otlp       {}", has(cfg!(feature = "otlp")));
}
