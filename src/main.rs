//! The commands. Exit status: 0 fine, 1 a finding or a failure, 2 wrong usage.

use std::io::{self, BufWriter};
use std::process::ExitCode;

use clap::Parser;
use countersign::cli::decode::DecodeArgs;

#[derive(Parser)]
#[command(version, about)]
enum Command {
    Decode(DecodeArgs),
}

fn main() -> ExitCode {
    let Command::Decode(args) = Command::parse();
    match args.run(BufWriter::new(io::stdout().lock())) {
        Ok(any_kept) => ExitCode::from(u8::from(any_kept)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
