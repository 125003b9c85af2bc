//! Jobs and CronJobs: pods that end, each counted once.

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::Pod,
};
use kube::{ResourceExt as _, api::PropagationPolicy};
use serde_json::{Value, json};

use super::{
    workloads::{all_are, template},
    world::{World, nothing, same},
};
use crate::fakes::EXIT_CODE;

/// A template for pods that end.
fn ending_template() -> Value {
    let mut template = template(1);
    template["spec"]["restartPolicy"] = json!("Never");
    template
}

fn job(name: &str, mode: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "completions": 7,
            "parallelism": 3,
            "completionMode": mode,
            "template": ending_template(),
        },
    })
}

/// The job is over, with these figures, and no pod waits to be counted.
async fn job_is_over(
    world: &World,
    condition: &str,
    succeeded: usize,
    failed: usize,
) -> Result<(), String> {
    let job = world
        .api::<Job>()
        .get("work")
        .await
        .expect("the job is there");
    let status = serde_json::to_value(job.status).expect("it is JSON");
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    if !conditions
        .iter()
        .any(|found| found["type"] == condition && found["status"] == "True")
    {
        return Err(format!("not {condition}: {status}"));
    }
    all_are(&status, succeeded, &["succeeded"])?;
    all_are(&status, failed, &["failed"])?;
    all_are(&status, 0, &["active", "ready", "terminating"])?;
    let pods = world.list::<Pod>().await;
    nothing(
        pods.iter()
            .filter(|pod| !pod.finalizers().is_empty())
            .map(|pod| format!("{} with a finalizer", pod.name_any())),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs() {
    let world = World::start(3).await;
    world.at_most(3);
    while world.wants_more() {
        for mode in ["NonIndexed", "Indexed"] {
            let ever = world.pods_ever();
            world.create::<Job>(job("work", mode)).await;
            world
                .until(&format!("a job ({mode}) is complete"), async || {
                    job_is_over(&world, "Complete", 7, 0).await
                })
                .await;
            assert_eq!(world.pods_ever() - ever, 7, "each completion had one pod");
            world
                .delete::<Job>("work", PropagationPolicy::Background)
                .await;
            world.until_none::<Pod>().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_fail() {
    let world = World::start(3).await;
    world.at_most(3);
    while world.wants_more() {
        let ever = world.pods_ever();
        let mut failing = job("work", "Indexed");
        failing["spec"]["backoffLimitPerIndex"] = json!(0);
        failing["spec"]["template"]["metadata"]["annotations"] = json!({EXIT_CODE: "3"});
        world.create::<Job>(failing).await;
        world
            .until("every index has failed once", async || {
                job_is_over(&world, "Failed", 0, 7).await
            })
            .await;
        assert_eq!(world.pods_ever() - ever, 7, "each index had one pod");
        world
            .delete::<Job>("work", PropagationPolicy::Foreground)
            .await;
        world.until_none::<Pod>().await;
    }
}

/// The minute that the cron jobs below run for has just begun: they are behind by one run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cron_jobs() {
    let world = World::start(2).await;
    const CRON_JOBS: usize = 5;
    while world.wants_more() {
        for number in 0..CRON_JOBS {
            let name = format!("cron-{number}");
            world
                .create::<CronJob>(json!({
                    "metadata": {"name": name},
                    "spec": {
                        // No second run while the test lasts.
                        "schedule": "0 0 1 1 *",
                        "jobTemplate": {"spec": {"template": ending_template()}},
                    },
                }))
                .await;
            let long_ago = json!({"status": {"lastScheduleTime": last_new_year(-1)}});
            let patched = world
                .api::<CronJob>()
                .patch_status(
                    &name,
                    &Default::default(),
                    &kube::api::Patch::Merge(long_ago),
                )
                .await;
            patched.expect("the patch is taken");
        }
        world
            .until("each cron job has run once", async || {
                let jobs = world.list::<Job>().await;
                same("jobs", jobs.len(), CRON_JOBS)?;
                for cron_job in world.list::<CronJob>().await {
                    let status = cron_job.status.clone().unwrap_or_default();
                    same("active jobs", status.active.unwrap_or_default().len(), 0)?;
                    same("success", status.last_successful_time.is_some(), true)?;
                    let scheduled = status.last_schedule_time.map(|time| time.0.to_string());
                    same("the schedule", scheduled, Some(last_new_year(0)))?;
                }
                Ok(())
            })
            .await;
        for number in 0..CRON_JOBS {
            world
                .delete::<CronJob>(&format!("cron-{number}"), PropagationPolicy::Background)
                .await;
        }
        world.until_none::<Job>().await;
        world.until_none::<Pod>().await;
    }
}

/// The beginning of this year, or of one so many years off.
fn last_new_year(offset: i16) -> String {
    let year = k8s_openapi::jiff::Timestamp::now()
        .to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC)
        .year();
    format!("{}-01-01T00:00:00Z", year + offset)
}
