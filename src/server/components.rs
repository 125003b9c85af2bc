//! The components that only need the API: the controllers and the scheduler.
//!
//! When several servers share a store, one of them runs the controllers and one the scheduler: they
//! hold upstream's Leases. The embedded store has one server only, and no Lease is kept: it would
//! wake an idle cluster every two seconds to tell nobody anything.

use std::convert::Infallible;

use coracle_client::{Candidate, Leadership, Timing};

use super::{
    Settings,
    control_plane::{ControlPlane, own_client},
    datastore,
};
use crate::{cli::Disable, flow_control, supervise::Components};

impl ControlPlane {
    /// Starts the scheduler and the controllers.
    ///
    /// # Errors
    /// When an authority of the cluster cannot sign.
    pub fn spawn_components(
        &self,
        settings: &Settings,
        components: &Components,
    ) -> anyhow::Result<()> {
        let certificates = self.certificates.clone();
        components.spawn("certificates", move |run| certificates.clone().keep(run));
        if let Some(reloader) = self.authentication.reloader() {
            components.spawn("authentication-configuration", move |run| {
                reloader.clone().run(run)
            });
        }
        if let Some(reloader) = self.datastore.reloader() {
            components.spawn("encryption-configuration", move |run| {
                reloader.clone().run(run)
            });
        }
        let (own, informers) = (own_client(&self.server), self.informers.clone());
        components.spawn("flow-control-configuration", move |run| {
            flow_control::run(own.clone(), informers.clone(), run)
        });
        let (presence, informers) = (self.presence.clone(), self.informers.clone());
        components.spawn("api-server-presence", move |run| {
            presence.clone().run(informers.clone(), run)
        });
        let identity = format!("{}_{}", settings.node_name, uuid::Uuid::new_v4());
        let leadership = |name: &'static str| {
            if datastore::is_shared(settings) {
                self.stand_for(name, &identity, components)
            } else {
                Leadership::alone()
            }
        };
        if settings.enabled(Disable::Scheduler) {
            self.spawn_scheduler(components, leadership("kube-scheduler"));
        }
        if settings.enabled(Disable::Controllers) {
            let leadership = leadership("kube-controller-manager");
            self.spawn_controllers(settings, components, &leadership)?;
        }
        Ok(())
    }

    /// Wants to lead under the Lease of that name, which is that of upstream's component too.
    fn stand_for(&self, name: &'static str, identity: &str, components: &Components) -> Leadership {
        let client = self.client(&format!("system:{name}"), &[]);
        let candidate = Candidate::new(client, name, identity, Timing::default());
        let leadership = candidate.leadership();
        components.spawn(&format!("{name}-lease"), move |run| {
            let candidate = candidate.clone();
            async move {
                candidate.run(run).await;
                Ok::<(), Infallible>(())
            }
        });
        leadership
    }

    fn spawn_scheduler(&self, components: &Components, leadership: Leadership) {
        let client = self.client("system:kube-scheduler", &[]);
        let informers = self.informers.clone();
        components.spawn("scheduler", move |run| {
            let (client, informers) = (client.clone(), informers.clone());
            leadership.clone().lead(run, move |run| {
                let config = coracle_scheduler::Config::default();
                coracle_scheduler::Scheduler::new(config, client.clone(), informers.clone())
                    .run(run)
            })
        });
    }

    fn spawn_controllers(
        &self,
        settings: &Settings,
        components: &Components,
        leadership: &Leadership,
    ) -> anyhow::Result<()> {
        let context = coracle_controllers::Context::new(
            self.client("system:kube-controller-manager", &[]),
            self.informers.clone(),
            coracle_controllers::Config {
                root_ca: self.certificates.server_ca.clone(),
                cluster_cidrs: vec![settings.args.cluster_cidr],
                service_cidrs: vec![settings.args.service_cidr],
                autoscaling: settings.args.autoscaling.settings(),
                authorities: self.certificates.signing_authorities()?,
                token_signer: Some(self.certificates.token_signer()?),
                ..coracle_controllers::Config::default()
            },
        );
        for controller in coracle_controllers::TABLE {
            let user = format!("system:serviceaccount:kube-system:{}", controller.account);
            let groups = [
                "system:serviceaccounts",
                "system:serviceaccounts:kube-system",
            ];
            let context = context.with_client(self.client(&user, &groups));
            let leadership = leadership.clone();
            components.spawn(controller.name, move |run| {
                let context = context.clone();
                leadership.clone().lead(run, move |run| {
                    let running = coracle_controllers::running(controller.name);
                    let work = (controller.run)(context.clone(), run);
                    async move {
                        let _running = running;
                        work.await
                    }
                })
            });
        }
        Ok(())
    }
}
