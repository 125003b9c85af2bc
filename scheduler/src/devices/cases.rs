//! Tables of what is asked for, what there is and what is given.

use serde_json::{Value, json};

use super::{testing::*, *};

struct Case {
    what: &'static str,
    claims: Vec<Value>,
    slices: Vec<Value>,
    taken: &'static [&'static str],
    expected: &'static str,
}

fn check(cases: Vec<Case>) {
    for case in cases {
        let found = given(&case.claims, &case.slices, taken(case.taken));
        assert_eq!(found, case.expected, "{}", case.what);
    }
}

macro_rules! cases {
    ($($what:literal: [$($claim:expr),* $(,)?] of [$($slice:expr),* $(,)?] $(without $taken:expr)? => $expected:literal;)*) => {
        check(vec![$(Case {
            what: $what,
            claims: vec![$($claim),*],
            slices: vec![$($slice),*],
            taken: cases!(@ $($taken)?),
            expected: $expected,
        }),*])
    };
    (@) => { &[] };
    (@ $taken:expr) => { &$taken };
}

#[test]
fn counts_and_selectors() {
    let two = || local(plain(&["x", "y"]));
    let sized = |first: &str, second: &str| {
        local(json!([with_memory("x", first), with_memory("y", second)]))
    };
    let small_and_large = || {
        json!([
            exactly("small", memory("1Gi")),
            exactly("large", memory("2Gi"))
        ])
    };
    let on_b = || {
        slice(
            "b",
            "b",
            "p",
            1,
            json!({ "nodeName": "n", "devices": plain(&["z"]) }),
        )
    };
    let for_b = || exactly("r", json!({ "deviceClassName": "b" }));
    cases! {
        "nothing to allocate": [] of [two()] => "";
        "no devices": [claim(json!([count("r", 1)]))] of [] => "none";
        "one": [claim(json!([count("r", 1)]))] of [two()] => "r:x";
        "another node's": [claim(json!([count("r", 1)]))] of [
            slice("s", "a", "p", 1, json!({ "nodeName": "m", "devices": plain(&["x"]) }))] => "none";
        "two": [claim(json!([count("r", 2)]))] of [two()] => "r:x r:y";
        "too many": [claim(json!([count("r", 3)]))] of [two()] => "none";
        "across pools": [claim(json!([count("r", 2)]))] of [
            local(plain(&["x"])),
            slice("t", "a", "q", 1, json!({ "nodeName": "n", "devices": plain(&["x"]) })),
        ] => "r:x r:a/q/x";
        "two claims": [claim(json!([count("r", 1)])), claim(json!([count("r", 1)]))] of [two()] => "r:x; r:y";
        "one device for two claims": [claim(json!([count("r", 1)])), claim(json!([count("r", 1)]))] of [
            local(plain(&["x"]))] => "none";
        "small and large": [claim(small_and_large())] of [sized("1Gi", "2Gi")] => "small:x large:y";
        "the small one gives way within a claim": [claim(small_and_large())] of [sized("2Gi", "1Gi")] => "small:y large:x";
        "the small one gives way across claims": [
            claim(json!([exactly("small", memory("1Gi"))])), claim(json!([exactly("large", memory("2Gi"))])),
        ] of [sized("2Gi", "1Gi")] => "small:y; large:x";
        "several drivers": [claim(json!([count("r", 1)])), claim(json!([for_b()]))] of [two(), on_b()] => "r:x; r:b/p/z";
        "taken": [claim(json!([count("r", 1)]))] of [two()] without ["a/p/x"] => "r:y";
        "all taken": [claim(json!([count("r", 1)]))] of [two()] without ["a/p/x", "a/p/y"] => "none";
        "for all nodes": [claim(json!([count("r", 1)]))] of [
            slice("s", "a", "p", 1, json!({ "allNodes": true, "devices": plain(&["x"]) }))] => "r:x @all";
        "for a region": [claim(json!([count("r", 1)]))] of [
            slice("s", "a", "p", 1, json!({ "devices": plain(&["x"]), "nodeSelector": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "region", "operator": "In", "values": ["r"] }] }] } })),
        ] => "r:x @region";
        "bound to the node that uses it": [claim(json!([count("r", 1)]))] of [
            slice("s", "a", "p", 1, json!({ "allNodes": true, "devices": [device("x", json!({ "bindsToNode": true }))] })),
        ] => "r:x";
        "incomplete": [claim(json!([count("r", 1)]))] of [
            slice("s", "a", "p", 2, json!({ "nodeName": "n", "devices": plain(&["x"]) }))] => "none";
        "an invalid pool beside a good one": [claim(json!([count("r", 1)]))] of [
            local(plain(&["x", "x"])),
            slice("t", "a", "q", 1, json!({ "nodeName": "n", "devices": plain(&["y"]) })),
        ] => "r:a/q/y";
        "an invalid pool alone": [claim(json!([count("r", 1)]))] of [local(plain(&["x", "x"]))]
            => "invalid resource pools were encountered";
        "those that need preparation come last": [claim(json!([count("r", 1)]))] of [
            local(json!([device("x", json!({ "bindingConditions": ["c"] }))])),
            slice("t", "a", "q", 1, json!({ "nodeName": "n", "devices": plain(&["y"]) })),
        ] => "r:a/q/y";
    }
}

