//! The plugins that a cluster has: upstream's authenticators, authorizers and admission, in
//! upstream's order.
//!
//! Enter at [`plugins`].

use std::sync::Arc;

use arc_swap::ArcSwap;
use coracle_transport::ClientCertificates;
use tokio_util::sync::CancellationToken;

use crate::{
    Lookup, Plugins, Registry,
    admission::{
        Admission, CertificateApproval, CertificateRequester, CertificateSigning,
        CertificateSubjectRestriction, Chain, DefaultIngressClass, DefaultStorageClass,
        DefaultTolerationSeconds, LimitRanger, NamespaceLifecycle, NodeRestriction,
        PersistentVolumeClaimResize, PodResizeValidator, PodSecurity, PodTopologyLabels, Priority,
        ResourceQuota, RuntimeClass, ServiceAccount, StorageObjectInUseProtection,
        TaintNodesByCondition,
    },
    audit::Auditor,
    authn::{
        AudienceAgnostic, Authenticator, BootstrapTokens, CertificateUsers, FrontProxy, Requests,
        StaticTokens, TokenAuthenticator, Tokens,
        oidc::{Anonymous, JwtIssuers},
        reviews::{SelfSubjectReviews, TokenReviews},
        service_accounts::{Discovery, KeyError, LegacyTokens, ServiceAccounts, SigningKey},
        token_request::TokenRequests,
    },
    authz::{
        Authorizer, Authorizers, NodeAuthorizer, PrivilegedGroup, Rbac, bootstrap,
        rbac::escalation::EscalationCheck,
        reviews::{
            LocalSubjectAccessReviews, SelfSubjectAccessReviews, SelfSubjectRulesReviews,
            SubjectAccessReviews,
        },
    },
    component_status::ComponentStatuses,
    encryption::Control,
    handler::{Handler, Handlers, Place},
    node_proxy::{NodeProxy, NodeTls},
    resource_metrics::ResourceMetrics,
};

/// What the plugins depend on.
pub struct Security {
    /// Who signs clients' certificates.
    pub client_authorities: ClientCertificates,
    /// Who signs front proxies' certificates, and the names that those may have.
    pub front_proxy: Option<(ClientCertificates, Vec<String>)>,
    /// PEM.
    pub service_account_key: String,
    /// For example `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// Where others find this server, as `host:port`.
    pub external_address: String,
    pub static_tokens: StaticTokens,
    /// Tells what happens.
    pub audit: Option<Arc<Auditor>>,
    /// Answers `coracle secrets-encrypt`, where values are encrypted.
    pub encryption: Option<Arc<Control>>,
    /// Issuers of tokens beside this server.
    pub issuers: Arc<JwtIssuers>,
    /// Where requests without credentials are let through to authorisation.
    pub anonymous: Arc<ArcSwap<Anonymous>>,
    /// How nodes and pods are spoken to.
    pub nodes: NodeTls,
    /// Ends what is passed on to nodes and pods.
    pub shutdown: CancellationToken,
}

