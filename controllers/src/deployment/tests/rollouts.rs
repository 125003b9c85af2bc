//! Whole rollouts, in a cluster that does what is asked of it.

use super::*;

/// A cluster in which the replica sets' pods come and go at once, or not.
struct Simulation {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    created: u8,
    clock: i64,
}

impl Simulation {
    fn step(&mut self) -> bool {
        self.clock += 1;
        let running = RefCell::new(Vec::new());
        for set in &self.sets {
            let replicas = set.status.as_ref().map_or(0, |status| status.replicas);
            if replicas > 0 {
                running.borrow_mut().push(set.uid().unwrap_or_default());
            }
        }
        let actions = decide(&World {
            deployment: &self.deployment,
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            running: &|uid| running.borrow().iter().any(|one| one == uid),
            now: Timestamp::from_second(at(NOW).as_second() + self.clock).expect("a time"),
        });
        let idle = actions.is_empty();
        for action in actions {
            self.apply(action);
        }
        idle
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Create(set) => {
                self.created += 1;
                let mut object = set.to_object();
                object.metadata.uid = Some(object.name_any());
                object.metadata.creation_timestamp =
                    serde_json::from_value(json!(format!("2026-01-01T00:30:{:02}Z", self.created)))
                        .expect("a time");
                self.sets.push(object);
            }
            Action::Update(set) => {
                let object = set.to_object();
                let place = self
                    .sets
                    .iter_mut()
                    .find(|known| known.name_any() == object.name_any());
                *place.expect("it exists") = object;
            }
            Action::Delete(set) => self.sets.retain(|known| known.uid() != set.uid()),
            Action::Status(status, revision) => {
                self.deployment.status = Some(status);
                if let Some(revision) = revision {
                    self.deployment
                        .annotations_mut()
                        .insert(sets::REVISION.to_owned(), revision);
                }
            }
            Action::RollBack(object, _) => self.deployment = *object,
        }
    }

    /// The pods of one set become what the set asks for.
    fn settle(&mut self, index: usize) {
        let set = &mut self.sets[index];
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
        set.status = serde_json::from_value(json!({
            "replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
            "observedGeneration": 1, "terminatingReplicas": 0,
        }))
        .expect("a status");
    }

    fn asked(&self) -> i32 {
        let specs = self.sets.iter().filter_map(|set| set.spec.as_ref());
        specs.map(|spec| spec.replicas.unwrap_or(0)).sum()
    }

    /// Available pods that no set has been told to delete.
    fn available(&self) -> i32 {
        let sets = self.sets.iter();
        sets.map(|set| {
            let status = set.status.as_ref();
            let available = status.and_then(|status| status.available_replicas);
            let asked = set.spec.as_ref().and_then(|spec| spec.replicas);
            available.unwrap_or(0).min(asked.unwrap_or(0))
        })
        .sum()
    }

    fn image(&mut self, image: &str) {
        let template = serde_json::from_value(template(image)).expect("a template");
        if let Some(spec) = &mut self.deployment.spec {
            spec.template = template;
        }
        let generation = self.deployment.metadata.generation.unwrap_or(0);
        self.deployment.metadata.generation = Some(generation + 1);
    }
}

#[test]
fn every_rollout_comes_to_its_end_within_its_bounds() {
    for (desired, surge, unavailable) in [
        (1, "25%", "25%"),
        (3, "0", "1"),
        (5, "1", "0"),
        (10, "25%", "25%"),
        (10, "100%", "0"),
        (7, "0", "100%"),
    ] {
        let part = |text: &str| {
            text.parse::<i32>()
                .map_or_else(|_| json!(text), |n| json!(n))
        };
        let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": {
            "maxSurge": part(surge), "maxUnavailable": part(unavailable) } });
        let mut cluster = Simulation {
            deployment: deployment(desired, &json!({ "strategy": strategy })),
            sets: Vec::new(),
            created: 0,
            clock: 0,
        };
        for image in ["v1", "v2", "v1", "v3"] {
            cluster.image(image);
            let first = cluster.sets.is_empty();
            let bounds = crate::deployment::scale::Bounds::of(
                cluster.deployment.spec.as_ref().expect("spec"),
            );
            let mut idle = 0;
            for round in 0..300 {
                // One set's pods move at a time, each after some decisions.
                if round % 2 == 1 && !cluster.sets.is_empty() {
                    let index = (round / 2) % cluster.sets.len();
                    cluster.settle(index);
                    idle = 0;
                }
                idle = if cluster.step() { idle + 1 } else { 0 };
                assert!(cluster.asked() <= desired + bounds.surge);
                if !first {
                    assert!(
                        cluster.available() >= desired - bounds.unavailable,
                        "{desired} +{surge} -{unavailable}"
                    );
                }
            }
            let status = cluster.deployment.status.as_ref().expect("a status");
            assert_eq!(status.updated_replicas, Some(desired));
            assert_eq!(status.replicas, Some(desired));
            assert!(conditions(status).iter().any(|condition| {
                condition.starts_with("Progressing=True NewReplicaSetAvailable: ReplicaSet \"web-")
                    && condition.ends_with("\" has successfully progressed.")
            }));
        }
        // v1 was brought back: its set was used again, with a later revision and a history.
        assert_eq!(cluster.sets.len(), 3);
        let first = cluster.sets[0].annotations();
        assert_eq!(first["deployment.kubernetes.io/revision"], "3");
        assert_eq!(first["deployment.kubernetes.io/revision-history"], "1");
        assert_eq!(
            cluster.deployment.annotations()["deployment.kubernetes.io/revision"],
            "4"
        );
    }
}
