//! What is wrong with an Ingress.
//!
//! Upstream: `pkg/apis/networking/validation`.

use k8s_openapi::api::{
    core::v1::TypedLocalObjectReference,
    networking::v1::{
        HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
        IngressServiceBackend, IngressTLS,
    },
};

use crate::{
    check,
    field::{ErrorList, Path, value_of},
    formats, names,
    zero::{list, text},
};

/// The annotation that once named the class.
pub const CLASS: &str = "kubernetes.io/ingress.class";

/// What an older release let pass, and what stays allowed in an object that has it.
#[derive(Clone, Copy, Default)]
struct Allowed {
    secret_names: bool,
    wildcard_rules: bool,
}

pub fn create(ingress: &Ingress) -> ErrorList {
    let mut errors = ErrorList::new();
    spec(ingress, Allowed::default(), &mut errors);
    let annotation = ingress
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(CLASS));
    let class = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_ref());
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        errors.push(Path::new("annotations").child(CLASS).invalid(
            annotation.as_str(),
            "must match `ingressClassName` when both are specified",
        ));
    }
    errors
}

pub fn update(new: &Ingress, old: &Ingress) -> ErrorList {
    let mut errors = ErrorList::new();
    let old = old.spec.iter();
    let (tls, rules): (Vec<_>, Vec<_>) =
        old.map(|spec| (list(&spec.tls), list(&spec.rules))).unzip();
    let is_invalid = |rule: &&IngressRule| {
        let mut errors = ErrorList::new();
        rule_value(rule, &Path::default(), &mut errors);
        text(&rule.host).contains('*') && !errors.is_empty()
    };
    let allowed = Allowed {
        secret_names: tls
            .into_iter()
            .flatten()
            .any(|tls| !secret_name(tls).is_empty()),
        wildcard_rules: rules.into_iter().flatten().any(|rule| is_invalid(&rule)),
    };
    spec(new, allowed, &mut errors);
    errors
}

pub fn status(new: &Ingress, old: &Ingress) -> ErrorList {
    let mut errors = ErrorList::new();
    let points = |ingress: &Ingress| {
        let status = ingress.status.clone().unwrap_or_default();
        let points = status.load_balancer.unwrap_or_default().ingress;
        points.unwrap_or_default()
    };
    let known = points(old);
    let path = Path::new("status.loadBalancer.ingress");
    for (index, point) in points(new).iter().enumerate() {
        let path = path.index(index);
        let ip = text(&point.ip);
        if !ip.is_empty() && !known.iter().any(|known| text(&known.ip) == ip) {
            check::ip(ip, &path.child("ip"), &mut errors);
        }
        let (hostname, path) = (text(&point.hostname), path.child("hostname"));
        if !hostname.is_empty() {
            check::subdomain(hostname, &path, &mut errors);
            dns_name(hostname, &path, &mut errors);
        }
    }
    errors
}

fn dns_name(host: &str, path: &Path, errors: &mut ErrorList) {
    if formats::sloppy_ip(host).is_some() {
        errors.push(path.invalid(host, "must be a DNS name, not an IP address"));
    }
}

