//! Expressions that are, and that are none, and what is said of them.

use coracle_api::expression::Admission;

use crate::{Scope, compile};

fn admission() -> Scope {
    let mut scope = Scope::admission(&Admission {
        params: true,
        authorizer: true,
        variables: true,
        patches: true,
    });
    scope.set_variable("count", &crate::Type::Int);
    scope
}

/// The type of the expression, or what is wrong with it.
fn tell(scope: &Scope, source: &str) -> String {
    match compile(source, scope) {
        Ok(compiled) => compiled.result.to_string(),
        Err(error) => {
            let error = error.to_string();
            let error = error.strip_prefix("compilation failed: ").unwrap_or(&error);
            error.lines().next().unwrap_or_default().to_owned()
        }
    }
}

#[test]
fn expressions_have_types() {
    for (source, expected) in [
        ("true", "bool"),
        ("object.spec.replicas > 3", "bool"),
        ("object.spec.replicas", "dyn"),
        (
            "has(object.metadata.labels) && 'a' in object.metadata.labels",
            "bool",
        ),
        (
            "object.spec.containers.all(c, c.image.startsWith('x'))",
            "bool",
        ),
        ("object.spec.containers.map(c, c.name)", "list(dyn)"),
        ("object.?metadata.?labels.orValue({}).size() == 0", "bool"),
        ("object.a + object.b", "dyn"),
        ("'x' + object.metadata.name", "string"),
        ("[1, 2].map(x, x * 2)", "list(int)"),
        ("[1, 2].map(x, x > 1, string(x))", "list(string)"),
        ("[1, 2].filter(x, x > 1).size()", "int"),
        ("[1, 2].exists_one(x, x > 1)", "bool"),
        ("{'a': 1}.all(k, v, k == 'a' && v > 0)", "bool"),
        ("{'a': 1}.exists(k, v, v > 0)", "bool"),
        ("[1].existsOne(i, v, i == v)", "bool"),
        ("['a'].transformList(i, v, string(i) + v)", "list(string)"),
        ("['a'].transformMap(i, v, i > 0, v)", "map(int, string)"),
        ("['a'].transformMapEntry(i, v, {v: i})", "map(string, int)"),
        ("[]", "list(dyn)"),
        ("[[], [1]]", "list(list(int))"),
        ("{}", "map(dyn, dyn)"),
        ("null", "null"),
        ("1 < 2.0 && 1u < 2", "bool"),
        ("true ? 1 : 2", "int"),
        ("type(1) == int", "bool"),
        ("type('a') == string", "bool"),
        (
            "timestamp('2026-01-01T00:00:00Z') - duration('1h')",
            "timestamp",
        ),
        ("timestamp('2026-01-01T00:00:00Z').getFullYear()", "int"),
        ("'%s'.format([1])", "string"),
        ("['b', 'a'].sort().join(',')", "string"),
        ("[{'a': 2}].sortBy(e, e.a)", "list(map(string, int))"),
        ("[1, 2].sum() + lists.range(3).max()", "int"),
        ("sets.contains([1], [2])", "bool"),
        ("optional.of(1).optMap(x, x + 1).orValue(0)", "int"),
        ("optional.of([1]).optFlatMap(x, x[?0]).hasValue()", "bool"),
        ("[1][?0].or(optional.none()).value()", "int"),
        ("{?'a': optional.of('b')}", "map(string, string)"),
        ("'a' in ['a'] && 1 in {1: 2}", "bool"),
        ("'abc'.find('b').matches('b')", "bool"),
        ("url('https://a').getHost() == 'a' && isURL('x')", "bool"),
        ("ip('::1').family() == 6 && ip.isCanonical('::1')", "bool"),
        ("cidr('10.0.0.0/8').containsIP('10.0.0.1')", "bool"),
        ("cidr('10.0.0.0/8').ip().isLoopback()", "bool"),
        (
            "quantity('1Gi').add(1).isGreaterThan(quantity('1'))",
            "bool",
        ),
        ("sign(quantity('1'))", "int"),
        ("semver('v1', true).major()", "int"),
        (
            "format.named('uuid').value().validate('x').hasValue()",
            "bool",
        ),
        ("!format.dns1123Label().validate('x').hasValue()", "bool"),
        (
            "authorizer.group('apps').resource('deployments').check('get').allowed()",
            "bool",
        ),
        (
            "authorizer.path('/healthz').check('get').reason()",
            "string",
        ),
        (
            "authorizer.requestResource.check('create').allowed()",
            "bool",
        ),
        (
            "authorizer.serviceAccount('a', 'b').group('').resource('pods').namespace('x').check('get').error()",
            "string",
        ),
        ("request.userInfo.groups.exists(g, g == 'a')", "bool"),
        ("request.kind.group", "string"),
        ("namespaceObject.metadata.labels['a']", "string"),
        (
            "namespaceObject.metadata.?labels[?'a'].orValue('')",
            "string",
        ),
        ("params.x == oldObject.y", "bool"),
        ("variables.count + 1", "int"),
        ("oldObject == null || object.a != oldObject.a", "bool"),
        ("Object{spec: Object.spec{replicas: 3}}", "Object"),
        (
            "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c'), value: 1}]",
            "list(JSONPatch)",
        ),
        (
            "object.spec.x.exists(e, object.spec.y.exists(f, e == f))",
            "bool",
        ),
    ] {
        assert_eq!(tell(&admission(), source), expected, "{source}");
    }
}

