//! `tidegate man`: one manual page for the program and one for each of its commands, from the commands themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

/// Administration: nobody but an operator runs it.
const SECTION: &str = "8";

pub(super) fn man(command: Command, folder: &Path) -> ExitCode {
    match write(command, folder) {
        Ok(files) => {
            for file in files {
                println!("{}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => super::failed(&format!("{}: {error}", folder.display())),
    }
}

fn write(mut command: Command, folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    // `help` is a word for the terminal; a page about it helps nobody.
    command = command.disable_help_subcommand(true);
    command.build();
    let mut files = Vec::new();
    pages(&command, folder, &mut files)?;
    Ok(files)
}

/// `tidegate.8`, `tidegate-cert.8`, `tidegate-cert-dev.8`: the names that `man tidegate cert dev` looks for.
fn pages(command: &Command, folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let file = folder.join(format!("{name}.{SECTION}"));
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(SECTION)
        .source(format!("tidegate {}", env!("CARGO_PKG_VERSION")))
        .manual("Tidegate");
    let mut page = Vec::new();
    man.render(&mut page)?;
    fs::write(&file, page)?;
    files.push(file);
    for command in command.get_subcommands() {
        pages(command, folder, files)?;
    }
    Ok(())
}
