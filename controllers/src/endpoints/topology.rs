//! Endpoints spread over zones in proportion to the zones' CPUs: what a Service with the annotation
//! `service.kubernetes.io/topology-mode: Auto` asks for.
//!
//! Enter at [`Zones::of`] and [`spread`]. Upstream: `k8s.io/endpointslice/topologycache`.

use std::collections::BTreeMap;

use coracle_api::quantity::amount_in;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::{Endpoint, EndpointHints, ForZone},
};
use kube::ResourceExt as _;

pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
const OLD_MODE: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
/// Nodes with these labels have no share.
const EXCLUDED: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];
/// By how much more than its share an endpoint may get.
const OVERLOAD: f64 = 0.2;

const NODES_UNKNOWN: &str =
    "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
const ZONE_UNKNOWN: &str = "One or more endpoints do not have a zone specified";
const TOO_FEW: &str = "Insufficient number of endpoints";
const OVERLOADED: &str = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";

/// Whether the Service asks for it.
pub(super) fn is_wanted(service: &Service) -> bool {
    let annotations = service.annotations();
    let mode = annotations.get(OLD_MODE).or(annotations.get(MODE));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.flatten().filter(|one| one.type_ == "Ready");
    ready.next().is_some_and(|ready| ready.status == "True")
}

/// The part of the cluster's CPUs that each zone has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Zones(BTreeMap<String, f64>);

impl Zones {
    /// `None` when some node does not say, or there are not two zones.
    pub fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<Self> {
        let mut zones: BTreeMap<String, f64> = BTreeMap::new();
        for node in nodes {
            let labels = node.labels();
            if EXCLUDED.iter().any(|label| labels.contains_key(*label)) || !is_ready(node) {
                continue;
            }
            let status = node.status.as_ref();
            let allocatable = status.and_then(|status| status.allocatable.as_ref());
            let cpu = allocatable.map_or(0.0, |list| amount_in(list, "cpu").as_f64());
            let zone = labels.get(ZONE).filter(|zone| !zone.is_empty())?;
            if cpu <= 0.0 {
                return None;
            }
            *zones.entry(zone.clone()).or_default() += cpu;
        }
        let all: f64 = zones.values().sum();
        let shares = zones.into_iter().map(|(zone, cpu)| (zone, cpu / all));
        let zones = Zones(shares.collect());
        (zones.0.len() >= 2).then_some(zones)
    }
}

/// The ready endpoints that each zone is to use.
pub(super) type Shares = BTreeMap<String, usize>;

/// Whether some zone has too few endpoints, as the zones are now.
pub(super) fn is_overloaded(shares: &Shares, zones: Option<&Zones>) -> bool {
    if shares.is_empty() {
        return false;
    }
    let Some(Zones(zones)) = zones else {
        return true;
    };
    let all: usize = shares.values().sum();
    zones.iter().any(|(zone, part)| {
        let known = shares.get(zone);
        known.is_none_or(|known| *known < least(all as f64 * part))
    })
}

/// Of so many endpoints that are a zone's fair share.
fn least(fair: f64) -> usize {
    (fair * (1.0 / (1.0 + OVERLOAD))).ceil() as usize
}

struct Allocation {
    most: usize,
    wanted: f64,
}

fn allocate(Zones(zones): &Zones, ready: usize) -> Result<BTreeMap<&str, Allocation>, String> {
    let failure = |why: &str| format!("{why} ({ready} endpoints, {} zones)", zones.len());
    if zones.len() > ready {
        return Err(failure(TOO_FEW));
    }
    let fair = |part: &f64| part * ready as f64;
    let needed: usize = zones.values().map(|part| least(fair(part))).sum();
    let spare = ready
        .checked_sub(needed)
        .ok_or_else(|| failure(OVERLOADED))?;
    let allocation = |part: &f64| {
        let least = least(fair(part));
        Allocation {
            most: least + spare,
            wanted: fair(part).max(least as f64),
        }
    };
    let parts = zones.iter();
    Ok(parts
        .map(|(zone, part)| (zone.as_str(), allocation(part)))
        .collect())
}

/// The endpoints of one slice.
pub(super) struct Part<'a> {
    pub endpoints: &'a mut Vec<Endpoint>,
    /// The slice is written, so its hints may as well be new.
    pub changed: &'a mut bool,
}

fn ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_some_and(|conditions| conditions.ready == Some(true))
}

fn hint(zone: &str) -> Option<EndpointHints> {
    Some(EndpointHints {
        for_zones: Some(vec![ForZone {
            name: zone.to_owned(),
        }]),
        for_nodes: None,
    })
}

