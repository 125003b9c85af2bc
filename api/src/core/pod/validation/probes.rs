//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
    SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    check,
    field::{ErrorList, Path},
    formats,
    zero::{list, text},
};

/// The three probes of a container.
pub fn probes(
    container: &Container,
    grace_period: Option<i64>,
    path: &Path,
    errors: &mut ErrorList,
) {
    if let Some(liveness) = &container.liveness_probe {
        let path = path.child("livenessProbe");
        probe(liveness, grace_period, &path, errors);
        must_succeed_once(liveness, &path, errors);
    }
    if let Some(readiness) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        probe(readiness, grace_period, &path, errors);
        if let Some(seconds) = readiness.termination_grace_period_seconds {
            errors.push(
                path.child("terminationGracePeriodSeconds")
                    .invalid(seconds, "must not be set for readinessProbes"),
            );
        }
    }
    if let Some(startup) = &container.startup_probe {
        let path = path.child("startupProbe");
        probe(startup, grace_period, &path, errors);
        must_succeed_once(startup, &path, errors);
    }
}

fn must_succeed_once(probe: &Probe, path: &Path, errors: &mut ErrorList) {
    let threshold = probe.success_threshold.unwrap_or(0);
    if threshold != 1 {
        errors.push(
            path.child("successThreshold")
                .invalid(threshold, "must be 1"),
        );
    }
}

fn probe(probe: &Probe, grace_period: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler.check(grace_period, path, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        check::not_negative(value.unwrap_or(0).into(), &path.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds
        && seconds <= 0
    {
        errors.push(
            path.child("terminationGracePeriodSeconds")
                .invalid(seconds, "must be greater than 0"),
        );
    }
}

/// The hooks of a container.
pub fn lifecycle(
    lifecycle: &Lifecycle,
    grace_period: Option<i64>,
    path: &Path,
    errors: &mut ErrorList,
) {
    for (field, hook) in [
        ("postStart", &lifecycle.post_start),
        ("preStop", &lifecycle.pre_stop),
    ] {
        if let Some(hook) = hook {
            Handler::from(hook).check(grace_period, &path.child(field), errors);
        }
    }
}

/// What a probe or hook does; exactly one of these.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> From<&'a LifecycleHandler> for Handler<'a> {
    fn from(hook: &'a LifecycleHandler) -> Self {
        Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }
}

impl Handler<'_> {
    fn check(&self, grace_period: Option<i64>, path: &Path, errors: &mut ErrorList) {
        let mut found = false;
        // Only the first action is looked at more closely.
        let mut is_first = |field: &str, errors: &mut ErrorList| {
            if found {
                errors.push(
                    path.child(field)
                        .forbidden("may not specify more than 1 handler type"),
                );
            }
            !std::mem::replace(&mut found, true)
        };
        if let Some(exec) = self.exec
            && is_first("exec", errors)
            && list(&exec.command).is_empty()
        {
            errors.push(path.child("exec.command").required(""));
        }
        if let Some(action) = self.http_get
            && is_first("httpGet", errors)
        {
            http_get(action, &path.child("httpGet"), errors);
        }
        if let Some(socket) = self.tcp_socket
            && is_first("tcpSocket", errors)
        {
            check::port_number_or_name(&socket.port, &path.child("tcpSocket.port"), errors);
        }
        if let Some(grpc) = self.grpc
            && is_first("grpc", errors)
        {
            let port = IntOrString::Int(grpc.port);
            check::port_number_or_name(&port, &path.child("grpc.port"), errors);
        }
        if let Some(action) = self.sleep
            && is_first("sleep", errors)
        {
            sleep(action, grace_period, &path.child("sleep"), errors);
        }
        if !found {
            errors.push(path.required("must specify a handler type"));
        }
    }
}

fn http_get(action: &HTTPGetAction, path: &Path, errors: &mut ErrorList) {
    check::required(text(&action.path), &path.child("path"), errors);
    check::port_number_or_name(&action.port, &path.child("port"), errors);
    let scheme_path = path.child("scheme");
    check::one_of(
        text(&action.scheme),
        &["HTTP", "HTTPS"],
        &scheme_path,
        errors,
    );
    for header in list(&action.http_headers) {
        let name = header.name.as_str();
        check::each(
            &path.child("httpHeaders"),
            name,
            formats::http_header_name(name),
            errors,
        );
    }
}

fn sleep(action: &SleepAction, grace_period: Option<i64>, path: &Path, errors: &mut ErrorList) {
    if let Some(period) = grace_period
        && !(0..=period).contains(&action.seconds)
    {
        errors.push(path.invalid(
            action.seconds,
            format!("must be non-negative and less than terminationGracePeriodSeconds ({period})"),
        ));
    }
}
