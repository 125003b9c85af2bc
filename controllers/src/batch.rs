//! Many requests of one kind at once.

use std::future::Future;

use crate::{Error, error};

/// Calls `one` with each number below `count`, in batches that double in size for as long as all
/// goes well, so that what cannot succeed is not tried hundreds of times. Returns the successes and
/// the first failure.
pub(crate) async fn slow_start<T, E, F: Future<Output = Result<T, E>>>(
    count: usize,
    one: impl Fn(usize) -> F,
) -> (Vec<T>, Option<E>) {
    let mut done = Vec::new();
    let mut batch = count.min(1);
    while batch > 0 {
        let next = done.len()..done.len() + batch;
        let outcomes = futures::future::join_all(next.map(&one)).await;
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(success) => done.push(success),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if failure.is_some() {
            return (done, failure);
        }
        batch = (2 * batch).min(count - done.len());
    }
    (done, None)
}

/// What became of creations: that the namespace goes away is no failure.
pub(crate) fn created<T>((_, failure): (Vec<T>, Option<kube::Error>)) -> Result<(), Error> {
    match failure {
        Some(error) if !error::is_namespace_terminating(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Does all at once; the first failure is the outcome.
pub(crate) async fn all<F: Future<Output = Result<(), Error>>>(
    requests: impl Iterator<Item = F>,
) -> Result<(), Error> {
    let outcomes = futures::future::join_all(requests).await;
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn creation_starts_slowly_and_stops_at_the_first_bad_batch() {
        let calls = Cell::new(0);
        let attempt = |limit| {
            calls.set(0);
            let calls = &calls;
            slow_start(10, move |_| async move {
                calls.set(calls.get() + 1);
                if calls.get() > limit {
                    Err("full")
                } else {
                    Ok(())
                }
            })
        };
        let (done, failure) = attempt(10).await;
        assert_eq!((done.len(), failure, calls.get()), (10, None, 10));
        // Batches of one, two and four: the third fails in part, and no fourth follows.
        let (done, failure) = attempt(5).await;
        assert_eq!((done.len(), failure, calls.get()), (5, Some("full"), 7));
        let (done, failure) = attempt(0).await;
        assert_eq!((done.len(), failure, calls.get()), (0, Some("full"), 1));
    }

    #[tokio::test]
    async fn every_number_is_used_once() {
        let numbers = slow_start(6, |number| async move { Ok::<_, ()>(number) });
        assert_eq!(numbers.await, (vec![0, 1, 2, 3, 4, 5], None));
    }
}
