//! What is counted of who is let in: authentication and authorisation.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::authz::Decision;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UserLabels {
    username: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

type Durations = Family<ResultLabels, Histogram, fn() -> Histogram>;
type Count<L> = Family<L, Counter<u64, AtomicU64>>;

/// How authentication ended.
#[derive(Clone, Copy, Debug)]
pub enum Authenticated<'a> {
    /// As the user of this name.
    As(&'a str),
    /// Nobody knows the user.
    Unknown,
    /// Its credentials are wrong.
    Refused,
}

/// The counters. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    users: Count<UserLabels>,
    authentications: Count<ResultLabels>,
    authentication: Durations,
    authorizations: Count<ResultLabels>,
    authorization: Durations,
}

impl Access {
    pub fn register(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let access = Access {
            users: Family::default(),
            authentications: Family::default(),
            authentication: Family::new_with_constructor(histogram),
            authorizations: Family::default(),
            authorization: Family::new_with_constructor(histogram),
        };
        registry.register(
            "authenticated_user_requests",
            "Counter of authenticated requests broken out by username",
            access.users.clone(),
        );
        registry.register(
            "authentication_attempts",
            "Counter of authenticated attempts",
            access.authentications.clone(),
        );
        registry.register(
            "authentication_duration_seconds",
            "Authentication duration in seconds broken out by result",
            access.authentication.clone(),
        );
        registry.register(
            "authorization_attempts",
            "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'",
            access.authorizations.clone(),
        );
        registry.register(
            "authorization_duration_seconds",
            "Authorization duration in seconds broken out by result",
            access.authorization.clone(),
        );
        access
    }

    pub fn authenticated(&self, how: Authenticated<'_>, since: Instant) {
        let result = match how {
            Authenticated::As(user) => {
                let username = public_name(user);
                self.users.get_or_create(&UserLabels { username }).inc();
                "success"
            }
            Authenticated::Unknown => "failure",
            Authenticated::Refused => "error",
        };
        let labels = ResultLabels { result };
        self.authentications.get_or_create(&labels).inc();
        observe(&self.authentication, &labels, since.elapsed());
    }

    pub fn authorized(&self, decision: &Decision, since: Instant) {
        let result = match decision {
            Decision::Allow(_) => "allowed",
            Decision::Deny(_) => "denied",
            Decision::NoOpinion(_) => "no-opinion",
        };
        let labels = ResultLabels { result };
        self.authorizations.get_or_create(&labels).inc();
        observe(&self.authorization, &labels, since.elapsed());
    }
}

fn observe(durations: &Durations, labels: &ResultLabels, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    durations.get_or_create(labels).observe(seconds);
}

/// Few names are told apart, or there would be a series for each user.
fn public_name(user: &str) -> &'static str {
    const KNOWN: [&str; 5] = [
        "admin",
        "client",
        "kube_proxy",
        "kubelet",
        "system:serviceaccount:kube-system:default",
    ];
    match KNOWN.into_iter().find(|known| *known == user) {
        Some(known) => known,
        None if user.contains('@') => "email_id",
        None => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_not_told_apart() {
        for (user, name) in [
            ("kubelet", "kubelet"),
            ("jane@example.com", "email_id"),
            ("system:node:one", "other"),
        ] {
            assert_eq!(public_name(user), name);
        }
    }
}
