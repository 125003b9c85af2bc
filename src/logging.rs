//! Log lines on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::cli::{LogArgs, LogFormat};

/// Sets up logging for the whole process. To be called once.
pub fn init(args: &LogArgs) {
    let level = match args.verbose {
        0 => "info,hickory_server=warn,hickory_resolver=warn",
        1 => {
            "info,hickory_server=warn,hickory_resolver=warn,coracle=debug,coracle_api=debug,coracle_apiserver=debug,coracle_client=debug,\
              coracle_controllers=debug,coracle_dns=debug,coracle_kubelet=debug,\
              coracle_proxy=debug,coracle_scheduler=debug,coracle_store=debug"
        }
        _ => "trace,h2=info,hyper=info,hyper_util=info,rustls=info,tower=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Where a line cannot be written, a line about that cannot be either: it would end the process.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}
