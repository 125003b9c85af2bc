//! The controllers and the scheduler in a runtime of their own, which dies at a chosen write.
//!
//! Of the fatal write either nothing reaches the API server, or it is carried out and nobody
//! learns of it. Nothing that the victims send later arrives, and what was under way has ended
//! before they live again: they die with their API server.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::body::Body;
use coracle_api::Identity;
use coracle_apiserver::ApiServer;
use coracle_client::{Informers, in_process};
use coracle_controllers::{Config, Context, TABLE};
use http::{Method, Request, Response};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Notify,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// When the victims die.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// The number of the fatal write, from 1.
    pub write: i64,
    /// Whether that write is carried out.
    pub carried_out: bool,
}

/// One life of the victims. Dropping it kills them.
pub struct Life {
    runtime: Option<Runtime>,
    fuse: Arc<Fuse>,
}

struct Fuse {
    death: Option<Death>,
    writes: AtomicI64,
    blown: Notify,
    under_way: TaskTracker,
    /// Requests that the API server has taken are carried out, whatever becomes of the sender.
    outside: Handle,
    server: ApiServer,
}

impl Life {
    /// Starts everything anew, with empty caches. Without a death they live until they are dropped.
    pub fn start(server: &ApiServer, death: Option<Death>) -> Life {
        let fuse = Arc::new(Fuse {
            death,
            writes: AtomicI64::new(0),
            blown: Notify::new(),
            under_way: TaskTracker::new(),
            outside: Handle::current(),
            server: server.clone(),
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        {
            let _inside = runtime.enter();
            start_all(&runtime, &fuse);
        }
        Life {
            runtime: Some(runtime),
            fuse,
        }
    }

    /// Returns after the fatal write.
    pub async fn ended(&self) {
        self.fuse.blown.notified().await;
        self.fuse.under_way.close();
        self.fuse.under_way.wait().await;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn start_all(runtime: &Runtime, fuse: &Arc<Fuse>) {
    let informers = Informers::new(client(fuse, "system:coracle"));
    let context = Context::new(
        client(fuse, "system:kube-controller-manager"),
        informers.clone(),
        Config::default(),
    );
    for controller in TABLE {
        let user = format!("system:serviceaccount:kube-system:{}", controller.account);
        let context = context.with_client(client(fuse, &user));
        runtime.spawn((controller.run)(context, CancellationToken::new()));
    }
    let scheduler = coracle_scheduler::Scheduler::new(
        coracle_scheduler::Config::default(),
        client(fuse, "system:kube-scheduler"),
        informers,
    );
    runtime.spawn(scheduler.run(CancellationToken::new()));
}

fn client(fuse: &Arc<Fuse>, user: &str) -> kube::Client {
    let fuse = fuse.clone();
    let router = tower::service_fn(move |request: Request<Body>| {
        let fuse = fuse.clone();
        async move { Ok::<_, Infallible>(fuse.pass(request).await) }
    });
    let identity = Identity {
        user: user.to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..Identity::default()
    };
    in_process(router, identity)
}

/// Events are left out: they are many, and nothing depends on them.
fn is_write(request: &Request<Body>) -> bool {
    request.method() != Method::GET && !request.uri().path().ends_with("/events")
}

impl Fuse {
    async fn pass(&self, request: Request<Body>) -> Response<Body> {
        let under_way = self.under_way.token();
        let write = is_write(&request);
        let number = if write {
            self.writes.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            self.writes.load(Ordering::SeqCst)
        };
        let Some(death) = self.death.filter(|death| number >= death.write) else {
            return self.send(request, under_way).await;
        };
        if write && number == death.write {
            if death.carried_out {
                self.send(request, under_way).await;
            } else {
                drop(under_way);
            }
            self.blown.notify_one();
        } else {
            drop(under_way);
        }
        std::future::pending().await
    }

    async fn send(&self, request: Request<Body>, under_way: TaskTrackerToken) -> Response<Body> {
        let server = self.server.clone();
        let answer = self.outside.spawn(async move {
            let answer = server.handle(request).await;
            drop(under_way);
            answer
        });
        match answer.await {
            Ok(answer) => answer,
            // The test has ended, and its API server with it.
            Err(_) => std::future::pending().await,
        }
    }
}
