//! A volume's life on a disk with project quotas, against an API that is made up.

use serde_json::{Value, json};

use super::{quota::tests::Fake, *};
use crate::{Config, fakes::FakeApi};

struct World {
    api: Arc<FakeApi>,
    disk: Fake,
    folder: tempfile::TempDir,
    provisioner: Provisioner,
}

const VOLUMES: &str = "/api/v1/persistentvolumes";

fn list(items: &[Value]) -> Value {
    json!({ "metadata": { "resourceVersion": "5" }, "items": items })
}

fn claim(size: &str, volume: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": { "name": "data", "namespace": "ns", "uid": "1", "resourceVersion": "7",
            "annotations": { PROVISIONER: NAME, SELECTED_NODE: "n" } },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
            "volumeName": volume, "resources": { "requests": { "storage": size } } },
        "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } },
    }))
    .expect("a claim")
}

impl World {
    async fn new(disk: Fake, volumes: &[Value]) -> Self {
        let api = FakeApi::new();
        let class = json!({ "metadata": { "name": "local-path", "resourceVersion": "1" },
            "provisioner": NAME, "reclaimPolicy": "Delete" });
        api.answer(
            "GET /apis/storage.k8s.io/v1/storageclasses",
            200,
            list(&[class]),
        );
        api.answer("GET /api/v1/nodes", 200, list(&[]));
        api.answer("GET /api/v1/persistentvolumeclaims", 200, list(&[]));
        api.answer(&format!("GET {VOLUMES}"), 200, list(volumes));
        let client = api.client();
        let informers = coracle_client::Informers::new(client.clone());
        let context = Context::new(client, informers, Config::default());
        let folder = tempfile::tempdir().expect("a folder");
        let local = LocalPath {
            node_name: "n".to_owned(),
            folder: folder.path().to_owned(),
        };
        let provisioner = Provisioner::new(&context, local, Box::new(disk.clone()));
        provisioner.classes.synced().await;
        provisioner.volumes.cache.synced().await;
        World {
            api,
            disk,
            folder,
            provisioner,
        }
    }

    async fn event(&self, reason: &str) -> String {
        let request = "POST /api/v1/namespaces/ns/events";
        let event = self
            .api
            .asked(request, |asked| asked.body["reason"] == reason);
        event.await.body["message"]
            .as_str()
            .expect("text")
            .to_owned()
    }

    fn limits(&self) -> Vec<u64> {
        self.disk.0.lock().limits.values().copied().collect()
    }
}

/// Makes a volume and returns it as the API was told of it.
async fn made(world: &World) -> Value {
    // The API refuses it, after it has seen it.
    let _ = world.provisioner.provision(&claim("1Gi", "")).await;
    let request = format!("POST {VOLUMES}");
    let mut volume = world.api.asked(&request, |_| true).await.body;
    volume["metadata"]["resourceVersion"] = json!("8");
    volume
}

#[tokio::test]
async fn a_volume_is_held_to_its_size_until_it_goes() {
    let world = World::new(Fake::enforcing(), &[]).await;
    let volume = made(&world).await;
    assert_eq!(world.limits(), [1 << 30]);
    let annotations = &volume["metadata"]["annotations"];
    assert_eq!(annotations["local.path.provisioner/quota"], "enforced");
    let project: u32 = annotations["local.path.provisioner/project-id"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a project");
    assert!(
        world
            .disk
            .0
            .lock()
            .projects
            .values()
            .any(|it| *it == project)
    );

    // Another process goes on with what the API knows. The limit grows before the volume does.
    let next = World::new(world.disk.clone(), std::slice::from_ref(&volume)).await;
    let path = volume["spec"]["hostPath"]["path"].as_str().expect("a path");
    let folder = Folder::new(world.folder.path().to_owned());
    let storage = Arc::new(Storage {
        folder,
        quotas: Quotas::new(Box::new(world.disk.clone())),
    });
    let mut provisioner = next.provisioner;
    provisioner.storage = storage;
    let claim = claim("3Gi", "pvc-1");
    let _ = provisioner.expand(&claim).await;
    assert_eq!(world.limits(), [3 << 30]);
    let put = format!("PUT {VOLUMES}/pvc-1");
    let put = next.api.asked(&put, |_| true).await.body;
    assert_eq!(put["spec"]["capacity"]["storage"], "3Gi");

    // Ended after the folder was removed: the volume knows which project it was.
    std::fs::remove_dir_all(path).expect("removed");
    world.disk.0.lock().projects.clear();
    let volume: PersistentVolume = serde_json::from_value(volume).expect("a volume");
    let delete = format!("DELETE {VOLUMES}/pvc-1");
    tokio::select! {
        // It would wait until the volume is seen to be gone.
        _ = provisioner.remove(&volume) => {}
        _ = next.api.asked(&delete, |_| true) => {}
    }
    assert!(world.limits().is_empty());
}

#[tokio::test]
async fn a_limit_that_is_refused_stops_an_expansion() {
    let first = World::new(Fake::enforcing(), &[]).await;
    let volume = made(&first).await;
    let world = World::new(first.disk.clone(), &[volume]).await;
    let mut provisioner = world.provisioner;
    provisioner.storage = first.provisioner.storage.clone();
    first.disk.0.lock().refuses = true;
    assert!(provisioner.expand(&claim("3Gi", "pvc-1")).await.is_err());
    let writes = world.api.all();
    assert!(!writes.iter().any(|asked| asked.method == "PUT"));
}

#[tokio::test]
async fn a_volume_that_is_not_held_says_so() {
    let world = World::new(Fake::default(), &[]).await;
    let created = json!({ "metadata": { "name": "pvc-1", "resourceVersion": "5" } });
    world.api.answer(&format!("POST {VOLUMES}"), 201, created);
    let made = world.provisioner.provision(&claim("1Gi", "")).await;
    made.expect("a volume");
    let volume = world.api.asked(&format!("POST {VOLUMES}"), |_| true).await;
    let annotations = &volume.body["metadata"]["annotations"];
    assert_eq!(annotations["local.path.provisioner/quota"], "not-enforced");
    assert_eq!(
        world.event("QuotaNotEnforced").await,
        "the size of the volume is not enforced: its folder may grow until the file system is \
         full: the file system has no project quotas"
    );
}