#[test]
fn what_does_not_go_together_is_told_with_its_place() {
    for (source, expected) in [
        (
            "objects.a",
            "1:1: undeclared reference to 'objects' (in container '')",
        ),
        (
            "true && x",
            "1:9: undeclared reference to 'x' (in container '')",
        ),
        (
            "nope(1)",
            "1:5: undeclared reference to 'nope' (in container '')",
        ),
        (
            "'a'.nope()",
            "1:9: undeclared reference to 'nope' (in container '')",
        ),
        (
            "[1].all(x, y)",
            "1:12: undeclared reference to 'y' (in container '')",
        ),
        (
            "1 + 'a'",
            "1:3: found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (
            "'a'.startsWith(1)",
            "1:15: found no matching overload for 'startsWith' applied to 'string.(int)'",
        ),
        (
            "sets.contains(1, [1])",
            "1:14: found no matching overload for 'sets.contains' applied to '(int, list(int))'",
        ),
        (
            "1 == 'a'",
            "1:3: found no matching overload for '_==_' applied to '(int, string)'",
        ),
        ("1 && true", "1:1: expected type 'bool' but found 'int'"),
        ("[1, 'a']", "1:5: expected type 'int' but found 'string'"),
        (
            "{'a': 1, 'b': true}",
            "1:15: expected type 'int' but found 'bool'",
        ),
        ("(1).a", "1:4: type 'int' does not support field selection"),
        (
            "5.all(x, true)",
            "1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("request.nope", "1:8: undefined field 'nope'"),
        ("variables.nope", "1:10: undefined field 'nope'"),
        (
            "quantity('1').a",
            "1:14: unexpected failed resolution of 'kubernetes.Quantity'",
        ),
        (
            "Nope{a: 1}",
            "1:5: undeclared reference to 'Nope' (in container '')",
        ),
        (
            "JSONPatch{op: 1}",
            "1:13: expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        (
            "true\n  && x",
            "2:6: undeclared reference to 'x' (in container '')",
        ),
        ("[1].all(x.y, true)", "1:10: argument must be a simple name"),
        ("has(1)", "1:5: invalid argument to has() macro"),
        (
            "cel.bind(x, 1, x > 0)",
            "1:1: undeclared reference to 'cel' (in container '')",
        ),
        ("object.spec.", "1:13: Syntax error: "),
        ("?!", "1:1: Syntax error: "),
        ("", "1:1: Syntax error: "),
    ] {
        let told = tell(&admission(), source);
        let told = told.strip_prefix("ERROR: <input>:").unwrap_or(&told);
        assert!(told.starts_with(expected), "{source}: {told}");
    }
    let plain = Scope::admission(&Admission::default());
    for (source, name) in [
        ("params.a", "params"),
        ("authorizer.path('/')", "authorizer"),
        ("authorizer.requestResource.check('x')", "authorizer"),
        ("variables.a", "variables"),
        ("Object{}", "Object"),
        ("jsonpatch.escapeKey('a')", "jsonpatch"),
        ("device.driver", "device"),
    ] {
        let told = tell(&plain, source);
        let expected = format!("undeclared reference to '{name}' (in container '')");
        assert!(told.contains(&expected), "{source}: {told}");
    }
}

#[test]
fn devices_have_types() {
    for (source, expected) in [
        ("device.driver == 'a'", "bool"),
        ("device.attributes['a'].b", "any"),
        (
            "device.attributes['a'].b.isGreaterThan(semver('1.0.0'))",
            "bool",
        ),
        (
            "device.capacity['a'].b.isGreaterThan(quantity('1'))",
            "bool",
        ),
        ("device.attributes['a'].?b.orValue('z') == 'z'", "bool"),
        ("cel.bind(d, device.attributes['a'], d.x && d.y)", "bool"),
        ("device.allowMultipleAllocations", "bool"),
        ("'a' in device.attributes", "bool"),
        ("device.attributes.exists_one(x, x == 'a')", "bool"),
        ("device.attributes['a'].s.split('b').size() >= 2", "bool"),
        ("1", "int"),
    ] {
        assert_eq!(tell(&Scope::device(), source), expected, "{source}");
    }
    for (source, expected) in [
        ("device.nope", "undefined field 'nope'"),
        (
            "device.attributes['a'].b.includes('c')",
            "undeclared reference to 'includes'",
        ),
        ("object.a", "undeclared reference to 'object'"),
        (
            "device.driver > 1",
            "found no matching overload for '_>_' applied to '(string, int)'",
        ),
    ] {
        let told = tell(&Scope::device(), source);
        assert!(told.contains(expected), "{source}: {told}");
    }
}

#[test]
fn an_error_shows_the_line_and_marks_the_place() {
    let error = compile("true &&\n\tx == 1", &admission()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "compilation failed: ERROR: <input>:2:2: undeclared reference to 'x' (in container '')\n |  \
         x == 1\n | .^"
    );
    let error = compile("'ü' == x", &admission()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "compilation failed: ERROR: <input>:1:8: undeclared reference to 'x' (in container '')\n | \
         'ü' == x\n | .．.....^"
    );
}

#[test]
fn costs_of_selectors_are_what_upstream_estimates() {
    for (source, expected) in [
        ("true", 0),
        ("device.driver == ''", 2),
        ("device.driver == 'dra.example.com'", 4),
        ("'dra.example.com' in device.attributes", 3),
        ("device.attributes['dra.example.com'].name", 4),
        ("device.attributes['dra.example.com']['name']", 4),
        (
            "cel.bind(dra, device.attributes['dra.example.com'], dra.name)",
            15,
        ),
        ("device.attributes['dra.example.com'].name > 0", 5),
        ("device.attributes['dra.example.com'].name == 'fish'", 5),
        (
            "device.attributes['dra.example.com'].name.isGreaterThan(semver('0.0.1'))",
            6,
        ),
        (
            "device.capacity['dra.example.com'].name.isGreaterThan(quantity('1Ki'))",
            6,
        ),
        (
            "'name' in device.capacity['dra.example.com'] && device.capacity['dra.example.com'].name.isGreaterThan(quantity('1Ki'))",
            10,
        ),
        (
            "!('name' in device.capacity['dra.example.com']) || device.capacity['dra.example.com'].name.isGreaterThan(quantity('1Ki'))",
            11,
        ),
        (
            "device.attributes.exists_one(x, x == 'dra.example.com')",
            164,
        ),
        (
            "device.attributes['dra.example.com'].exists_one(x, x == 'services')",
            133,
        ),
        (
            "device.attributes['dra.example.com'].services.matches('[^a]?sym')",
            18,
        ),
        ("device.capacity.exists_one(x, x == 'dra.example.com')", 164),
        ("device.allowMultipleAllocations == true", 3),
    ] {
        let compiled = compile(source, &Scope::device()).expect(source);
        assert_eq!(
            crate::cost::most(compiled.program.expression()),
            expected,
            "{source}"
        );
    }
    let ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
    let mut nested = "1 < 2".to_owned();
    for depth in 0..6 {
        nested = format!("{ten}.all(x{depth}, {nested})");
    }
    let compiled = compile(&nested, &Scope::device()).expect("an expression");
    assert!(crate::cost::most(compiled.program.expression()) > 1_000_000);
}