fn spec(ingress: &Ingress, allowed: Allowed, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = ingress.spec.clone().unwrap_or_default();
    let rules = list(&spec.rules);
    match &spec.default_backend {
        None if rules.is_empty() => errors.push(path.invalid(
            value_of(&spec.rules),
            "either `defaultBackend` or `rules` must be specified",
        )),
        None => {}
        Some(service) => backend(service, &path.child("defaultBackend"), errors),
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        let host_path = path.child("host");
        let host = text(&rule.host);
        if !host.is_empty() {
            dns_name(host, &host_path, errors);
            host_name(host, &host_path, errors);
        }
        if !host.contains('*') || !allowed.wildcard_rules {
            rule_value(rule, &path, errors);
        }
    }
    for (index, tls) in list(&spec.tls).iter().enumerate() {
        let path = path.child("tls").index(index);
        for (index, host) in list(&tls.hosts).iter().enumerate() {
            host_name(host, &path.child("hosts").index(index), errors);
        }
        if !allowed.secret_names {
            let name = text(&tls.secret_name);
            check::each(&path.child("secretName"), name, secret_name(tls), errors);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        check::subdomain(class, &path.child("ingressClassName"), errors);
    }
}

fn secret_name(tls: &IngressTLS) -> Vec<String> {
    match text(&tls.secret_name) {
        "" => Vec::new(),
        name => names::dns1123_subdomain(name),
    }
}

fn host_name(host: &str, path: &Path, errors: &mut ErrorList) {
    let messages = if host.contains('*') {
        names::wildcard_dns1123_subdomain(host)
    } else {
        names::dns1123_subdomain(host)
    };
    check::each(path, host, messages, errors);
}

fn rule_value(rule: &IngressRule, path: &Path, errors: &mut ErrorList) {
    let Some(HTTPIngressRuleValue { paths }) = &rule.http else {
        return;
    };
    let path = path.child("http").child("paths");
    if paths.is_empty() {
        errors.push(path.required(""));
    }
    for (index, item) in paths.iter().enumerate() {
        http_path(item, &path.index(index), errors);
    }
}

fn http_path(item: &HTTPIngressPath, path: &Path, errors: &mut ErrorList) {
    const NOT_INSIDE: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
    const NOT_AT_THE_END: &[&str] = &["/..", "/."];
    let (value, value_path) = (text(&item.path), path.child("path"));
    let absolute = |errors: &mut ErrorList| {
        if !value.starts_with('/') {
            errors.push(value_path.invalid(value, "must be an absolute path"));
        }
    };
    match item.path_type.as_str() {
        "" => {
            let path = path.child("pathType");
            errors.push(path.required("pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            absolute(errors);
            for part in NOT_INSIDE.iter().filter(|part| value.contains(**part)) {
                errors.push(value_path.invalid(value, format!("must not contain '{part}'")));
            }
            for end in NOT_AT_THE_END.iter().filter(|end| value.ends_with(**end)) {
                errors.push(value_path.invalid(value, format!("cannot end with '{end}'")));
            }
        }
        "ImplementationSpecific" if value.is_empty() => {}
        "ImplementationSpecific" => absolute(errors),
        other => errors.push(
            path.child("pathType")
                .not_supported(other, &["Exact", "ImplementationSpecific", "Prefix"]),
        ),
    }
    backend(&item.backend, &path.child("backend"), errors);
}

fn backend(backend: &IngressBackend, path: &Path, errors: &mut ErrorList) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            errors.push(path.invalid("", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => resource_backend(resource, &path.child("resource"), errors),
        (None, Some(service)) => service_backend(service, path, errors),
        (None, None) => errors.push(path.invalid("", "resource or service backend is required")),
    }
}

fn service_backend(service: &IngressServiceBackend, path: &Path, errors: &mut ErrorList) {
    let name_path = path.child("service.name");
    if service.name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::dns_label(&service.name, &name_path, errors);
    }
    let port = service.port.clone().unwrap_or_default();
    match (text(&port.name), port.number.unwrap_or_default()) {
        ("", 0) => errors.push(path.required("port name or number is required")),
        ("", number) => {
            let path = path.child("service.port.number");
            check::each(&path, number, formats::port_number(number), errors);
        }
        (name, 0) => {
            let path = path.child("service.port.name");
            check::each(&path, name, formats::port_name(name), errors);
        }
        _ => errors.push(path.invalid("", "cannot set both port name & port number")),
    }
}

fn resource_backend(resource: &TypedLocalObjectReference, path: &Path, errors: &mut ErrorList) {
    if let Some(group) = &resource.api_group {
        check::subdomain(group, &path.child("apiGroup"), errors);
    }
    check::required_path_segment(&resource.kind, &path.child("kind"), errors);
    check::required_path_segment(&resource.name, &path.child("name"), errors);
}