/// Gives the ready endpoints of a Service hints for zones. Slices whose hints will do stay as they
/// are. An error says why there can be none; then all are taken away.
pub(super) fn spread(parts: &mut [Part<'_>], zones: Option<&Zones>) -> Result<Shares, String> {
    let outcome = try_spread(parts, zones);
    if outcome.is_err() {
        for part in parts {
            for endpoint in part.endpoints.iter_mut() {
                *part.changed |= endpoint.hints.take().is_some();
            }
        }
    }
    outcome
}

fn try_spread(parts: &mut [Part<'_>], zones: Option<&Zones>) -> Result<Shares, String> {
    let all = parts.iter().flat_map(|part| part.endpoints.iter());
    let count = all.filter(|endpoint| ready(endpoint)).count();
    let allocations = allocate(zones.ok_or(NODES_UNKNOWN)?, count)?;
    let mut shares = Shares::new();
    let mut open: Vec<&mut Endpoint> = Vec::new();
    for part in parts {
        let kept = (!*part.changed)
            .then(|| hinted(part.endpoints, &allocations, &shares))
            .flatten();
        if let Some(kept) = kept {
            for (zone, count) in kept {
                *shares.entry(zone).or_default() += count;
            }
            continue;
        }
        *part.changed = true;
        for endpoint in part.endpoints.iter_mut() {
            endpoint.hints = None;
            if ready(endpoint) {
                open.push(endpoint);
            }
        }
    }
    // Its own zone at first, and then another's where that has too few.
    for endpoint in &mut open {
        let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty());
        let zone = zone.ok_or(ZONE_UNKNOWN)?;
        endpoint.hints = hint(&zone);
        *shares.entry(zone).or_default() += 1;
    }
    let mut moves = moves(&allocations, &shares);
    for endpoint in open {
        let zone = endpoint.zone.as_deref().unwrap_or_default();
        let Some(place) = moves.iter().position(|(from, _)| from == zone) else {
            continue;
        };
        let (from, to) = moves.remove(place);
        endpoint.hints = hint(&to);
        if let Some(given) = shares.get_mut(&from) {
            *given -= 1;
        }
        *shares.entry(to).or_default() += 1;
    }
    Ok(shares)
}

/// The endpoints by the zones of their hints; `None` when these will not do.
fn hinted(
    endpoints: &[Endpoint],
    allocations: &BTreeMap<&str, Allocation>,
    shares: &Shares,
) -> Option<Shares> {
    let mut found = Shares::new();
    for endpoint in endpoints.iter().filter(|endpoint| ready(endpoint)) {
        let zones = endpoint.hints.as_ref()?.for_zones.as_ref()?;
        if zones.is_empty() {
            return None;
        }
        for zone in zones {
            *found.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let before = shares.get(zone).copied().unwrap_or(0);
        let allocation = allocations.get(zone.as_str());
        allocation.is_some_and(|allocation| count + before <= allocation.most)
    };
    found.iter().all(fits).then_some(found)
}

/// From which zone to which endpoints go, one by one: always from the one with the most too many to
/// the one with the most too few.
fn moves(allocations: &BTreeMap<&str, Allocation>, shares: &Shares) -> Vec<(String, String)> {
    let (mut giving, mut receiving) = (BTreeMap::new(), BTreeMap::new());
    for (zone, allocation) in allocations {
        let surplus = shares.get(*zone).copied().unwrap_or(0) as f64 - allocation.wanted;
        if surplus > 0.0 {
            giving.insert(*zone, surplus);
        } else if surplus < 0.0 {
            receiving.insert(*zone, -surplus);
        }
    }
    let mut moves = Vec::new();
    while let (Some((from, surplus)), Some((to, lack))) = (most(&giving), most(&receiving)) {
        if surplus.max(lack) < 1.0 || surplus.min(lack) < 0.5 {
            break;
        }
        giving.insert(from, surplus - 1.0);
        receiving.insert(to, lack - 1.0);
        moves.push((from.to_owned(), to.to_owned()));
    }
    moves
}

/// The first of the largest above zero.
fn most<'a>(zones: &BTreeMap<&'a str, f64>) -> Option<(&'a str, f64)> {
    let mut found = None;
    for (zone, number) in zones {
        if *number > found.map_or(0.0, |(_, most)| most) {
            found = Some((*zone, *number));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(zone: &str, cpu: &str, ready: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "n", "labels": { ZONE: zone } },
            "status": { "allocatable": { "cpu": cpu }, "conditions": [
                { "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        }))
        .expect("a node")
    }

    fn zones(parts: &[(&str, &str)]) -> Option<Zones> {
        let nodes: Vec<Node> = parts
            .iter()
            .map(|(zone, cpu)| node(zone, cpu, true))
            .collect();
        Zones::of(nodes.iter())
    }

    /// `a` is ready in zone a, `A` is not; behind a colon, the zone of its hint.
    fn slice(text: &str) -> Vec<Endpoint> {
        let endpoint = |word: &str| -> Endpoint {
            let (zone, hint) = word.split_once(':').unwrap_or((word, ""));
            let hints = (!hint.is_empty()).then(|| json!({ "forZones": [{ "name": hint }] }));
            serde_json::from_value(json!({ "addresses": ["::1"], "hints": hints,
                "zone": Some(zone.to_lowercase()).filter(|zone| zone != "-"),
                "conditions": { "ready": zone == zone.to_lowercase() } }))
            .expect("an endpoint")
        };
        text.split_whitespace().map(endpoint).collect()
    }

    fn text(endpoints: &[Endpoint]) -> String {
        let word = |endpoint: &Endpoint| {
            let zones = endpoint
                .hints
                .as_ref()
                .and_then(|one| one.for_zones.as_ref());
            zones.map_or("-", |zones| zones[0].name.as_str()).to_owned()
        };
        endpoints.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn zones_have_parts_of_the_cpus() {
        let parts = |zones: Option<Zones>| zones.map(|Zones(parts)| parts.into_values().collect());
        let even: Option<Vec<f64>> = parts(zones(&[("a", "1"), ("b", "500m"), ("b", "500m")]));
        assert_eq!(even, Some(vec![0.5, 0.5]));
        for too_little in [&[("a", "1"), ("a", "3")][..], &[("a", "1"), ("", "3")], &[]] {
            assert_eq!(zones(too_little), None, "{too_little:?}");
        }
        assert_eq!(zones(&[("a", "1"), ("b", "0")]), None);
        let mut excluded = node("", "4", true);
        excluded
            .labels_mut()
            .insert(EXCLUDED[0].to_owned(), String::new());
        let nodes = [
            node("a", "1", true),
            node("b", "3", true),
            node("c", "9", false),
            excluded,
        ];
        let found: Option<Vec<f64>> = parts(Zones::of(nodes.iter()));
        assert_eq!(found, Some(vec![0.25, 0.75]));
    }

    #[test]
    fn endpoints_are_spread_as_the_cpus_are() {
        let even = zones(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let uneven = zones(&[("a", "1"), ("b", "3")]);
        let cases = [
            // Zones, the slices that are written, those that are not; the hints of all.
            (&even, "a b c", "", Ok("a b c")),
            (&even, "a a b b c c C", "", Ok("a a b b c c -")),
            (&even, "a a a a b c", "", Ok("b c a a b c")),
            (&even, "a a a", "", Ok("b c a")),
            (
                &even,
                "a a",
                "",
                Err(format!("{TOO_FEW} (2 endpoints, 3 zones)")),
            ),
            (&even, "a - c", "", Err(ZONE_UNKNOWN.to_owned())),
            (&None, "a b c", "", Err(NODES_UNKNOWN.to_owned())),
            (&uneven, "a a a a", "", Ok("b b b a")),
            (
                &zones(&[("a", "1"), ("b", "100")]),
                "a b",
                "",
                Err(format!("{OVERLOADED} (2 endpoints, 2 zones)")),
            ),
            (&uneven, "", "a:a b:b b:b b:b", Ok("a b b b")),
            (&even, "c", "a:a b:b", Ok("c a b")),
            (&even, "b", "a:a c:d", Ok("b a c")),
            // Hints that are in place stay as long as no zone has too many.
            (&uneven, "a", "a:a b:b b:b", Ok("b a b b")),
        ];
        for (zones, written, kept, expected) in cases {
            let (mut written_to, mut left) = (slice(written), slice(kept));
            let (mut changed, mut touched) = (true, false);
            let mut parts = [
                Part {
                    endpoints: &mut written_to,
                    changed: &mut changed,
                },
                Part {
                    endpoints: &mut left,
                    changed: &mut touched,
                },
            ];
            let outcome = spread(&mut parts, zones.as_ref());
            let all: Vec<Endpoint> = written_to.into_iter().chain(left).collect();
            match expected {
                Ok(hints) => {
                    let shares = outcome.expect(written);
                    assert_eq!(text(&all), hints, "{written} + {kept}");
                    let hinted = all.iter().filter(|one| one.hints.is_some()).count();
                    assert_eq!(shares.values().sum::<usize>(), hinted);
                }
                Err(why) => {
                    assert_eq!(outcome, Err(why), "{written} + {kept}");
                    assert!(all.iter().all(|endpoint| endpoint.hints.is_none()));
                }
            }
        }
    }

    #[test]
    fn a_zone_that_grows_overloads_a_service() {
        let shares: Shares = [("a".to_owned(), 2), ("b".to_owned(), 2)].into();
        let even = [("a", "1"), ("b", "1")];
        assert!(!is_overloaded(&shares, zones(&even).as_ref()));
        assert!(is_overloaded(
            &shares,
            zones(&[("a", "1"), ("b", "9")]).as_ref()
        ));
        let third = [("a", "1"), ("b", "1"), ("c", "1")];
        assert!(is_overloaded(&shares, zones(&third).as_ref()));
        assert!(is_overloaded(&shares, None));
        assert!(!is_overloaded(&Shares::new(), None));
    }
}
