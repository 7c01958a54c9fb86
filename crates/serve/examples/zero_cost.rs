//! Serves the policy that computes nothing: for trying out clients, and for measuring what the server itself costs.
//!
//! `cargo run --release -p skillweld-serve --example zero_cost -- --port 8000 --images 2 --state 8 --horizon 8 --dim 7`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that says where it listens")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use skillweld_serve::{Metadata, Options, Policy, Server, ZeroCost};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::default();
    let mut policy = ZeroCost::libero().metadata();
    let mut delay_ms = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} wants a value"))?;
        let number = || value.parse::<usize>().map_err(|_| format!("{name}: `{value}` is no number"));
        match &*name {
            "--port" => options.address.set_port(value.parse()?),
            #[cfg(feature = "zmq")]
            "--zmq-port" => options.zmq_address = Some(([127, 0, 0, 1], value.parse()?).into()),
            "--images" => policy.images = number()?,
            "--state" => policy.state_dim = Some(number()?),
            "--horizon" => policy.action_horizon = number()?,
            "--dim" => policy.action_dim = number()?,
            "--delay-ms" => delay_ms = number()?,
            "--task" => policy.tasks.push(value),
            "--api-key" => options.api_key = Some(value),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    options.on_event = Arc::new(|event| eprintln!("{event}"));
    let policy = Metadata { name: "zero-cost".into(), ..policy };
    let policy = ZeroCost::new(policy).with_delay(Duration::from_millis(delay_ms as u64));
    let server = Server::bind(policy, options)?;
    println!("listening on ws://{}", server.address());
    #[cfg(feature = "zmq")]
    if let Some(address) = server.zmq_address() {
        println!("listening on tcp://{address}");
    }
    Ok(server.run_until_signal()?)
}
