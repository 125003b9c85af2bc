//! The program: reads the command line and hands over to the subcommand.

mod api_services;
mod bootstrap;
mod check_config;
mod cli;
mod config_file;
mod data_dir;
mod file_watch;
mod flow_control;
mod host;
mod images;
mod logging;
mod presence;
mod rbac;
mod secrets_encrypt;
mod server;
mod status;
mod stop;
mod supervise;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use crate::{
    cli::{CheckConfigArgs, Cli, Command, ImagesCommand},
    data_dir::Layout,
};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coracle: {}", told_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes; libraries often tell a cause in their own message already.
fn told_once(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run() -> anyhow::Result<ExitCode> {
    // The container runtime runs this program under the names of its CNI plugins.
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .unwrap_or_default();
    if name == coracle_cni::PLUGIN || name == coracle_cni::LOOPBACK {
        return Ok(coracle_cni::main());
    }
    let cli = Cli::parse_from(config_file::arguments(std::env::args_os().collect())?);
    match cli.command {
        Command::CheckConfig(args) => check_config(&args),
        Command::Images(args) => {
            match &args.command {
                ImagesCommand::Import { data, files } => {
                    images::import(&Layout::new(&data.data_dir)?, files)?
                }
                ImagesCommand::List { data } => images::list(&Layout::new(&data.data_dir)?)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "coracle",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::SecretsEncrypt(args) => {
            let (data, verb) = args.command.parts();
            let layout = Layout::new(&data.data_dir)?;
            runtime()?.block_on(secrets_encrypt::run(&layout, verb))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Server(args) => {
            logging::init(&args.log);
            runtime()?.block_on(server::run(*args))
        }
        Command::Status(args) => {
            let layout = Layout::new(&args.data.data_dir)?;
            if args.kubeconfig {
                println!("{}", layout.kubeconfig().display());
            } else {
                runtime()?.block_on(status::run(&layout, args.wait))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Stop(args) => {
            let layout = Layout::new(&args.data.data_dir)?;
            runtime()?.block_on(stop::run(&layout, args.remove_data))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check_config(args: &CheckConfigArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&args.data.data_dir)?;
    let checks = check_config::checks(&check_config::Wanted {
        layout: &layout,
        https_listen_port: args.https_listen_port,
        own_runtime: true,
    });
    print!("{}", check_config::table(&checks));
    Ok(if check_config::failures(&checks).is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
