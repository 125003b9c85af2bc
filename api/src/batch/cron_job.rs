//! CronJob.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::Value;

use crate::{
    selector,
    strategy::Column,
    table::{AGE, NAME, age, column, container_cells, name, since, template_pod, wide},
};
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for CronJob {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Schedule",
                "string",
                "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
            ),
            column(
                "Timezone",
                "string",
                "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
            ),
            column(
                "Suspend",
                "boolean",
                "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
            ),
            column(
                "Active",
                "integer",
                "A list of pointers to currently running jobs.",
            ),
            column(
                "Last Schedule",
                "string",
                "Information when was the last time the job was successfully scheduled.",
            ),
            AGE,
            wide("Containers", "Names of each container in the template."),
            wide(
                "Images",
                "Images referenced by each container in the template.",
            ),
            wide(
                "Selector",
                "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&self.spec, self.status.as_ref());
        let suspend = match spec.suspend {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let scheduled = status.and_then(|status| status.last_schedule_time.as_ref());
        let job = spec.job_template.spec.as_ref();
        let [containers, images] = container_cells(template_pod(job.map(|job| &job.template)));
        vec![
            name(&self.metadata),
            Value::from(spec.schedule.clone()),
            Value::from(spec.time_zone.as_deref().unwrap_or("<none>")),
            Value::from(suspend),
            Value::from(
                status
                    .and_then(|status| status.active.as_ref())
                    .map_or(0, Vec::len),
            ),
            Value::from(
                scheduled.map_or_else(|| "<none>".to_owned(), |time| since(Some(time), now)),
            ),
            age(&self.metadata, now),
            containers,
            images,
            Value::from(selector::format_object(
                job.and_then(|job| job.selector.as_ref()),
            )),
        ]
    }
}