#[test]
fn all_devices_and_administrative_access() {
    let two = || local(plain(&["x", "y"]));
    let none = || local(json!([]));
    let every = |name: &str| admin(name, json!({ "allocationMode": "All", "count": null }));
    cases! {
        "all": [claim(json!([all("r")]))] of [two()] => "r:x r:y";
        "all of none": [claim(json!([all("r")]))] of [none()] => "none";
        "all of nothing": [claim(json!([all("r")]))] of [] => "none";
        "all, one taken": [claim(json!([all("r")]))] of [two()] without ["a/p/x"] => "none";
        "all of this node's": [claim(json!([all("r")]))] of [
            slice("s", "a", "p", 2, json!({ "nodeName": "n", "devices": plain(&["x"]) })),
            slice("t", "a", "p", 2, json!({ "nodeName": "m", "devices": plain(&["y"]) })),
        ] => "r:x";
        "all of an incomplete pool": [claim(json!([all("r")]))] of [
            slice("s", "a", "p", 2, json!({ "nodeName": "n", "devices": plain(&["x"]) }))]
            => "claim ns/c, request r: asks for all devices, but resource pool a/p is currently being updated";
        "all of an invalid pool": [claim(json!([all("r")]))] of [local(plain(&["x", "x"]))]
            => "claim ns/c, request r: asks for all devices, but resource pool a/p is currently invalid";
        "one and all": [claim(json!([count("r", 1)])), claim(json!([all("r")]))] of [local(plain(&["x"]))] => "none";
        "all and one": [claim(json!([all("r")])), claim(json!([count("r", 1)]))] of [local(plain(&["x"]))] => "none";
        "all, administered": [claim(json!([every("r")]))] of [two()] without ["a/p/x"] => "r:x! r:y!";
        "two, administered": [claim(json!([admin("r", json!({ "count": 2 }))]))] of [two()] without ["a/p/x"] => "r:x! r:y!";
        "administered by two claims": [claim(json!([admin("r", json!({}))])), claim(json!([admin("r", json!({}))]))] of [two()]
            => "r:x!; r:x!";
        "administered while it is given away": [claim(json!([count("r", 1)])), claim(json!([admin("r", json!({}))]))] of [two()]
            => "r:x; r:x!";
        "not twice in a claim": [claim(json!([admin("one", json!({})), every("rest")]))] of [two()] => "none";
    }
}

