//! One suite over the [`Store`] trait, run on every backend: what a user of the store relies on,
//! whichever it is. Tests of a single backend's own promises are in files of their own.

mod etcd;
mod fixture;
mod full_device;
mod keys;
mod sqlite;
mod watches;

use fixture::{Backend, Fixture};

macro_rules! suite {
    ($backend:ident, $variant:expr, [$($module:ident :: $test:ident),* $(,)?]) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let fixture = Fixture::new($variant);
                    $module::$test(&fixture).await;
                    fixture.store.close().await;
                }
            )*
        }
    };
}

/// One etcd serves all tests, one after the other.
macro_rules! on_etcd {
    ([$($module:ident :: $test:ident),* $(,)?]) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn etcd_behaves_as_the_others() {
            let Some(server) = etcd::Server::start() else {
                return;
            };
            $({
                println!("{}", stringify!($test));
                let fixture = Fixture::on_etcd(&server).await;
                $module::$test(&fixture).await;
                fixture.store.close().await;
            })*
        }
    };
}

macro_rules! on_every_backend {
    ($tests:tt) => {
        suite!(memory, Backend::Memory, $tests);
        suite!(embedded, Backend::Sqlite, $tests);
        on_etcd!($tests);
    };
}

on_every_backend!([
    keys::a_key_has_the_revisions_of_its_life,
    keys::a_list_holds_what_is_below_the_prefix_in_order,
    keys::a_failed_comparison_writes_nothing_and_tells_the_current_key,
    keys::a_transaction_writes_all_its_keys_at_one_revision,
    keys::a_transaction_that_changes_nothing_takes_no_revision,
    keys::a_key_is_written_once_in_a_transaction,
    keys::no_update_is_lost_among_many_writers,
    keys::a_closed_store_refuses,
    watches::a_watch_replays_and_then_follows,
    watches::a_watch_sees_its_prefix_only_but_learns_the_revision,
    watches::a_watch_gets_to_every_revision_that_was_told,
    watches::every_watcher_sees_every_change_under_load,
    watches::a_watch_from_the_distant_past_is_refused,
    watches::a_watch_from_the_future_is_refused,
    watches::a_watch_ends_when_the_store_closes,
]);

// Etcd bounds its watchers itself, and by its own measures.
suite!(
    slow_watchers_in_memory,
    Backend::Memory,
    [watches::a_watcher_that_does_not_read_is_closed]
);
suite!(
    slow_watchers_embedded,
    Backend::Sqlite,
    [watches::a_watcher_that_does_not_read_is_closed]
);
