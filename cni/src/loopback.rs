//! The other plugin that a runtime expects to find: it brings up the loopback device.

use crate::{
    error::Error,
    host::Netns,
    invocation::{Request, Verb},
    links::Links,
    report::Report,
};

/// The kernel's name for the device; it is there in every network namespace.
const DEVICE: &str = "lo";

pub async fn run(request: &Request) -> Result<String, Error> {
    match request.verb {
        Verb::Add => {
            let netns = Netns::open(&request.netns)?;
            Links::open_in(&netns)?.set_up(DEVICE).await?;
            Ok(match &request.previous {
                Some(previous) => previous.to_string(),
                None => {
                    let sandbox = request.netns.display().to_string();
                    Report::loopback(&request.version, &sandbox).text()
                }
            })
        }
        Verb::Check => {
            let netns = Netns::open(&request.netns)?;
            match Links::open_in(&netns)?.get(DEVICE).await? {
                Some(link) if link.is_up => Ok(String::new()),
                _ => Err(Error::Check("the loopback device is down".to_owned())),
            }
        }
        // The device goes with its namespace.
        _ => Ok(String::new()),
    }
}