#[test]
fn constraints() {
    let numa = |x: Value, y: Value, z: Value| {
        let device = |name: &str, value: Value| with_attributes(name, json!({ "numa": value }));
        local(json!([device("x", x), device("y", y), device("z", z)]))
    };
    let int = |value: i64| json!({ "int": value });
    let text = |value: &str| json!({ "string": value });
    let two = || json!([count("one", 1), count("two", 1)]);
    let matching = || json!([{ "matchAttribute": "a/numa" }]);
    let distinct = || json!([{ "distinctAttribute": "a/numa" }]);
    cases! {
        "of one kind": [constrained(matching(), two())] of [numa(int(1), int(2), int(2))] => "one:y two:z";
        "of no kind": [constrained(matching(), two())] of [numa(int(1), int(2), int(3))] => "none";
        "of other types": [constrained(matching(), two())] of [numa(int(1), text("1"), json!({ "bool": true }))] => "none";
        "versions": [constrained(matching(), two())] of [
            numa(json!({ "version": "1.0.0" }), json!({ "version": "1.0.1" }), json!({ "version": "1.0.0" }))] => "one:x two:z";
        "without the attribute": [constrained(matching(), two())] of [local(plain(&["x", "y"]))] => "none";
        "the full name": [constrained(matching(), two())] of [
            local(json!([with_attributes("x", json!({ "a/numa": int(1) })), with_attributes("y", json!({ "numa": int(1) }))]))]
            => "one:x two:y";
        "for some requests": [constrained(json!([{ "matchAttribute": "a/numa", "requests": ["one"] }]), two())] of [
            numa(int(1), int(2), int(3))] => "one:x two:y";
        "all devices break it": [constrained(matching(), json!([all("r")]))] of [numa(int(1), int(1), int(2))]
            => "claim ns/c, request r: cannot add device a/p/z because a claim constraint would not be satisfied";
        "all differ": [constrained(distinct(), two())] of [numa(int(1), int(1), int(2))] => "one:x two:z";
        "none differs": [constrained(distinct(), two())] of [numa(int(1), int(1), int(1))] => "none";
        "two constraints": [constrained(json!([
            { "matchAttribute": "a/kind" }, { "distinctAttribute": "a/numa", "requests": ["one", "two"] }]), two())] of [
            local(json!([
                with_attributes("x", json!({ "kind": text("k"), "numa": int(1) })),
                with_attributes("y", json!({ "kind": text("l"), "numa": int(1) })),
                with_attributes("z", json!({ "kind": text("l"), "numa": int(2) })),
            ]))] => "one:y two:z";
        "of an alternative": [constrained(
            json!([{ "matchAttribute": "a/numa", "requests": ["one", "two/s"] }]),
            json!([count("one", 1), first("two", &[("s", "a", json!({})), ("t", "a", json!({}))])]),
        )] of [local(json!([with_attributes("x", json!({ "numa": int(1) })), with_attributes("y", json!({ "numa": int(2) }))]))]
            => "one:x two/t:y";
        "of a request with alternatives": [constrained(
            json!([{ "matchAttribute": "a/numa", "requests": ["one", "two"] }]),
            json!([count("one", 1), first("two", &[("s", "a", json!({})), ("t", "a", json!({}))])]),
        )] of [numa(int(1), int(2), int(1))] => "one:x two/s:z";
    }
}

