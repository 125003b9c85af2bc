//! Devices from a driver's slice to the pods that claim them, as the real server gives them out, on
//! a node without a machine.

use std::{fmt::Debug, time::Instant};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Pod, ServiceAccount},
        resource::v1::{
            DeviceClass, DeviceRequestAllocationResult, ResourceClaim, ResourceClaimTemplate,
            ResourceSlice,
        },
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    crash::world::same,
    fakes::{FakeNodes, node_name},
    server::{PATIENCE, Server},
};

const DRIVER: &str = "gpu.example.com";

fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), "default")
}

async fn create<K>(api: Api<K>, object: Value)
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let object = serde_json::from_value(object).expect("the object is of its kind");
    let created = api.create(&PostParams::default(), &object).await;
    created.expect("the object is taken");
}

async fn until(what: &str, holds: impl AsyncFn() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(missing) = holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: {missing}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Two devices of the class, one of another model, and a template for claims to one of the class.
async fn offer(client: &Client) {
    let device =
        |name: &str, model: &str| json!({"name": name, "attributes": {"model": {"string": model}}});
    create::<ResourceSlice>(
        Api::all(client.clone()),
        json!({
            "metadata": {"name": "slice"},
            "spec": {
                "driver": DRIVER,
                "nodeName": node_name(0),
                "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1},
                "devices": [device("old", "v1"), device("gpu-0", "v2"), device("gpu-1", "v2")],
            },
        }),
    )
    .await;
    let expression =
        format!("device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].model == 'v2'");
    create::<DeviceClass>(
        Api::all(client.clone()),
        json!({
            "metadata": {"name": DRIVER},
            "spec": {"selectors": [{"cel": {"expression": expression}}]},
        }),
    )
    .await;
    create::<ResourceClaimTemplate>(
        api(client),
        json!({
            "metadata": {"name": "gpus"},
            "spec": {"spec": {"devices": {"requests": [
                {"name": "gpu", "exactly": {"deviceClassName": DRIVER}},
            ]}}},
        }),
    )
    .await;
}

fn claiming(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpus"}],
            "containers": [{
                "name": "main",
                "image": "example/main",
                "resources": {"claims": [{"name": "gpu"}]},
            }],
        },
    })
}

async fn claim_of(client: &Client, pod: &str) -> Option<ResourceClaim> {
    let claims = api::<ResourceClaim>(client);
    let claims = claims.list(&ListParams::default()).await.expect("a list");
    claims.into_iter().find(|claim| {
        let owners = claim.owner_references();
        owners.iter().any(|owner| owner.name == pod)
    })
}

/// The names of those for whom the claim is reserved.
fn reserved(claim: &ResourceClaim) -> Vec<String> {
    let status = claim.status.clone().unwrap_or_default();
    let users = status.reserved_for.unwrap_or_default();
    users.into_iter().map(|user| user.name).collect()
}

fn results(claim: &ResourceClaim) -> Vec<DeviceRequestAllocationResult> {
    let status = claim.status.clone().unwrap_or_default();
    let devices = status.allocation.and_then(|allocation| allocation.devices);
    devices.and_then(|it| it.results).unwrap_or_default()
}

/// Returns the device that the pod was given, once the pod runs.
async fn until_served(client: &Client, name: &str) -> String {
    until(&format!("{name} runs"), async || {
        let pod = api::<Pod>(client).get(name).await.expect("a read");
        let phase = pod.status.and_then(|status| status.phase);
        same("the phase", phase.as_deref(), Some("Running"))
    })
    .await;
    let claim = claim_of(client, name).await.expect("it has a claim");
    assert_eq!(reserved(&claim), [name]);
    let results = results(&claim);
    let [result] = results.as_slice() else {
        panic!("one device was asked for, and {results:?} given");
    };
    let of = [&*result.request, &*result.driver, &*result.pool];
    assert_eq!(of, ["gpu", DRIVER, "pool"]);
    result.device.clone()
}

/// Returns once the pod was told that it cannot be scheduled, and why.
async fn until_refused(client: &Client, name: &str, message: &str) {
    until(&format!("{name} is refused"), async || {
        let pod = api::<Pod>(client).get(name).await.expect("a read");
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let mut conditions = conditions.iter().filter(|it| it.type_ == "PodScheduled");
        let found = conditions.next().ok_or("no condition")?;
        same("the phase", status.phase.as_deref(), Some("Pending"))?;
        same("scheduled", found.status.as_str(), "False")?;
        same("why", found.reason.as_deref(), Some("Unschedulable"))?;
        same("told", found.message.as_deref(), Some(message))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_go_to_those_that_claim_them_and_are_given_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = &server.client;
    let _nodes = FakeNodes::start(client.clone(), 1).await;
    until("pods have an account", async || {
        let account = api::<ServiceAccount>(client).get("default").await;
        account.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    offer(client).await;
    create::<Pod>(api(client), claiming("first")).await;
    let first = until_served(client, "first").await;
    create::<Pod>(api(client), claiming("second")).await;
    let second = until_served(client, "second").await;
    let mut given = [&*first, &*second];
    given.sort_unstable();
    assert_eq!(given, ["gpu-0", "gpu-1"]);
    create::<Pod>(api(client), claiming("third")).await;
    until_refused(
        client,
        "third",
        "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
    )
    .await;
    let waiting = claim_of(client, "third").await.expect("it has a claim");
    assert_eq!(results(&waiting), []);
    assert_eq!(reserved(&waiting), Vec::<String>::new());
    let (pods, params) = (api::<Pod>(client), DeleteParams::default());
    let deleted = pods.delete("first", &params).await;
    deleted.expect("the deletion is taken");
    assert_eq!(until_served(client, "third").await, first);
    until("the first claim goes with its pod", async || {
        let left = claim_of(client, "first").await;
        same("left", left.map(|claim| claim.name_any()), None)
    })
    .await;
    let second_again = claim_of(client, "second").await.expect("it has a claim");
    assert_eq!(results(&second_again)[0].device, second);
}
