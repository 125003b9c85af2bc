//! From changes in the API to transactions in the kernel.
//!
//! While one transaction is under way, changes gather, and become the next. So a lone change is
//! in force at once, and a storm of them in few transactions.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use coracle_netfilter::{
    Family as TableFamily, Nft,
    conntrack::{self, Endpoint},
    table_comment,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error, Proxy,
    health::HealthChecks,
    metrics,
    model::{Family, Frontend, Protocol},
    script::{CLIENTS_PREFIX, Scripts, version},
    state::{Events, State},
};

/// For kernels before 6.2 to notice that nothing leads to a chain any more.
const STALE: Duration = Duration::from_secs(1);

impl Proxy {
    /// Keeps the rules as the API wants them, until shut down. The rules stay then: pods go on.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut state = State::new(&self.informers);
        let mut scripts = Scripts::new(&self.config);
        let mut checks = HealthChecks::new(&self.config.node_name, self.recorder.clone());
        let worked = tokio::select! {
            worked = work(&self.config, &mut state, &mut scripts, &mut checks) => worked,
            () = shutdown.cancelled() => Ok(()),
        };
        checks.close().await;
        worked
    }
}

async fn work(
    config: &Config,
    state: &mut State,
    scripts: &mut Scripts<'_>,
    checks: &mut HealthChecks,
) -> Result<(), Error> {
    let mut events = Events::of(state);
    state.informed().await;
    state.look_at_everything(config);
    let mut in_force = false;
    let mut swept = Instant::now();
    loop {
        let started = Instant::now();
        let touched = state.settle();
        if !in_force {
            write_whole(config, state, scripts).await?;
            metrics::wrote_all(started.elapsed());
            tracing::info!(
                services = state.world.names().count(),
                "service rules are in force"
            );
        } else if update(config, state, scripts).await? {
            let took = started.elapsed();
            metrics::wrote_some(took);
            tracing::debug!(services = touched.len(), ?took, "service rules updated");
        }
        in_force = true;
        checks.set_healthy(true);
        state.synced(started);
        for name in &touched {
            checks.set(name, state.world.health_check(name));
        }
        if swept.elapsed() >= STALE {
            sweep(scripts).await?;
            swept = Instant::now();
        }
        forget_flows(state).await;
        events.gather(config, state).await?;
    }
}

/// Tells the kernel what has changed; `false` when nothing has.
async fn update(
    config: &Config,
    state: &mut State,
    scripts: &mut Scripts<'_>,
) -> Result<bool, Error> {
    let changes = state.world.changes();
    if changes.is_empty() {
        state.world.told();
        return Ok(false);
    }
    let transaction = scripts.update(&changes);
    match apply(transaction.script.clone()).await? {
        Ok(()) => {
            scripts.done(transaction);
            state.world.told();
        }
        Err(error) => {
            metrics::refused();
            tracing::warn!(%error, "the kernel refused a change, writing all rules anew");
            write_whole(config, state, scripts).await?;
        }
    }
    Ok(true)
}

/// Tells the kernel everything. A table of this version is emptied, not replaced: what clients of
/// Services with affinity were led to stays known.
async fn write_whole(
    config: &Config,
    state: &mut State,
    scripts: &mut Scripts<'_>,
) -> Result<(), Error> {
    let everything = state.world.everything();
    let standing =
        table_comment(TableFamily::Inet, &config.table).map_err(|source| Error::Look {
            table: config.table.clone(),
            source,
        })?;
    if standing.as_deref() == Some(&version(config)) {
        let clients = client_sets(config).await?;
        let transaction = scripts.whole(&everything, Some(&clients));
        match apply(transaction.script.clone()).await? {
            Ok(()) => {
                scripts.done(transaction);
                state.world.told();
                return Ok(());
            }
            Err(error) => tracing::warn!(%error, "the table cannot be kept, replacing it"),
        }
    }
    let transaction = scripts.whole(&everything, None);
    apply(transaction.script.clone()).await??;
    scripts.done(transaction);
    state.world.told();
    Ok(())
}

async fn apply(script: String) -> Result<Result<(), coracle_netfilter::Error>, Error> {
    tracing::trace!(%script, "nftables transaction");
    let applied = tokio::task::spawn_blocking(move || Nft::default().apply(&script));
    Ok(applied.await?)
}

/// The names of the sets in which clients are remembered, which the kernel has.
async fn client_sets(config: &Config) -> Result<Vec<String>, Error> {
    let listed = tokio::task::spawn_blocking(|| Nft::default().list(&["sets", "inet"])).await??;
    let listed = listed["nftables"].as_array().cloned().unwrap_or_default();
    let sets = listed.iter().map(|object| &object["set"]);
    Ok(sets
        .filter(|set| set["table"] == config.table.as_str())
        .filter_map(|set| set["name"].as_str())
        .filter(|name| name.starts_with(CLIENTS_PREFIX))
        .map(str::to_owned)
        .collect())
}

async fn sweep(scripts: &mut Scripts<'_>) -> Result<(), Error> {
    let Some(script) = scripts.sweep() else {
        return Ok(());
    };
    match apply(script).await? {
        Ok(()) => scripts.swept(),
        Err(error) => {
            metrics::not_swept();
            tracing::debug!(%error, "stale chains stay a little longer");
        }
    }
    Ok(())
}

/// UDP flows keep the endpoint of their first packet: those whose endpoint no longer serves are
/// forgotten, so that their next packet finds another.
async fn forget_flows(state: &mut State) {
    let started = Instant::now();
    let serving: HashMap<Frontend, Vec<SocketAddr>> = state.world.take_serving();
    if serving.is_empty() {
        return;
    }
    let socket = |of: Endpoint| SocketAddr::new(of.address, of.port);
    let is_stale = move |flow: &conntrack::Connection| {
        if flow.protocol != 17 {
            return false;
        }
        let to = flow.destination;
        let at = |address| {
            serving.get(&Frontend {
                family: Family::of(to.address),
                address,
                protocol: Protocol::Udp,
                port: to.port,
            })
        };
        at(Some(to.address))
            .or_else(|| at(None))
            .is_some_and(|endpoints| !endpoints.contains(&socket(flow.answered_by)))
    };
    let forgotten = tokio::task::spawn_blocking(move || conntrack::forget(is_stale)).await;
    match forgotten {
        Ok(Ok(count)) => {
            metrics::forgot(count as u64, started.elapsed());
        }
        Ok(Err(error)) => tracing::warn!(%error, "cannot forget stale UDP flows"),
        Err(error) => tracing::warn!(%error, "cannot forget stale UDP flows"),
    }
}
