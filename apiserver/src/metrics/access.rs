//! What is counted of who is let in: authentication and authorisation.

use std::time::{Instant, SystemTime};

use coracle_metrics::{
    Collect, Counter, Counters, Histogram, Histograms, Series, Stability, exponential,
};

use crate::authz::Decision;

const DURATIONS: [f64; 15] = exponential(0.001, 2.0);
/// Upstream's, in seconds: an expired certificate, half an hour, hours, days, months, a year.
const LIFETIMES: [f64; 15] = [
    0.0,
    1_800.0,
    3_600.0,
    7_200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
    31_536_000.0,
];

static USERS: Counters<1> = Counters::new(
    "authenticated_user_requests",
    Stability::Alpha,
    "Authenticated requests, by well-known user name; all others are 'email_id' or 'other'.",
    ["username"],
);
static AUTHENTICATIONS: Counters<1> = Counters::new(
    "authentication_attempts",
    Stability::Alpha,
    "Requests that were authenticated ('success'), of unknown users ('failure') or with wrong credentials ('error').",
    ["result"],
);
static AUTHENTICATION: Histograms<1> = Histograms::with_buckets(
    "authentication_duration_seconds",
    Stability::Alpha,
    "Seconds that authentication took, by how it ended.",
    ["result"],
    &DURATIONS,
);
static AUTHORIZATIONS: Counters<1> = Counters::new(
    "authorization_attempts_total",
    Stability::Alpha,
    "Decisions on what a user may do: 'allowed', 'denied', 'no-opinion' or 'error'.",
    ["result"],
);
static AUTHORIZATION: Histograms<1> = Histograms::with_buckets(
    "authorization_duration_seconds",
    Stability::Alpha,
    "Seconds that authorization took, by what was decided.",
    ["result"],
    &DURATIONS,
);
static CERTIFICATES: Histograms = Histograms::with_buckets(
    "apiserver_client_certificate_expiration_seconds",
    Stability::Alpha,
    "Seconds for which the client certificate of a request is still good.",
    [],
    &LIFETIMES,
);

pub(super) static ALL: &[&dyn Collect] = &[
    &USERS,
    &AUTHENTICATIONS,
    &AUTHENTICATION,
    &AUTHORIZATIONS,
    &AUTHORIZATION,
    &CERTIFICATES,
];

/// What an attempt can end with. The series are kept, for every request makes attempts.
struct Ending {
    attempts: Series<Counter, 1>,
    seconds: Series<Histogram, 1>,
}

impl Ending {
    const fn of_authentication(result: &'static str) -> Self {
        Ending {
            attempts: AUTHENTICATIONS.series([result]),
            seconds: AUTHENTICATION.series([result]),
        }
    }

    const fn of_authorization(result: &'static str) -> Self {
        Ending {
            attempts: AUTHORIZATIONS.series([result]),
            seconds: AUTHORIZATION.series([result]),
        }
    }

    fn count(&self, since: Instant) {
        self.attempts.inc();
        self.seconds.observe(since.elapsed().as_secs_f64());
    }
}

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

pub fn authenticated(how: Authenticated<'_>, since: Instant) {
    static SUCCESS: Ending = Ending::of_authentication("success");
    static FAILURE: Ending = Ending::of_authentication("failure");
    static ERROR: Ending = Ending::of_authentication("error");
    let ending = match how {
        Authenticated::As(user) => {
            USERS.with([public_name(user)]).inc();
            &SUCCESS
        }
        Authenticated::Unknown => &FAILURE,
        Authenticated::Refused => &ERROR,
    };
    ending.count(since);
}

pub fn authorized(decision: &Decision, since: Instant) {
    static ALLOWED: Ending = Ending::of_authorization("allowed");
    static DENIED: Ending = Ending::of_authorization("denied");
    static NO_OPINION: Ending = Ending::of_authorization("no-opinion");
    let ending = match decision {
        Decision::Allow(_) => &ALLOWED,
        Decision::Deny(_) => &DENIED,
        Decision::NoOpinion(_) => &NO_OPINION,
    };
    ending.count(since);
}

/// A request came with a certificate that is good until `not_after`, in seconds since the epoch.
pub fn certificate(not_after: i64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    CERTIFICATES.with([]).observe(not_after as f64 - now);
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