/// The plugins of a server on `registry`.
pub fn plugins(registry: &Registry, security: Security) -> Result<Plugins, KeyError> {
    let lookup = Lookup::new(registry.clone());
    let accounts = Arc::new(ServiceAccounts::new(
        security.issuer,
        security.external_address,
        SigningKey::from_pem(security.service_account_key.as_bytes())?,
        lookup.clone(),
    ));
    let audiences = accounts.audiences().to_vec();
    let by_token: Vec<Arc<dyn TokenAuthenticator>> = vec![
        Arc::new(AudienceAgnostic {
            tokens: security.static_tokens,
            audiences: audiences.clone(),
        }),
        accounts.clone(),
        Arc::new(LegacyTokens::new(accounts.clone(), registry.clone())),
        Arc::new(AudienceAgnostic {
            tokens: BootstrapTokens::new(lookup.clone()),
            audiences: audiences.clone(),
        }),
        Arc::new(AudienceAgnostic {
            tokens: security.issuers,
            audiences: audiences.clone(),
        }),
    ];
    let tokens = Arc::new(Tokens::new(by_token, audiences));
    let node_proxy = NodeProxy::new(lookup, security.nodes, security.shutdown);
    let mut authenticators: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some((authorities, names)) = security.front_proxy {
        authenticators.push(Arc::new(FrontProxy::new(authorities, names)));
    }
    authenticators.push(Arc::new(CertificateUsers::new(security.client_authorities)));
    authenticators.push(tokens.clone());
    let rbac = Arc::new(Rbac::new(registry));
    let authorizer: Arc<dyn Authorizer> = Arc::new(Authorizers(vec![
        Arc::new(PrivilegedGroup),
        Arc::new(NodeAuthorizer::new(registry, bootstrap::node_rules())),
        rbac.clone(),
    ]));
    let mut admission = admission(registry, &authorizer);
    admission.push(Arc::new(EscalationCheck::new(
        rbac.clone(),
        authorizer.clone(),
    )));
    let mut handlers = handlers(&accounts, tokens);
    handlers.extend(node_proxy.handlers());
    // Without the kinds of the group in the registry nobody comes here.
    let metrics = ResourceMetrics::new(registry.clone(), Arc::new(node_proxy));
    handlers.extend(metrics.handlers());
    handlers.extend(access_reviews(&authorizer, rbac));
    let control = security.encryption.iter().flat_map(Control::handlers);
    let paths = Discovery::documents(&accounts).into_iter().chain(control);
    Ok(Plugins {
        authenticator: Arc::new(Requests::new(authenticators, security.anonymous)),
        authorizer,
        audit: security.audit,
        admission: Chain::new(admission),
        handlers: Handlers::new(handlers).with_paths(paths),
    })
}

/// Upstream's plugins that are on by default, in upstream's order.
pub fn admission(registry: &Registry, authorizer: &Arc<dyn Authorizer>) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(CertificateRequester),
        Arc::new(NamespaceLifecycle::new(registry.clone())),
        Arc::new(LimitRanger::new(registry.clone())),
        Arc::new(ServiceAccount::new(registry.clone())),
        Arc::new(NodeRestriction::new(registry.clone(), authorizer.clone())),
        Arc::new(TaintNodesByCondition),
        Arc::new(PodSecurity::new(registry.clone())),
        Arc::new(Priority::new(registry.clone())),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultStorageClass::new(registry)),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(PersistentVolumeClaimResize::new(registry)),
        Arc::new(RuntimeClass::new(registry.clone())),
        Arc::new(CertificateApproval(authorizer.clone())),
        Arc::new(CertificateSigning(authorizer.clone())),
        Arc::new(CertificateSubjectRestriction),
        Arc::new(DefaultIngressClass::new(registry)),
        Arc::new(PodTopologyLabels::new(registry)),
        Arc::new(PodResizeValidator::new(registry)),
        Arc::new(ResourceQuota::new(registry.clone())),
    ]
}

fn place(group: &'static str, resource: &'static str, subresource: &'static str) -> Place {
    Place {
        group,
        resource,
        subresource,
    }
}

type PlacedHandler = (Place, Arc<dyn Handler>);

fn handlers(accounts: &Arc<ServiceAccounts>, tokens: Arc<Tokens>) -> Vec<PlacedHandler> {
    const GROUP: &str = "authentication.k8s.io";
    vec![
        (
            place(GROUP, "tokenreviews", ""),
            Arc::new(TokenReviews(tokens)),
        ),
        (
            place(GROUP, "selfsubjectreviews", ""),
            Arc::new(SelfSubjectReviews),
        ),
        (
            place("", "serviceaccounts", "token"),
            Arc::new(TokenRequests(accounts.clone())),
        ),
        (
            place("", "componentstatuses", ""),
            Arc::new(ComponentStatuses),
        ),
    ]
}

fn access_reviews(authorizer: &Arc<dyn Authorizer>, rbac: Arc<Rbac>) -> Vec<PlacedHandler> {
    const GROUP: &str = "authorization.k8s.io";
    vec![
        (
            place(GROUP, "subjectaccessreviews", ""),
            Arc::new(SubjectAccessReviews(authorizer.clone())),
        ),
        (
            place(GROUP, "localsubjectaccessreviews", ""),
            Arc::new(LocalSubjectAccessReviews(authorizer.clone())),
        ),
        (
            place(GROUP, "selfsubjectaccessreviews", ""),
            Arc::new(SelfSubjectAccessReviews(authorizer.clone())),
        ),
        (
            place(GROUP, "selfsubjectrulesreviews", ""),
            Arc::new(SelfSubjectRulesReviews(rbac)),
        ),
    ]
}
