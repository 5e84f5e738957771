//! `bagssl`: train, evaluate and use BagSSL encoders from the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    bagssl_cli::run()
}