#[test]
fn alternatives() {
    let half = |class: &'static str, count: i64| (class, "a", json!({ "count": count }));
    let many: Vec<String> = (0..64).map(|index| format!("d{index:02}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    cases! {
        "the first": [claim(json!([first("r", &[("s", "a", json!({})), ("t", "b", json!({}))])]))] of [local(plain(&["x"]))]
            => "r/s:x";
        "the second": [claim(json!([first("r", &[("s", "b", json!({})), ("t", "a", json!({}))])]))] of [local(plain(&["x"]))]
            => "r/t:x";
        "neither": [claim(json!([first("r", &[("s", "b", json!({})), ("t", "b", json!({}))])]))] of [local(plain(&["x"]))] => "none";
        "all is not to be had": [claim(json!([first("r", &[("s", "a", json!({ "allocationMode": "All", "count": null })), ("t", "a", json!({}))])]))] of [
            local(plain(&["x", "y"]))] without ["a/p/x"] => "r/t:y";
        "too many at first": [claim(json!([first("r", &[half("s", 500), half("t", 1)])]))] of [local(plain(&["x"]))] => "r/t:x";
        "it gives way to a later request": [claim(json!([
            first("r", &[("s", "a", memory("8Gi")), ("t", "a", memory("4Gi"))]), exactly("u", memory("8Gi"))]))] of [
            local(json!([with_memory("x", "8Gi"), with_memory("y", "4Gi")]))] => "r/t:y u:x";
        "the limit of a claim": [claim(json!([first("r", &[half("s", 32), half("t", 1)]), first("u", &[half("s", 32), half("t", 1)])]))] of [
            local(plain(&many))] => "r/t:d00 u/t:d01";
    }
}

#[test]
fn counters_are_shared() {
    let memory_of = |name: &str, memory: &str| counting(name, "set", &json!({ "memory": memory }));
    let parts = |devices: Value| {
        slice(
            "s",
            "a",
            "p",
            2,
            json!({ "nodeName": "n", "devices": devices }),
        )
    };
    let two = || json!([count("r", 2)]);
    cases! {
        "enough": [claim(two())] of [
            parts(json!([memory_of("x", "4Gi"), memory_of("y", "4Gi")])), counters("t", "p", 2, "set", "8Gi")] => "r:x r:y";
        "the second does not fit": [claim(two())] of [
            parts(json!([memory_of("x", "5Gi"), memory_of("y", "4Gi"), memory_of("z", "4Gi")])), counters("t", "p", 2, "set", "8Gi")]
            => "r:y r:z";
        "too little": [claim(two())] of [
            parts(json!([memory_of("x", "5Gi"), memory_of("y", "4Gi")])), counters("t", "p", 2, "set", "8Gi")] => "none";
        "what is taken counts": [claim(json!([count("r", 1)]))] of [
            parts(json!([memory_of("x", "5Gi"), memory_of("y", "4Gi")])), counters("t", "p", 2, "set", "8Gi")]
            without ["a/p/x"] => "none";
        "what is taken elsewhere counts": [claim(json!([count("r", 1)]))] of [
            slice("s", "a", "p", 3, json!({ "nodeName": "n", "devices": [memory_of("x", "6Gi"), memory_of("y", "2Gi")] })),
            slice("u", "a", "p", 3, json!({ "nodeName": "m", "devices": [memory_of("z", "6Gi")] })),
            counters("t", "p", 3, "set", "8Gi")]
            without ["a/p/z"] => "r:y";
        "more is taken than there is": [claim(json!([count("r", 1)]))] of [
            parts(json!([memory_of("x", "1Gi"), memory_of("y", "20Gi")])), counters("t", "p", 2, "set", "18Gi")]
            without ["a/p/y"] => "none";
        "each pool has its own": [claim(two())] of [
            parts(json!([memory_of("x", "8Gi")])), counters("t", "p", 2, "set", "8Gi"),
            slice("u", "a", "q", 2, json!({ "nodeName": "n", "devices": [memory_of("x", "8Gi")] })), counters("v", "q", 2, "set", "8Gi")]
            => "r:x r:a/q/x";
        "all": [claim(json!([all("r")]))] of [
            parts(json!([memory_of("x", "4Gi")])), counters("t", "p", 2, "set", "8Gi")] => "r:x";
        "devices choose their nodes": [claim(two())] of [
            slice("s", "a", "p", 1, json!({ "perDeviceNodeSelection": true, "devices": [
                device("x", json!({ "nodeName": "m" })), device("y", json!({ "allNodes": true })),
                device("z", json!({ "nodeSelector": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": "region", "operator": "Exists" }] }] } })),
            ] }))] => "r:y r:z @region";
    }
}

#[test]
fn capacity_is_shared() {
    let ranged = |name: &str| {
        let policy =
            json!({ "default": "2", "validRange": { "min": "2", "step": "2", "max": "4" } });
        let mut device = shared(name, "4");
        device["capacity"]["c"]["requestPolicy"] = policy;
        device
    };
    let all_of = |name: &str, amount: &str| {
        let mut request = all(name);
        request["exactly"]["capacity"] = json!({ "requests": { "c": amount } });
        request
    };
    cases! {
        "two share": [claim(json!([taking("r", "1")])), claim(json!([taking("r", "1")]))] of [
            local(json!([shared("shared", "2")]))] => "r:shared(c=1); r:shared(c=1)";
        "a third does not fit": [claim(json!([taking("r", "1")])), claim(json!([taking("r", "2")]))] of [
            local(json!([shared("shared", "2")]))] => "none";
        "without a request all is taken": [claim(json!([count("r", 1)])), claim(json!([taking("r", "1")]))] of [
            local(json!([shared("shared", "2")]))] => "none";
        "without a request the default is taken": [claim(json!([count("r", 1)])), claim(json!([count("r", 1)]))] of [
            local(json!([ranged("shared")]))] => "r:shared(c=2); r:shared(c=2)";
        "rounded up": [claim(json!([taking("r", "3")]))] of [local(json!([ranged("shared")]))] => "r:shared(c=4)";
        "more than allowed": [claim(json!([taking("r", "5")]))] of [local(json!([ranged("shared")]))] => "none";
        "what is left": [claim(json!([taking("r", "1")]))] of [local(json!([shared("shared", "2")]))]
            without ["a/p/shared=1"] => "r:shared(c=1)";
        "the next device": [claim(json!([taking("r", "2")]))] of [local(json!([shared("shared", "2"), shared("shared2", "2")]))]
            without ["a/p/shared=1"] => "r:shared2(c=2)";
        "no such capacity": [claim(json!([taking("r", "1")]))] of [local(plain(&["x"]))] => "none";
        "dedicated before": [claim(json!([taking("r", "1")]))] of [local(json!([shared("shared", "2")]))]
            without ["a/p/shared"] => "none";
        "one's own": [claim(json!([taking("r", "1")])), claim(json!([taking("r", "1")]))] of [
            local(json!([device("x", json!({ "capacity": { "c": { "value": "2" } } }))]))] => "none";
        "all that have enough": [claim(json!([all_of("r", "2")]))] of [local(json!([shared("shared", "2"), shared("shared2", "1")]))]
            => "r:shared(c=2)";
        "one and all": [claim(json!([taking("one", "1"), all_of("rest", "1")]))] of [
            local(json!([shared("shared", "2"), shared("shared2", "1")]))] => "one:shared(c=1) rest:shared(c=1) rest:shared2(c=1)";
        "all, of what is left": [claim(json!([all_of("r", "1")]))] of [local(json!([shared("shared", "1"), shared("shared2", "1")]))]
            without ["a/p/shared=1"] => "r:shared2(c=1)";
        "it differs only from other devices": [constrained(json!([{ "distinctAttribute": "a/k" }]), json!([taking("one", "1"), taking("two", "1")]))] of [
            local(json!([{ "name": "shared", "allowMultipleAllocations": true, "attributes": { "k": { "int": 1 } },
                "capacity": { "c": { "value": "2" } } }]))] => "none";
    }
}

#[test]
fn taints_keep_devices_from_being_used() {
    let tainted = |taints: Value| local(json!([device("x", json!({ "taints": taints }))]));
    let taint = |key: &str, effect: &str| json!({ "key": key, "value": "v", "effect": effect });
    let tolerating =
        |tolerations: Value| claim(json!([exactly("r", json!({ "tolerations": tolerations }))]));
    cases! {
        "no schedule": [claim(json!([count("r", 1)]))] of [tainted(json!([taint("k", "NoSchedule")]))] => "none";
        "no execute": [claim(json!([count("r", 1)]))] of [tainted(json!([taint("k", "NoExecute")]))] => "none";
        "no effect": [claim(json!([count("r", 1)]))] of [tainted(json!([taint("k", "None")]))] => "r:x";
        "tolerated": [tolerating(json!([{ "key": "k", "operator": "Equal", "value": "v" }]))] of [
            tainted(json!([taint("k", "NoSchedule")]))] => "r:x";
        "another value": [tolerating(json!([{ "key": "k", "operator": "Equal", "value": "w" }]))] of [
            tainted(json!([taint("k", "NoSchedule")]))] => "none";
        "another effect": [tolerating(json!([{ "operator": "Exists", "effect": "NoExecute" }]))] of [
            tainted(json!([taint("k", "NoSchedule")]))] => "none";
        "one of two": [tolerating(json!([{ "key": "k", "operator": "Exists" }]))] of [
            tainted(json!([taint("k", "NoSchedule"), taint("l", "NoSchedule")]))] => "none";
        "any": [tolerating(json!([{ "operator": "Exists" }]))] of [
            tainted(json!([taint("k", "NoSchedule"), taint("l", "NoExecute")]))] => "r:x";
        "also to administrators": [claim(json!([admin("r", json!({}))]))] of [tainted(json!([taint("k", "NoSchedule")]))] => "none";
        "all": [claim(json!([all("r")]))] of [tainted(json!([taint("k", "NoSchedule")]))] => "none";
    }
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let selecting = |expression: &str| claim(json!([exactly("r", cel(expression))]));
    let of_class = |class: &str| claim(json!([exactly("r", json!({ "deviceClassName": class }))]));
    let one = || local(plain(&["x"]));
    cases! {
        "no such class": [of_class("z")] of [one()]
            => "claim ns/c, request r: could not retrieve device class z: deviceclass.resource.k8s.io \"z\" not found";
        "no class": [of_class("")] of [one()]
            => "claim ns/c, request r: missing device class name (unsupported request type?)";
        "no selector": [claim(json!([exactly("r", json!({ "selectors": [{}] }))]))] of [one()]
            => "claim ns/c, request r, selector #0: CEL expression empty (unsupported selector type?)";
        "no mode": [claim(json!([exactly("r", json!({ "allocationMode": "future" }))]))] of [one()]
            => "claim ns/c, request r: unsupported count mode future";
        "no constraint": [constrained(json!([{}]), json!([count("r", 1)]))] of [one()]
            => "claim ns/c, constraint #0: empty constraint (unsupported constraint type?)";
        "no attribute": [selecting("device.attributes['a'].none == 1")] of [one()]
            => "claim ns/c: selector #0: CEL runtime error: no such key: none";
        "too many": [claim(json!([count("r", 33)]))] of [one()]
            => "claim ns/c: number of requested devices 33 exceeds the claim limit of 32";
    }
}

#[test]
fn configuration_comes_from_classes_and_claims() {
    let config = |requests: &[&str], driver: &str| json!({ "requests": requests, "opaque": { "driver": driver, "parameters": {} } });
    let claim = json!({
        "requests": [count("one", 1), count("two", 1), first("three", &[("s", "b", json!({})), ("t", "a", json!({}))])],
        "config": [config(&[], "every"), config(&["two"], "two"), config(&["three/s"], "s"), config(&["three/t"], "t")],
    });
    let allocated = allocate(
        &[claim],
        &[local(plain(&["x", "y", "z"]))],
        Taken::default(),
    );
    let mut allocated = allocated.unwrap().unwrap();
    let devices = allocated.remove(0).devices.unwrap();
    let config: Vec<String> = devices
        .config
        .unwrap()
        .into_iter()
        .map(|config| {
            let requests = config.requests.unwrap_or_default().join(",");
            format!(
                "{} {} {requests}",
                config.source,
                config.opaque.unwrap().driver
            )
        })
        .collect();
    assert_eq!(
        config,
        [
            "FromClass a one,two,three/t",
            "FromClaim every ",
            "FromClaim two two",
            "FromClaim t three/t"
        ]
    );
}
