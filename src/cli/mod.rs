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
mod man;
mod operate;
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

const RELOAD: &str = "\
The new configuration is taken over whole or not at all; with a problem the old one goes on (exit code 78). Sessions keep
what they began with. Listeners, the admin address, workers and the log's form cannot be reloaded: `tidegate upgrade`.
SIGHUP does the same, and so do changed files unless the configuration says `watch: false`.";

const DRAIN: &str = "\
Not ready at once; after drain.announce the listeners close and sessions are asked to leave, drain.rate a second (--rate)
in random order; after drain.max the rest is cut. Called again it changes the rate. It cannot be taken back: stop or
restart the process afterwards. SIGTERM drains likewise and then ends the process; a second SIGTERM cuts at once.";

const UPGRADE: &str = "\
The new process is given every listening socket, serves, and says that it is ready; then the old one drains and ends. No
connection is refused. Where the new one does not come up within 30 s, the old one goes on (exit code 1, the log says
why). Not for the first process of a container. SIGUSR2 does the same.";

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
    Run(run::Options),
    /// Say what a configuration does, or everything that is wrong with it; opens its files, binds nothing
    Check(check::Options),
    /// What a running gateway says of itself: sessions, brokers, certificates, the last outcomes
    Status(status::Options),
    /// Exit code 0 when a running gateway takes new clients, else 1; for HEALTHCHECK of a container
    Healthcheck(ask::Whom),
    /// Have the running process read its configuration and files again: says what changed, or every problem. No session ends
    #[command(after_help = RELOAD)]
    Reload(operate::Process),
    /// Have the running process stop accepting and ask its sessions to leave, at a pace; it stays until it is stopped
    #[command(after_help = DRAIN)]
    Drain(operate::DrainOptions),
    /// Have a new process (the program and configuration as they are now) take over from the running one, which drains
    #[command(after_help = UPGRADE)]
    Upgrade(operate::Process),
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
    /// Write a manual page for every command into a folder
    Man {
        /// The folder to write to
        #[arg(value_name = "DIR", default_value = "man")]
        folder: PathBuf,
    },
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
            Command::Run(options) => run::run(&options),
            Command::Check(options) => check::check(&options),
            Command::Status(options) => status::status(&options),
            Command::Healthcheck(whom) => status::healthcheck(&whom),
            Command::Reload(process) => operate::reload(&process),
            Command::Drain(options) => operate::drain(&options),
            Command::Upgrade(process) => operate::upgrade(&process),
            #[cfg(feature = "demo")]
            Command::Demo(options) => demo::demo(&options),
            Command::Cert(Cert::Dev { out, names }) => make_dev_certificate(&out, &names),
            Command::Config(Config::Schema) => {
                print!("{}", config::SCHEMA);
                ExitCode::SUCCESS
            }
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
            Command::Man { folder } => man::man(Self::command(), &folder),
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
